"""The command line: what each command prints, its exit status, and one message for bad input."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from files import bare_jax, faulty, tiny_gpt, tiny_mlp

import jaxmodels
from jaxmodels import __version__, cli
from jaxmodels.runs.checkpoint import Checkpoints

fast = pytest.mark.fast

ONE = "data=1"
MLP, GPT, FAULTY, BARE = (module.__file__ for module in (tiny_mlp, tiny_gpt, faulty, bare_jax))
HEAVY = ("jax", "flax", "optax", "orbax", "grain", "numpy", "tensorboardX")


def main(capsys, *words: Any) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a command, which must never answer with a traceback."""
    try:
        status = cli.main([str(word) for word in words])
    except SystemExit as stop:  # tyro's way out of help and mistakes
        status = stop.code or 0
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def words(text: str) -> str:
    """Text without the boxes and line breaks that tyro draws."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture(scope="module")
def mlp(tmp_path_factory) -> Path:
    """A finished run of the tiny MLP; not to be changed."""
    folder = tmp_path_factory.mktemp("mlp") / "run"
    assert cli.main(["train", MLP, "--folder", str(folder), "--mesh", ONE, "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def gpt(tmp_path_factory) -> Path:
    """A finished run of the tiny GPT; not to be changed."""
    folder = tmp_path_factory.mktemp("gpt") / "run"
    assert cli.main(["train", GPT, "--folder", str(folder), "--mesh", ONE, "--quiet"]) == 0
    return folder


# Help


def imported(*argv: str) -> set[str]:
    """Which heavy modules a command imports."""
    program = (
        "import sys; from jaxmodels.cli import main\n"
        f"try: main({list(argv)!r})\nexcept SystemExit: pass\n"
        f"print(*[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr
    return set(said.splitlines()[-1].split())


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["trian"], ["train", "--help"], ["evaluate", "--help"]], ids=" ".join
)
def test_help_imports_nothing_heavy(argv):
    assert imported(*argv) == set()


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["generate", "--help"]], ids=" ".join)
def test_help_is_there_in_half_a_second(argv):
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "jaxmodels", *argv], capture_output=True, check=True)
        after = os.times()  # of the processor: a busy machine makes it later, not slower
        times.append(sum(after[2:4]) - sum(before[2:4]))
    assert min(times) < 0.5


@fast
def test_help_names_every_command_and_every_status(capsys):
    status, out, _ = main(capsys, "--help")
    assert status == 0
    commands = (
        "train FILE",
        "launch FILE",
        "template slurm|jobset|tpu FILE",
        "evaluate RUN",
        "predict RUN",
        "generate RUN",
        "transcribe FOLDER FILE…",
        "speak VOICE TEXT",
        "report RUN",
    )
    for command in (*commands, "verify-resume FILE"):
        assert command in out
    failures = (
        "1 failed",
        "2 bad input",
        "3 the loss was not finite",
        "75 no step",
        "76 another",
        "130",
        "143",
    )
    for number in ("0 done", *failures):
        assert number in out


@fast
@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "transcribe", "speak", "report"])
def test_every_command_has_help(capsys, command):
    status, out, _ = main(capsys, command, "--help")
    assert status == 0
    assert "--json" in out


@fast
def test_the_help_of_a_file_lists_its_knobs_with_types_and_defaults(capsys):
    status, out, _ = main(capsys, "train", MLP, "--help")
    assert status == 0
    assert "A 10-10-1 MLP on made-up data" in out
    assert "--save-every INT (default: 6)" in words(out)
    assert "--on-nan {stop,skip}" in words(out)


@fast
def test_without_a_command_it_prints_help_and_fails(capsys):
    status, out, _ = main(capsys)
    assert (status, out) == (2, cli.help_text())


@fast
def test_it_tells_its_version(capsys):
    assert main(capsys, "--version")[:2] == (0, f"jaxmodels {__version__}\n")


# Bad input


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian"], "there is no command 'trian'; did you mean train?"),
        (
            ["zzz"],
            "there is no command 'zzz'; choose from train, sweep, plan, launch, template, evaluate, "
            "predict, generate, transcribe, speak, recommend, serve, report, watch, find-rate, find-batch, "
            "list, doctor, tokenize, convert, export, verify-resume, bench",
        ),
        (["train"], "jaxmodels train needs FILE first; see jaxmodels train --help"),
        (["train", "--lr", "1"], "jaxmodels train needs FILE first"),
        (["evaluate"], "jaxmodels evaluate needs RUN first"),
        (["train", MLP.replace("mlp", "mpl")], f"nearest: {MLP}"),
        (["train", MLP, "--stesp", "3"], "Unrecognized options: --stesp, 3"),
        (["train", MLP, "--stesp", "3"], "Perhaps you meant: --steps INT"),
        (
            ["train", MLP, "--steps", "ten"],
            "Error parsing --steps: invalid literal for int() with base 10: 'ten'",
        ),
        (["train", MLP, "--precision", "float16"], "invalid choice 'float16' for argument '--precision'"),
        (
            ["train", MLP, "--mesh", "data=16"],
            "mesh data=16: got 8 devices of kind cpu; expected 16. Choose sizes whose",
        ),
        (["train", MLP, "--mesh", "data=16"], "simulate them: JAX_NUM_CPU_DEVICES=16"),
        (
            ["train", MLP, "--mesh", "data:8"],
            "mesh: got 'data:8', in which 'data:8' is no axis with its size; expected axes with sizes. "
            "Write data=8 or data=4,fsdp=2",
        ),
        (
            ["train", MLP, "--mesh", "data=0"],
            "mesh: got 'data=0', in which 'data=0' is no axis with its size; expected axes with sizes",
        ),
        (
            ["train", MLP, "--batch", "12"],
            "train: got a batch of 12; expected a multiple of 8 (8 devices). Set the batch to 8 or 16",
        ),
        (
            ["train", MLP, "--batch", "3"],
            "expected a multiple of 8 (8 devices). Set the batch to 8, or change the mesh",
        ),
        (
            ["train", MLP, "--accumulate", "3", "--mesh", "data=2"],
            "expected a multiple of 6 (2 devices x 3 micro-batches). Set the batch to 6 or 12",
        ),
        (["train", MLP, "--accumulate", "0"], "--accumulate: got 0; expected"),
        (
            ["train", MLP, "--compile", "pmap", "--mesh", "data=2,fsdp=2"],
            "--compile pmap: got the mesh data=2,fsdp=2",
        ),
        (["train", MLP, "--batch", "0"], "got a batch of 0; expected at least 1"),
        (["train", MLP, "--steps-per-dispatch", "-1"], "--steps-per-dispatch: got -1; expected 0 or more"),
        (["train", MLP, "--checkpoint-every", "-5"], "--checkpoint-every: got -5; expected 0 or more"),
        (["train", MLP, "--log-every", "0"], "the experiment's log_every: got 0; expected at least 1"),
        (["train", MLP, "--eval-every", "-1"], "the experiment's eval_every: got -1; expected at least 1"),
        (["evaluate", "."], ". is not a run's folder: it has no knobs.json"),
        (["generate", "."], ". is not a run's folder: it has no knobs.json"),
        (["report", "."], ".: got a folder without knobs.json and metrics.jsonl"),
        (
            ["verify-resume", MLP, "--every", "0"],
            "got through=40, every=0, kills=3; expected 1 <= every <= through",
        ),
    ],
    ids=lambda x: " ".join(x)[-60:] if isinstance(x, list) else "",
)
def test_bad_input_is_answered_in_one_message_with_status_2(capsys, tmp_path, monkeypatch, argv, said):
    monkeypatch.chdir(tmp_path)
    status, out, err = main(capsys, *argv)
    assert status == 2
    assert said in words(err)
    assert "error" not in out.lower()
    assert list(tmp_path.iterdir()) == []  # nor was a folder made for it


@fast
def test_a_knob_with_an_options_name_is_refused(capsys, tmp_path):
    path = tmp_path / "x.py"
    path.write_text(Path(MLP).read_text().replace("save_every", "keep"))
    status, _, err = main(capsys, "train", path)
    assert status == 2
    assert "got a knob keep, which is the name of an option of jaxmodels train" in err


@fast
def test_a_mistake_in_the_experiments_own_code_keeps_its_traceback(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("import jaxmodels.of_another_name")
    with pytest.raises(ModuleNotFoundError, match=r"jaxmodels\.of_another_name"):
        cli.main(["train", str(path)])


@fast
def test_a_package_that_is_not_installed_is_named(capsys, tmp_path):
    path = tmp_path / "x.py"
    path.write_text("from absent_package.part import anything")
    status, _, err = main(capsys, "train", path)
    assert status == 2
    assert f"{path}: got an import of absent_package; expected an installed package" in err


@fast
@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ({"compile": "xla"}, r"compile: got 'xla' \(str\); expected one of 'jit', 'pmap'"),
        ({"precision": "float16"}, "precision: got 'float16'"),
        ({"accumulate": "2"}, r"accumulate: got '2' \(str\); expected int"),
        ({"folder": 3}, r"folder: got 3 \(int\); expected str"),
    ],
)
def test_the_python_function_checks_its_options_too(argument, said):
    with pytest.raises(ValueError, match=said):
        jaxmodels.train(MLP, **argument)


# Output


def only_object(out: str) -> dict:
    assert out.count("\n") == 1
    return json.loads(out, parse_constant=pytest.fail)


@pytest.mark.slow
@fast
def test_train_prints_one_json_object_and_all_else_goes_to_stderr(capsys, tmp_path):
    status, out, err = main(
        capsys, "train", MLP, "--steps", 6, "--folder", tmp_path / "run", "--mesh", ONE, "--json"
    )
    said = only_object(out)
    assert status == 0
    assert said["folder"] == str(tmp_path / "run")
    assert (said["exit"], said["steps"]) == ("complete", 6)
    assert said["metrics"] == json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert "test/loss" in err


@pytest.mark.slow
@fast
def test_a_stopped_run_prints_one_json_object_too(capsys, tmp_path):
    status, out, _ = main(capsys, "train", MLP, "--folder", tmp_path, "--mesh", ONE, "--json", "--stop-at", 5)
    assert status == 0
    assert only_object(out) == {"folder": str(tmp_path), "exit": "--stop-at", "step": 5}


@pytest.mark.slow
@fast
def test_a_metric_that_is_not_finite_is_null_in_json(capsys, tmp_path):
    path = tmp_path / "x.py"
    path.write_text(Path(MLP).read_text().replace("np.var(arrays", "np.inf + np.var(arrays"))
    _, out, _ = main(
        capsys, "train", path, "--steps", 6, "--folder", tmp_path / "run", "--mesh", ONE, "--json"
    )
    assert only_object(out)["baselines"] == {"mean of the targets": {"test/loss": None}}
    assert json.loads((tmp_path / "run" / "result.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.slow
@fast
def test_quiet_prints_nothing(capsys, tmp_path):
    assert main(capsys, "train", MLP, "--steps", 6, "--folder", tmp_path, "--mesh", ONE, "--quiet") == (
        0,
        "",
        "",
    )


@pytest.mark.slow
@fast
def test_a_run_says_what_it_does_and_how_to_go_on(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["train", MLP, "--steps", "6", "--mesh", ONE]
    status, out, _ = main(capsys, *argv, "--fresh")
    assert status == 0
    assert "121 parameters on 1 x cpu (data=1, jit)\n52 examples, 7 batches of 8 a pass" in out
    assert "this run   mean of the targets" in out
    assert "6 steps" in out
    assert f"go on    jaxmodels {' '.join(argv)}\n" in out
    again = next(line for line in out.splitlines() if line.startswith("  evaluate")).split()[2:]
    assert again == ["evaluate", "runs/tiny_mlp-steps=6"]
    assert main(capsys, *again, "--mesh", ONE)[0] == 0
    assert "going on from step 6" in main(capsys, *argv)[1]


def test_evaluate_prints_the_runs_final_metrics_exactly(capsys, gpt):
    status, out, _ = main(capsys, "evaluate", gpt, "--mesh", ONE, "--json")
    assert status == 0
    assert only_object(out) == {
        "run": str(gpt),
        "metrics": json.loads((gpt / "result.json").read_text())["metrics"],
    }


@pytest.mark.slow
@fast
def test_evaluate_prints_the_metrics_of_the_best_checkpoint_where_there_is_one(capsys, mlp):
    lines = [json.loads(line) for line in (mlp / "metrics.jsonl").read_text().splitlines()]
    best = min((line for line in lines if "test/loss" in line), key=lambda line: line["test/loss"])
    assert best["step"] == Checkpoints(mlp / "checkpoints").best() != 24
    said = only_object(main(capsys, "evaluate", mlp, "--mesh", ONE, "--json")[1])
    assert said["metrics"] == {name: value for name, value in best.items() if name != "step"}


def test_evaluate_takes_the_precision_of_the_run(capsys, tmp_path):
    main(capsys, "train", MLP, "--steps", 6, "--folder", tmp_path, "--mesh", ONE, "--precision", "bfloat16")
    final = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert json.loads(main(capsys, "evaluate", tmp_path, "--mesh", ONE, "--json")[1])["metrics"] == final
    exact = main(capsys, "evaluate", tmp_path, "--mesh", ONE, "--json", "--precision", "float32")[1]
    assert json.loads(exact)["metrics"] != final


@pytest.mark.slow
@fast
def test_evaluate_shows_a_table(capsys, mlp):
    status, out, _ = main(capsys, "evaluate", mlp, "--mesh", ONE)
    assert status == 0
    assert "test/loss" in out and "checkpoint of step" in out


@pytest.mark.slow
@fast
def test_evaluate_takes_the_checkpoint_that_it_is_given(capsys, mlp):
    metrics = [main(capsys, "evaluate", mlp, "--mesh", ONE, "--json", "--step", step)[1] for step in (18, 24)]
    assert metrics[0] != metrics[1]
    status, _, err = main(capsys, "evaluate", mlp, "--step", 7)
    assert status == 2
    assert "has no checkpoint of step 7; it has" in err


def test_a_run_without_a_checkpoint_cannot_be_evaluated(capsys, mlp, tmp_path):
    folder = Path(shutil.copytree(mlp, tmp_path / "run"))
    shutil.rmtree(folder / "checkpoints")
    status, _, err = main(capsys, "evaluate", folder)
    assert status == 2
    assert "got no complete checkpoint; expected one. Train on" in err


# generate


def test_the_same_prompt_and_seed_write_the_same_text(capsys, gpt):
    texts = [
        main(capsys, "generate", gpt, "--prompt", "cd", "--tokens", 40, "--seed", seed)[1]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("cd") and len(texts[0]) == 2 + 40 + 1


def test_the_experiments_prompt_is_used_and_printed_where_nobody_gives_one(capsys, gpt):
    texts = [main(capsys, "generate", gpt, "--tokens", 9, *prompt)[1] for prompt in ((), ("--prompt", "ab"))]
    assert texts[0] == texts[1] and texts[0].startswith("ab")


def test_generate_prints_one_json_object(capsys, gpt):
    status, out, _ = main(capsys, "generate", gpt, "--prompt", "cd", "--tokens", 5, "--json")
    assert status == 0
    said = only_object(out)
    [text] = said["texts"]
    assert (said["run"], text["prompt"], len(text["text"]), len(text["logprobs"])) == (str(gpt), "cd", 5, 5)


def test_several_prompts_are_written_together_and_each_as_alone(capsys, gpt):
    both = main(capsys, "generate", gpt, "--prompt", "cd", "ab c", "--tokens", 9)[1]
    alone = [main(capsys, "generate", gpt, "--prompt", prompt, "--tokens", 9)[1] for prompt in ("cd", "ab c")]
    assert both == alone[0] + "\n" + alone[1]


def test_texts_are_scored_by_name(capsys, gpt, tmp_path):
    (tmp_path / "likely").write_text("abc def bcd " * 20)
    (tmp_path / "unlikely").write_text("jbg fai jcb " * 20)
    texts = [tmp_path / "likely", tmp_path / "unlikely"]
    status, out, _ = main(capsys, "evaluate", gpt, "--texts", *texts, "--json")
    metrics = json.loads(out.splitlines()[-1])["metrics"]
    assert status == 0
    assert metrics["likely/loss"] < metrics["unlikely/loss"]
    assert metrics["likely/perplexity"] == pytest.approx(np.exp(metrics["likely/loss"]), rel=1e-4)


def test_a_prompt_longer_than_the_context_works(capsys, gpt):
    status, out, _ = main(capsys, "generate", gpt, "--prompt", "abc " * 20, "--tokens", 20)
    assert status == 0
    assert len(out) == 80 + 20 + 1


def test_the_model_writes_what_it_has_learned(capsys, gpt):
    """In the data a letter is followed by the next one of the alphabet, or by a space."""
    _, out, _ = main(capsys, "generate", gpt, "--prompt", "a", "--tokens", 300, "--temperature", 0.3)
    pairs = [a + b for a, b in itertools.pairwise(out) if a != " " and b not in " \n"]
    right = sum(ord(b) == ord(a) + 1 for a, b in pairs)
    assert right > 0.4 * len(pairs) > 10  # by chance it would be 0.1


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--temperature", "-1"], "--temperature: got -1.0; expected 0 or more. Change --temperature."),
        (["--top-p", "1.5"], "--top-p: got 1.5; expected above 0 and at most 1"),
        (["--top-k", "-2"], "--top-k: got -2; expected 0 (all) or more"),
        (["--tokens", "0"], "--tokens: got 0; expected at least 1"),
        (["--prompt", ""], "generate: got an empty prompt and a model without a begin token"),
    ],
)
def test_options_of_generate_out_of_range_are_refused(capsys, gpt, option, said):
    status, _, err = main(capsys, "generate", gpt, *option)
    assert status == 2
    assert said in err


@fast
def test_a_model_that_writes_nothing_says_so(capsys, mlp):
    status, _, err = main(capsys, "generate", mlp, "--prompt", "a")
    assert status == 2
    assert "got an experiment whose build() gives no decoder" in err


def test_a_language_model_shows_a_sample_at_the_end(capsys, gpt):
    _, out, _ = main(capsys, "train", GPT, "--folder", gpt, "--mesh", ONE)
    assert "A sample after 'ab'" in out
    assert f"jaxmodels generate {gpt} --prompt ab" in out


# Warnings


@pytest.mark.slow
@fast
def test_a_second_compilation_names_what_changed(capsys, tmp_path):
    status, _, err = main(
        capsys, "train", FAULTY, "--fault", "recast", "--at", 3, "--folder", tmp_path, "--mesh", ONE
    )
    assert status == 0
    wanted = "warning: the step is compiled again, because the batch has changed: "
    assert f"{wanted}batch['features'] was float32[8, 10], is int32[8, 10]\n" in err
    assert err.count("compiled again") == 1


@pytest.mark.slow
@fast
def test_a_run_that_waits_for_its_data_says_so_and_why(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmodels.training.status.SETTLED", 0.1)
    status, _, err = main(capsys, "train", FAULTY, "--fault", "slow", "--folder", tmp_path, "--mesh", ONE)
    assert status == 0
    assert err.count("the device waited for input") == 1
    assert "because of reading the data" in err
    assert "Give the pipeline worker processes" in err


@pytest.mark.slow
@fast
def test_a_run_that_does_not_wait_for_its_data_says_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmodels.training.status.SETTLED", 0.0)
    monkeypatch.setattr("jaxmodels.training.status.INPUT_BOUND", 0.9)
    _, _, err = main(capsys, "train", MLP, "--folder", tmp_path, "--mesh", ONE)
    assert "waited for input" not in err


def test_what_takes_longer_than_two_seconds_is_shown(capsys, tmp_path):
    path, traced = tmp_path / "x.py", "        word_B = jax.vmap"
    path.write_text(
        Path(BARE).read_text().replace(traced, f"        __import__('time').sleep(2.1)\n{traced}")
    )
    _, out, _ = main(capsys, "train", path, "--folder", tmp_path / "run", "--mesh", ONE)
    assert "compiling the step …\n" in out
    assert "compiling the step took " in out
    assert "evaluating" not in out


def test_out_of_memory_names_the_sizes_and_what_to_lower(capsys, tmp_path):
    """One activation would take 8 terabytes."""
    argv = ["train", MLP, "--hidden", 10**6, "--batch", 2 * 10**6, "--folder", tmp_path, "--mesh", ONE]
    status, _, err = main(capsys, *argv)
    assert status == 1
    assert "the device is out of memory" in err
    assert "parameters 45.8 MiB, optimizer state 45.8 MiB, other variables 0 B, one batch 91.6 MiB" in err
    assert "Lower the batch, or split it: --accumulate 2" in err


# As a process


def test_the_command_works_as_a_process(tmp_path):
    argv = [
        sys.executable,
        "-m",
        "jaxmodels",
        "train",
        MLP,
        "--steps",
        "6",
        "--folder",
        str(tmp_path / "run"),
        "--json",
    ]
    first = subprocess.run(
        argv, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONWARNINGS": "error"}
    )
    assert only_object(first.stdout)["exit"] == "complete"
    wrong = subprocess.run([*argv, "--mesh", "data=3"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert np.isfinite(list(only_object(first.stdout)["metrics"].values())).all()


def test_simulated_devices_can_be_asked_for(tmp_path):
    argv = [
        sys.executable,
        "-m",
        "jaxmodels",
        "train",
        MLP,
        "--steps",
        "6",
        "--folder",
        str(tmp_path / "run"),
    ]
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}
    said = subprocess.run(
        [*argv, "--mesh", "data=2"], capture_output=True, text=True, check=True, env=env
    ).stdout
    assert f"2 x {jax.devices()[0].device_kind} (data=2, jit)" in said


@fast
def test_an_extra_that_is_not_installed_is_named_in_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "x.py").write_text(
        "from dataclasses import dataclass\n"
        "from jaxmodels.data.formats.images import read_image\n"
        "@dataclass(frozen=True)\nclass Config:\n    steps: int = 1\n"
        "def build(config):\n    return read_image('a.png', 4)\n"
    )
    status, _, err = main(capsys, "train", tmp_path / "x.py")
    assert (status, err) == (2, "error: decoding images needs pillow; pip install 'jaxmodels[data]'\n")
