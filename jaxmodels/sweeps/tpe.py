"""Settings chosen by what others came to: a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), by Optuna.

Settings are asked in rounds, so that a round's members train together. The study is a journal, one file, in
which several computers that share its folder may search together, each with a sweep's folder of its own. A
trial's attributes say its setting (knobs) and whose it is (by); `by` comes last, so that a trial which has it
is whole.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.runs.files import read_json, write_text
from jaxmodels.sweeps import space
from jaxmodels.sweeps.member_files import Member
from jaxmodels.sweeps.members import Setup, result_of
from jaxmodels.sweeps.statistics import worth

BEAT = 60.0  # seconds between signs of life in the journal
STALE = 15 * 60.0  # seconds without one after which another's trials are given up


class Search(NamedTuple):
    """What is searched. values: the knobs that are searched; seeds: knobs that each setting is repeated with.

    what: all that must be the same for two sweeps to share a study.
    """

    values: Mapping[str, space.Values]
    seeds: Sequence[Mapping[str, Any]]
    trials: int
    metric: str
    goal: str
    what: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Settings of a round."""
        return max(1, min(10, self.trials // 5))


def search(
    setup: Setup,
    how: Search,
    journal: Path,
    draws: int,
    member: Callable[[dict[str, Any]], Member],
    train: Callable[[list[Member]], float],
) -> tuple[list[Member], float]:
    """Asks, trains and tells until the study has its trials; gives (this sweep's members, seconds spent on compiling).

    member: of these knobs. train: trains members and gives the seconds; those it cannot train are left
        without a result.
    """
    optuna = _optuna()
    by, study = _owner(setup.path), _study(optuna, setup.file.path.stem, journal, how)
    states = optuna.trial.TrialState
    compile_s, lost = 0.0, set()
    with _beating(study, by):
        study.sampler = _sampler(optuna, study, by, how, draws)
        while asked := _round(optuna, study, by, how):
            of_trial = {n: [member({**knobs, **seed}) for seed in how.seeds] for n, knobs in asked.items()}
            every = {m.name: m for of in of_trial.values() for m in of}
            left = [m for name, m in every.items() if result_of(setup.path / "members" / name) is None]
            done = len(study.get_trials(deepcopy=False, states=(states.COMPLETE,)))
            setup.console.say(
                f"{done} of {how.trials} settings are known; {len(asked)} more, {len(left)} members to train"
            )
            compile_s += train(left) if left else 0.0
            lost = {
                n
                for n, of in of_trial.items()
                if not _tell(study, states, n, of, setup.path / "members", how)
            }
            if lost:
                setup.console.warn("the search ends here: members failed; the same command goes on")
                break
    trials = study.get_trials(deepcopy=False)
    mine = [
        t for t in trials if t.user_attrs.get("by") == by and (t.state != states.FAIL or t.number in lost)
    ]
    found = {
        m.name: m for m in (member({**t.user_attrs["knobs"], **seed}) for t in mine for seed in how.seeds)
    }
    if not found:
        raise ValueError(
            f"{journal}: others have taken all of its {how.trials} trials; give more --trials to go on"
        )
    if any(t.user_attrs.get("by") != by for t in trials if t.state == states.COMPLETE):
        best = study.best_trial
        words = " ".join(f"{k}={v}" for k, v in best.user_attrs["knobs"].items())
        setup.console.say(f"the best that {journal} knows: {words}, {how.metric} {best.value:.6g}")
    return list(found.values()), compile_s


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("--search tpe needs optuna; pip install 'jaxmodels[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _owner(path: Path) -> str:
    """Whose trials this sweep's are: a name that its folder keeps."""
    kept = path / "study.json"
    if not kept.exists():
        write_text(kept, json.dumps({"by": f"{platform.node()}-{uuid.uuid4().hex[:8]}"}))
    return read_json(kept)["by"]


def _study(optuna: Any, name: str, journal: Path, how: Search) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(journal)))
    direction = "maximize" if how.goal == "max" else "minimize"
    study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
    what = json.loads(json.dumps(how.what, default=str))
    known = study.user_attrs.get("what")
    if known is None:
        study.set_user_attr("what", what)
    elif known != what:
        changes = [
            f"{k}: {known.get(k)} there, {what.get(k)} here"
            for k in {**known, **what}
            if known.get(k) != what.get(k)
        ]
        raise ValueError(
            f"{journal} holds another study; {'; '.join(changes)}. Choose another --study or --folder"
        )
    return study


def _sampler(optuna: Any, study: Any, by: str, how: Search, draws: int) -> Any:
    """Its draws differ from those of others in the study, and from those before an interruption."""
    others = [
        name for name in study.user_attrs if name.startswith("seen ")
    ]  # in the order in which they came
    known = len(study.get_trials(deepcopy=False))
    seed = np.random.SeedSequence([draws, others.index(f"seen {by}"), known]).generate_state(1)[0]
    first = max(how.size, min(10, how.trials // 4))  # settings drawn at random
    return optuna.samplers.TPESampler(
        multivariate=True, constant_liar=True, n_startup_trials=first, seed=int(seed)
    )


@contextlib.contextmanager
def _beating(study: Any, by: str) -> Iterator[None]:
    """Notes in the journal, now and then, that this sweep is alive."""
    over = threading.Event()

    def beat():
        return study.set_user_attr(f"seen {by}", time.time())

    beat()

    def go_on() -> None:
        while not over.wait(BEAT):
            beat()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _round(optuna: Any, study: Any, by: str, how: Search) -> dict[int, dict[str, Any]]:
    """Settings to train, by the number of their trial: those of this sweep that were left running, then new ones."""
    states = optuna.trial.TrialState
    distributions = {name: _distribution(optuna, of) for name, of in how.values.items()}
    found = {}
    for t in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        if t.user_attrs.get("by") == by:
            found[t.number] = t.user_attrs["knobs"]
        elif _stale(study, t):
            study.tell(t.number, state=states.FAIL, skip_if_finished=True)

    def taken():
        return [t.number for t in study.get_trials(deepcopy=False) if t.state != states.FAIL]

    while len(found) < how.size and len(taken()) < how.trials:
        trial = study.ask(distributions)
        if (
            sum(number < trial.number for number in taken()) >= how.trials
        ):  # another was quicker to take the last one
            study.tell(trial, state=states.FAIL)
            break
        knobs = {name: _value(of, trial.params[name]) for name, of in how.values.items()}
        trial.set_user_attr("knobs", knobs)
        trial.set_user_attr("by", by)
        found[trial.number] = knobs
    return found


def _stale(study: Any, trial: Any) -> bool:
    """Whether nothing was heard of whose trial it is, or since it was asked, for long."""
    asked = time.time() - (datetime.datetime.now() - trial.datetime_start).total_seconds()
    return time.time() - study.user_attrs.get(f"seen {trial.user_attrs.get('by')}", asked) > STALE


def _distribution(optuna: Any, of: space.Values) -> Any:
    """Numbers have an order, so of a list of them the place is searched; other values are just different."""
    if isinstance(of, space.Range):
        return optuna.distributions.FloatDistribution(of.low, of.high, log=of.log)
    if _ordered(of):
        return optuna.distributions.IntDistribution(0, len(of) - 1)
    return optuna.distributions.CategoricalDistribution(of)


def _value(of: space.Values, x: Any) -> Any:
    if isinstance(of, space.Range):
        return float(f"{x:.6g}")
    return sorted(of)[x] if _ordered(of) else x


def _ordered(of: Sequence[Any]) -> bool:
    return all(type(x) in (int, float) for x in of)


def _tell(study: Any, states: Any, number: int, of: Sequence[Member], members: Path, how: Search) -> bool:
    """Tells the mean of the seeds, the worst there is where one diverged; False where one has no result."""
    results = [result_of(members / m.name) for m in of]
    if None in results:
        study.tell(number, state=states.FAIL, skip_if_finished=True)
        return False
    scores = [
        worth(r["metrics"], None if r["exit"] == "complete" else 0, how.metric, how.goal)
        for r in results
        if r
    ]
    mean = sum(scores) / len(scores)
    study.tell(number, mean if how.goal == "max" else -mean, skip_if_finished=True)
    return True
