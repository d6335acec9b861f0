"""Models and tokenizers of llama2.c (github.com/karpathy/llama2.c), in its first format, version 0.

Dimensions: L layers, H heads, D width of a head, M width, F hidden, V vocabulary.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.data.formats.tokenizer_library import known_tokens
from jaxmodels.models.llama import Llama
from jaxmodels.runs.files import replacing

VOCABULARY = 64 << 20  # bytes of a tokenizer's file, at most


def load_llama2c(path: str | Path) -> tuple[Llama, dict[str, Any]]:
    """(model, params) of a .bin file: seven integers, then float32 weights, memory-mapped.

    The file must be as long as its header says; that is checked before a weight is read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: got no file; expected one of llama2.c. Check the path.")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(28)
    if start.startswith((b"PK\3\4", b"\x80\2")):  # a zip file, or a pickle
        raise ValueError(
            f"{path}: got a file of torch; expected one of llama2.c. Give its folder, with config.json, or "
            "call load_weights."
        )
    header = struct.unpack("<7i", start) if len(start) == 28 else ()
    M, F, L, H, G, V, T = header or [0] * 7
    tied, V = V > 0, abs(V)
    sound = min(M, F, L, H, G, V, T) > 0 and M % H == H % G == 0 and M // H % 2 == 0
    if not sound:
        raise ValueError(
            f"{path}: got the header {header}; expected width, hidden width, layers, heads, key/value heads, "
            "vocabulary and length that fit each other. It is no llama2.c file of version 0: get another."
        )
    shapes = _shapes(M, F, L, H, G, V, T, tied)
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    want = 28 + 4 * sum(counts.values())
    if size != want:
        raise ValueError(
            f"{path}: got {size:,} bytes; expected {want:,}, by its header {header}. Get the file again: it "
            "is cut short, or of another kind."
        )
    flat = np.memmap(path, "<f4", mode="r", offset=28)
    ends = np.cumsum(list(counts.values()))[:-1]
    w = {name: part.reshape(shapes[name]) for name, part in zip(shapes, np.split(flat, ends), strict=True)}

    def kernel(name: str) -> dict[str, np.ndarray]:
        return {"kernel": w[name].swapaxes(1, 2)}

    # Rotary position embedding rotates the pairs (2 i, 2 i + 1) there, as in the paper; ours (i, i + D / 2).
    for name, heads in (("query", H), ("key", G)):
        w[name] = w[name].reshape(L, heads, -1, 2, M).swapaxes(2, 3).reshape(L, -1, M)
    params: dict[str, Any] = {
        "embed": {"embedding": w["embed"]},
        "norm": {"scale": w["norm"]},
        "blocks": {
            "attention": {name: kernel(name) for name in ("query", "key", "value", "out")},
            **{name: kernel(name) for name in ("gate", "up", "down")},
            **{name: {"scale": w[name]} for name in ("norm_attention", "norm_mlp")},
        },
    }
    if not tied:
        params["head"] = w["head"]
    return Llama(V, T, M, L, H, G, F, tied=tied), params


def save_llama2c(path: str | Path, model: Llama, params: Any) -> None:
    """Writes a .bin file of version 0; a setting that the format cannot express is a ValueError."""
    bare = Llama(
        model.vocabulary,
        model.length,
        model.width,
        model.depth,
        model.heads,
        model.key_heads,
        model.hidden_width,
        tied=model.tied,
        remat=model.remat,
        unroll=model.unroll,
        dtype=model.dtype,
    )
    fields = [field for field in Llama.__dataclass_fields__ if field not in ("parent", "name", "head_width")]
    other = [field for field in fields if getattr(model, field) != getattr(bare, field)]
    other += ["head_width"] if model.head_width not in (None, model.width // model.heads) else []
    if other:
        raise ValueError(
            f"llama2.c: got a model with {other[0]} {getattr(model, other[0])!r}; expected what the format "
            "can say, a plain Llama. Write a Hugging Face folder instead."
        )
    V, T, M, L, H, G = bare.vocabulary, bare.length, bare.width, bare.depth, bare.heads, bare.key_heads
    shapes = _shapes(M, bare.hidden_width, L, H, G, V, T, bare.tied)
    angle_TN = np.arange(T)[:, None] * bare.theta ** -(np.arange(0, M // H, 2) / (M // H))
    blocks, path = params["blocks"], Path(path)

    def give(name: str) -> Any:
        if name in ("cosines", "sines"):
            return np.cos(angle_TN) if name == "cosines" else np.sin(angle_TN)
        if name in ("query", "key", "value", "out"):
            x = np.asarray(blocks["attention"][name]["kernel"]).swapaxes(1, 2)
            heads = {"query": H, "key": G}.get(name)
            return x.reshape(L, heads, 2, -1, M).swapaxes(2, 3) if heads else x
        if name in ("gate", "up", "down"):
            return np.asarray(blocks[name]["kernel"]).swapaxes(1, 2)
        if name.startswith("norm_"):
            return blocks[name]["scale"]
        return {
            "embed": params["embed"]["embedding"],
            "norm": params["norm"]["scale"],
            "head": params.get("head"),
        }[name]

    with replacing(path, durable=True) as file:
        file.write(struct.pack("<7i", M, bare.hidden_width, L, H, G, V if bare.tied else -V, T))
        for name, shape in shapes.items():
            x = np.ascontiguousarray(give(name), "<f4")
            assert x.size == math.prod(shape), name
            file.write(x.data)


def _shapes(M: int, F: int, L: int, H: int, G: int, V: int, T: int, tied: bool) -> dict[str, tuple[int, ...]]:
    """The arrays of a file, in order."""
    D = M // H
    shapes: dict[str, tuple[int, ...]] = {
        "embed": (V, M),
        "norm_attention": (L, M),
        "query": (L, H * D, M),
        "key": (L, G * D, M),
        "value": (L, G * D, M),
        "out": (L, M, H * D),
        "norm_mlp": (L, M),
        "gate": (L, F, M),
        "down": (L, M, F),
        "up": (L, F, M),
        "norm": (M,),
        "cosines": (T, D // 2),
        "sines": (T, D // 2),
    }
    return shapes if tied else {**shapes, "head": (V, M)}


class Vocabulary(NamedTuple):
    """Pieces and their scores; letters are merged by the best score, as in SentencePiece's BPE.

    Token 1 begins a text, token 2 ends it, token 3 + b is the byte b.
    """

    pieces: tuple[bytes, ...]
    scores: tuple[float, ...]
    ids: dict[bytes, int]
    begin: int = 1
    end: int = 2

    def encode(self, text: str) -> list[int]:
        """Tokens, without begin and end; a text that is not empty is encoded with a space before it."""
        tokens: list[int] = []
        for letter in " " + text if text else "":
            piece = letter.encode()
            tokens += [self.ids[piece]] if piece in self.ids else [3 + byte for byte in piece]
        return self._merged(tokens)

    def _merged(self, tokens: list[int]) -> list[int]:
        """The tokens after every merge, the best first and of equal ones the leftmost; n log n steps."""
        end = len(tokens)
        before, after = [*range(-1, end - 1)], [*range(1, end + 1)]
        candidates: list[tuple[float, int, int, int, int]] = []

        def offer(a: int) -> None:
            if a >= 0 and (b := after[a]) < end:
                merged = self.ids.get(self.pieces[tokens[a]] + self.pieces[tokens[b]])
                if merged is not None:
                    heappush(candidates, (-self.scores[merged], a, merged, tokens[a], tokens[b]))

        for a in range(end):
            offer(a)
        gone = -1  # a token that was merged into the one before it
        while candidates:
            _, a, merged, first, second = heappop(candidates)
            b = after[a]
            if tokens[a] != first or b >= end or tokens[b] != second:
                continue  # one of the two has been merged since
            tokens[a], tokens[b], after[a] = merged, gone, after[b]
            if after[b] < end:
                before[after[b]] = a
            offer(before[a])
            offer(a)
        return [token for token in tokens if token != gone]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text, without begin and end and without the space that encode puts first."""
        parts = []
        for token in known_tokens(tokens, len(self.pieces)):
            piece = self.pieces[token]
            if 3 <= token < 259:
                piece = bytes([token - 3])
            parts.append(b"" if token in (self.begin, self.end) else piece)
        return b"".join(parts).decode("utf-8", "replace").removeprefix(" ")


def load_vocabulary(path: str | Path, size: int) -> Vocabulary:
    """The tokenizer of a model with `size` tokens: a length, then each token's score, length and bytes."""
    path = Path(path)
    with path.open("rb") as file:
        data = file.read(VOCABULARY + 1)
    if len(data) > VOCABULARY:
        raise ValueError(
            f"{path}: got more than {VOCABULARY:,} bytes; expected a tokenizer of llama2.c. Give another "
            "file."
        )
    position = 4
    pieces: list[bytes] = []
    scores: list[float] = []
    while position + 8 <= len(data) and len(pieces) < size:
        score, length = struct.unpack_from("<fi", data, position)
        position += 8
        if not 0 <= length <= len(data) - position:
            break
        pieces.append(data[position : position + length])
        scores.append(score)
        position += length
    if position != len(data) or len(pieces) != size or size < 259:
        raise ValueError(
            f"{path}: got {len(pieces):,} whole tokens in {len(data):,} bytes, read to byte {position:,}; "
            f"expected {size:,}, at least 259, tokens and nothing after them. Take the tokenizer of this "
            "model."
        )
    ids: dict[bytes, int] = {}
    for token, piece in enumerate(pieces):
        ids.setdefault(piece, token)
    return Vocabulary(tuple(pieces), tuple(scores), ids)
