"""Samples and their input gradients, as runs left them in `gradients.npz`: which are shown, and what is in them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnrobust.job import GRADIENTS
from snnrobust.reporting.records import Record
from snnrobust.reporting.settings import show
from snnrobust.reporting.trainings import Training

Array = NDArray[Any]

MOST_TRAININGS, MOST_ESTIMATORS, MOST_NAMED = 6, 4, 12
GRADIENT = "gradient/"


@dataclass(frozen=True)
class Examples:
    """Samples of one trained model, S of them.

    Args:
        training: what tells its training apart from others.
        run: which of the models that were trained like this it is.
        index: `[S]`, positions in the test data.
        labels: `[S]`, true classes.
        predicted: `[S]`, the model's answers.
        inputs: `[S, ...]`, images `[S, C, H, W]` or event frames `[S, T, C, H, W]`.
        gradients: by estimator, `[S, ...]`.
        perturbation: `[S, ...]`, of the headline attack; None where there is none.
        attacked: `[S]`, the model's answers under it.
        budget: of the attack, as text.
    """

    training: str
    run: str
    index: Array
    labels: Array
    predicted: Array
    inputs: Array
    gradients: Mapping[str, Array]
    perturbation: Array | None
    attacked: Array | None
    budget: str


@dataclass(frozen=True)
class Selection:
    """Examples of some training configurations, and what a reader must know of the others."""

    shown: tuple[Examples, ...]
    notes: tuple[str, ...]


def select(trainings: Sequence[Training]) -> Selection:
    """Examples of at most six training configurations, evenly spread over them; of the first seed each.

    Evaluations of the same model under other estimators add theirs. What is left out is named in the notes.
    """
    found = [training for training in trainings if training.of_each_model(_has_examples)]
    places = np.linspace(0, len(found) - 1, min(len(found), MOST_TRAININGS)).round().astype(int)
    chosen = [found[place] for place in places]
    shown, notes = [], []
    for training in chosen:
        model = training.of_each_model(_has_examples)[0].identity[0]
        records = [record for record in training.records if record.identity[0] == model and _has_examples(record)]
        read = [_read(training.name, record) for record in records]
        notes += [problem for problem in read if isinstance(problem, str)]
        if usable := [examples for examples in read if isinstance(examples, Examples)]:
            shown.append(_merged(usable))
    if left := [training.name for training in found if training not in chosen]:
        some = "; ".join(left[:MOST_NAMED]) + (f"; and {len(left) - MOST_NAMED} others" if left[MOST_NAMED:] else "")
        notes.append(f"{len(left)} more training configurations are not shown: {some}")
    if found and len(found) < len(trainings):
        notes.append(f"{len(trainings) - len(found)} training configurations have no {GRADIENTS}, as older runs do not")
    return Selection(tuple(shown), tuple(notes))


def _has_examples(record: Record) -> bool:
    return (record.path.parent / GRADIENTS).is_file()


def _read(training: str, record: Record) -> Examples | str:
    """The content of one file, or why it cannot be used."""
    path = record.path.parent / GRADIENTS
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            arrays = {name: file[name] for name in file.files}
        inputs = arrays["input"]
        gradients = {k.removeprefix(GRADIENT): v for k, v in arrays.items() if k.startswith(GRADIENT)}
        index, labels, predicted = (arrays[name] for name in ("index", "label", "predicted"))
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        return f"{path} cannot be used: {' '.join(str(error).split()) or type(error).__name__}"
    perturbation, attacked = arrays.get("perturbation"), arrays.get("attacked")
    pictures = [*gradients.values(), *([] if perturbation is None else [perturbation])]
    answers = [index, labels, predicted, *([] if attacked is None else [attacked])]
    if not gradients or inputs.ndim < 3 or any(picture.shape != inputs.shape for picture in pictures):
        return f"{path} cannot be used: no gradients of the shape of the inputs"
    if any(answer.shape != inputs.shape[:1] for answer in answers):
        return f"{path} cannot be used: not one label for each sample"
    budget = " ".join(f"{k} {show(v)}" for k, v in record.config["threat"].items() if not k.startswith("_"))
    run = f"run {record.identity[0][:10]}, seed {record.seed}"
    return Examples(training, run, index, labels, predicted, inputs, gradients, perturbation, attacked, budget)


def _merged(several: Sequence[Examples]) -> Examples:
    """The first, with the estimators of the others that show the same samples; four in all."""
    first = several[0]
    gradients: dict[str, Array] = {}
    for other in several:
        if np.array_equal(other.index, first.index) and other.inputs.shape == first.inputs.shape:
            gradients |= {name: array for name, array in other.gradients.items() if name not in gradients}
    return replace(first, gradients=dict([*gradients.items()][:MOST_ESTIMATORS]))
