"""What `jaxmodels predict` reads beside images, and the tables that it writes."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
from files import tiny_texts

from jaxmodels import cli
from jaxmodels.commands.predict import predictions, row_of


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """The command with a model that is not loaded: (exit status, lines of stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(model, *words):
        monkeypatch.setattr("jaxmodels.commands.predict.open_model", lambda run, **where: model)
        status = cli.main(["predict", "run", *map(str, words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out.splitlines(), err

    return run


def test_texts_come_from_the_command_line_files_lines_folders_and_tables(command, tmp_path):
    (tmp_path / "one.txt").write_text("aab\nb\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "two.txt").write_text("a", encoding="utf-8-sig")
    (tmp_path / "reviews.csv").write_text('id,text\n7,"a, a\na"\n8,b\n')
    (tmp_path / "named.jsonl").write_text('{"id": 1, "said": "aaaa"}\n')
    model = tiny_texts.texts()

    def counts(*words):
        status, out, err = command(model, *words, "--json")
        assert status == 0, err
        return [json.loads(line)["count"] for line in out]

    assert counts("--text", "aa", "b", "--text", "a a") == [2, 0, 2]
    assert counts("one.txt", "folder", "--text=aaa") == [3, 2, 1]
    assert counts("one.txt", "--lines") == [2, 0]
    assert counts("reviews.csv") == [3, 0]
    assert counts("named.jsonl", "--column", "said") == [4]


def test_a_text_that_cannot_be_used_is_named_and_the_others_are_answered(command, tmp_path):
    (tmp_path / "lines.txt").write_bytes(b"a\n\n\xff\xfe\naa")
    (tmp_path / "two.csv").write_text("first,second\na,b\n")
    status, out, err = command(tiny_texts.texts(), "lines.txt", "two.csv", "gone.txt", "--lines", "--json")
    answers = [json.loads(line) for line in out]
    assert status == 1
    assert [answer.get("count") for answer in answers] == [1, None, None, 2, None, None]
    assert "lines.txt, line 2: got an empty text" in err and "lines.txt, line 3: got bytes that are no" in err
    assert "two.csv, row 1: got the columns first, second" in err and "there is no file gone.txt" in err
    assert answers[1] == {"file": "lines.txt", "line": 2, "error": answers[1]["error"]}


def test_a_table_is_written_with_the_answers_as_further_columns(command, tmp_path):
    (tmp_path / "in.csv").write_text('sum,x,y\n"a ""b"", c",1,2\n0.50,1,no\n,1e0,-3\n')
    status, out, err = command(tiny_texts.rows(), "in.csv", "-o", "out.csv")
    assert status == 1 and "in.csv, row 2: got x '1' and y 'no'" in err
    assert out == ["out.csv: 3 rows, 1 of them with an error"]
    with open("out.csv", newline="") as file:
        written = [*csv.reader(file)]
    assert written[0] == ["sum", "x", "y", "predicted_sum", "error"]
    assert written[1] == ['a "b", c', "1", "2", "3.0", ""]
    assert written[2][:4] == ["0.50", "1", "no", ""] and "expected numbers" in written[2][4]
    assert written[3] == ["", "1e0", "-3", "-2.0", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv", "out.csv"]  # no temporary file


@pytest.mark.parametrize("ending", ["tsv", "jsonl", "parquet"])
def test_the_written_table_can_be_predicted_on_again(command, tmp_path, ending):
    (tmp_path / "in.jsonl").write_text('{"x": 1, "y": 2.5, "tag": "ü\\t"}\n{"x": true, "y": "no"}\n')
    model = tiny_texts.rows()
    assert command(model, "in.jsonl", "-o", f"out.{ending}")[0] == 1
    status, out, _ = command(model, f"out.{ending}", "--json")
    assert status == 1 and json.loads(out[0]) == {"file": f"out.{ending}", "row": 1, "sum": 3.5}
    assert "error" in json.loads(out[1])


def test_rows_that_are_broken_or_lack_a_column_are_named_and_the_others_are_answered(command, tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2,3\n4,5\n")
    (tmp_path / "b.csv").write_text("x,z\n1,2\n")
    (tmp_path / "c.jsonl").write_text('{"x": 1, "y": 2}\n[1]\n{"x": 1\n{"y": 1}\n\n{"x": 0, "y": 0}\n')
    (tmp_path / "d.parquet").write_bytes(b"PAR1 and nothing")
    (tmp_path / "e.csv").write_text("")
    with gzip.open(tmp_path / "f.csv.gz", "wt") as file:
        file.write("y,x\n1,1\n")
    status, out, err = command(tiny_texts.rows(), *sorted(tmp_path.iterdir()), "--json")
    sums = [json.loads(line).get("sum") for line in out]
    assert status == 1
    assert sums == [None, 9, None, 3, None, None, None, 0, None, None, 2]
    assert "a.csv, row 1: got 3 values; expected 2" in err
    assert "b.csv, row 1: got a row without 'y'; expected the columns 'x', 'y'" in err
    assert "c.jsonl, row 2: got a JSON list" in err and "d.parquet" in err and "e.csv" in err


def test_people_get_a_table_and_the_first_faults(command, tmp_path):
    (tmp_path / "in.csv").write_text("x,y\n" + "1,2\n" * 3 + "1,no\n" * 30)
    status, out, err = command(tiny_texts.rows(), "in.csv")
    assert status == 1 and next(line.split() for line in out if "3.0000" in line) == [
        "in.csv,",
        "row",
        "1",
        "3.0000",
    ]
    assert err.count("expected numbers") == 20 and "and 10 more, 30 of 33 inputs" in err


def test_a_question_and_its_context_are_a_row(command):
    assert row_of("who", "me") == [{"question": "who", "context": "me"}] and row_of("", "") == []
    status, _, err = command(tiny_texts.rows(), "--question", "who")
    assert status == 2 and "got --question without --context" in err
    status, _, err = command(tiny_texts.rows(), "--question", "who", "--context", "me")
    assert status == 1 and "row 1: got a row without 'x', 'y'" in err


def test_a_model_of_rows_draws_nothing_and_says_so(command):
    status, _, err = command(tiny_texts.rows(), "in.csv", "-o", "folder")
    assert status == 2 and "got the folder folder for drawings; expected a table" in err


def test_a_table_stays_as_it_was_where_predicting_ends_early(tmp_path):
    (tmp_path / "in.csv").write_text("x,y\n1,2\n")
    (tmp_path / "out.csv").write_text("old")
    found = predictions(tiny_texts.rows(), [tmp_path / "in.csv"], out=tmp_path / "out.csv")
    next(found)
    found.close()
    assert (tmp_path / "out.csv").read_text() == "old"


def test_sounds_of_a_folder_are_read_and_a_broken_one_is_named(command, tmp_path):
    from jaxmodels import Model, Predictor
    from jaxmodels.data.formats.audio import wav
    from jaxmodels.data.formats.audio_file import read_audio

    (tmp_path / "sounds" / "b").mkdir(parents=True)
    (tmp_path / "sounds" / "a.wav").write_bytes(wav(np.full(64, 0.5, np.float32), 8000))
    (tmp_path / "sounds" / "b" / "c.WAV").write_bytes(b"RIFF and nothing")
    (tmp_path / "sounds" / "note.txt").write_text("no sound")
    predictor = Predictor(
        read=lambda path: {"audio": read_audio(path, rate=8000, samples=32)},
        predict=lambda params, extra, batch: batch["audio"].mean(1),
        report=lambda mean: {"mean": round(float(mean), 2)},
        input="sound",
    )
    status, out, err = command(Model(tmp_path, {}, {}, predictor), "sounds", "--json")
    answers = [json.loads(line) for line in out]
    assert status == 1 and answers[0] == {"file": "sounds/a.wav", "mean": 0.5}
    assert len(answers) == 2 and "c.WAV" in answers[1]["error"] and "c.WAV" in err
