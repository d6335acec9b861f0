"""Text that this program did not write is printed on a terminal as text, and never obeyed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from report.runs import write_run
from rich.console import Console as Rich

from jaxmodels import cli
from jaxmodels.cli.parsing import fail
from jaxmodels.commands.watch import watch
from jaxmodels.console import Console, shown
from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.tensors import write_file
from jaxmodels.decoding import Generation

pytestmark = pytest.mark.fast

EVIL = "\x1b[2J\x1b]0;owned\x07 [red]x[/red] \x9b31m \u202etxt"
SAFE = "\\x1b[2J\\x1b]0;owned\\x07 [red]x[/red] \\x9b31m \\u202etxt"


def harmless(text):
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*text}, repr(text)
    return text


def test_controls_are_escaped_and_text_stays():
    assert shown(EVIL) == SAFE
    assert shown("größe\t日本\n") == "größe\t日本\n"


def test_whatever_a_console_says_is_shown_as_text(capsys):
    console = Console()
    console.say(EVIL)
    console.warn(EVIL)
    console.table(EVIL, ["", EVIL], [[EVIL, "1"]])
    fail(EVIL, 2)
    out, err = capsys.readouterr()
    assert harmless(out).count("[red]x[/red]") == 4
    assert harmless(err).count(SAFE) == 2


def test_names_of_metrics_and_members_are_shown_as_text(tmp_path, capsys):
    run = write_run(tmp_path / "run", name=EVIL)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 41, f"test/{EVIL}": 1.0}) + "\n")
    rich = Rich(width=200, record=True, force_terminal=True, color_system=None)
    watch(run, once=True, rich=rich)
    assert "[red]x[/red]" in harmless(rich.export_text())


def test_a_tensors_name_in_a_message_is_shown_as_text(tmp_path, capsys):
    small = {
        "model_type": "gpt2",
        "n_layer": 1,
        "n_embd": 4,
        "n_head": 1,
        "vocab_size": 8,
        "n_positions": 4,
        "n_inner": 4,
    }
    (tmp_path / "config.json").write_text(json.dumps(small))
    write_file(tmp_path / "model.safetensors", {EVIL: ((1,), np.float32, lambda: np.zeros(1, np.float32))})
    with pytest.raises((ValueError, KeyError)):
        load_pretrained(tmp_path)
    cli.main(["convert", str(tmp_path), str(tmp_path / "out")])
    harmless(capsys.readouterr().err)


@pytest.mark.parametrize("terminal", [True, False])
def test_generated_text_is_shown_on_a_terminal_and_raw_in_a_file(monkeypatch, capsys, terminal):
    monkeypatch.setattr("jaxmodels.commands.generate.generate", lambda *_, **__: _texts())
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    assert cli.main(["generate", "x", "--prompt", "a", "b"]) == 0
    assert (SAFE if terminal else EVIL) in capsys.readouterr().out


def _texts():
    return [Generation(prompt="", text=EVIL, tokens=[], logprobs=[], score=0.0)] * 2


def test_a_name_in_an_error_of_the_command_line_is_shown_as_text(capsys):
    assert cli.main([EVIL]) == 2
    harmless(capsys.readouterr().err)
    assert cli.main(["evaluate", f"runs/{EVIL}"]) == 2
    harmless(capsys.readouterr().err)
