"""The trials of a search on disk, shared by the processes that search under its name. The door to Optuna.

    runs/searches/NAME/   journal.log   every change of a trial, a line each, appended (Optuna's journal storage)
                          search.json   the trials and the Pareto front, for reports and readers
                          .lock         held while trials are proposed, so that processes propose one after the other
                          .process-*    held by a process as long as it lives: whose are the trials that are running?

A trial that a dead process left is taken over by the next one that asks. What a sampler proposes follows from the seed,
the number of the trial and the trials before it, and not from when a process began.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from snnrobust.claims import Claim, holder, patiently
from snnrobust.schema import ConfigError
from snnrobust.search.objectives import MEASURES
from snnrobust.search.settings import Search
from snnrobust.search.space import Numbers, Space

State = Literal["done", "failed", "running"]
JOURNAL, LOCK, PROCESS = "journal.log", ".lock", ".process-"
NAME = "search"
OWNER, REPEATS, VOID, ERROR, IDENTITY = "process", "repeats", "void", "error", "identity"
"""Attributes: of a trial the process that has it, the failed trial that it repeats, whether it was never proposed
in full, and why it failed; of the study the words of its space."""


@dataclass(frozen=True)
class Trial:
    """A point of the space.

    Args:
        number: in order of proposal.
        values: by key.
        state: whether it is done, failed or running.
        objectives: where it is done.
        error: where it failed.
    """

    number: int
    values: Mapping[str, Any]
    state: State
    objectives: tuple[float, ...]
    error: str | None


class Study:
    """Proposes trials and keeps what became of them. One per process; `close` at the end.

    Args:
        folder: of the search; it is made.
        settings: of the search.
        space: what its trials range over.

    Raises:
        ConfigError: if the folder is that of a search over another space, or its journal is damaged.
    """

    def __init__(self, folder: Path, settings: Search, space: Space) -> None:
        self.folder = folder
        self._settings = settings
        self._space = space
        with self.alone():
            self._storage = _stored(folder / JOURNAL)
            self._study = _opened(self._storage, settings)
            self._refuse_another()
            self._process = uuid.uuid4().hex
            self._alive = Claim(self._mark(self._process))
            self._repeat_failed()

    def close(self) -> None:
        """Says that this process is through; its trials that are still running may be taken over."""
        self._mark(self._process).unlink()
        self._alive.release()

    def ask(self) -> list[Trial]:
        """At most a batch of trials to run now: first those that dead processes left, then new ones; [] at the end.

        Batches end at the same numbers whether or not the search was interrupted.
        """
        with self.alone():
            asked = [self._taken_over(trial) for trial in self._orphans()[: self._settings.batch]]
            while len(asked) < self._settings.batch and self._room() > 0:
                if asked and self._ordinal() % self._settings.batch == 0 and not self._waiting():
                    break
                new = self._proposed()
                if new is None:
                    break
                asked.append(new)
            return asked

    def tell(self, number: int, objectives: Sequence[float]) -> None:
        """What came out of a trial."""
        with self.alone():
            self._study.tell(number, list(objectives))

    def tell_failed(self, number: int, error: str) -> None:
        """Why nothing came out of it; the same command at a later time tries it again."""
        with self.alone():
            self._mark_trial(number, ERROR, error)
            self._study.tell(number, state=TrialState.FAIL)

    def trials(self) -> list[Trial]:
        """All of them, without those that failed and were tried again."""
        return [_plain(trial) for trial in self._valid()]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes from changing anything meanwhile."""
        with patiently(lambda: Claim(self.folder / LOCK), wait=True):
            yield

    def _mark(self, process: str) -> Path:
        return self.folder / f"{PROCESS}{process}"

    def _mark_trial(self, number: int, key: str, value: Any) -> None:
        study = self._storage.get_study_id_from_name(NAME)
        trial = self._storage.get_trial_id_from_study_id_trial_number(study, number)
        self._storage.set_trial_user_attr(trial, key, value)

    def _refuse_another(self) -> None:
        settings = self._settings
        seeds = None if settings.over_seeds is None else list(settings.over_seeds)
        here = {"words": self._space.identity, "objectives": list(settings.objectives), "over_seeds": seeds}
        there = self._study.user_attrs.get(IDENTITY)
        if there is None:
            self._study.set_user_attr(IDENTITY, here)
        elif there != here:
            raise ConfigError(
                f"search.name: {self.folder} is of another search, {_difference(there, here)}; allowed: another name"
            )

    def _valid(self) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        repeated = {trial.user_attrs.get(REPEATS) for trial in trials}
        return [
            trial
            for trial in trials
            if VOID not in trial.user_attrs
            and not (trial.state == TrialState.FAIL and trial.number in repeated)
            and trial.state != TrialState.WAITING
        ]

    def _waiting(self) -> bool:
        return any(trial.state == TrialState.WAITING for trial in self._study.get_trials(deepcopy=False))

    def _room(self) -> int:
        return self._settings.trials - len(self._valid())

    def _ordinal(self) -> int:
        """How many trials were proposed, and not for a second time."""
        return sum(
            VOID not in trial.user_attrs and REPEATS not in trial.user_attrs
            for trial in self._study.get_trials(deepcopy=False)
        )

    def _repeat_failed(self) -> None:
        """Queues what failed earlier, if no other process has."""
        for trial in self._valid():
            if trial.state == TrialState.FAIL:
                self._study.enqueue_trial(trial.params, {REPEATS: trial.number})

    def _orphans(self) -> list[FrozenTrial]:
        """Trials that are running in no process; those that were not proposed in full are closed."""
        found = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get(OWNER)
            if owner is None:
                self._mark_trial(trial.number, VOID, True)
                self._study.tell(trial.number, state=TrialState.FAIL)
            elif owner != self._process and holder(self._mark(owner)) is None:
                self._mark(owner).unlink(missing_ok=True)
                found.append(trial)
        return found

    def _taken_over(self, trial: FrozenTrial) -> Trial:
        self._mark_trial(trial.number, OWNER, self._process)
        return _plain(trial)

    def _proposed(self) -> Trial | None:
        """The next trial; None if every combination has been tried."""
        number = self._ordinal()
        if self._settings.sampler == "grid" and not self._waiting():
            combination = self._space.combination(number)
            if combination is None:
                return None
            self._study.enqueue_trial(combination)
        self._study.sampler = _sampler(self._settings, number)
        asked = self._study.ask(_distributions(self._space))
        asked.set_user_attr(OWNER, self._process)  # last: from now on it counts
        return Trial(asked.number, asked.params, "running", (), None)


def _stored(path: Path) -> JournalStorage:
    _mend(path)
    try:
        return JournalStorage(JournalFileBackend(str(path), _Held()))
    except ValueError as error:  # no JSON
        raise ConfigError(f"search.name: {path} is damaged ({error}); allowed: another name") from error


def _opened(storage: JournalStorage, settings: Search) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = ["maximize" if MEASURES[name].larger_is_better else "minimize" for name in settings.objectives]
    try:
        return optuna.load_study(study_name=NAME, storage=storage)
    except KeyError:
        return optuna.create_study(study_name=NAME, storage=storage, directions=directions)


class _Held:
    """The journal's own lock: nothing to do, since every change is made under that of the search."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return


def _mend(path: Path) -> None:
    """Cuts off half a line, which a full disk may leave: what is appended to it would be lost, and more."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)


def _sampler(settings: Search, number: int) -> BaseSampler:
    """A sampler for one trial."""
    seed = (settings.seed * 1_000_003 + number) % 2**32
    if settings.sampler == "tpe":
        return TPESampler(n_startup_trials=settings.startup, seed=seed)
    if settings.sampler == "nsga2":
        return NSGAIISampler(population_size=settings.population, seed=seed)
    return RandomSampler(seed=seed)


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {}
    for key, one in space.dimensions.items():
        if not isinstance(one, Numbers):
            found[key] = CategoricalDistribution(one.values)
        elif one.whole:
            found[key] = IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
        else:
            found[key] = FloatDistribution(one.low, one.high, log=one.log, step=one.step)
    return found


def _plain(trial: FrozenTrial) -> Trial:
    states: dict[TrialState, State] = {TrialState.COMPLETE: "done", TrialState.FAIL: "failed"}
    state = states.get(trial.state, "running")
    objectives = tuple(trial.values) if state == "done" else ()
    return Trial(trial.number, trial.params, state, objectives, trial.user_attrs.get(ERROR))


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What tells two searches apart, in a few words."""
    if there["words"] != here["words"]:
        lost, new = ([w for w in a["words"] if w not in b["words"]] for a, b in ((there, here), (here, there)))
        return f"with {' '.join(lost) or 'nothing'} for {' '.join(new) or 'nothing'}"
    key = next(key for key in ("objectives", "over_seeds") if there[key] != here[key])
    return f"with search.{key}={there[key]}"
