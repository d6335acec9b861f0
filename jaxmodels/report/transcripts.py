"""What a report shows of a recogniser: error rate, most frequent errors, alignments of the worst texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.report import page
from jaxmodels.report.page import Page, escaped
from jaxmodels.report.read_run import PNG
from jaxmodels.scores.error_rates import Edits, align, count, shown

WORST, CONFUSIONS = 24, 12  # examples and kinds of errors shown


class Transcript(NamedTuple):
    """One example: the reference above what was recognised."""

    number: int  # its index in the evaluation's data
    edits: Edits
    reference: str
    hypothesis: str
    content: bytes | str | None = None  # the input: a WAV or PNG file, or text


class Transcripts(NamedTuple):
    """The texts of an evaluation's examples, summed up."""

    edits: Edits
    texts: int
    exact: int  # texts without an error
    errors: list[tuple[str, str, int]]  # (word of the reference, of the hypothesis, how often); "" for none
    worst: list[Transcript]


def transcripts(references: Sequence[Any], hypotheses: Sequence[Any], words: Sequence[str]) -> Transcripts:
    """The alignments of labels, of which 0 is none and n is words[n - 1]."""
    each, errors, total = [], Counter[tuple[str, str]](), Edits()
    for number, (real, said) in enumerate(zip(references, hypotheses, strict=True)):
        pairs = align(*([words[label - 1] for label in np.asarray(x) if label] for x in (real, said)))
        edits = count(pairs)
        total = Edits(*(a + b for a, b in zip(total, edits, strict=True)))
        errors.update((a or "", b or "") for a, b in pairs if a != b)
        each.append(Transcript(number, edits, *shown(pairs)))
    exact = sum(not one.edits.errors for one in each)
    worst = sorted(each, key=lambda one: -one.edits.errors)[:WORST]
    frequent = sorted(errors.items(), key=lambda item: (-item[1], item[0]))[:CONFUSIONS]
    return Transcripts(total, len(each), exact, [(*pair, n) for pair, n in frequent], worst)


def with_contents(found: Transcripts, contents: Mapping[int, bytes | str]) -> Transcripts:
    """The same, with the inputs of the examples that are shown, by their numbers."""
    return found._replace(worst=[one._replace(content=contents.get(one.number)) for one in found.worst])


def add_transcripts(document: Page, name: str, found: Transcripts, step: int | None) -> None:
    """The section of a page."""
    edits = found.edits
    about = (
        f"{found.texts:,} texts of {edits.length:,} labels, checkpoint of step {step:,}: error rate "
        f"{edits.rate:.4f} ({edits.substitutions:,} substitutions, {edits.deletions:,} deletions, "
        f"{edits.insertions:,} insertions); {found.exact:,} texts without an error"
    )
    document.section(f"Texts of {name}", f'<p class="muted">{escaped(about)}</p>')
    if found.errors:
        rows = [[real or "(nothing)", said or "(nothing)", f"{n:,}"] for real, said, n in found.errors]
        table = page.table(["said", "recognised", "times"], rows, "llr")
        document.add("<h3>Most frequent errors</h3>", table)
    cards = "".join(map(_card, found.worst))
    document.add(
        "<h3>Worst texts: the reference above what was recognised</h3>",
        f'<div class="cards wide">{cards}</div>',
    )


def _card(one: Transcript) -> str:
    about = f"example {one.number}"
    content = f'<span class="muted">{about}: {one.edits.errors} of {one.edits.length}</span><br>'
    if isinstance(one.content, bytes):
        shows = page.image if one.content.startswith(PNG) else page.sound
        content += shows(one.content, about)
    elif one.content is not None:
        content += f"<blockquote>{escaped(one.content)}</blockquote>"
    return f"<figure>{content}<pre>{escaped(one.reference)}\n{escaped(one.hypothesis)}</pre></figure>"
