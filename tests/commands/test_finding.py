"""A range test of the rate, and the largest batch that fits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmodels import cli, optim
from jaxmodels.analysis import rate_curve
from jaxmodels.commands import find_batch, find_rate
from jaxmodels.console import Console
from jaxmodels.optim.range_test import rising

FILES = Path(__file__).parents[1] / "files"
DIGITS = str(FILES.parents[1] / "experiments" / "digits_mlp.py")
MLP = str(FILES / "tiny_mlp.py")
fast = pytest.mark.fast


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    ("made", "compared"),
    [
        (lambda rate: optim.sgd(rate, momentum=0.9, weight_decay=0.1), ["kernel", "bias"]),
        (lambda rate: optim.adamw(rate, weight_decay=0.1, clip=1.0), ["kernel", "bias"]),
        (
            lambda rate: optim.muon(rate, adam_rate=optim.constant(0.01)),
            ["kernel"],
        ),  # Adam's rate rises with it
    ],
    ids=["sgd", "adamw", "muon"],
)
def test_a_rising_rate_is_a_schedule_that_rises(made, compared):
    low, high, n = 1e-3, 1e-1, 20

    def schedule(count):
        return low * (high / low) ** (count / (n - 1))

    short = optim.warmup_linear(0.5, warmup=3, steps=n // 2)  # 0 from there on
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    ours, theirs = rising(made(short), low, high, n, peak=3), made(schedule)

    def walk(optimizer):
        state, x = optimizer.init(params), params
        for i in range(n):
            grads = jax.tree.map(lambda p, i=i: jnp.sin(p * (i + 1)), x)
            updates, state = optimizer.update(grads, state, x)
            x = optax.apply_updates(x, updates)
        return x, optax.tree.get_all_with_path(state, "learning_rate")[0][1]

    (a, rate), (b, _) = walk(ours), walk(theirs)
    assert float(rate) == pytest.approx(high, rel=1e-5)
    for name in compared:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4)


@fast
def test_the_curve_is_read_where_it_falls_fastest_and_where_it_is_least():
    rates = np.geomspace(1e-5, 10, 200)
    losses = 2 - 1.5 / (1 + np.exp(-3 * np.log(rates / 1e-2))) + np.where(rates > 1, (rates - 1) ** 2, 0)
    found = rate_curve.read_curve(rates, losses)
    assert 5e-3 < found["steepest"] < 5e-2
    assert 0.2 < found["least"] < 3  # before 1, by the smoothing
    flat = rate_curve.read_curve(rates, 2 + 0.1 * np.random.default_rng(0).normal(size=200))
    assert flat["steepest"] is None and flat["least"] is None


def test_the_command_shows_the_curve_writes_it_and_says_what_to_begin_with(capsys, tmp_path):
    ours = ["--updates", "80", "--low", "1e-4", "--high", "1e4", "--lr", "1", "--folder", str(tmp_path)]
    assert cli.main(["find-rate", DIGITS, *ours, "--hidden", "16", "--mesh", "data=1"]) == 0
    out, err = capsys.readouterr()
    assert err.count("not finite") < 5  # it ends soon after
    assert "the smoothed loss as the rate rises" in out and "█" in out
    found = json.loads((tmp_path / "curve.json").read_text())
    assert f"train {DIGITS} --hidden 16 --mesh data=1 --lr {found['steepest']:.2g}\n" in out
    assert 1e-3 < found["steepest"] < found["least"] < 10 and found["peak"] == 1
    page = (tmp_path / "curve.html").read_text()
    [figure] = json.loads(re.search(r'id="figures">(.*?)</script>', page)[1])
    losses, smoothed = figure["data"]
    assert losses["mode"] == "markers" and smoothed["mode"] == "lines"
    assert (n := len(losses["y"])) > 20
    assert losses["y"] == pytest.approx(found["losses"][:n], rel=1e-5)
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [found["steepest"], found["least"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--low", "1", "--high", "0.1"], "expected 0 < low < high"), (["--lr", "0"], "own rate is 0 at every")],
)
def test_rates_that_cannot_be_tried_are_said_in_one_line(words, said, capsys):
    assert cli.main(["find-rate", MLP, *words]) == 2
    assert said in capsys.readouterr().err


def test_an_experiment_of_fewer_steps_than_are_tried_is_read_too(tmp_path, capsys):
    """Its schedule, which is 0 after 24 of the 120 updates, stays at its peak."""
    words = [
        "--updates",
        "120",
        "--low",
        "1e-4",
        "--high",
        "100",
        "--mesh",
        "data=1",
        "--folder",
        str(tmp_path),
        "--json",
    ]
    assert cli.main(["find-rate", MLP, *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rates"]) > 50 and 1e-3 < found["steepest"] < found["least"] < 1


@fast
def test_a_curve_that_is_not_finite_from_the_start_is_no_curve(tmp_path, capsys):
    found = {"rates": [0.1], "losses": [1.0], "smoothed": [1.0], "steepest": None, "least": None, "peak": 0.1}
    rate_curve.show("x.py", found, Console())
    (tmp_path / "curve.html").write_text("of another test")
    assert find_rate.write("x.py", found, tmp_path).name == "curve.json"
    assert "lower --low" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["curve.json"]


@fast
@pytest.mark.parametrize(
    ("each", "limit", "largest"), [(10, 1000, 96), (10, 79, 4), (10, 10, 0), (0.1, 1e4, 96_000)]
)
def test_the_largest_batch_is_found_with_few_programs(each, limit, largest):
    asked = []

    def bytes_of(n):
        asked.append(n)
        return int(20 + each * n)

    found = find_batch.largest(bytes_of, 64, 4, limit)
    assert largest * 0.95 <= found <= (limit - 20) / each if largest else found == 0
    assert len(asked) <= find_batch.TRIES


@fast
def test_data_that_allow_no_more_are_the_limit():
    assert find_batch.largest(lambda n: None if n > 100 else 10 * n, 64, 1, 1e9) in range(90, 101)


def test_the_batch_that_the_command_names_fits_and_a_much_larger_one_does_not(capsys):
    assert cli.main(["find-batch", MLP, "--memory", "0.002", "--mesh", "data=1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0.5 * found["limit"] < found["bytes"] <= find_batch.USED_OF_CPU * found["limit"]
    sizes = {of["batch"]: of["bytes"] for of in found["tried"]}
    assert sizes[found["batch"]] == found["bytes"] and max(sizes.values()) >= found["bytes"]


def test_a_step_that_needs_more_than_was_counted_gives_a_smaller_batch(monkeypatch, capsys):
    made = []
    monkeypatch.setattr(
        find_batch, "_steps", lambda built, *_: made.append(built.train.batch) or len(made) > 1
    )
    assert cli.main(["find-batch", MLP, "--memory", "0.002", "--hidden", "12"]) == 0
    out = capsys.readouterr().out
    assert made[1] < made[0] and f"{made[1]:,} fits" in out
    assert "no more than 56" in out and f"train {MLP} --hidden 12 --batch 56\n" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--knob", "many"], "does not have; expected one of"),
        (["--knob", "hidden"], "with which the batch stays 8"),
        (["--memory", "-1"], "expected GiB above 0"),
        (["--memory", "0.000001"], "got no batch that fits into"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(words, said, capsys):
    assert cli.main(["find-batch", MLP, *words, "--mesh", "data=1"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@fast
def test_a_device_is_asked_first_and_of_a_cpu_the_system_or_its_container(monkeypatch, tmp_path):
    class Card:
        def memory_stats(self):
            return {"bytes_limit": 5}

    assert find_batch.available(Card()) == 5
    assert find_batch.available(jax.devices()[0]) > 1e8
    (tmp_path / "memory.max").write_text("4096\n")
    monkeypatch.setattr(find_batch, "GROUP", str(tmp_path / "memory.max"))
    assert find_batch.available(jax.devices()[0], 2) == 2048
