"""Commands for speech."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from jaxmodels.cli.command import CommandLine, Ended, Json, command
from jaxmodels.commands.speak import SpeakOptions
from jaxmodels.commands.transcribe import TranscribeOptions
from jaxmodels.console import Console, shown
from jaxmodels.launch.exit_statuses import DONE, FAILED


def _long_out(argv: list[str]) -> list[str]:
    return ["--out" if word == "-o" else word for word in argv]


@command(
    "transcribe",
    "FOLDER FILE…",
    TranscribeOptions,
    usage="FOLDER FILE… [--srt]",
    note="FOLDER holds Whisper's weights, as Hugging Face or CTranslate2 store them. FILE is a recording, or "
    "a folder of recordings. --json prints a line of JSON for each. The exit status is 1 where a recording "
    "could not be used; the others are transcribed.",
    reads=True,
    prepare=_long_out,
)
def transcribe(line: CommandLine, console: Console, options: dict[str, Any]) -> Ended:
    """Write what is said in recordings: text, times or subtitles."""
    from jaxmodels.commands.transcribe import recordings, transcriptions, written
    from jaxmodels.runs.files import write_text
    from jaxmodels.runs.metrics_file import finite

    folder, *files = line.operands
    form = {name: options.pop(name) for name in ("times", "srt")}
    folder_out = options.pop("out")
    out = Path(folder_out) if folder_out else None
    if all(form.values()):
        raise ValueError("transcribe: got --times and --srt; expected one of them. Leave one out.")
    several = sum(len(recordings(file)) for file in files) > 1
    if form["srt"] and several and out is None and not console.json:
        raise ValueError(
            "transcribe: got --srt for several recordings; expected a folder for the files. Give -o FOLDER."
        )
    faults, names = 0, set[str]()
    with console.busy(f"loading {folder}"):
        found = transcriptions(folder, files, **options)
    for one in found:
        if one.fault:
            faults += 1
            console.warn(one.fault)
        if console.json:
            print(json.dumps(finite(one.report), default=str), flush=True)
        elif one.transcript is not None and out is not None:
            name = f"{one.file.stem}{'.srt' if form['srt'] else '.txt'}"
            if name in names:
                raise ValueError(f"{out / name}: got two recordings of this name; expected one. Rename one.")
            names.add(name)
            out.mkdir(parents=True, exist_ok=True)
            write_text(out / name, written(one, **form).rstrip("\n") + "\n")
            console.say(str(out / name))
        elif one.transcript is not None:
            if several:
                console.say(str(one.file), "bold")
            text = written(one, **form)
            print(shown(text) if sys.stdout.isatty() else text, flush=True)
    return Ended(None, FAILED if faults else DONE)


@command(
    "speak",
    "VOICE [TEXT…]",
    SpeakOptions,
    usage="VOICE TEXT [-o speech.wav]",
    also={"VOICE --phonemes PHONEMES": "the same, and nothing under the GPL is needed"},
    note="VOICE is the .onnx file of a voice of Piper, with its .onnx.json beside it, or a folder of Hugging "
    "Face's VITS; nothing in it is executed. A voice that reads phonemes needs eSpeak NG for texts: "
    "pip install 'jaxmodels[espeak-gpl]', which is under the GPL.",
    reads=True,
    prepare=_long_out,
)
def speak(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """Say a text with a voice, into a WAV file."""
    from jaxmodels.commands.speak import speak

    voice, *texts = line.operands
    out = options["out"]
    with console.busy(f"speaking with {voice}"):
        spoken = speak(voice, " ".join(texts), warn=console.warn, **options)
    seconds = len(spoken.audio_N) / spoken.rate
    console.say(f"{out}: {seconds:.1f} s at {spoken.rate:,} samples a second", "bold")
    said = {"seconds": seconds, "rate": spoken.rate, "sentences": spoken.sentences}
    return {"voice": voice, "out": out, **said}
