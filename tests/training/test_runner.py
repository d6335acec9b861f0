"""The loop: dispatches, resume, meshes, evaluation, and what a run leaves behind."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest
from files import bare_jax, tiny_mlp
from hypothesis import given
from hypothesis import strategies as st
from instances import first
from states import leaves, same_bits

import jaxmodels
from jaxmodels import Evaluation, Experiment, Options, optim, train
from jaxmodels.console import Console
from jaxmodels.data.bucketing import Buckets, TextPipeline, join
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.textcnn import TextCNN
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.folder import Folder
from jaxmodels.state import abstract_state, initial
from jaxmodels.step import make_step as usual_step
from jaxmodels.tasks.classify import classify
from jaxmodels.training import dispatch_size, programs, runner
from jaxmodels.training.dispatch_size import SHORT, choose_k
from jaxmodels.training.schedule import segments

fast = pytest.mark.fast

ONE = "data=1"


def mlp(**knobs: Any) -> Experiment:
    return tiny_mlp.build(tiny_mlp.Config(**knobs))


def bare(**knobs: Any) -> Experiment:
    return bare_jax.build(bare_jax.Config(**knobs))


def run(experiment: Experiment, folder: Path | None = None, **options: Any) -> runner.Result:
    """The run as `train` would make it, on one device where no mesh is given."""
    options = {"mesh": ONE, **options}
    if folder is None:
        return runner.run(experiment, Options(**options))
    opened = Folder(folder, keep=options.get("keep", 2))
    try:
        opened.open(RunDefinition("", {}, {}))
        return runner.run(experiment, Options(**options), folder=opened)
    finally:
        opened.close()


def logged(experiment: Experiment, **options: Any) -> tuple[runner.Result, list[tuple[int, dict]]]:
    """The result, and everything that a tracker was given."""
    got: list[tuple[int, dict]] = []
    options = Options(**{"mesh": ONE, **options})
    return runner.run(
        experiment, options, trackers=(lambda step, values: got.append((step, dict(values))),)
    ), got


def close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    for name, x in leaves(a).items():
        np.testing.assert_allclose(x, leaves(b)[name], rtol=tolerance, atol=tolerance, err_msg=name)


def lines(folder: Path) -> list[dict]:
    """metrics.jsonl, without the clock."""
    parsed = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.startswith("seconds")} for line in parsed
    ]


# Dispatches


@st.composite
def schedules(draw):
    steps = draw(st.integers(1, 60))
    every = draw(st.lists(st.integers(1, 25), max_size=3))
    return steps, draw(st.integers(1, 12)), tuple(every)


@fast
@given(schedules())
def test_the_dispatches_from_any_boundary_on_are_those_of_the_whole_run(schedule):
    steps, k, every = schedule
    whole = list(segments(0, steps, k, every))
    for i, (start, _) in enumerate(whole):
        assert list(segments(start, steps, k, every)) == whole[i:]


@fast
@given(schedules())
def test_every_step_is_in_one_dispatch_which_has_k_steps_or_one_and_crosses_no_event(schedule):
    steps, k, every = schedule
    whole = list(segments(0, steps, k, every))
    assert [n for start, stop in whole for n in range(start, stop)] == list(range(steps))
    assert {stop - start for start, stop in whole} <= {1, k}
    assert not [(a, b, e) for a, b in whole for e in every if any(n % e == 0 for n in range(a + 1, b))]


@fast
def test_where_k_divides_the_distance_of_events_no_step_is_alone():
    assert {stop - start for start, stop in segments(0, 120, 10, (20, 30))} == {10}


@fast
@pytest.mark.parametrize(
    ("why", "step_s", "batch_bytes", "events", "k"),
    [
        ("a long step is worth a dispatch of its own", SHORT, 0, (), 1),
        ("short ones fill 50 ms", 0.001, 0, (), 50),
        ("a divisor of the distance between events is preferred", 0.001, 0, (60, 90), 30),
        ("but not one that is far too small", 0.001, 0, (97,), 50),
        ("batches of a dispatch stay within their bytes", 0.0001, 8 << 20, (), 8),
        ("one batch beyond them goes alone", 0.0001, 1 << 30, (), 1),
        ("there is an upper limit", 1e-9, 1, (), 1000),
    ],
)
def test_the_number_of_steps_in_a_dispatch(why, step_s, batch_bytes, events, k):
    assert choose_k(step_s, batch_bytes, events) == k, why


@fast
@pytest.mark.parametrize(("many", "k"), [(0.040, 50), (0.060, 1)], ids=["faster", "slower"])
def test_many_steps_go_into_one_dispatch_only_where_that_is_faster(monkeypatch, many, k):
    monkeypatch.setattr(dispatch_size, "seconds", lambda _, k, state: 0.001 if k == 1 else many)
    compiled = programs.Programs(bare(), Options(), None, None, None, None)
    assert dispatch_size.measure_k(compiled, None, ()) == k


@pytest.mark.parametrize("resident", [pytest.param("on", marks=fast), "off"])
def test_k_steps_in_one_dispatch_are_k_single_steps(resident):
    single, wanted = logged(bare(steps=9), steps_per_dispatch=1, resident="off")
    scanned, got = logged(bare(steps=9), steps_per_dispatch=4, resident=resident)
    for (n, a), (m, b) in zip(wanted, got, strict=True):
        assert n == m
        for exact in ("train/examples", "train/keys"):
            assert a.get(exact) == b.get(exact), (n, exact)
        for name in a.keys() - {"seconds", "seconds_waited"}:
            assert a[name] == pytest.approx(b[name], rel=1e-5), (n, name)
    assert len({values["train/keys"] for _, values in wanted[:9]}) == 9
    assert len({values["train/learning_rate"] for _, values in wanted[:9]}) == 9
    close(single.state, scanned.state)


@pytest.mark.slow
@fast
def test_the_chosen_number_of_steps_is_written_down_and_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "WORTH", 1)
    monkeypatch.setattr(runner, "measure_k", lambda *_: 3)
    with pytest.raises(runner.Interrupted):
        run(bare(steps=9), tmp_path, stop_at=3)
    assert json.loads((tmp_path / "environment.json").read_text())["steps_per_dispatch"] == 3
    monkeypatch.setattr(runner, "measure_k", pytest.fail)
    assert run(bare(steps=9), tmp_path).summary["steps_per_dispatch"] == 3


# Resume


@pytest.fixture(scope="module", params=first(1, [2, 1]), ids="steps_per_dispatch={}".format)
def whole(request, tmp_path_factory):
    """A run with checkpoints that cut log intervals (of 4) and lie between evaluations (every 6).

    K steps in a dispatch.
    """
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = run(mlp(save_every=5), folder, keep=99, steps_per_dispatch=request.param)
    assert {5, 10, 15, 20, 24} <= set(Checkpoints(folder / "checkpoints").steps())
    return result, folder, request.param


def test_resume_from_every_checkpoint_gives_the_same_bits_and_the_same_log(whole, tmp_path):
    result, folder, k = whole
    for n in Checkpoints(folder / "checkpoints").steps():
        again = tmp_path / str(n)
        shutil.copytree(folder, again)
        for later in Checkpoints(again / "checkpoints").steps():
            if later > n:
                shutil.rmtree(again / "checkpoints" / str(later))
        resumed = run(mlp(save_every=5), again, keep=99)
        same_bits(resumed.state, result.state)
        assert resumed.metrics == result.metrics
        assert lines(again) == lines(folder)
        assert resumed.summary["steps_per_dispatch"] == k


@pytest.mark.parametrize("whole", [1, pytest.param(2, marks=fast)], indirect=True)
def test_a_run_stopped_anywhere_goes_on_with_the_same_bits(whole, tmp_path):
    result, folder, k = whole
    for n in (3, 7, 13):
        with pytest.raises(runner.Interrupted):
            run(mlp(save_every=5), tmp_path, keep=99, steps_per_dispatch=k, stop_at=n)
    same_bits(run(mlp(save_every=5), tmp_path, keep=99).state, result.state)
    assert lines(tmp_path) == lines(folder)


@pytest.mark.slow
@fast
def test_checkpoints_keep_the_distance_that_they_had(tmp_path):
    with pytest.raises(runner.Interrupted):
        run(bare(steps=9), tmp_path, checkpoint_every=2, stop_at=4, keep=9)
    run(bare(steps=9), tmp_path, keep=9)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [2, 4, 6, 8, 9]


def test_a_run_goes_on_on_another_mesh_and_back_to_rounding(tmp_path):
    wanted = run(mlp())
    for n, mesh in ((6, "data=8"), (12, ONE), (18, "data=2,fsdp=2"), (0, "data=8")):
        try:
            result = run(mlp(), tmp_path, mesh=mesh, stop_at=n)
        except runner.Interrupted as stop:
            assert stop.step == n
    close(result.state, wanted.state)
    assert result.metrics == pytest.approx(wanted.metrics, rel=1e-5)


def test_a_finished_run_is_left_as_it_is(tmp_path):
    first = run(bare(), tmp_path)
    before = {name: (tmp_path / name).read_text() for name in ("metrics.jsonl", "result.json")}
    again = run(bare(), tmp_path)
    assert {name: (tmp_path / name).read_text() for name in before} == before
    assert again.metrics == first.metrics
    same_bits(again.state, first.state)


@pytest.mark.slow
@fast
def test_a_run_killed_before_it_wrote_its_result_writes_it_when_started_again(tmp_path):
    metrics = run(bare(), tmp_path).metrics
    (tmp_path / "result.json").unlink()
    run(bare(), tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["exit"], result["metrics"]) == ("complete", metrics)


@pytest.mark.slow
@fast
def test_a_run_that_was_stopped_says_so_until_it_has_ended(tmp_path):
    with pytest.raises(runner.Interrupted):
        run(bare(), tmp_path, stop_at=4)
    assert json.loads((tmp_path / "result.json").read_text())["exit"] == "--stop-at"
    run(bare(), tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["exit"] == "complete"


# Devices, precision, accumulation


@pytest.mark.parametrize("remainder", ["wrap", "pad"])
@pytest.mark.parametrize("compiled", ["jit", "pmap"])
def test_eight_devices_give_the_parameters_of_one(compiled, remainder):
    """With 19 examples in batches of 16, every second batch has padding on seven of eight devices."""
    experiment = bare(steps=5, batch=16, n=19, remainder=remainder)
    one, wanted = logged(experiment)
    eight, got = logged(experiment, mesh="data=8", compile=compiled)
    close(eight.state, one.state)
    for name in ("train/examples", "train/keys"):
        assert [values.get(name) for _, values in got] == [values.get(name) for _, values in wanted]


@pytest.mark.parametrize(
    "options",
    [
        {"mesh": "data=2,fsdp=4"},
        {"mesh": "fsdp=2", "steps_per_dispatch": 2, "resident": "on"},
        {"mesh": "data=4", "steps_per_dispatch": 2, "resident": "on"},
        {"mesh": "data=4", "steps_per_dispatch": 2, "resident": "on", "compile": "pmap"},
        {"mesh": "data=2", "accumulate": 2, "compile": "pmap"},
    ],
    ids=lambda options: ",".join(f"{name}={value}" for name, value in options.items()),
)
def test_how_a_run_happens_changes_its_result_by_rounding_alone(options):
    close(run(bare(steps=5), **options).state, run(bare(steps=5)).state)


def test_micro_batches_give_the_update_of_the_whole_batch():
    close(run(bare(steps=5), accumulate=4).state, run(bare(steps=5)).state)


def test_in_bfloat16_the_parameters_stay_float32_and_learn():
    result = run(mlp(eval_every=0, save_every=0), precision="bfloat16")
    exact = run(mlp(eval_every=0, save_every=0))
    assert {x.dtype for x in jax.tree.leaves(result.state.params)} == {np.dtype(np.float32)}
    assert result.metrics != exact.metrics
    assert result.metrics == pytest.approx(exact.metrics, rel=0.05)


@fast
def test_pmap_refuses_a_mesh_that_splits_more_than_the_batch():
    with pytest.raises(
        ValueError, match="--compile pmap: got the mesh data=2,fsdp=2; expected the axis data alone"
    ):
        run(bare(), mesh="data=2,fsdp=2", compile="pmap")


@fast
def test_zero_micro_batches_are_refused():
    with pytest.raises(ValueError, match="--accumulate: got 0; expected"):
        run(bare(), accumulate=0)


@fast
def test_a_data_set_that_the_host_changes_cannot_lie_on_the_device():
    data = ArrayPipeline(bare_jax.arrays(52), batch=8, augment=(lambda batch, keys_B: batch,))
    with pytest.raises(ValueError, match="--resident on: got a data set that is changed on the host"):
        run(dataclasses.replace(bare(), train=data), resident="on")


# Batches of different lengths


class Uncut(Buckets):
    """The same batches, all as long as the longest."""

    def rows(self, step, start, stop):
        return self.data.gather(self.data.arrays, self.indices(step, start, stop))


def texts(kind: type[Buckets] = Buckets, steps: int = 12) -> Experiment:
    random = np.random.default_rng(0)
    words = [random.integers(1, 9, n).tolist() for n in random.integers(1, 13, 90)]
    arrays = {**join(words), "label": np.array([sum(text) % 2 for text in words])}
    data = [TextPipeline(arrays, length=12, batch=8, seed=seed) for seed in (0, None)]
    train_data, test = (kind(one, lengths=(3, 6, 9, 12), pool=6) for one in data)
    task = classify(TextCNN(9, 2, width=4, windows=(2,), maps=3, dropout=0.3), inputs="inputs")
    return Experiment(
        task=task, optimizer=optim.adam(0.01), train=train_data, steps=steps, evals={"test": test}
    )


@pytest.mark.parametrize(
    "options", first(1, [{"mesh": "data=4"}, {}, {"mesh": "data=2", "compile": "pmap"}]), ids=str
)
def test_short_batches_give_the_parameters_of_padded_ones(options):
    short, padded = run(texts(), **options), run(texts(Uncut))
    close(short.state, padded.state)
    assert short.metrics == pytest.approx(padded.metrics, rel=1e-5)


def test_the_step_is_compiled_once_for_each_length_without_a_warning(capsys, monkeypatch):
    again = []
    compile_again = programs.Programs._compile_again

    def counted(self, jitted, arguments, why):
        again.append(why)
        return compile_again(self, jitted, arguments, why)

    monkeypatch.setattr(programs.Programs, "_compile_again", counted)
    console = Console()
    runner.run(texts(steps=24), Options(mesh=ONE), console=console)
    assert len(again) == 3 and all("batch['inputs'] was int32[8, " in why for why in again)
    assert "warning" not in capsys.readouterr().err


def test_what_is_compiled_for_another_length_reads_as_meant(monkeypatch):
    said = []
    busy = Console.busy
    monkeypatch.setattr(
        Console, "busy", lambda self, what, **more: said.append(what) or busy(self, what, **more)
    )
    runner.run(texts(steps=12), Options(mesh=ONE), console=Console(quiet=True))
    longer = [what for what in said if "another length" in what]
    assert longer and all(
        what.startswith("compiling the step for batches of another length: int32[8, ") for what in longer
    )
    assert not any("again" in what or "changed" in what for what in said)


def test_a_run_over_buckets_goes_on_with_the_same_bits(tmp_path):
    whole = run(texts())
    with pytest.raises(runner.Interrupted):
        run(texts(), tmp_path, stop_at=5)
    same_bits(run(texts(), tmp_path).state, whole.state)


@fast
def test_batches_of_different_lengths_do_not_share_a_dispatch():
    with pytest.raises(
        ValueError, match="--steps-per-dispatch: got 4 for batches of different lengths; expected 1"
    ):
        run(texts(), steps_per_dispatch=4)


# Evaluation


def averaged(experiment: Experiment, optimizer: Any) -> tuple[float, float, float]:
    """Test loss that the run gives, that of the averages in its state, and that of the last parameters."""
    result = run(dataclasses.replace(experiment, optimizer=optimizer))
    test = experiment.evals["test"].arrays

    def loss(params):
        return float(
            np.mean((test["x"] @ np.asarray(params["W"]) + np.asarray(params["b"]) - test["y"]) ** 2)
        )

    average = optimizer.average(result.state.opt_state, result.state.params)
    return result.metrics["test/loss"], loss(average), loss(result.state.params)


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(optim.with_ema(optim.sgd(0.1), 0.9), id="ema", marks=fast),
        pytest.param(optim.schedule_free_sgd(0.1), id="sf"),
    ],
)
def test_an_averaging_optimizer_is_evaluated_with_its_averages(optimizer):
    said, of_averages, of_the_last = averaged(bare(), optimizer)
    assert said == pytest.approx(of_averages, rel=1e-5)
    assert said != pytest.approx(of_the_last, rel=1e-3)


@pytest.mark.parametrize("mesh", [ONE, pytest.param("data=8", marks=fast)])
def test_a_score_sees_every_example_once_and_no_padding(mesh):
    seen: dict[str, Any] = {}

    def score(predictions, batches):
        seen.update(predictions=np.concatenate(predictions), id=np.concatenate([b["id"] for b in batches]))
        return {
            "worst": float(np.max(np.abs(seen["predictions"] - np.concatenate([b["y"] for b in batches]))))
        }

    data = ArrayPipeline(bare_jax.arrays(13, seed=1), batch=8)

    def predict(params, extra, batch):
        return batch["x"] @ params["W"] + params["b"]

    result = run(dataclasses.replace(bare(), evals={"test": Evaluation(data, predict, score)}), mesh=mesh)
    assert seen["id"].tolist() == list(range(13))
    params = jax.device_get(result.state.params)
    np.testing.assert_allclose(
        seen["predictions"], data.arrays["x"] @ params["W"] + params["b"], rtol=1e-5, atol=1e-5
    )
    error = seen["predictions"] - data.arrays["y"]
    assert result.metrics["test/worst"] == pytest.approx(np.abs(error).max(), rel=1e-6)
    assert result.metrics["test/loss"] == pytest.approx(np.mean(error**2), rel=1e-4)


def test_evaluations_do_not_depend_on_the_batch_that_they_are_computed_in():
    results = [
        run(
            dataclasses.replace(
                bare(), evals={"test": ArrayPipeline(bare_jax.arrays(13, seed=1), batch=batch)}
            )
        ).metrics
        for batch in (1, 8, 13, 64)
    ]
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-6)


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    "save_every", [0, 2, 3], ids=["at the end", "with each evaluation", "between evaluations"]
)
def test_the_best_checkpoint_stays(tmp_path, save_every):
    """The evaluations at 2, 4, ..., 10 say 3, 1, 4, 1, 5: the first of the best is kept, and found again."""
    said = iter([3.0, 1.0, 4.0, 1.0, 5.0])
    evaluation = Evaluation(
        ArrayPipeline(bare_jax.arrays(13), batch=8), None, lambda *_: {"score": next(said)}
    )
    experiment = bare(eval_every=2, save_every=save_every)
    experiment = dataclasses.replace(experiment, evals={"test": evaluation}, best=("test/score", min))
    run(experiment, tmp_path, keep=1)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.best() == 4
    assert checkpoints.steps() == [4, 10]
    like, _ = abstract_state(
        experiment, jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    )
    assert int(checkpoints.restore(like, 4)[1].step) == 4


@pytest.mark.slow
@fast
def test_the_best_so_far_is_remembered_over_a_stop(tmp_path):
    said = iter([3.0, 1.0, 4.0, 2.0, 5.0])
    evaluation = Evaluation(
        ArrayPipeline(bare_jax.arrays(13), batch=8), None, lambda *_: {"score": next(said)}
    )
    experiment = dataclasses.replace(bare(eval_every=2), evals={"test": evaluation}, best=("test/score", min))
    with pytest.raises(runner.Interrupted):
        run(experiment, tmp_path, keep=1, stop_at=5)
    run(experiment, tmp_path, keep=1)
    assert Checkpoints(tmp_path / "checkpoints").best() == 4


@fast
def test_a_best_that_no_evaluation_gives_is_said_with_those_that_there_are():
    with pytest.raises(
        ValueError, match="best: got the metric 'test/acuracy'; expected one of the evaluations', test/loss"
    ):
        run(dataclasses.replace(bare(), best=("test/acuracy", max)))


@pytest.mark.slow
@fast
def test_baselines_stand_beside_the_result(tmp_path):
    result = run(mlp(steps=6), tmp_path)
    wanted = {"mean of the targets": {"test/loss": float(np.var(tiny_mlp.arrays("test")["target"]))}}
    assert result.summary["baselines"] == wanted
    assert json.loads((tmp_path / "result.json").read_text())["baselines"] == wanted


@pytest.mark.slow
@fast
def test_evaluate_gives_the_final_metrics_of_the_run_exactly(tmp_path):
    result = train(tiny_mlp.__file__, folder=str(tmp_path), steps=6, mesh=ONE)
    assert jaxmodels.evaluate(tmp_path, mesh=ONE) == result.metrics


# What a run leaves behind


@pytest.mark.slow
@fast
def test_a_model_in_bare_jax_learns_by_three_functions():
    result = run(bare(steps=60))
    np.testing.assert_allclose(result.state.params["W"], np.arange(bare_jax.F), atol=0.1)
    assert result.metrics["test/loss"] < 0.02


def test_an_experiment_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(bare(eval_every=2, save_every=2), mesh=ONE).metrics["test/loss"] > 0
    assert list(tmp_path.iterdir()) == []


def test_without_evaluations_a_run_has_no_metrics_and_its_log_no_empty_line(tmp_path):
    result = run(dataclasses.replace(bare(steps=3), evals={}), tmp_path)
    run(dataclasses.replace(bare(steps=3), evals={}), tmp_path)
    assert result.metrics == {}
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


@pytest.mark.slow
@fast
def test_an_experiment_made_in_python_can_be_trained_in_a_folder_and_gone_on_with(tmp_path):
    with pytest.raises(runner.Interrupted):
        train(bare(save_every=2), folder=str(tmp_path), mesh=ONE, stop_at=5)
    same_bits(train(bare(save_every=2), folder=str(tmp_path), mesh=ONE).state, run(bare(save_every=2)).state)
    with pytest.raises(ValueError, match=r"holds another experiment:\n  steps: 10 there, 8 here"):
        train(bare(save_every=2, steps=8), folder=str(tmp_path), mesh=ONE)


@pytest.mark.slow
@fast
def test_metrics_go_to_tensorboard_too(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(bare(steps=3), tmp_path, track=("tensorboard",))
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    wanted = [
        (line["step"], np.float32(line["train/loss"])) for line in lines(tmp_path) if "train/loss" in line
    ]
    assert [(e.step, np.float32(e.value)) for e in events.Scalars("train/loss")] == wanted


@pytest.mark.slow
@fast
def test_a_tracker_that_fails_does_not_stop_the_run():
    def broken(step, values):
        raise ConnectionError("the server is gone")

    got: list[int] = []
    result = runner.run(
        bare(steps=3), Options(mesh=ONE), trackers=(broken, lambda step, values: got.append(step))
    )
    assert result.metrics["test/loss"] > 0
    assert got == [1, 2, 3, 3]


@fast
def test_a_record_elsewhere_needs_a_folder():
    with pytest.raises(ValueError, match="track: got tensorboard without a folder; expected one"):
        runner.run(bare(steps=3), Options(mesh=ONE, track=("tensorboard",)))


@pytest.mark.slow
@fast
def test_the_environment_of_a_run_is_written_down(tmp_path):
    run(bare(steps=3), tmp_path, resident="off")
    said = json.loads((tmp_path / "environment.json").read_text())
    assert said["versions"]["jax"] == jax.__version__
    assert said["options"]["resident"] == "off"
    assert said["devices"]["platform"] == jax.devices()[0].platform


# Pictures, and a step of one's own


def test_an_evaluations_images_are_in_the_runs_folder(tmp_path):
    from files import tiny_pictures
    from PIL import Image

    train(tiny_pictures.__file__, folder=str(tmp_path / "run"), mesh="data=1")
    assert sorted(path.name for path in (tmp_path / "run" / "pictures").iterdir()) == [
        "test-first-10.png",
        "test-first-20.png",
    ]
    with Image.open(tmp_path / "run" / "pictures" / "test-first-20.png") as image:
        assert (image.size, image.mode) == ((8, 8), "L")
        np.testing.assert_array_equal(
            np.asarray(image), (255 * tiny_pictures.arrays(8)["image"][0, ..., 0]).astype(np.uint8)
        )


def test_an_experiment_may_bring_its_own_step():
    """One that moves nothing but counts: the parameters stay where they began."""

    def make_step(task, optimizer, **options):
        usual = usual_step(task, optimizer, **options)

        def still(state, batch):
            new, metrics = usual(state, batch)
            return new._replace(params=state.params), metrics

        return still

    experiment = tiny_mlp.build(tiny_mlp.Config(steps=4))
    got = train(dataclasses.replace(experiment, make_step=make_step), mesh="data=1").state
    assert int(got.step) == 4
    first = jax.jit(lambda: initial(experiment))()
    chex.assert_trees_all_equal(got.params, first.params)
