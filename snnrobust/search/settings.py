"""How a search is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snnrobust.settings import NonNegativeInt, PositiveInt

ROBUST = ("validation_accuracy", "validation_robust_accuracy")


@dataclass(frozen=True)
class Search:
    """Settings of `snnrobust search`, all under `search.`.

    Args:
        name: of its folder below `runs/searches`.
        trials: how many in all, with those that are on record.
        sampler: proposes the next trial: a tree-structured Parzen estimator (Bergstra et al. 2011, with several
            objectives Ozaki et al. 2022), NSGA-II (Deb et al. 2002), at random, or every combination in its turn.
        startup: trials at random before `tpe` learns from them.
        population: of a generation of `nsga2`.
        seed: of the sampler.
        objectives: names of measures (`objectives.MEASURES`).
        over_seeds: a trial is a run for each of them, and counts by the mean of each objective; None: one run.
        batch: trials proposed before the first of them has ended.
    """

    name: str = "default"
    trials: PositiveInt = 20
    sampler: Literal["tpe", "nsga2", "random", "grid"] = "tpe"
    startup: PositiveInt = 10
    population: PositiveInt = 20
    seed: NonNegativeInt = 0
    objectives: tuple[str, ...] = ROBUST
    over_seeds: tuple[NonNegativeInt, ...] | None = None
    batch: PositiveInt = 1
