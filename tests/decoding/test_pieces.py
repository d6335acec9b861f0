"""Texts that come token by token are the texts of all tokens, and end where a stop string begins."""

from __future__ import annotations

import io
import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.convert.llama2c import Vocabulary
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.decoding import generate
from jaxmodels.interfaces import Decoder

pytestmark = pytest.mark.fast
LENGTH, V = 64, 400
TEXT = "once upon a time there was naïve 日本 ☃, it's 12"
TEXTS = ["once upon a time there was naïve, it's 12", "a time, there was a hat once"] * 20


def metaspace(folder):
    """A tokenizer of Llama 2's kind: a space before the first word, and bytes for the unknown."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    for piece in ["<unk>", *"▁abcdehimnoprstuw,", "on", "ti", "me", "▁ti", "▁time", "▁a"]:
        vocabulary.setdefault(piece, len(vocabulary))
    merges = [("o", "n"), ("t", "i"), ("m", "e"), ("▁", "ti"), ("▁ti", "me"), ("▁", "a")]
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    decoders = tokenizers.decoders
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(parts)
    made.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


def sentencepiece(folder):
    library = pytest.importorskip("sentencepiece")
    made, options = (
        io.BytesIO(),
        {"vocab_size": 330, "byte_fallback": True, "model_type": "bpe", "minloglevel": 2},
    )
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=made, hard_vocab_limit=False, **options
    )
    (folder / "tokenizer.model").write_bytes(made.getvalue())
    return Tokenizer.load(folder)


def llama2c(folder):
    letters = [piece.encode() for piece in (*" abcdehimnoprstuw,", " t", "im", "me", " a")]
    pieces = (b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % byte for byte in range(256)), *letters)
    return Vocabulary(pieces, (0.0,) * len(pieces), {piece: i for i, piece in enumerate(pieces)})


KINDS = {
    "bytes": lambda folder: Tokenizer.train(TEXTS, vocabulary=290),
    "word pieces": lambda folder: Tokenizer.train(TEXTS, vocabulary=257, kind="wordpiece"),
    "unigram": lambda folder: Tokenizer.train(TEXTS, vocabulary=257, kind="unigram"),
    "metaspace": metaspace,
    "sentencepiece": sentencepiece,
    "llama2.c": llama2c,
}


@cache
def told() -> Decoder:
    """A model that predicts the tokens in its parameters; encode gives the first of them."""

    def logits(params, at_B):
        return jax.nn.one_hot(params[at_B], V) * 9

    def read(params, extra, tokens_BT, count_B, length):
        return logits(params, count_B), count_B[None]

    def go_on(params, extra, tokens_B, cache):
        return logits(params, cache[0] + 1), cache + 1

    return Decoder(read, go_on, lambda text: SAID[: len(text)], lambda tokens: DECODE[0](tokens), LENGTH)


SAID: list[int] = []
DECODE: list = []


def says(tokens, decode):
    SAID[:] = tokens
    DECODE[:] = [decode]
    return told(), jnp.asarray(np.pad(np.array(tokens, np.int32), (0, LENGTH - len(tokens))))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_after_every_prompt_the_pieces_add_up_to_the_text_of_all_tokens(kind, tmp_path):
    pytest.importorskip("tokenizers")
    tokenizer = KINDS[kind](tmp_path)
    tokens = tokenizer.encode(TEXT)[: LENGTH - 1]
    decoder, params = says(tokens, tokenizer.decode)
    whole = tokenizer.decode(tokens)
    for n in range(1, len(tokens)):
        head = tokenizer.decode(tokens[:n]).rstrip("�")
        if not whole.startswith(tokenizer.decode(tokens[:n])):
            continue  # a prompt is text, so it does not end within a character
        shown: list[tuple[int, str]] = []
        options = {
            "tokens": len(tokens) - n,
            "temperature": 0,
            "show": lambda *args, shown=shown: shown.append(args),
        }
        [wrote] = generate(decoder, params, {}, ["x" * n], **options)
        assert wrote.tokens == tokens[n:]
        assert head + wrote.text == whole == head + "".join(text for _, text in shown[1:])


@pytest.mark.slow
def test_a_space_after_the_prompt_is_not_lost(tmp_path):
    tokenizer = metaspace(tmp_path)
    decoder, params = says(tokenizer.encode("once upon a time there was"), tokenizer.decode)
    n = len(tokenizer.encode("once upon a"))
    assert tokenizer.decode(SAID[:n]) == "once upon a"
    [wrote] = generate(decoder, params, {}, ["x" * n], tokens=len(SAID) - n, temperature=0)
    assert wrote.text == " time there was"
    [wrote] = generate(decoder, params, {}, ["x" * n], tokens=len(SAID) - n, temperature=0, stop=[" there"])
    assert (wrote.text, tokenizer.decode(SAID[:n] + wrote.tokens)) == (" time", "once upon a time")


# Stop strings


def rising(length=99, end=None) -> Decoder:
    """Says the number after the last one, with probability e / (e + 9) of 10."""

    def logits(token_B):
        return jax.nn.one_hot((token_B + 1) % 10, 10)

    def read(params, extra, tokens_BT, count_B, room):
        return logits(tokens_BT[jnp.arange(len(count_B)), count_B - 1]), {
            "empty": jnp.zeros((1, len(count_B)))
        }

    encode, decode = (lambda text: [int(c) for c in text]), (lambda tokens: "".join(map(str, tokens)))
    return Decoder(
        read, lambda params, extra, token_B, cache: (logits(token_B), cache), encode, decode, length, end=end
    )


LOG = 1 - np.log(np.e + 9)  # of the likeliest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "tokens"),
    [(["78"], [3, 4, 5, 6]), (["3"], []), (["45678", "6"], [3, 4, 5]), (["0123"], [3, 4, 5, 6, 7, 8, 9])],
)
@pytest.mark.parametrize("beams", [0, 2])
def test_tokens_and_score_are_those_of_the_text_before_a_stop_string(stop, tokens, beams):
    [wrote] = generate(rising(), {}, {}, ["2"], tokens=40, temperature=0, stop=stop, beams=beams)
    assert (wrote.text, wrote.tokens) == ("".join(map(str, tokens)), tokens)
    length = ((5 + len(tokens)) / 6) ** 0.6 if beams else 1
    assert wrote.score == pytest.approx(LOG * len(tokens) / length, abs=1e-5)
    assert beams or wrote.logprobs == pytest.approx([LOG] * len(tokens), abs=1e-5)


@pytest.mark.slow
def test_where_a_text_stops_does_not_depend_on_its_neighbours():
    """A long neighbour that fills the cache ends the bursts earlier; the later stop string begins first."""
    options = {"tokens": 40, "temperature": 0, "stop": ["7890123", "90", "66"]}
    alone = generate(rising(24), {}, {}, ["2"], **options)[0]
    for neighbour in ("1", "12345678901", "1234567890123456789"):
        assert generate(rising(24), {}, {}, ["2", neighbour], **options)[0] == alone
    assert alone.text == "345678"


@pytest.mark.slow
def test_a_text_ends_at_any_of_several_end_tokens():
    assert [
        wrote.text for wrote in generate(rising(end=(6, 9)), {}, {}, ["2", "6"], tokens=40, temperature=0)
    ] == [
        "345",
        "78",
    ]
    assert generate(rising(end=(6, 9)), {}, {}, ["2"], tokens=40, temperature=0)[0].score == pytest.approx(
        3 * LOG, abs=1e-5
    )


@pytest.mark.slow
def test_a_beam_ends_at_any_of_several_end_tokens():
    """Two of three tokens end a text: e e^2 e^3 by probability, so the best text of all is the empty one."""
    logits = jnp.array([1.0, 3.0, 2.0])

    def read(params, extra, tokens_BT, count_B, room):
        return jnp.tile(logits, (len(count_B), 1)), jnp.zeros((1, len(count_B)))

    decoder = Decoder(
        read,
        lambda params, extra, tokens_B, cache: (jnp.tile(logits, (len(tokens_B), 1)), cache),
        lambda text: [0],
        lambda tokens: json.dumps(tokens),
        9,
        end=(1, 2),
    )
    [wrote] = generate(decoder, {}, {}, ["a"], tokens=3, beams=3, alpha=0.0)
    assert wrote.tokens == [] and wrote.score == pytest.approx(float(jax.nn.log_softmax(logits)[1]), abs=1e-5)
