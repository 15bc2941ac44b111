"""Runs a suite of attacks and all measures over one split."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack, Stepwise
from snnrobust.attacks.guard import untouched
from snnrobust.data.dataset import Split
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.strongest import Strongest
from snnrobust.evaluation.costs import Costs, compared, costs
from snnrobust.evaluation.examples import examples
from snnrobust.evaluation.gradients import survey
from snnrobust.evaluation.judge import Judge
from snnrobust.evaluation.outcomes import BROKEN, CLEAN, NOT_ATTACKED, ROBUST, share
from snnrobust.evaluation.probes import Probing, declared
from snnrobust.evaluation.report import Report
from snnrobust.evaluation.selection import Selection, resolved, select, wanted
from snnrobust.randomness import isolated
from snnrobust.spiking.classifier import Classifier, SpikingClassifier
from snnrobust.spiking.fuse import fused
from snnrobust.threat import Threat

Advance = Callable[[int, float], None]
"""Called after each batch with the number of samples done and the accuracy so far."""
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opened for each phase with its name and number of samples."""
Family = Sequence[tuple[str, Attack]]
"""Attacks that one search answers: several lengths of a stepwise one, or a single attack."""


def silent(name: str, samples: int) -> AbstractContextManager[Advance]:
    """A `Progress` that shows nothing."""
    return nullcontext(lambda _samples, _accuracy: None)


@dataclass(frozen=True)
class Settings:
    """How an evaluation is carried out.

    Args:
        batch_size: samples per forward.
        seed: of the draws of a stochastic model.
        draws: forwards by which a stochastic model is judged: correct if correct in all.
        exhaustive: attack every correctly classified sample under every estimator, instead of those that survived the
            estimators before; needed where single estimators are to be compared.
        fast: attack the fused network; results are judged on the network itself either way.
        precision: of the fused network; bfloat16 is faster on processors that have it, and rounds.
        cascade: attack only what survived all attacks before; an attack's accuracy is then that of the worst
            case so far.
    """

    batch_size: int = 256
    seed: int = 0
    draws: int = 10
    exhaustive: bool = False
    fast: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    cascade: bool = False


@dataclass(frozen=True)
class Evaluator:
    """Clean accuracy, accuracy under every attack, gradient measures, firing rates and costs.

    Args:
        attacks: by name; `clean` is always there and is no name for an attack.
        threat: of the evaluation; attacks whose own threat it contains form the worst case.
        estimator: whose gradient is measured; of an ensemble, every member's.
        headline: see `Report`.
        settings: how it is carried out.
        reference: whose energy is compared with; None: the model itself, were no connection absent.
    """

    attacks: Mapping[str, Attack]
    threat: Threat
    estimator: Estimator
    headline: Mapping[str, str]
    settings: Settings
    reference: SpikingClassifier | None = None

    def __call__(
        self, model: Classifier, data: Split, progress: Progress = silent, validation: Split | None = None
    ) -> Report:
        """Evaluates in eval mode; the model and the caller's random streams are left as they were.

        Args:
            model: what is evaluated.
            data: on what.
            progress: where it is shown.
            validation: other data, on which the strongest estimators are chosen where the attacks ask for them.

        Raises:
            ValueError: if an estimator does not apply to the model, there are no validation data to choose it on, or
                the reference does not fit the data.
        """
        seconds: dict[str, float] = {}
        with untouched(model):
            judge = Judge(model, self.settings.draws, self.settings.seed)
            columns = _Columns(judge, data, self.settings)
            with _timed(seconds, CLEAN), progress(CLEAN, len(data)) as advance:
                columns.clean(advance)
            with _timed(seconds, "costs"), isolated("costs", self.settings.seed):
                spent = self._costs(model, data)
            attacked = self._arranged(model)
            with _timed(seconds, "selection"):
                attacks, selection = self._selected(attacked, judge, validation)
            for family in families(attacks):
                name = "+".join(name for name, _ in family)
                with _timed(seconds, f"attack/{name}"), progress(name, len(data)) as advance:
                    columns.attack(family, attacked, self._inside(), advance)
            with _timed(seconds, "probes"):
                probing = Probing(self.threat, self.estimator, self.settings.batch_size, self.settings.seed)
                probes = probing(attacked, judge, data, columns.outcomes[CLEAN] == ROBUST)
            with _timed(seconds, "measures"), isolated("measures", self.settings.seed):
                size, seed = self.settings.batch_size, self.settings.seed
                estimator = self._measured(selection)
                gradients = survey(model, data, estimator, size, seed)
                shown = examples(model, attacked, data, estimator, self._shown(attacks), seed)
        return Report(
            columns.outcomes,
            columns.majority,
            self._inside(),
            self.headline,
            gradients.scalars(),
            gradients.layers,
            columns.excess,
            seconds,
            selection,
            attacks,
            probes,
            gradients.estimators,
            shown,
            spent,
        )

    def _costs(self, model: Classifier, data: Split) -> Costs | None:
        """Of the network itself; None for one that is not ours, whose spikes nobody here sees."""
        if not isinstance(model, SpikingClassifier):
            return None
        size, seed = self.settings.batch_size, self.settings.seed
        own = costs(model, data, size, seed)
        if self.reference is None or own.operations is None or not own.operations.spikes:
            return own
        return compared(own, self.reference, data, size, seed)

    def _arranged(self, model: Classifier) -> Classifier:
        """What the attacks see."""
        if not self.settings.fast or not isinstance(model, SpikingClassifier):
            return model
        return fused(model, torch.bfloat16 if self.settings.precision == "bfloat16" else torch.float32)

    def _selected(
        self, attacked: Classifier, judge: Judge, validation: Split | None
    ) -> tuple[Mapping[str, Attack], Selection | None]:
        """The attacks, with the strongest estimators where they ask for them."""
        request = wanted(self.attacks)
        if request is None:
            return self.attacks, None
        if validation is None:
            raise ValueError("estimator: the strongest are chosen on validation data; allowed without: any other")
        size, seed = self.settings.batch_size, self.settings.seed
        chosen = select(request, attacked, judge, validation, self.threat, size, seed)
        return resolved(self.attacks, request, chosen.estimator), chosen

    def _measured(self, selection: Selection | None) -> Estimator:
        """The estimator whose gradient is measured, chosen by now."""
        if isinstance(self.estimator, Strongest):
            return selection.estimator if selection else declared(self.estimator)
        return self.estimator

    def _shown(self, attacks: Mapping[str, Attack]) -> Attack | None:
        """The attack whose perturbations are kept for a few samples: that of the headline, if it is one on inputs."""
        attack = attacks.get(self.headline.get("pgd_accuracy", ""))
        return attack if attack is not None and attack.adversarial and attack.space == "input" else None

    def _inside(self) -> tuple[str, ...]:
        return tuple(
            name
            for name, attack in self.attacks.items()
            if attack.threat and attack.space == "input" and self.threat.contains(attack.threat)
        )


def families(attacks: Mapping[str, Attack]) -> Iterator[Family]:
    """Neighbours that are lengths of one search together, shortest first; every other attack by itself."""

    def kind(item: tuple[str, Attack]) -> object:
        return item[1].family() if isinstance(item[1], Stepwise) else item[0]

    for _, family in groupby(attacks.items(), kind):
        yield sorted(family, key=lambda item: item[1].steps if isinstance(item[1], Stepwise) else 0)


class _Columns:
    """The outcomes of one evaluation, as they grow."""

    def __init__(self, judge: Judge, data: Split, settings: Settings) -> None:
        self.judge = judge
        self.data = data
        self.settings = settings
        self.outcomes: dict[str, Tensor] = {}
        self.majority: dict[str, Tensor] = {}
        self.excess: dict[str, float] = {}
        self.standing = torch.ones(len(data), dtype=torch.bool)
        """Correct so far: on the clean input and, under a cascade, under all attacks inside the threat."""

    def clean(self, advance: Advance) -> None:
        self._open(CLEAN)
        for batch in self.data.batches(self.settings.batch_size):
            self._record([CLEAN], batch.index, *self.judge(CLEAN, self.judge.model, batch.x, batch.y, batch.index))
            advance(len(batch.x), share(self.outcomes[CLEAN][: int(batch.index[-1]) + 1] == ROBUST))
        self.standing = self._lenient(CLEAN) != BROKEN

    def attack(self, family: Family, attacked: Classifier, inside: Sequence[str], advance: Advance) -> None:
        """Runs one search for a family of attacks under each estimator, on the samples that are still in question."""
        before = self.standing.clone()
        variants = [attack.variants() for _, attack in family]
        for (name, attack), members in zip(family, variants, strict=True):
            self._open(name, everywhere=not attack.adversarial)
            for member in members:
                self._open(name + f"/{member}" * bool(member), everywhere=not attack.adversarial)
        for member in variants[0]:
            names = [name for name, _ in family]
            open_ = [self._in_question(name, attack, before) for name, attack in family]
            todo = torch.stack(open_).any(0).nonzero().flatten()
            # Nothing splits into one part of nothing.
            for index in todo.split(self.settings.batch_size) if len(todo) else ():
                found = _crafted([members[member] for members in variants], attacked, self.data, index)
                for name, (_, attack), bits, x in zip(names, family, open_, found, strict=True):
                    self._judge(name, member, attack, x, index, bits[index])
                advance(len(index), share(self.outcomes[names[-1]] == ROBUST))
        if self.settings.cascade:
            for name in set(inside) & {name for name, _ in family}:
                self.standing &= self._lenient(name) != BROKEN

    def _in_question(self, name: str, attack: Attack, before: Tensor) -> Tensor:
        """`[N]` bool: samples that the next estimator of an attack should try."""
        if not attack.adversarial:
            return torch.ones_like(before)
        return before if self.settings.exhaustive else before & (self._lenient(name) != BROKEN)

    def _lenient(self, name: str) -> Tensor:
        """By majority where there is one: what is broken in that sense is broken in every sense."""
        return self.majority.get(name, self.outcomes[name])

    def _judge(self, name: str, member: str, attack: Attack, x: Tensor, index: Tensor, open_: Tensor) -> None:
        """Records what became of the samples in question; the others were carried along by a longer search."""
        batch = self.data.batch(index)
        target, origin = attack.target(self.judge.model, batch.x, index)
        if attack.threat is not None:
            excess = float(attack.threat.excess(x, origin).max())
            self.excess[name] = max(self.excess.get(name, 0.0), excess)
        right, mostly = self.judge(f"{name}/{member}", target, x, batch.y, index)
        columns = [name, f"{name}/{member}"] if member else [name]
        mostly_open = None if mostly is None else mostly[open_]
        self._record(columns, index[open_], right[open_], mostly_open)

    def _open(self, name: str, everywhere: bool = True) -> None:
        """A column in which samples that the model errs on count as broken, and others as not attacked."""
        for table in (self.outcomes, self.majority) if self.judge.model.stochastic else (self.outcomes,):
            start = torch.full((len(self.data),), NOT_ATTACKED, dtype=torch.int8)
            if name != CLEAN and not everywhere:
                start[table[CLEAN] == BROKEN] = BROKEN
            table[name] = start

    def _record(self, columns: Sequence[str], index: Tensor, right: Tensor, mostly: Tensor | None) -> None:
        for name in columns:
            _lower(self.outcomes[name], index, right)
            if mostly is not None:
                _lower(self.majority[name], index, mostly)


def _lower(column: Tensor, index: Tensor, right: Tensor) -> None:
    """A sample once broken stays broken."""
    new = right.to(torch.int8)
    old = column[index]
    column[index] = torch.where(old == NOT_ATTACKED, new, torch.minimum(old, new))


def _crafted(variants: Sequence[Attack], model: Classifier, data: Split, index: Tensor) -> Sequence[Tensor]:
    """Adversarial inputs of every attack of a family for the samples at `index`."""
    batch = data.batch(index)
    first = variants[0]
    target, x = first.target(model, batch.x, index)
    if isinstance(first, Stepwise):
        steps = [attack.steps for attack in variants if isinstance(attack, Stepwise)]
        return first.read(steps, target, x, batch.y, index)
    return [first(target, x, batch.y, index)]


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - start
