"""What was computed for the beginnings of prompts, kept for prompts that begin alike."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np


class Prefixes:
    """Blocks of a cache by the tokens up to their end; the least recently used leave when `room` is full.

    A block holds what reading `tokens` more tokens put into the cache, so a beginning of n blocks is shared
    block by block. room: bytes.
    """

    def __init__(self, tokens: int, room: int):
        self.tokens, self.room, self.used = tokens, room, 0
        self._blocks: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()

    def keys(self, prompt: Sequence[int], adapter: int) -> Iterator[bytes]:
        """The key of each whole block of a prompt; a digest, so that none is mistaken for another."""
        digest = hashlib.sha256(b"%d" % adapter)
        for start in range(0, len(prompt) - self.tokens + 1, self.tokens):
            digest.update(np.asarray(prompt[start : start + self.tokens], np.int64).tobytes())
            yield digest.digest()

    def match(self, prompt: Sequence[int], adapter: int) -> list[Any]:
        """The blocks of the longest beginning that is known; the prompt's last token is never among them."""
        found = []
        for key in self.keys(prompt[:-1], adapter):
            if key not in self._blocks:
                break
            found.append(key)
        for key in reversed(found):  # the first block is used last: it leaves after those that need it
            self._blocks.move_to_end(key)
        return [self._blocks[key][0] for key in found]

    def holds(self, key: bytes) -> bool:
        """Whether the block is known."""
        return key in self._blocks

    def add(self, key: bytes, block: Any) -> None:
        """Keeps a block."""
        size = sum(x.nbytes for x in jax.tree.leaves(block))
        if size > self.room or key in self._blocks:
            return
        self._blocks[key] = block, size
        self.used += size
        while self.used > self.room:
            self.used -= self._blocks.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forgets all."""
        self._blocks.clear()
        self.used = 0
