"""Settings chosen by earlier results: a tree-structured Parzen estimator (Bergstra et al., 2011), by Optuna.

Settings come in rounds, so that a round's members train together. The study is a journal, one file, in which
several computers that share its folder may search together, each with a sweep's folder of its own. A trial's
attributes are its setting (knobs) and the sweep that trains it (by); `by` is written last, so a trial that
has it is complete.
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
from jaxmodels.sweeps.statistics import member_score

BEAT = 60.0  # seconds between signs of life in the journal
STALE = 15 * 60.0  # seconds without one after which another's trials are given up


class Search(NamedTuple):
    """A search. values: of the searched knobs; seeds: knobs that each setting is repeated with.

    what: all that must be the same in sweeps that share a study.
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
    wanted: Search,
    journal: Path,
    draws: int,
    member: Callable[[dict[str, Any]], Member],
    train: Callable[[list[Member]], float],
) -> tuple[list[Member], float]:
    """Trains settings until the study has its trials; gives (this sweep's members, seconds of compilation).

    member(knobs): the member of a setting. train(members): trains them and gives the seconds of compilation;
    members that it cannot train are left without a result. draws: the seed of what is drawn.
    """
    optuna = _optuna()
    owner, study = _owner(setup.path), _study(optuna, setup.file.path.stem, journal, wanted)
    states = optuna.trial.TrialState
    compile_s, lost = 0.0, set()
    with _sign_of_life(study, owner):
        study.sampler = _sampler(optuna, study, owner, wanted, draws)
        while asked := _round(optuna, study, owner, wanted):
            by_trial = {n: [member({**knobs, **seed}) for seed in wanted.seeds] for n, knobs in asked.items()}
            by_name = {m.name: m for members in by_trial.values() for m in members}
            left = [m for m in by_name.values() if result_of(setup.path / "members" / m.name) is None]
            done = len(study.get_trials(deepcopy=False, states=(states.COMPLETE,)))
            more = f"{len(asked)} more, {len(left)} members to train"
            setup.console.say(f"{done} of {wanted.trials} settings are known; {more}")
            compile_s += train(left) if left else 0.0
            for number, members in by_trial.items():
                if not _tell(study, states, number, members, setup.path / "members", wanted):
                    lost.add(number)
            if lost:
                setup.console.warn("the search ends here: members failed; the same command goes on")
                break
    trials = study.get_trials(deepcopy=False)
    own_members: dict[str, Member] = {}
    for trial in trials:
        own = trial.user_attrs.get("by") == owner
        if own and (trial.state != states.FAIL or trial.number in lost):
            for seed in wanted.seeds:
                m = member({**trial.user_attrs["knobs"], **seed})
                own_members[m.name] = m
    if not own_members:
        raise ValueError(
            f"--trials: got {wanted.trials}, all of which others have taken in {journal}; expected more. "
            "Give more --trials to go on"
        )
    if any(t.user_attrs.get("by") != owner for t in trials if t.state == states.COMPLETE):
        best = study.best_trial
        words = " ".join(f"{name}={value}" for name, value in best.user_attrs["knobs"].items())
        setup.console.say(f"the best in {journal}: {words}, {wanted.metric} {best.value:.6g}")
    return list(own_members.values()), compile_s


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("--search tpe needs optuna; pip install 'jaxmodels[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _owner(path: Path) -> str:
    """This sweep's name as the owner of trials, which its folder keeps."""
    kept = path / "study.json"
    if not kept.exists():
        write_text(kept, json.dumps({"by": f"{platform.node()}-{uuid.uuid4().hex[:8]}"}))
    return read_json(kept)["by"]


def _study(optuna: Any, name: str, journal: Path, wanted: Search) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(journal)))
    direction = "maximize" if wanted.goal == "max" else "minimize"
    study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
    what = json.loads(json.dumps(wanted.what, default=str))
    known = study.user_attrs.get("what")
    if known is None:
        study.set_user_attr("what", what)
    elif known != what:
        changes = []
        for name in {**known, **what}:
            if known.get(name) != what.get(name):
                changes.append(f"{name}: {known.get(name)} there, {what.get(name)} here")
        raise ValueError(
            f"{journal}: got another study; expected this one. {'; '.join(changes)}. "
            "Choose another --study or --folder"
        )
    return study


def _sampler(optuna: Any, study: Any, owner: str, wanted: Search, draws: int) -> Any:
    """Its draws differ from those of other sweeps in the study, and from those before an interruption."""
    owners = [name for name in study.user_attrs if name.startswith("seen ")]  # in the order of their arrival
    known = len(study.get_trials(deepcopy=False))
    seed = np.random.SeedSequence([draws, owners.index(f"seen {owner}"), known]).generate_state(1)[0]
    first = max(wanted.size, min(10, wanted.trials // 4))  # settings drawn at random
    return optuna.samplers.TPESampler(
        multivariate=True, constant_liar=True, n_startup_trials=first, seed=int(seed)
    )


@contextlib.contextmanager
def _sign_of_life(study: Any, owner: str) -> Iterator[None]:
    """Notes in the journal, every BEAT seconds, that this sweep is alive."""
    over = threading.Event()

    def beat() -> None:
        study.set_user_attr(f"seen {owner}", time.time())

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


def _round(optuna: Any, study: Any, owner: str, wanted: Search) -> dict[int, dict[str, Any]]:
    """Settings to train, by number of their trial: this sweep's trials that still run, then new ones."""
    states = optuna.trial.TrialState
    distributions = {name: _distribution(optuna, values) for name, values in wanted.values.items()}
    asked = {}
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        if trial.user_attrs.get("by") == owner:
            asked[trial.number] = trial.user_attrs["knobs"]
        elif _is_stale(study, trial):
            study.tell(trial.number, state=states.FAIL, skip_if_finished=True)

    def taken() -> list[int]:
        return [trial.number for trial in study.get_trials(deepcopy=False) if trial.state != states.FAIL]

    while len(asked) < wanted.size and len(taken()) < wanted.trials:
        trial = study.ask(distributions)
        if sum(number < trial.number for number in taken()) >= wanted.trials:
            study.tell(trial, state=states.FAIL)  # another sweep was quicker to take the last one
            break
        knobs = {name: _value(values, trial.params[name]) for name, values in wanted.values.items()}
        trial.set_user_attr("knobs", knobs)
        trial.set_user_attr("by", owner)
        asked[trial.number] = knobs
    return asked


def _is_stale(study: Any, trial: Any) -> bool:
    """Whether its owner, or the trial since it was asked, has given no sign of life for STALE seconds."""
    asked = time.time() - (datetime.datetime.now() - trial.datetime_start).total_seconds()
    return time.time() - study.user_attrs.get(f"seen {trial.user_attrs.get('by')}", asked) > STALE


def _distribution(optuna: Any, values: space.Values) -> Any:
    """Numbers have an order, so the index in a list of them is searched; other values are categories."""
    if isinstance(values, space.Range):
        return optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
    if _ordered(values):
        return optuna.distributions.IntDistribution(0, len(values) - 1)
    return optuna.distributions.CategoricalDistribution(values)


def _value(values: space.Values, x: Any) -> Any:
    if isinstance(values, space.Range):
        return float(f"{x:.6g}")
    return sorted(values)[x] if _ordered(values) else x


def _ordered(values: Sequence[Any]) -> bool:
    return all(type(x) in (int, float) for x in values)


def _tell(
    study: Any, states: Any, number: int, members: Sequence[Member], folder: Path, wanted: Search
) -> bool:
    """Tells the mean over the seeds, the worst possible where one diverged; False where one has no result."""
    scores = []
    for member in members:
        result = result_of(folder / member.name)
        if result is None:
            study.tell(number, state=states.FAIL, skip_if_finished=True)
            return False
        diverged = None if result["exit"] == "complete" else 0
        scores.append(member_score(result["metrics"], diverged, wanted.metric, wanted.goal))
    mean = sum(scores) / len(scores)
    study.tell(number, mean if wanted.goal == "max" else -mean, skip_if_finished=True)
    return True
