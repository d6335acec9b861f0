"""Documents of different lengths packed into rows of one length, with hardly any padding.

    documents ──split or truncate──► pieces ──best fit──► rows of pieces ──shuffle──► batches

Best fit decreasing: the longest piece first, each into the fullest row with room for it ("Fewer Truncations
Improve Language Modeling", arXiv:2404.10830). The plan depends on lengths only, and pieces of one length are
exchanged from pass to pass. So every pass has the same number of rows, and any row of any step can be
computed alone.
Dimensions: B rows of a batch, T tokens of a row, N pieces, R rows of a pass.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from jaxmodels import choices
from jaxmodels.data.fingerprint import of_arrays
from jaxmodels.data.order import Order, Remainder, permute, stream_keys
from jaxmodels.data.pipeline import Arrays, as_int32, token_columns
from jaxmodels.pipeline import Pipeline, Spec
from jaxmodels.runs.learned import PipelineMemory, remembering

Long = Literal["split", "truncate"]


class Plan(NamedTuple):
    """The pieces of one pass by falling length, and which of them each row holds."""

    start_N: np.ndarray  # the index of a piece's first token
    size_N: np.ndarray  # the targets of a piece, one less than its tokens
    member_N: np.ndarray  # indices into the two above, row after row
    first_R: np.ndarray  # the start of each row in member_N and, last, the length of member_N
    documents: int
    dropped: int  # tokens that follow another one and are the target of no row


class PackedPipeline(Pipeline):
    """Rows of several documents, for language models that separate them by "segments".

    open: the arrays, or a function that reads them, called on first use: "tokens" (of all documents in one
        array, any integer type; a memory map is not read whole), "offsets" (the start of each document and,
        last, the end of the last one; open_tokens() and open_documents() read both from files of
        write_tokens()) and, where the model learns only some tokens, "answers" (1 for those, 0 for others).
    length: tokens T of a row.
    long: "split" divides a document with more than T targets into pieces, "truncate" keeps its first T.
    seed: shuffles each pass; None keeps one order.
    remainder: see Order; by default "wrap" when shuffled, else "pad".

    A batch holds "inputs" and "targets" (int32, BT; the target is the next token of the same document, so n
    tokens take n - 1 positions), "segments" (int32, BT; 1, 2, ... by document, 0 for padding) and "weight"
    (float32, BT; 0 for padding and for a target that is no answer).
    """

    def __init__(
        self,
        open: Arrays | Callable[[], Arrays],
        *,
        length: int,
        batch: int,
        long: Long = "split",
        seed: int | None = None,
        remainder: Remainder | None = None,
    ):
        if length < 1:
            raise ValueError(
                f"PackedPipeline: got length={length}; expected at least 1 token in a row. Raise it"
            )
        choices.check(type(self).__name__, "long", long, Long)
        self._open = remembering(open) if callable(open) else open
        self._kept = PipelineMemory.here()
        self.length, self.batch, self.long, self.seed = length, batch, long, seed
        self.remainder: Remainder = ("pad" if seed is None else "wrap") if remainder is None else remainder
        choices.check(type(self).__name__, "remainder", self.remainder, Remainder)
        self._passes: tuple[
            tuple[int, np.ndarray], ...
        ] = ()  # the last two used: the number of a pass, and its pieces

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, read once."""
        opened = self._open() if callable(self._open) else self._open
        arrays = {name: np.asanyarray(x) for name, x in opened.items()}
        tokens, offsets = arrays["tokens"], arrays["offsets"]
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 0).any():
            raise ValueError(
                f"the offsets of the documents: got {offsets}; expected numbers that never fall, from 0 to "
                f"{len(tokens)}, the number of tokens. Look at how both were made"
            )
        if "answers" in arrays and len(arrays["answers"]) != len(tokens):
            raise ValueError(
                f"the answers: got {len(arrays['answers'])} for {len(tokens)} tokens; expected a 0 or 1 for "
                "each. Look at how both were made"
            )
        return arrays

    @cached_property
    def plan(self) -> Plan:
        """The pieces and the rows that they make."""
        offsets = self.arrays["offsets"].astype(np.int64)
        targets = np.maximum(np.diff(offsets) - 1, 0)
        total = int(targets.sum())
        if not total:
            raise ValueError(
                "the documents: got none of two tokens; expected one with a token to predict. Look at how "
                "they were made"
            )
        if self.long == "truncate":
            targets = np.minimum(targets, self.length)
        pieces = -(-targets // self.length)  # of each document
        document_N = np.repeat(np.arange(len(targets)), pieces)
        within_N = (np.arange(len(document_N)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * self.length
        size_N = np.minimum(targets[document_N] - within_N, self.length)
        falling_N = np.argsort(-size_N, kind="stable")
        row_N = best_fit(np.bincount(size_N, minlength=self.length + 1), self.length)
        member_N = np.argsort(row_N, kind="stable")
        first_R = np.searchsorted(row_N[member_N], np.arange(row_N.max() + 2))
        start_N = (offsets[document_N] + within_N)[falling_N]
        return Plan(start_N, size_N[falling_N], member_N, first_R, len(targets), total - int(size_N.sum()))

    @cached_property
    def order(self) -> Order:
        """Which row of the plan each row of a batch holds."""
        return Order(len(self.plan.first_R) - 1, self.batch, self.seed, self.remainder)

    @cached_property
    def steps(self) -> int:
        """Batches in one pass; where the data is not here, in a pass of the data of the run's training."""
        rows = self._kept.get("rows", lambda: len(self.plan.first_R) - 1)
        return Order(rows, self.batch, self.seed, self.remainder).steps

    @cached_property
    def spec(self) -> Spec:
        """Shape and type of each array of a batch, without the example axis."""
        integers = dict.fromkeys(("inputs", "targets", "segments"), ((self.length,), np.dtype(np.int32)))
        return {**integers, "weight": ((self.length,), np.dtype(np.float32))}

    def columns(self) -> dict[str, np.ndarray]:
        """The tokens, where they are in memory: a row is one token."""
        return token_columns(self.arrays["tokens"])

    def indices(self, step: int | np.ndarray, start: int, stop: int) -> np.ndarray:
        """The plan's rows in rows start to stop of batch `step`; -1 is padding."""
        return self.order.indices(step, start, stop)

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows start to stop of batch `step`."""
        row_B = self.indices(step, start, stop)
        if self.remainder == "wrap":
            pass_B = (step * self.batch + np.arange(start, stop)) // self.order.n
        else:
            pass_B = np.full(stop - start, step // self.steps)
        first_R, real_B = self.plan.first_R, row_B >= 0
        count_B = np.where(real_B, first_R[row_B + 1] - first_R[row_B], 0)  # pieces in each row
        owner_P = np.repeat(np.arange(len(row_B)), count_B)  # P: the pieces of these rows
        number_P = np.arange(len(owner_P)) - np.repeat(np.cumsum(count_B) - count_B, count_B)
        slot_P = self.plan.member_N[first_R[row_B][owner_P] + number_P]
        start_P, size_P = self.plan.start_N[slot_P], self.plan.size_N[slot_P]
        for epoch in np.unique(pass_B[owner_P]):
            own = pass_B[owner_P] == epoch
            start_P[own] = self.plan.start_N[self._pieces(int(epoch))[slot_P[own]]]
        return self._fill(len(row_B), owner_P, number_P, start_P, size_P)

    def _fill(
        self,
        rows: int,
        owner_P: np.ndarray,
        number_P: np.ndarray,
        start_P: np.ndarray,
        size_P: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Rows of pieces: for each piece its row, its number in the row, its first token and its targets."""
        piece_X = np.repeat(np.arange(len(size_P)), size_P)  # X: positions that are no padding
        before_P = np.cumsum(size_P) - size_P
        token_X = start_P[piece_X] + np.arange(len(piece_X)) - before_P[piece_X]
        row_P = before_P[np.searchsorted(owner_P, owner_P)]  # the start of the row's first piece
        where = owner_P[piece_X], np.arange(len(piece_X)) - row_P[piece_X]
        batch = {name: np.zeros((rows, *shape), dtype) for name, (shape, dtype) in self.spec.items()}
        tokens, answers = self.arrays["tokens"], self.arrays.get("answers")
        batch["inputs"][where] = as_int32(tokens[token_X])
        batch["targets"][where] = as_int32(tokens[token_X + 1])
        batch["segments"][where] = number_P[piece_X] + 1
        batch["weight"][where] = 1 if answers is None else answers[token_X + 1]
        return batch

    def _pieces(self, epoch: int) -> np.ndarray:
        """The piece that replaces each piece in this pass, one of the same length; N."""
        n = len(self.plan.size_N)
        if self.seed is None:
            return np.arange(n)
        passes = self._passes  # read once: other threads may replace it
        for known, pieces in passes:
            if known == epoch:
                return pieces
        shuffled = permute(np.arange(n), n, int(stream_keys(self.seed, epoch)))
        pieces = shuffled[np.argsort(-self.plan.size_N[shuffled], kind="stable")]
        self._passes = ((epoch, pieces), *passes[:1])
        return pieces

    def fingerprint(self) -> str:
        """Changes when an example or the order of the examples does; see data/fingerprint.py."""
        return of_arrays(self.arrays)

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        plan, rows = self.plan, self.order.n
        full = plan.size_N.sum() / (rows * self.length)
        dropped = f", {plan.dropped:,} tokens dropped" if plan.dropped else ""
        packed = f"{plan.documents:,} documents in rows of {self.length}, {full:.1%} full{dropped}"
        return f"{packed}: {self.order.describe()}"


def dialogues(texts: Iterable[Sequence[tuple[Sequence[int], bool]]]) -> dict[str, np.ndarray]:
    """Instruction data for PackedPipeline: each text as parts of (tokens, whether they are an answer)."""
    tokens: list[int] = []
    answers: list[bool] = []
    offsets = [0]
    for text in texts:
        for part, answer in text:
            tokens += part
            answers += [answer] * len(part)
        offsets.append(len(tokens))
    return {
        "tokens": np.array(tokens, np.int32),
        "offsets": np.array(offsets),
        "answers": np.array(answers, np.uint8),
    }


def best_fit(count: np.ndarray, length: int) -> np.ndarray:
    """The row of each piece, by falling size, with count[size] pieces of a size: best fit decreasing.

    Rows with the same room are filled together, so that the work grows with the number of sizes and not of
    pieces.
    """
    rooms: list[int] = []  # rising
    rows_with: dict[int, list[np.ndarray]] = {}  # by room
    rows, out = 0, [np.zeros(0, np.int64)]

    def keep(room: int, open_rows: np.ndarray) -> None:
        if len(open_rows):
            if room not in rows_with:
                insort(rooms, room)
            rows_with.setdefault(room, []).append(open_rows)

    for size in np.nonzero(count)[0][::-1].tolist():
        left = int(count[size])
        while left:
            i = bisect_left(rooms, size)
            if i < len(rooms):
                room = rooms.pop(i)
                chosen = np.concatenate(rows_with.pop(room))
            else:
                room = length
                chosen = np.arange(rows, rows - (-left // (length // size)))
                rows += len(chosen)
            each = room // size  # a row that took a piece is then the fullest with room for the next
            full, rest = divmod(min(left, each * len(chosen)), each)
            out += [np.repeat(chosen[:full], each), np.repeat(chosen[full : full + 1], rest)]
            left -= full * each + rest
            keep(room - each * size, chosen[:full])
            if rest:
                keep(room - rest * size, chosen[full : full + 1])
            keep(room, chosen[full + bool(rest) :])
    return np.concatenate(out)
