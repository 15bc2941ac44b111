"""Searches as `snnrobust search` left them: the content of `search.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator


class Objective(BaseModel):
    """A measure that the trials were chosen by."""

    name: str
    larger_is_better: bool


class TrialRun(BaseModel):
    """One of the runs of a trial, by its signatures."""

    training_signature: str
    evaluation_signature: str

    @property
    def identity(self) -> tuple[str, str]:
        return self.training_signature, self.evaluation_signature


class Trial(BaseModel):
    """One trial: the words that tell it apart, its objectives where it is done, and whether it is on the front."""

    number: int
    state: Literal["done", "failed", "running"]
    words: list[str]
    objectives: list[float]
    front: bool
    runs: list[TrialRun]


class Search(BaseModel):
    """One search.

    Args:
        path: of its file.
        space: a word for each key that it ranges over.
        over_seeds: the runs of each trial, if not one.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    name: str
    objectives: list[Objective]
    space: list[str]
    over_seeds: list[int] | None
    trials: list[Trial]

    @model_validator(mode="after")
    def _whole(self) -> Search:
        if not self.objectives:
            raise ValueError("no objectives")
        for trial in self.trials:
            if trial.state == "done" and len(trial.objectives) != len(self.objectives):
                raise ValueError(
                    f"trial {trial.number} has {len(trial.objectives)} of {len(self.objectives)} objectives"
                )
            if len(trial.words) != len(self.space):
                raise ValueError(f"trial {trial.number} has {len(trial.words)} of {len(self.space)} words")
        return self

    @property
    def done(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "done"]


def search_of(path: Path, content: Mapping[str, Any]) -> Search:
    """Raises pydantic's `ValidationError` if something is missing."""
    return Search.model_validate({**content, "path": path})
