"""Segments as subtitles (SubRip), and as lines with times."""

from __future__ import annotations

from collections.abc import Iterable

from jaxmodels.speech.transcriber import Segment


def clock(seconds: float, mark: str = ",") -> str:
    """Hours, minutes, seconds and milliseconds: 00:00:08,500."""
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{mark}{whole % 1000:03}"


def srt(segments: Iterable[Segment]) -> str:
    """A SubRip file: the number of a segment, its times, its text on one line."""
    blocks = [
        f"{n}\n{clock(one.start)} --> {clock(one.end)}\n{_line(one)}\n" for n, one in enumerate(segments, 1)
    ]
    return "\n".join(blocks)


def timed(segments: Iterable[Segment]) -> str:
    """A line for each segment: from when to when, and what."""
    return "\n".join(f"{clock(one.start, '.')} → {clock(one.end, '.')}  {_line(one)}" for one in segments)


def _line(segment: Segment) -> str:
    return " ".join(segment.text.split())
