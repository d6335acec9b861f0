"""What the engine has on the device, and the calls of the compiled programs that change it.

Dimensions: B slots, C capacity, T tokens of a part of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import keys
from jaxmodels.interfaces import Decoder
from jaxmodels.serving import caches
from jaxmodels.serving.drafts import Draft
from jaxmodels.serving.prefixes import Prefixes
from jaxmodels.serving.programs import Plan, Rows, Slots, Written, extra_of, programs
from jaxmodels.serving.running import Running

SMALLEST_VIEW = 64  # positions that a burst attends to at least
FEWER = 4  # the programs of bursts are for all slots, a quarter of them, a quarter of these, …


class Device:
    """Slots, rows that are being read, shared beginnings, and the programs that change them."""

    def __init__(
        self,
        decoder: Decoder,
        params: Any,
        extra: Any,
        *,
        slots: int,
        capacity: int,
        chunk: int,
        burst: int,
        lookup: int,
        draft: Draft | None,
        adapters: bool,
        prefixes: int,
    ):
        if decoder.extend is None:
            raise ValueError(
                "Engine: got a decoder without extend, such as a model that translates; expected a language "
                "model. Use jaxmodels.decoding.generate."
            )
        drafted = draft.tokens if draft else lookup
        self.slots, self.capacity, self.chunk, self.burst_steps = slots, capacity, chunk, burst
        self.plan = Plan((decoder, *((draft.decoder,) if draft else ())), drafted, burst * (1 + drafted))
        self._params = jax.device_put((params, *((draft.params,) if draft else ())))  # NumPy's are sent once
        if adapters:
            extra = {**extra, "adapter_B": jnp.zeros(1, jnp.int32)}
        self._extras = (extra, *((draft.extra,) if draft else ()))
        self._programs = programs(self.plan)
        # A prompt's last part and the tokens of a burst are written whole, whatever of them counts.
        self._room = capacity + max(chunk, self.plan.columns)
        # Bursts of all slots have many views, for speed; bursts of few slots, and what happens once for a
        # prompt, have few, to compile less.
        steps = (SMALLEST_VIEW * part << n for n in range(24) for part in (2, 3))
        self._views = [*(n // 2 for n in steps if n // 2 * 5 < self._room * 4), self._room]
        self._wide_views = [*self._views[2:-1:4], self._room]
        self._sizes = [*reversed([slots // FEWER**n for n in range(8) if slots // FEWER**n])]
        self._parts = sorted({-(-chunk * part // 4) for part in (1, 2, 3, 4)})  # tokens of a part of a prompt
        shapes = jax.eval_shape(
            lambda p, e: decoder.read(p, e, jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32), 1)[0],
            params,
            extra,
        )
        self.vocabulary = int(shapes.shape[-1])
        self._check_draft(draft)
        self._words = (self.vocabulary + 32) // 32
        self._new = jax.jit(partial(self._caches, 1))
        self.prefixes = Prefixes(self.chunk, prefixes)
        self.reset()
        if drafted and not all(map(caches.rewinds, self._state.caches)):
            raise ValueError(
                "Engine: got lookup or draft and a model whose state cannot take tokens back, such as a "
                "recurrent one; expected a transformer. Leave them out."
            )

    def reset(self) -> None:
        """Empty slots; what was shared is kept."""
        self._rows: dict[int, Any] = {}
        self._logits: dict[int, Any] = {}
        self._spare: list[Any] = []
        columns = self._room + 1 if self.plan.looks_up else 1
        self._state = Slots(
            tuple(caches.slots(row, self.slots) for row in self._caches(1)),
            jnp.zeros((self.slots, self.vocabulary), bool),
            jnp.zeros((self.slots, columns), jnp.int32),
        )
        self._host = Rows.resting(self.slots, self._words)

    def compile(self) -> None:
        """Runs every program once for each of its shapes, and again with what the first runs gave."""
        for _ in range(2):
            row = self._fresh()
            one = Rows.resting(1, self._words)
            for view in self._wide_views:
                for part in self._parts:
                    tokens_1T = np.zeros((1, part), np.int32)
                    logits_1V, row = self._part(row, tokens_1T, 0, 0, view)
                self._state, *_ = self._programs.admit(
                    self._state, row, logits_1V, self._prompt(()), one, np.int32(0), view
                )
            for rows in self._sizes:
                for view in self._views_of(rows):
                    jax.device_get(self._run(rows, 1, view))
            block = take(row, np.int32(0), self.chunk)
            self._spare.append(give(row, block, np.int32(0)))

    def begin(self, slot: int, prompt: Sequence[int], adapter: int) -> int:
        """Prepares to read a prompt for a slot; the number of its tokens that were known already."""
        row = self._fresh()
        blocks = self.prefixes.match(prompt, adapter)
        if blocks and not all(map(caches.rewinds, row)):
            row = give(row, blocks[-1], np.int32(0))  # a state holds all before it
        else:
            for n, block in enumerate(blocks):
                row = give(row, block, np.int32(n * self.chunk))
        self._rows[slot] = row
        return len(blocks) * self.chunk

    def read(self, slot: int, prompt: Sequence[int], start: int, adapter: int) -> int:
        """Reads the next part of a prompt, from its token `start`; the number of its tokens."""
        left = len(prompt) - start
        part = smallest(self._parts, min(left, self.chunk))
        count = min(part, left)
        tokens_1T = np.zeros((1, part), np.int32)
        tokens_1T[0, :count] = prompt[start : start + count]
        view = smallest(self._wide_views, start + part)
        self._logits[slot], row = self._part(self._rows[slot], tokens_1T, count, adapter, view)
        self._rows[slot] = row
        if part == count == self.chunk and start % self.chunk == 0:
            *_, key = self.prefixes.keys(prompt[: start + count], adapter)
            if not self.prefixes.holds(key):
                self.prefixes.add(key, take(row, np.int32(start), self.chunk))
        return count

    def drop(self, slot: int) -> None:
        """Forgets the prompt that is being read for a slot."""
        self._spare.append(self._rows.pop(slot))
        self._logits.pop(slot, None)

    def admit(self, slot: int, running: Running) -> tuple[list[int], list[float]]:
        """Puts a prompt that has been read into its slot; the first token of its text."""
        request = running.request
        host, options = self._host, request.options
        host.length[slot], host.written[slot] = len(request.tokens), 0
        host.seed[slot] = keys.words(options.seed)
        host.temperature[slot], host.top_k[slot] = options.temperature, min(options.top_k, self.vocabulary)
        host.top_p[slot], host.min_p[slot] = options.top_p, options.min_p
        host.penalty[slot], host.adapter[slot] = options.repetition_penalty, running.adapter
        self._masks(slot, running)
        self._state, token, logprob = self._programs.admit(
            self._state,
            self._rows[slot],
            self._logits[slot],
            self._prompt(request.tokens),
            Rows(*(x[slot : slot + 1].copy() for x in host)),
            np.int32(slot),
            smallest(self._wide_views, len(request.tokens)),
        )
        found = [int(token)], [float(logprob)]
        self.drop(slot)
        return found

    def burst(self, active: Sequence[Running | None], steps: int) -> Written:
        """Writes so many steps in the slots of these texts; NumPy arrays, of the first slots."""
        host, K = self._host, 1 + self.plan.drafted
        if any(x is not None and x.matcher is not None for x in active):
            steps = 1
        rows = smallest(self._sizes, 1 + max(slot for slot, x in enumerate(active) if x is not None))
        reach = 0
        for slot, running in enumerate(active):
            if running is None:
                host.left[slot], host.masked[slot], host.temperature[slot] = 0, False, 0.0
                continue
            host.token[slot], host.written[slot] = running.tokens[-1], len(running.tokens)
            host.length[slot] = running.length
            host.left[slot] = min(running.left, 1 if running.matcher is not None else steps * K)
            self._masks(slot, running)
            reach = max(reach, running.length + int(host.left[slot]) + K)
        return jax.device_get(self._run(rows, steps, smallest(self._views_of(rows), reach)))

    def _run(self, rows: int, steps: int, view: int) -> Written:
        """A burst of the first slots."""
        host = Rows(*(x[:rows] for x in self._host))
        self._state, written = self._programs.burst(
            self._params, self._extras, self._state, host, np.int32(steps), view
        )
        return written

    def _views_of(self, rows: int) -> list[int]:
        return self._views if rows == self.slots else self._wide_views

    def _masks(self, slot: int, running: Running) -> None:
        self._host.masked[slot] = running.matcher is not None
        if running.matcher is not None:
            self._host.mask[slot] = running.matcher.mask()

    def _prompt(self, tokens: Sequence[int]) -> np.ndarray:
        prompt_C = np.zeros(self.capacity, np.int32)
        prompt_C[: len(tokens)] = tokens
        return prompt_C

    def _part(
        self, row: Any, tokens_1T: np.ndarray, count: int, adapter: int, view: int
    ) -> tuple[jax.Array, Any]:
        count_1, adapter_1 = np.array([count], np.int32), np.array([adapter], np.int32)
        return self._programs.read(self._params, self._extras, row, tokens_1T, count_1, adapter_1, view)

    def _fresh(self) -> Any:
        return clear(self._spare.pop()) if self._spare else self._new()

    def _caches(self, rows: int) -> tuple[Any, ...]:
        each = zip(self.plan.decoders, self._params, self._extras, strict=True)
        return tuple(
            caches.empty(decoder, p, extra_of(e, jnp.zeros(rows, jnp.int32)), rows, self._room)
            for decoder, p, e in each
        )

    def _check_draft(self, draft: Draft | None) -> None:
        if draft is None:
            return
        if draft.tokens < 1 or draft.decoder.extend is None or draft.decoder.length < self.capacity:
            raise ValueError(
                f"Engine: got a draft of {draft.tokens} tokens by a model of length {draft.decoder.length}; "
                f"expected at least 1 token and a language model of length {self.capacity} or more. Choose "
                "another one."
            )
        cache = caches.empty(draft.decoder, draft.params, draft.extra, 1, 1)
        token_1, one = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
        shape = jax.eval_shape(draft.decoder.extend, draft.params, draft.extra, token_1, one, cache)[0].shape
        if shape[-1] != self.vocabulary:
            raise ValueError(
                f"Engine: got a draft model of {shape[-1]} tokens and a model of {self.vocabulary}; expected "
                "the same tokens. Choose a draft model with the same tokenizer."
            )


def smallest(sizes: Sequence[int], least: int) -> int:
    """The smallest of the sizes, which ascend, that is at least so large."""
    return next(size for size in sizes if size >= least)


@partial(jax.jit, static_argnums=2)
def take(row: Any, start: Any, tokens: int) -> Any:
    """What a row's caches hold of so many tokens."""
    return tuple(caches.take(cache, start, tokens) for cache in row)


@partial(jax.jit, donate_argnums=0)
def give(row: Any, block: Any, start: Any) -> Any:
    """The row's caches with such a block."""
    return tuple(caches.give(cache, part, start) for cache, part in zip(row, block, strict=True))


@partial(jax.jit, donate_argnums=0)
def clear(row: Any) -> Any:
    """The row's caches before the first token."""
    return tuple(map(caches.clear, row))
