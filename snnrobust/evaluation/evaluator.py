"""Runs a suite of attacks and all measures over one split."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from snnrobust.attacks.base import Attack
from snnrobust.attacks.guard import untouched
from snnrobust.data.dataset import Split
from snnrobust.estimators.base import Estimator
from snnrobust.estimators.strongest import Strongest
from snnrobust.evaluation.columns import Columns, families, family_name
from snnrobust.evaluation.costs import Costs, compared, costs
from snnrobust.evaluation.examples import examples
from snnrobust.evaluation.gradients import survey
from snnrobust.evaluation.judge import Judge
from snnrobust.evaluation.ledger import Ledger
from snnrobust.evaluation.outcomes import CLEAN, ROBUST
from snnrobust.evaluation.probes import Probing, declared
from snnrobust.evaluation.progress import Progress, silent
from snnrobust.evaluation.report import Report
from snnrobust.evaluation.selection import Selection, resolved, select, wanted
from snnrobust.randomness import isolated
from snnrobust.spiking.classifier import Classifier, SpikingClassifier
from snnrobust.spiking.fuse import fused
from snnrobust.threat import Threat


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
        self,
        model: Classifier,
        data: Split,
        progress: Progress = silent,
        validation: Split | None = None,
        ledger: Ledger | None = None,
    ) -> Report:
        """Evaluates in eval mode; the model and the caller's random streams are left as they were.

        Args:
            model: what is evaluated.
            data: on what.
            progress: where it is shown.
            validation: other data, on which the strongest estimators are chosen where the attacks ask for them.
            ledger: where batches that were finished by an earlier process are on record; None: nowhere.

        Of several processes (`distributed.py`) each computes its part of the batches of attacks; probes, gradients and
        costs are computed by all alike. All of them return the same report, up to the seconds.

        Raises:
            ValueError: if an estimator does not apply to the model, there are no validation data to choose it on, or
                the reference does not fit the data.
        """
        its, ledger = self.settings, ledger or Ledger()
        seconds: dict[str, float] = {}
        with untouched(model):
            judge = Judge(model, its.draws, its.seed)
            columns = Columns(judge, data, ledger, its.batch_size, its.exhaustive, its.cascade)
            with _timed(seconds, CLEAN, ledger), progress(CLEAN, len(data)) as advance:
                columns.clean(advance)
            with _timed(seconds, "costs", ledger), isolated("costs", its.seed):
                spent = self._costs(model, data)
            attacked = self._arranged(model)
            with _timed(seconds, "selection", ledger):
                attacks, selection = self._selected(attacked, judge, validation, ledger)
            for family in families(attacks):
                name = family_name(family)
                with _timed(seconds, f"attack/{name}", ledger), progress(name, len(data)) as advance:
                    columns.attack(family, attacked, self._inside(), advance)
            with _timed(seconds, "probes", ledger):
                probing = Probing(self.threat, self.estimator, its.batch_size, its.seed)
                probes = probing(attacked, judge, data, columns.outcomes[CLEAN] == ROBUST)
            with _timed(seconds, "measures", ledger), isolated("measures", its.seed):
                estimator = self._measured(selection)
                gradients = survey(model, data, estimator, its.batch_size, its.seed)
                shown = examples(model, attacked, data, estimator, self._shown(attacks), its.seed)
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
        self, attacked: Classifier, judge: Judge, validation: Split | None, ledger: Ledger
    ) -> tuple[Mapping[str, Attack], Selection | None]:
        """The attacks, with the strongest estimators where they ask for them."""
        request = wanted(self.attacks)
        if request is None:
            return self.attacks, None
        if validation is None:
            raise ValueError("estimator: the strongest are chosen on validation data; allowed without: any other")
        size, seed = self.settings.batch_size, self.settings.seed
        chosen = select(request, attacked, judge, validation, self.threat, size, seed, ledger)
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


@contextmanager
def _timed(seconds: dict[str, float], phase: str, ledger: Ledger) -> Iterator[None]:
    """What the phase takes now, and what its batches on record had taken."""
    start, earlier = time.perf_counter(), ledger.seconds
    yield
    seconds[phase] = time.perf_counter() - start + ledger.seconds - earlier
