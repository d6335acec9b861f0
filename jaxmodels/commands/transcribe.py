"""jaxmodels transcribe: what is said in recordings, as text, with times, or as subtitles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from jaxmodels.speech.transcriber import Transcriber, Transcript


@dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    """What is written of a recording."""

    language: str = ""
    """The code of the language that is spoken, such as en; by default it is recognised."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """translate writes English, whatever is spoken."""
    beams: int = 0
    """Width of a beam search; 0 takes the likeliest token each time."""
    condition: bool = False
    """Each 30 seconds also read the text of those before: names stay the same, and at times mistakes."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the parameters and the products."""
    times: bool = False
    """Each segment on a line, with the times of its start and its end."""
    srt: bool = False
    """Subtitles (SubRip) in place of text."""
    out: str = ""
    """A folder for a file of each recording, .txt or .srt, in place of printing."""


class Transcribed(NamedTuple):
    """A recording with what is said in it, or with the reason why that is not known."""

    file: Path
    transcript: Transcript | None
    fault: str = ""

    @property
    def report(self) -> dict[str, Any]:
        """As JSON; an error in place of the text where the recording could not be used."""
        if self.transcript is None:
            return {"file": str(self.file), "error": self.fault}
        segments = [one._asdict() for one in self.transcript.segments]
        return {"file": str(self.file), **self.transcript._asdict(), "segments": segments}


def transcribe(folder: str | Path, files: Sequence[str | Path], **options: Any) -> list[dict[str, Any]]:
    """What is said in each recording: {"file", "text", "language", "seconds", "segments"}, or "error".

    folder: of Whisper, Hugging Face's or CTranslate2's. files: recordings, or folders of them. options:
    language, task, beams, condition and precision; see TranscribeOptions.
    """
    return [one.report for one in transcriptions(folder, files, **options)]


def transcriptions(
    folder: str | Path,
    files: Sequence[str | Path],
    *,
    precision: str = TranscribeOptions.precision,
    **options: Any,
) -> Iterator[Transcribed]:
    """One after another, as they are heard; what cannot be read has a fault, and the others go on."""
    from jaxmodels.inference.transcriber import open_transcriber

    transcriber = open_transcriber(folder, precision=precision)
    transcriber.symbols.check(options.get("language", ""), options.get("task", "transcribe"))
    found = [file for given in files for file in recordings(given)]
    if not found:
        raise ValueError(
            "transcribe: got no recording; expected files, or folders with .wav or .flac files. Name some."
        )
    return (_one(transcriber, file, options) for file in found)


def recordings(path: str | Path) -> list[Path]:
    """The file itself, or the recordings of a folder in the order of their names."""
    from jaxmodels.data.folders import files_below
    from jaxmodels.data.formats.audio_file import ENDINGS

    path = Path(path)
    return files_below(path, endings=ENDINGS) if path.is_dir() else [path]


def _one(transcriber: Transcriber, file: Path, options: dict[str, Any]) -> Transcribed:
    from jaxmodels.data.formats.audio_file import read_audio
    from jaxmodels.speech.transcriber import RATE

    try:
        audio_S = read_audio(file, rate=RATE)
    except (OSError, ValueError) as error:
        text = str(error)
        return Transcribed(file, None, text if str(file) in text else f"{file}: {text}")
    return Transcribed(file, transcriber(audio_S, **options))


def written(one: Transcribed, *, times: bool = False, srt: bool = False) -> str:
    """The text of a recording, ready to be printed or put into a file."""
    from jaxmodels.speech import subtitles

    if one.transcript is None:
        return ""
    if srt:
        return subtitles.srt(one.transcript.segments)
    return subtitles.timed(one.transcript.segments) if times else one.transcript.text
