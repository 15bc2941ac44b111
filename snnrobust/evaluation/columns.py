"""The outcomes of an evaluation as they grow, a column for each attack and estimator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from snnrobust.attacks.base import Attack, Stepwise
from snnrobust.data.dataset import Split
from snnrobust.evaluation.findings import Finding
from snnrobust.evaluation.judge import Judge
from snnrobust.evaluation.ledger import Ledger
from snnrobust.evaluation.outcomes import BROKEN, CLEAN, NOT_ATTACKED, ROBUST, share
from snnrobust.evaluation.progress import Advance
from snnrobust.spiking.classifier import Classifier

Family = Sequence[tuple[str, Attack]]
"""Attacks that one search answers: several lengths of a stepwise one, or a single attack."""


def families(attacks: Mapping[str, Attack]) -> Iterator[Family]:
    """Neighbours that are lengths of one search together, shortest first; every other attack by itself."""

    def kind(item: tuple[str, Attack]) -> object:
        return item[1].family() if isinstance(item[1], Stepwise) else item[0]

    for _, family in groupby(attacks.items(), kind):
        yield sorted(family, key=lambda item: item[1].steps if isinstance(item[1], Stepwise) else 0)


def family_name(family: Family) -> str:
    """Of the phase that runs it."""
    return "+".join(name for name, _ in family)


class Columns:
    """The outcomes of one evaluation.

    Which samples the next estimator tries is decided between its batches and those of the one before: within, a batch
    depends on nothing but its samples, so that it may be read from a record, or be computed by another process.

    Args:
        judge: of the outcomes.
        data: of N samples.
        ledger: computes batches, or has them on record.
        batch_size: samples per batch.
        exhaustive: see the settings of an evaluation.
        cascade: the same.
    """

    def __init__(
        self, judge: Judge, data: Split, ledger: Ledger, batch_size: int, exhaustive: bool, cascade: bool
    ) -> None:
        self.judge = judge
        self.data = data
        self.ledger = ledger
        self.batch_size = batch_size
        self.exhaustive = exhaustive
        self.cascade = cascade
        self.outcomes: dict[str, Tensor] = {}
        self.majority: dict[str, Tensor] = {}
        self.excess: dict[str, float] = {}
        self.standing = torch.ones(len(data), dtype=torch.bool)
        """Correct so far: on the clean input and, under a cascade, under all attacks inside the threat."""

    def clean(self, advance: Advance) -> None:
        self._open(CLEAN)
        batches = torch.arange(len(self.data)).split(self.batch_size)
        for finding in self.ledger.findings(CLEAN, batches, self._find_clean):
            everywhere = torch.ones_like(finding.right[CLEAN])
            self._record([CLEAN], finding, CLEAN, everywhere)
            advance(len(finding.index), share(self.outcomes[CLEAN][: int(finding.index[-1]) + 1] == ROBUST))
        self.standing = self._lenient(CLEAN) != BROKEN

    def attack(self, family: Family, attacked: Classifier, inside: Sequence[str], advance: Advance) -> None:
        """Runs one search for a family of attacks under each estimator, on the samples that are still in question."""
        before = self.standing.clone()
        variants = [attack.variants() for _, attack in family]
        for (name, attack), members in zip(family, variants, strict=True):
            for column in _columns(name, *members):
                self._open(column, everywhere=not attack.adversarial)
        names = [name for name, _ in family]
        for member in variants[0]:
            open_ = {name: self._in_question(name, attack, before) for name, attack in family}
            todo = torch.stack([*open_.values()]).any(0).nonzero().flatten()
            # Nothing splits into one part of nothing.
            batches = todo.split(self.batch_size) if len(todo) else ()
            find = partial(self._find, names, [members[member] for members in variants], member, attacked)
            for finding in self.ledger.findings(_phase(family, member), batches, find):
                for name in names:
                    self._record(_columns(name, member), finding, name, open_[name][finding.index])
                    if name in finding.excess:
                        self.excess[name] = max(self.excess.get(name, 0.0), finding.excess[name])
                advance(len(finding.index), share(self.outcomes[names[-1]] == ROBUST))
        if self.cascade:
            for name in set(inside) & set(names):
                self.standing &= self._lenient(name) != BROKEN

    def _find_clean(self, index: Tensor) -> Finding:
        batch = self.data.batch(index)
        right, mostly = self.judge(CLEAN, self.judge.model, batch.x, batch.y, index)
        return Finding(index, {CLEAN: right}, {} if mostly is None else {CLEAN: mostly})

    def _find(
        self, names: Sequence[str], attacks: Sequence[Attack], member: str, attacked: Classifier, index: Tensor
    ) -> Finding:
        """What becomes of a batch under a family of attacks by one estimator."""
        batch = self.data.batch(index)
        right: dict[str, Tensor] = {}
        mostly: dict[str, Tensor] = {}
        excess: dict[str, float] = {}
        found = _crafted(attacks, attacked, self.data, index)
        for name, attack, x in zip(names, attacks, found, strict=True):
            target, origin = attack.target(self.judge.model, batch.x, index)
            if attack.threat is not None:
                excess[name] = float(attack.threat.excess(x, origin).max())
            right[name], by_majority = self.judge(f"{name}/{member}", target, x, batch.y, index)
            if by_majority is not None:
                mostly[name] = by_majority
        return Finding(index, right, mostly, excess)

    def _in_question(self, name: str, attack: Attack, before: Tensor) -> Tensor:
        """`[N]` bool: samples that the next estimator of an attack should try."""
        if not attack.adversarial:
            return torch.ones_like(before)
        return before if self.exhaustive else before & (self._lenient(name) != BROKEN)

    def _lenient(self, name: str) -> Tensor:
        """By majority where there is one: what is broken in that sense is broken in every sense."""
        return self.majority.get(name, self.outcomes[name])

    def _open(self, name: str, everywhere: bool = True) -> None:
        """A column in which samples that the model errs on count as broken, and others as not attacked."""
        for table in (self.outcomes, self.majority) if self.judge.model.stochastic else (self.outcomes,):
            start = torch.full((len(self.data),), NOT_ATTACKED, dtype=torch.int8)
            if name != CLEAN and not everywhere:
                start[table[CLEAN] == BROKEN] = BROKEN
            table[name] = start

    def _record(self, columns: Sequence[str], finding: Finding, name: str, open_: Tensor) -> None:
        """Notes what became of the samples in question `[B]`; the others were carried along by a longer search."""
        index = finding.index[open_]
        for column in columns:
            _lower(self.outcomes[column], index, finding.right[name][open_])
            if name in finding.mostly:
                _lower(self.majority[column], index, finding.mostly[name][open_])


def _columns(name: str, *members: str) -> list[str]:
    """Of an attack, and of its estimators where there are several."""
    return [name, *(f"{name}/{member}" for member in members if member)]


def _phase(family: Family, member: str) -> str:
    return f"attack/{family_name(family)}" + f"/{member}" * bool(member)


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
