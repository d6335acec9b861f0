"""Windows, fallback, silence and languages; the texts of random weights beside transformers'."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from instances import first
from speech.small import MODEL, SYMBOLS, TIMES, V, transcriber

from jaxmodels.decoding.beam import beam
from jaxmodels.speech.listening import writer
from jaxmodels.speech.transcriber import RATE, Fallback, Transcriber, _Text

WINDOW = 6400  # samples: 40 frames, 0.4 s
SOUND = np.random.default_rng(0).normal(size=4 * WINDOW).astype(np.float32) * 0.1


@pytest.fixture(scope="module")
def small():
    return transcriber()


def greedy(write, small, heard, prompt):
    found = beam(
        write,
        small.params,
        heard.source,
        np.array([prompt]),
        np.array([len(prompt)]),
        width=1,
        tokens=12,
        alpha=0.0,
    )
    return np.asarray(found.tokens_BKN)[0, 0, : int(found.count_BK[0, 0])].tolist()


@pytest.mark.parametrize("times", first(1, [True, False]))
def test_greedy_tokens_equal_those_of_transformers(small, times, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.generation import logits_process as process

    from jaxmodels.convert.save import save_pretrained
    from jaxmodels.layers.mel import whisper_log_mel

    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), SYMBOLS.end)
    save_pretrained(
        tmp_path, MODEL, small.params, config={**special, "decoder_start_token_id": SYMBOLS.start}
    )
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path).eval()
    config = transformers.GenerationConfig(
        no_timestamps_token_id=SYMBOLS.no_times,
        max_initial_timestamp_index=50,
        max_new_tokens=12,
        do_sample=False,
        **special,
    )
    lengths, write, log_mel = set(), writer(MODEL, SYMBOLS, times=times), jax.jit(whisper_log_mel)
    for start in range(0, len(SOUND), WINDOW):
        sound = SOUND[start : start + WINDOW] * 10 ** (-start / WINDOW)  # ever softer
        prompt = SYMBOLS.prompt("de", "translate", times=times)
        processors = [
            process.SuppressTokensAtBeginLogitsProcessor(
                list(SYMBOLS.first_suppressed), len(prompt), device="cpu"
            ),
            process.SuppressTokensLogitsProcessor([*SYMBOLS.suppressed, SYMBOLS.no_times], device="cpu"),
        ]
        if times:
            processors.append(process.WhisperTimeStampLogitsProcessor(config, begin_index=len(prompt)))
        features = torch.tensor(np.asarray(log_mel(sound[None])).swapaxes(1, 2))
        with torch.no_grad():
            want = transformers.GenerationMixin.generate(
                theirs,
                features,
                decoder_input_ids=torch.tensor([prompt]),
                generation_config=config,
                logits_processor=transformers.LogitsProcessorList(processors),
            )[0, len(prompt) :].tolist()
        want = want[: want.index(SYMBOLS.end)] if SYMBOLS.end in want else want
        assert greedy(write, small, small.hear(sound), prompt) == want
        lengths.add(tuple(want))
    assert len(lengths) > 1  # different sounds have different texts


def test_the_language_is_the_likeliest_of_the_first_token(small):
    heard = small.hear(SOUND[:WINDOW])
    from jaxmodels.layers.mel import whisper_log_mel

    frames = jax.jit(whisper_log_mel)(SOUND[None, :WINDOW])
    logits_V = jax.jit(MODEL.apply)({"params": small.params}, frames, np.array([[SYMBOLS.start]]))[0, 0]
    want = jax.nn.softmax(logits_V[np.array([32, 33])])
    np.testing.assert_allclose(heard.languages[0], want, rtol=1e-4)
    np.testing.assert_allclose(heard.no_speech[0], jax.nn.softmax(logits_V)[SYMBOLS.no_speech], rtol=1e-4)
    assert small.language(heard) == ["en", "de"][int(np.argmax(want))]
    assert small(SOUND[:WINDOW]).language == small.language(heard)


def test_one_beam_writes_the_greedy_text_and_the_seed_decides_the_others(small):
    once = Fallback(temperatures=(0.0,))
    plain, one = small(SOUND, fallback=once), small(SOUND, beams=1, fallback=once)
    assert plain.text and one.text == plain.text and one.seconds == 1.6
    warm = Fallback(temperatures=(1.0,))
    texts = [small(SOUND, fallback=warm, seed=seed).text for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


class Scripted(Transcriber):
    """Texts by temperature and window, without a model."""

    no_speech = 0.0

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.script, self.windows, self.prompts, self.tried = {}, [], [], []

    def hear(self, audio_S):
        self.windows.append(len(audio_S))
        return type("Heard", (), {"no_speech": [self.no_speech], "languages": [[1.0, 0.0]]})

    def _written(self, heard, prompt, beams, temperature, samples, seed):
        self.prompts.append(prompt)
        self.tried.append(temperature)
        return self.script.get(temperature, _Text([TIMES, 11, 12], -0.1, temperature, 1.0))


@pytest.fixture
def scripted():
    return transcriber(kind=Scripted)


def at(step):
    return TIMES + step


@pytest.mark.fast
def test_the_next_window_starts_where_the_last_segment_that_ended_did(scripted):
    """Of 1 s, in windows of 0.4 s that end with half a segment after 0.3 s; the last is shorter."""
    scripted.script[0.0] = _Text([at(0), 11, at(15), at(15), 12], -0.1, 0.0, 1.0)
    said = scripted(np.zeros(RATE, np.float32))
    assert [(x.start, x.end) for x in said.segments] == [(0.0, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.2)]
    assert scripted.windows == [WINDOW, WINDOW, WINDOW, RATE // 10] and said.seconds == 1


@pytest.mark.fast
def test_what_is_left_is_not_heard_if_it_is_shorter_than_a_tenth_of_a_second(scripted):
    scripted(np.zeros(WINDOW + 1599, np.float32))
    assert scripted.windows == [WINDOW]
    scripted(np.zeros(10, np.float32))  # but a recording is
    assert scripted.windows == [WINDOW, 10]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("bad", "tried"),
    [
        (_Text([TIMES, 11], -1.1, 0.0, 1.0), [0.0, 0.2]),
        (_Text([TIMES, 11], -0.1, 0.0, 2.5), [0.0, 0.2]),
        (_Text([TIMES, 11], -0.9, 0.0, 2.3), [0.0]),
    ],
    ids=["unlikely", "repeats", "good"],
)
def test_a_text_that_is_unlikely_or_repeats_itself_is_written_again(scripted, bad, tried):
    scripted.script[0.0] = bad
    said = scripted(np.zeros(WINDOW, np.float32))
    assert scripted.tried == tried and said.segments[0].temperature == tried[-1]


@pytest.mark.fast
def test_an_unlikely_text_of_a_window_without_speech_is_none(scripted):
    scripted.no_speech, scripted.script[0.0] = 0.7, _Text([TIMES, 11], -1.1, 0.0, 1.0)
    assert scripted(np.zeros(WINDOW, np.float32)).text == "" and scripted.tried == [0.0]
    scripted.script[0.0] = _Text([TIMES, 11], -0.9, 0.0, 1.0)
    assert scripted(np.zeros(WINDOW, np.float32)).segments[0].tokens == [11]


@pytest.mark.fast
def test_a_window_reads_the_text_before_it_only_where_asked(scripted):
    scripted(np.zeros(2 * WINDOW, np.float32), language="de")
    scripted(np.zeros(2 * WINDOW, np.float32), language="de", condition=True)
    start = [SYMBOLS.start, 33, 35]
    assert scripted.prompts == [start, start, start, [SYMBOLS.previous, 11, 12, *start]]


@pytest.mark.fast
def test_a_long_text_before_leaves_half_of_the_model_for_the_new_one(scripted):
    prompt = scripted._prompt([31, 33, 35], list(range(28)))
    assert prompt == [36, *range(16, 28), 31, 33, 35] and len(prompt) == MODEL.length // 2


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "fr"}, "got the language 'fr'; expected one of de, en, the model's"),
        ({"task": "sing"}, "got task='sing'; expected one of 'transcribe', 'translate'"),
        ({"beams": -1}, "got samples of the shape .* and -1 beams"),
    ],
)
def test_options_that_cannot_be_are_refused(scripted, options, message):
    with pytest.raises(ValueError, match=message):
        scripted(np.zeros(WINDOW, np.float32), **options)
    assert V == 60
