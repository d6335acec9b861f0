"""Reports: what is in the page, that nothing of a run can break it, and that damage becomes a sentence."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import wave
from html.parser import HTMLParser

import numpy as np
import pytest
from files import tiny_mlp, tiny_pictures, tiny_senses
from hypothesis import given
from hypothesis import strategies as st
from report.runs import HOSTILE, write_run

from jaxmodels import Display, cli
from jaxmodels.commands.report import report
from jaxmodels.data.formats.audio import wav
from jaxmodels.report import charts, downsample, page, predictions
from jaxmodels.report.classifier import classifier_report
from jaxmodels.report.read_run import rates, read_run
from jaxmodels.report.run_page import run_page
from jaxmodels.runs.folder import Folder
from jaxmodels.runs.png import encode_png

Image = pytest.importorskip("PIL.Image", reason="needs pillow")
pytestmark = pytest.mark.fast
pytest.importorskip("plotly", reason="plotly is absent; pip install 'jaxmodels[report]'")


class Parsed(HTMLParser):
    """A page's elements, the text that a reader sees, and its scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text, self.scripts = "", []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    @property
    def figures(self) -> list[dict]:
        return json.loads(self.scripts[0])


def parsed_page(*runs, **how) -> Parsed:
    return Parsed(report(list(runs), **{"model": "off", **how}).read_text("utf-8"))


# Downsampling


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(st.lists(numbers, min_size=1, max_size=400), st.integers(1, 20))
def test_a_downsampled_curve_keeps_its_extremes_its_ends_and_its_gaps(values, buckets):
    y = np.array(values)
    keep = downsample.extremes(y, buckets)
    assert (np.diff(keep) > 0).all() and keep[0] == 0 and keep[-1] == len(y) - 1
    finite = y[np.isfinite(y)]
    if len(finite):
        kept = y[keep][np.isfinite(y[keep])]
        assert (kept.min(), kept.max()) == (finite.min(), finite.max())
    assert np.isfinite(y[keep]).all() == np.isfinite(y).all()
    if downsample.is_long(y, buckets):
        assert len(keep) <= 3 * buckets + 2


def test_every_bucket_keeps_its_own_extremes():
    y = np.random.default_rng(0).normal(size=1000)
    keep = set(downsample.extremes(y, 10).tolist())
    for a in range(0, 1000, 100):
        part = y[a : a + 100]
        assert {a + int(part.argmin()), a + int(part.argmax())} <= keep


# Reading


def test_the_clock_of_a_resumed_run_goes_on(tmp_path):
    run = write_run(tmp_path / "run", steps=8)
    lines = [
        {"step": n, "train/loss": 1.0, "seconds": s} for n, s in ((1, 1.0), (2, 2.0), (3, 0.5), (4, 1.5))
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_run(run).curves["train/loss"].seconds.tolist() == [1.0, 2.0, 2.5, 3.5]


def test_a_value_that_was_logged_once_is_a_point(tmp_path):
    def modes(every):
        return {
            t["mode"]
            for f in parsed_page(write_run(tmp_path / str(every), every=every)).figures
            for t in f["data"]
        }

    assert modes(40) == {"lines+markers"}
    assert "lines" in modes(1)


def test_rates_come_from_the_clock_and_lines_of_one_dispatch_count_as_one_interval(tmp_path):
    run = write_run(tmp_path / "run", steps=8)
    clock = ((2, 0.0, 0.0), (4, 0.0, 0.0), (6, 2.0, 1.0), (8, 2.0, 1.0), (10, 4.0, 1.0))
    lines = [{"step": n, "seconds": s, "seconds_waited": w} for n, s, w in clock]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = rates(read_run(run), 10)
    assert found["examples per second"].value.tolist() == [30.0, 20.0]
    assert found["time waited for input"].value.tolist() == [0.5, 0.0]
    assert list(rates(read_run(run), None)) == ["steps per second", "time waited for input"]


@pytest.mark.parametrize(
    "name", ["knobs.json", "environment.json", "result.json", "metrics.jsonl", "experiment.py"]
)
@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"step": "x"}', b"null", b"[" * 9999]
)
def test_a_missing_or_damaged_file_is_a_sentence_in_the_page(tmp_path, name, content):
    run = write_run(tmp_path / "run")
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    text = parsed_page(run).text
    assert "A made-up run." in text or name == "experiment.py"
    if name.endswith(".json") and content != b'{"step": "x"}':
        assert name in text
    if name == "metrics.jsonl":
        assert "Nothing is logged yet." in text


@pytest.mark.parametrize(
    "value", ["text", [], {"a": []}, True, -1, 1e999, float("nan"), 10**400, None], ids=repr
)
@pytest.mark.parametrize(
    "name", ["steps", "train_s", "metrics", "baselines", "parameters", "exit", "compile_s"]
)
def test_a_result_that_cannot_be_does_not_end_the_report(tmp_path, name, value):
    run = write_run(tmp_path / "run")
    whole = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**whole, name: value}))
    assert "A made-up run." in parsed_page(run).text


def test_a_log_that_was_cut_short_is_read_and_said(tmp_path):
    run = write_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "train/lo')
    parsed = parsed_page(run)
    assert "1 of 45 lines of metrics.jsonl cannot be read" in parsed.text
    assert parsed.figures


def test_values_that_are_not_finite_are_gaps(tmp_path):
    run = write_run(tmp_path / "run", steps=8)
    (run / "metrics.jsonl").write_text(
        '{"step": 1, "train/loss": 2.0}\n{"step": 2, "train/loss": null}\n{"step": 3, "train/loss": NaN}'
    )
    [figure] = parsed_page(run).figures
    assert figure["data"][0]["y"] == [2.0, None, None]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    for folder, why in ((tmp_path, "a folder without knobs.json"), (tmp_path / "absent", "no such folder")):
        with pytest.raises(
            ValueError, match=f"{re.escape(str(folder))}: got {why}.*; expected a run's folder"
        ):
            report(folder)


# The page


def test_the_page_says_the_result_beside_the_baseline_and_how_to_repeat_it(tmp_path):
    parsed = parsed_page(write_run(tmp_path / "run"))
    assert "test/accuracy0.9750published 0.9500 (+0.0250)" in parsed.text
    assert "git checkout abc\njaxmodels train x.py --lr 0.1" in parsed.text
    assert [f["title"] for f in parsed.figures][:2] == ["loss", "accuracy"]
    assert {f["title"] for f in parsed.figures[2:]} == {
        *("learning rate", "gradient norm", "examples per second", "time waited for input")
    }


def test_nothing_of_a_run_is_read_as_html(tmp_path):
    run = write_run(tmp_path / "run", name=HOSTILE, exit=HOSTILE, baselines={HOSTILE: {"test/accuracy": 1.0}})
    (run / "knobs.json").write_text(json.dumps({"knobs": {HOSTILE: HOSTILE}, "options": {HOSTILE: HOSTILE}}))
    (run / "environment.json").write_text(
        json.dumps({"command": [HOSTILE], "commit": HOSTILE, "versions": {HOSTILE: HOSTILE}})
    )
    (run / "experiment.py").write_text(f'r"""{HOSTILE[:-1]}."""')
    (run / "sample.txt").write_text(HOSTILE)
    (run / "pictures").mkdir()
    (run / "pictures" / "<script>alert(1)<.png").write_bytes(encode_png(np.zeros((2, 2, 1), np.uint8)))
    for runs in ([run], [run, run]):
        text = report(runs, model="off", out=tmp_path / "out.html").read_text("utf-8")
        parsed = Parsed(text)
        assert [tag for tag, _ in parsed.tags].count("script") == len(parsed.scripts) == 3
        assert all("<" not in script for script in parsed.scripts[:2])
        assert "alert(1)" in parsed.text and parsed.figures
    assert text.count("<!--") == 0


def test_examples_that_were_passed_over_are_said_and_escaped(tmp_path):
    skipped = {
        "train": {"count": 1234, "examples": [f"example 2 {HOSTILE}", "x"]},
        HOSTILE: {"count": "2"},
        "y": 3,
    }
    run = write_run(tmp_path / "run", broken=skipped)
    for parsed in (parsed_page(run), parsed_page(run, write_run(tmp_path / "other"))):
        note = "train: 1,234 examples could not be loaded and count nowhere. "
        assert (
            f"{note}The first: example 2 {HOSTILE}. result.json has" in parsed.text
            and len(parsed.scripts) == 3
        )
        for name in (HOSTILE, "y"):
            assert f"impossible values of broken examples of {name}; ignored" in parsed.text


def test_names_of_classes_are_shown_as_they_are():
    name = "<script>alert(1)</script>"
    seen = classifier_report(
        np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]), [name, "b"], {"worst": [1], "best": [0]}, {}
    )
    for figure in (charts.confusion(seen, ""), charts.roc(seen), charts.reliability(seen)):
        text = page.embedded(figure)
        assert "<" not in text and ">" not in text
        assert name not in [x.get("name") for x in figure["data"]]
    assert (
        charts.confusion(seen, "")["layout"]["xaxis"]["ticktext"][0]
        == "&lt;script&gt;alert(1)&lt;/script&gt;"
    )


def test_the_page_names_nothing_outside_of_itself(tmp_path):
    parsed = parsed_page(write_run(tmp_path / "run"))
    links = [x for _, attrs in parsed.tags for key, x in attrs.items() if key in ("src", "href")]
    assert all(link.startswith("data:") for link in links)
    [policy] = [
        attrs["content"] for _, attrs in parsed.tags if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert any(attrs.get("name") == "viewport" for _, attrs in parsed.tags)


def test_images_and_texts_of_the_folder_are_in_the_page(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "pictures").mkdir()
    for n in (5, 40):
        (run / "pictures" / f"test-boxes-{n}.png").write_bytes(encode_png(np.full((4, 4, 3), n, np.uint8)))
    (run / "pictures" / "bad.png").write_text("no picture")
    (run / "sample.txt").write_text("Once upon a time")
    parsed = parsed_page(run)
    assert [attrs["alt"] for tag, attrs in parsed.tags if tag == "img"] == ["test-boxes-40", "test-boxes-5"]
    assert "earlier: 1" in parsed.text and "Once upon a time" in parsed.text
    assert "1 of 3 images are omitted" in parsed.text


def test_the_newest_sounds_of_the_folder_are_played_in_the_page(tmp_path):
    run = write_run(tmp_path / "run")
    folder = Folder(run, keep=2)
    for n in (5, 40):
        folder.write_picture(f"test-made-{n}", wav(np.full(n, 0.5), 8000))
    (run / "sounds" / "bad.wav").write_text("no sound")
    parsed = parsed_page(run)
    [played] = [attrs for tag, attrs in parsed.tags if tag == "audio"]
    assert played["aria-label"] == "test-made-40"
    assert base64.b64decode(played["src"].partition(",")[2]) == wav(np.full(40, 0.5), 8000)
    assert "1 of 2 sounds are omitted" in parsed.text


def test_images_that_would_make_the_page_too_large_are_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "pictures").mkdir()
    for n in range(6):
        noise = np.random.default_rng(n).integers(0, 256, (400, 400, 3), np.uint8)
        (run / "pictures" / f"noise-{n}.png").write_bytes(encode_png(noise))
    path = report(run, model="off")
    assert path.stat().st_size < 5e6
    assert "3 of 6 images are omitted" in Parsed(path.read_text()).text


# Several runs


def test_runs_beside_each_other_show_curves_together_and_what_differs(tmp_path):
    runs = [write_run(tmp_path / "a" / "run", lr=0.1), write_run(tmp_path / "b" / "run", lr=0.2)]
    path = report(runs, model="off", out=tmp_path / "both.html")
    parsed = Parsed(path.read_text())
    assert "a/run" in parsed.text and "b/run" in parsed.text
    loss = parsed.figures[0]
    assert [trace["name"] for trace in loss["data"]] == [
        "a/run train",
        "a/run test",
        "b/run train",
        "b/run test",
    ]
    assert len({trace["line"]["color"] for trace in loss["data"]}) == 2
    differs = parsed.text[parsed.text.index("What differs") : parsed.text.index("Where and how")]
    assert re.search(r"lr\s*0.1\s*0.2", differs) and "seed" not in differs
    assert [attrs["value"] for _, attrs in parsed.tags if attrs.get("name") == "x"] == ["step", "seconds"]


def test_a_run_given_twice_has_two_names(tmp_path):
    run = write_run(tmp_path / "run")
    text = Parsed(report([run, run], model="off", out=tmp_path / "out.html").read_text()).text
    assert "run (1), run (2)" in text and "The knobs are the same." in text


# Classes


def test_the_area_under_roc_counts_pairs_in_order_and_ties_as_half():
    random = np.random.default_rng(0)
    score, true = random.integers(0, 9, 60) / 9, random.random(60) < 0.4
    report = classifier_report(np.stack([1 - score, score], 1), true.astype(int), ["no", "yes"], {}, {})
    pairs = [(a > b) + (a == b) / 2 for a in score[true] for b in score[~true]]
    assert report.roc["yes"].area == pytest.approx(np.mean(pairs))


def test_the_table_by_class_is_what_the_confusion_matrix_says():
    probability = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.3, 0.7, 0], [0.6, 0.4, 0]])
    report = classifier_report(probability, np.array([0, 0, 1, 1]), ["a", "b", "c"], {}, {})
    assert report.confusion.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    first, _, absent = report.table
    assert first[:5] == ("a", 2, 0.5, 0.5, 0.5) and first.confused_with == "b (1)"
    assert absent == ("c", 0, None, None, None, None, "")
    assert report.accuracy == 0.5
    # Four bins with one example each.
    assert report.calibration.error == pytest.approx((0.1 + 0.8 + 0.3 + 0.6) / 4)
    assert report.calibration.share.tolist() == [0.25] * 4


def test_a_png_file_holds_its_pixels():
    for channels in (1, 3):
        pixels = np.arange(8 * channels, dtype=np.uint8).reshape(2, 4, channels)
        image = Image.open(io.BytesIO(encode_png(pixels)))
        assert (np.asarray(image).reshape(pixels.shape) == pixels).all()


# Bad input


def test_an_absent_plotly_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"a report's charts need plotly; pip install 'jaxmodels\[report\]'"
    ):
        report(write_run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"out": "absent/out.html"}, "got a file in a folder that does not exist"),
        ({"out": "."}, "got a folder"),
        ({"evaluate": True, "model": "off"}, "expected one of them"),
    ],
)
def test_bad_input_is_answered(tmp_path, how, match):
    with pytest.raises(ValueError, match=match):
        report(write_run(tmp_path / "run"), **how)


# A real run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of the tiny MLP; not to be changed."""
    folder = tmp_path_factory.mktemp("report") / "run"
    assert cli.main(["train", tiny_mlp.__file__, "--folder", str(folder), "--mesh", "data=1", "--quiet"]) == 0
    return folder


@pytest.mark.slow
def test_the_command_writes_a_real_run_with_its_model(trained, tmp_path, capsys):
    out = tmp_path / "out.html"
    assert cli.main(["report", str(trained), "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(out)
    parsed = Parsed(out.read_text())
    assert "A 10-10-1 MLP on made-up data" in parsed.text
    assert "mean of the targets" in parsed.text
    assert re.search(r"all\s*121", parsed.text)  # 10 * 10 + 10 + 10 + 1
    assert [attrs["value"] for _, attrs in parsed.tags if attrs.get("name") == "x"] == [
        "step",
        "seconds",
        "flops",
    ]
    assert "time waited for input" in [figure["title"] for figure in parsed.figures]


@pytest.mark.slow
def test_a_checkpoint_is_asked_about_every_example_where_that_is_wanted(tmp_path):
    folder = tmp_path / "run"
    assert (
        cli.main(["train", tiny_pictures.__file__, "--folder", str(folder), "--mesh", "data=1", "--quiet"])
        == 0
    )
    parsed = parsed_page(folder, evaluate=True, model="on")
    assert "8 examples, checkpoint of step 20: accuracy 1.0000" in parsed.text
    assert [figure["title"] for figure in parsed.figures[-3:]] == [
        "Confusion matrix",
        "Reliability diagram",
        "ROC curves",
    ]
    assert parsed.figures[-3]["data"][0]["text"] == [["4", ""], ["", "4"]]
    assert parsed.figures[-3]["layout"]["xaxis"]["ticktext"] == ["dark", "light"]
    images = [attrs["alt"] for tag, attrs in parsed.tags if tag == "img"]
    assert (
        len([alt for alt in images if alt.startswith("example ")]) == 8 + 2
    )  # the worst, and the best of each class


def evaluated(folder, **knobs) -> Parsed:
    options = [part for name, value in knobs.items() for part in (f"--{name}", value)]
    assert (
        cli.main(
            ["train", tiny_senses.__file__, "--folder", str(folder), "--mesh", "data=1", "--quiet", *options]
        )
        == 0
    )
    return parsed_page(folder, evaluate=True, model="on")


@pytest.mark.slow
def test_texts_of_any_length_are_shown_with_the_names_of_their_classes(tmp_path):
    parsed = evaluated(tmp_path / "run", sense="text")
    for text in ("<b>good</b> film film film film <b>good</b>", "bad film film bad"):
        assert text in parsed.text
    assert "zeroth" not in parsed.text  # the token 0, which is also what fills a row
    assert "happy" in parsed.text and "sad" in parsed.text
    assert not [tag for tag, _ in parsed.tags if tag == "audio"]


@pytest.mark.slow
def test_sounds_are_in_the_page_as_files_that_hold_their_samples(tmp_path):
    parsed = evaluated(tmp_path / "run", sense="sound")
    sounds = [attrs["src"] for tag, attrs in parsed.tags if tag == "audio"]
    assert len(sounds) == 4 + 2  # the worst, and the best of each class
    with wave.open(io.BytesIO(base64.b64decode(sounds[0].removeprefix("data:audio/wav;base64,")))) as file:
        assert (file.getframerate(), file.getnframes(), file.getnchannels()) == (8_000, 4_000, 1)
        samples = np.frombuffer(file.readframes(4_000), "<i2") / 32767
    assert min(abs(samples - x).max() for x in tiny_senses.tones().arrays["audio"]) < 1e-4


def test_inputs_for_which_a_page_has_no_room_are_left_out_and_long_texts_cut(monkeypatch):
    monkeypatch.setattr(predictions, "ROOM", 700)
    display = Display(lambda x: "a" * int(x))
    shown = predictions.input_files({i: np.array(n) for i, n in enumerate((2_000, 90, 20))}, display)
    assert {i: len(x) for i, x in shown.items()} == {0: 602, 1: 90}


@pytest.mark.parametrize(("content", "what"), [(np.zeros(3), "ndarray"), (b"MThd", "bytes of another file")])
def test_a_display_that_gives_what_a_page_cannot_show_is_named(content, what):
    with pytest.raises(ValueError, match=f"the display: got {what} for an input; expected text"):
        predictions.input_files({0: np.zeros(3)}, Display(lambda x: content))


def test_a_display_that_names_too_few_classes_is_a_sentence():
    with pytest.raises(ValueError, match=r"the display: got names of 1 classes; expected 2"):
        predictions.class_names(Display(classes=lambda: ("one",)), None, 2)


@pytest.mark.slow
def test_a_task_that_says_nothing_of_examples_is_a_sentence(trained, tmp_path):
    text = parsed_page(trained, out=tmp_path / "out.html", evaluate=True, model="on").text
    assert "The run could not be evaluated: got a task without `examine`" in text


@pytest.mark.slow
def test_an_experiment_that_cannot_be_built_is_a_sentence(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "experiment.py").write_text("raise RuntimeError('not here')")
    assert (
        "The model's table is absent, since the experiment could not be built here: not here"
        in parsed_page(run, model="on").text
    )


def test_a_page_without_anything_else_is_made(tmp_path):
    (tmp_path / "knobs.json").write_text("{}")
    assert "Nothing has been evaluated yet." in run_page(read_run(tmp_path), None, {}, None).html()


def test_the_axis_of_a_share_tells_its_ticks_apart(tmp_path):
    run = write_run(tmp_path / "run")
    [waited] = [figure for figure in parsed_page(run).figures if figure["title"] == "time waited for input"]
    assert waited["layout"]["yaxis"]["tickformat"] == "~p"  # of d3: 0.0002 is 0.02%, where .0% says 0%
