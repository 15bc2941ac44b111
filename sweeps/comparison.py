"""What a comparison consists of, read from its yaml file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import model_validator

from sweeps.declarations import Strict, read_as


class Tuning(Strict):
    """One setting that is chosen on validation data, of the first seed, per dataset.

    Args:
        key: of the config.
        values: to try, by dataset.
        against: name of the contender whose clean accuracy is the reference; the baseline if not given.
    """

    key: str
    values: Mapping[str, tuple[float, ...]]
    against: str | None = None


class Contender(Strict):
    """One row of the table.

    Args:
        label: in the table.
        family: in the figure.
        overrides: of the command line.
        tune: what is chosen for it.
        datasets: names of those that it is for; all if not given.
    """

    label: str
    family: str
    overrides: tuple[str, ...] = ()
    tune: Tuning | None = None
    datasets: tuple[str, ...] | None = None


class Comparison(Strict):
    """A table of contenders on several datasets.

    Args:
        title: of the page.
        runs: folder of the runs.
        seeds: of the trainings.
        common: overrides of every run.
        datasets: overrides by name.
        quick: overrides of the thin column.
        full: overrides of the column that counts.
        baseline: name of the contender that the others are compared with.
        tolerance: clean accuracy on validation data that a chosen value may cost against the baseline, as a share.
        contenders: by name, in the order of the table.
    """

    title: str
    runs: str
    seeds: tuple[int, ...]
    common: tuple[str, ...]
    datasets: Mapping[str, tuple[str, ...]]
    quick: tuple[str, ...]
    full: tuple[str, ...]
    baseline: str
    tolerance: float
    contenders: Mapping[str, Contender]

    @model_validator(mode="after")
    def _names(self) -> Comparison:
        """Names that are used are there, and so are values for every dataset.

        Raises:
            ValueError: if not.
        """
        for name, contender in self.contenders.items():
            tune = contender.tune
            missing = [d for d in self.datasets if name in self.of(d) and tune and not tune.values.get(d)]
            if missing:
                raise ValueError(f"contenders.{name}.tune.values: nothing for {', '.join(missing)}")
            if tune and tune.against and tune.against not in self.contenders:
                raise ValueError(f"contenders.{name}.tune.against: got {tune.against}; allowed: a contender")
        if self.baseline not in self.contenders:
            raise ValueError(f"baseline: got {self.baseline}; allowed: {', '.join(self.contenders)}")
        return self

    def of(self, dataset: str) -> Mapping[str, Contender]:
        """The contenders of a dataset."""
        return {name: c for name, c in self.contenders.items() if c.datasets is None or dataset in c.datasets}

    def number(self, name: str) -> int:
        """Of a contender, from 1: the same in tables and figures of all datasets."""
        return 1 + [*self.contenders].index(name)


def read(path: Path) -> Comparison:
    """The comparison in a yaml file.

    Raises:
        ValueError: in one line, if it is absent or not in order.
    """
    return read_as(Comparison, path)
