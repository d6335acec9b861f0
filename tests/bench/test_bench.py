"""jaxmodels bench: what a record says, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from jaxmodels import cli
from jaxmodels.analysis.devices import DEVICES
from jaxmodels.bench import measure, timing
from jaxmodels.bench.compare import compare, ratio
from jaxmodels.bench.peaks import datasheet
from jaxmodels.bench.suite import SIZES, SUITE, VERSION
from jaxmodels.parallel.mesh import make_mesh

INSTANT = timing.Effort(rounds=2, seconds=0.0, warmup=1)


def record(path, **times):
    """A record with these rounds of each case."""
    results = [
        {
            "case": name,
            "size": "tiny",
            "program": "training",
            "precision": "float32",
            "round_medians_s": rounds,
        }
        for name, rounds in times.items()
    ]
    made = {"suite": VERSION, "devices": {"count": 1, "kind": "cpu"}, "results": results}
    path.write_text(json.dumps(made))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "sweep"])
def test_a_result_says_what_each_number_is_of(name):
    results = measure.measure(name, "tiny", make_mesh("data=1"), "jit", "float32", INSTANT)
    assert [r["program"] for r in results] == (["training"] if name == "sweep" else ["training", "inference"])
    for result in results:
        assert result["p5_ms"] <= result["median_ms"] <= result["p95_ms"]
        assert len(result["round_medians_s"]) == 2
        rate = result[f"{result['unit']}_per_s"]
        assert rate == pytest.approx(1e3 * result["units_per_call"] / result["median_ms"])
        assert result["compile_cold_s"] > 0 and result["compile_cached_s"] > 0
        assert result["planned_bytes_per_device"] > 0 and result["peak_bytes"]["bytes"] > 0
        for share in ("mfu_of_measured_product", "bandwidth_of_measured_copy"):
            assert (share in result) != (share in result["refused"])
            assert 0 <= result.get(share, 0) <= 1
    if (
        name == "mlp"
    ):  # 2 x (16 x 32 + 32 x 32 + 32 x 10) products of 32 rows; the first layer's input has no gradient
        forward = 2 * 32 * (16 * 32 + 32 * 32 + 32 * 10)
        assert results[0]["model_flops_per_call"] == 3 * forward - 2 * 32 * 16 * 32
        assert results[1]["model_flops_per_call"] == forward
        assert 0 <= results[0]["input_wait_share"] <= 1


@pytest.mark.slow
def test_pmap_and_several_devices_are_measured_too():
    [training, inference] = measure.measure("mlp", "tiny", make_mesh("data=4"), "pmap", "bfloat16", INSTANT)
    assert training["devices"] == inference["devices"] == 4 and training["compile"] == "pmap"


def test_more_than_a_peak_is_refused_with_the_reason():
    result = {"refused": {}}
    measure.put_share(result, "mfu", [0.4, 0.5, 0.6])
    measure.put_share(result, "bandwidth", [0.9, 1.1, 1.2])
    assert result["mfu"] == 0.5 and "bandwidth" not in result
    assert "110% of the peak" in result["refused"]["bandwidth"]


def test_every_case_has_every_size_and_says_which_it_is():
    for case in SUITE.values():
        assert set(case) == set(SIZES)
    abouts = [SUITE[name]["tiny"]().about for name in SUITE]
    assert len(set(abouts)) == len(abouts)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("NVIDIA H200", "h200"), ("NVIDIA GB200", "gb200"), ("NVIDIA A100-SXM4-80GB", "a100"),
     ("TPU v5 lite", "v5e"),
     ("TPU v5", "v5p"), ("TPU v6 lite", "v6e"), ("TPU v4", "v4"), ("cpu", None)],
)  # fmt: skip
def test_the_data_sheet_of_a_device_is_found_by_jaxs_name(kind, name):
    assert datasheet(kind) is (DEVICES[name] if name else None)


def test_the_interval_of_a_ratio_is_that_of_a_welch_test_of_logarithms():
    random = np.random.default_rng(0)
    a, b = np.exp(random.normal(0, 0.1, 9)), np.exp(random.normal(0.3, 0.2, 12))
    middle, low, high = ratio({"round_medians_s": a}, {"round_medians_s": b})
    expected = stats.ttest_ind(np.log(b), np.log(a), equal_var=False).confidence_interval(0.95)
    assert math.log(low) == pytest.approx(expected.low) and math.log(high) == pytest.approx(expected.high)
    assert middle == pytest.approx(np.exp(np.log(b).mean() - np.log(a).mean()))


def test_a_regression_beyond_the_noise_ends_with_status_1(tmp_path, capsys):
    before = record(tmp_path / "a.json", mlp=[1.0, 1.01, 0.99], cnn=[1.0, 1.2, 0.8])
    slower = record(tmp_path / "b.json", mlp=[1.1, 1.11, 1.09], cnn=[1.0, 1.2, 0.8])
    noisy = record(tmp_path / "c.json", mlp=[1.0, 1.01, 1.0], cnn=[1.1, 1.3, 0.9])
    assert cli.main(["bench", "compare", before, noisy]) == 0
    assert "slower" not in capsys.readouterr().out
    assert cli.main(["bench", "compare", before, slower]) == 1
    out = capsys.readouterr().out
    assert "1.100" in out and out.count("slower") == 1
    assert cli.main(["bench", "compare", before, slower, "--tolerance", "0.2"]) == 0


def test_the_page_of_a_comparison_has_its_ratios_and_loads_nothing(tmp_path, capsys):
    pytest.importorskip("plotly", reason="needs plotly")
    a = record(tmp_path / "a.json", mlp=[1.0, 1.01, 0.99])
    b = record(tmp_path / "b<i>.json", mlp=[0.5, 0.51, 0.49])
    assert cli.main(["bench", "compare", a, b, "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "mlp (tiny) training" in page and "2.000" in page and "<i>" not in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gtp2"], "got 'gtp2', which is no case"),
        (["compare", "a.json"], "got 1 records; expected two or more"),
        (["compare", "a.json", "nowhere.json"], "nowhere.json"),
        (["compare", "a.json", "old.json"], "got version '0' of the suite"),
        (["compare", "a.json", "other.json"], "without a common program"),
        (["compare", "a.json", "empty.json"], "got no times of rounds"),
        (["--devices", "-1"], "got -1"),
    ],
)
def test_bad_input_is_answered_in_one_message(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "a.json", mlp=[1.0])
    record(tmp_path / "other.json", cnn=[1.0])
    record(tmp_path / "empty.json", mlp=[])
    (tmp_path / "old.json").write_text('{"suite": "0", "results": []}')
    assert cli.main(["bench", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err


@pytest.mark.slow
def test_the_command_measures_a_case_in_a_process_of_its_own(tmp_path, capsys):
    path = tmp_path / "record.json"
    assert cli.main(["bench", "mlp", "--quick", "--devices", "1", "--json", str(path)]) == 0
    assert "mlp tiny training: MLP 16-32-32-10" in capsys.readouterr().out
    [training, inference] = json.loads(path.read_text())["results"]
    assert (training["program"], inference["program"]) == ("training", "inference")
    assert cli.main(["bench", "compare", str(path), str(path)]) == 0


def test_records_are_compared_program_by_program(tmp_path):
    record(tmp_path / "a.json", mlp=[1.0, 2.0], cnn=[1.0, 1.0])
    record(tmp_path / "b.json", cnn=[3.0, 3.0])
    [one] = compare([json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json")])
    assert (one.title, one.ratio, one.low, one.high) == ("cnn (tiny) training", *[pytest.approx(3)] * 3)
