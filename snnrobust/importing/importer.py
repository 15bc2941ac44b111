"""From a file of published weights to a run directory that `snnrobust evaluate` attacks."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from snnrobust import environment
from snnrobust.building import build, instantiate
from snnrobust.check import TRUSTED
from snnrobust.config import Composed, compose
from snnrobust.importing.base import Format, Parts, channels_of, classes_of
from snnrobust.importing.grad_obf_snn import GradObfSnn
from snnrobust.importing.gradient_reg_defense import GradientRegDefense
from snnrobust.importing.robust_snn_conversion import RobustSnnConversion
from snnrobust.importing.weights import read
from snnrobust.job import CHECKPOINT, CONFIG, Job
from snnrobust.overrides import parse, replayed, touched
from snnrobust.record import plain
from snnrobust.schema import ConfigError
from snnrobust.training.checkpoint import Checkpoint, CheckpointError

FORMATS: Mapping[str, Format] = {f.name: f for f in (GradientRegDefense(), GradObfSnn(), RobustSnnConversion())}
DATASETS = {(3, 10): "cifar10", (3, 100): "cifar100", (3, 200): "tiny_imagenet"}
"""The datasets of the papers, by channels and classes."""
ALIKE = {"cifar10": "svhn"}
"""Datasets of the same shape, which weights do not tell apart."""
BACKBONE, OURS = "backbone.", "normalize."
"""Tensors of the network, and those that come from the dataset."""


@dataclass(frozen=True)
class Imported:
    """A run directory, what it holds, and whether it was there already.

    Args:
        home: the run directory.
        model: choice of the group.
        dataset: choice of the group.
        parameters: of the network.
        assumed: overrides that neither the weights nor the user gave.
        found: whether the directory was there.
    """

    home: Path
    model: str
    dataset: str
    parameters: int
    assumed: tuple[str, ...]
    found: bool

    @property
    def caution(self) -> str:
        """One line on what was assumed; empty if nothing was."""
        if not self.assumed:
            return ""
        alike = ALIKE.get(self.dataset) if f"dataset={self.dataset}" in self.assumed else None
        other = f" (the weights fit dataset={alike} as well)" * bool(alike)
        return f"assumed: {' '.join(self.assumed)}; say otherwise with key=value{other}"


@dataclass(frozen=True)
class _Dataset:
    """Choice of the group, and height of the inputs."""

    name: str
    size: int


@dataclass(frozen=True)
class _Described:
    """The config of the network, the overrides that it follows from, and those that were assumed."""

    composed: Composed
    used: list[str]
    assumed: tuple[str, ...]
    parts: Parts


def import_weights(name: str, file: Path, overrides: Sequence[str]) -> Imported:
    """Makes a run of the weights in a file; the same file and overrides give the same directory.

    Args:
        name: of the format.
        file: as the authors' code saved it.
        overrides: of the config, for what neither the weights nor the paper decide, or the user knows better.

    Raises:
        ConfigError: in one line, if the file cannot be used, does not fit the network, or more has to be said.
        OSError: if the directory cannot be written.
    """
    if name not in FORMATS:
        raise ConfigError(f"format: got {name!r}; allowed: {', '.join(FORMATS)}")
    for override in touched(overrides, ("training", "regularizer", "defence", "experiment"), free=()):
        raise ConfigError(f"{override}: of no meaning for weights that were trained elsewhere")
    state = read(file)
    described = _described(FORMATS[name], file, state, overrides)
    composed = described.composed
    experiment, _ = build(composed.config)
    try:
        model = experiment.classifier().cpu()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    own = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith(OURS)}
    model.load_state_dict(_placed(file, state, own, described.parts), strict=False)
    job = Job(composed.config, composed.choices, tuple(described.used), "evaluate")
    provenance = {
        "imported": {"format": name, "file": file.name, "sha256": composed.config["training"]["sha256"]},
        "versions": environment.versions(),
        "git": environment.commit(),
    }
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    found = _write(job, Checkpoint(job.training, 0, {}, {}, provenance, state))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    choices = composed.choices
    return Imported(job.home, choices["model"], choices["dataset"], parameters, described.assumed, found)


def _described(made: Format, file: Path, state: Mapping[str, Tensor], overrides: Sequence[str]) -> _Described:
    parsed = parse(overrides)
    for override in parsed:
        if override.is_delete():
            raise ConfigError(f"{override.input_line}: no setting can be left out; allowed: key=value")
    said = {o.key_or_group: o.get_value_string() for o in parsed}
    with _of_the_file(made, file):
        channels, classes = channels_of(state), classes_of(state)
    of_data = [str(o.input_line) for o in parsed if o.key_or_group.startswith(("dataset.", "dataset/", "encoder"))]
    dataset = _dataset(channels, classes, said.get("dataset"), of_data)
    with _of_the_file(made, file):
        recognised = made.recognise(state, dataset.size)
    given = said | {"dataset": dataset.name, "model": _one("model", recognised.models, said)}
    for key, allowed in made.asks(state, given).items():
        _one(key, allowed, given)
    defaults = made.defaults(state, given, file.name)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    told = [
        *(f"dataset={dataset.name}", f"model={given['model']}", *recognised.settings, *defaults),
        *("regularizer=none", "training=imported", f"training.format={made.name}", f"training.sha256='{digest}'"),
    ]
    used = replayed(told, overrides)
    assumed = tuple(o for o in (f"dataset={dataset.name}", *defaults) if o.partition("=")[0] not in said)
    return _Described(compose("config", used, TRUSTED), used, assumed, recognised.parts)


@contextmanager
def _of_the_file(made: Format, file: Path) -> Iterator[None]:
    """Says of which file and format it is what the weights do not have."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{file}: not weights of {made.name} ({error})") from error


def _dataset(channels: int, classes: int, given: str | None, overrides: Sequence[str]) -> _Dataset:
    """The dataset that is given, or that of the papers, with the overrides that concern it.

    Raises:
        ConfigError: if there is none, or its inputs or classes are not those of the weights.
    """
    dataset = given or DATASETS.get((channels, classes))
    if dataset is None:
        raise ConfigError(f"dataset: none is known for {channels} channels and {classes} classes; give dataset=CHOICE")
    node = compose("config", [f"dataset={dataset}", *overrides], TRUSTED).config["dataset"]
    try:
        source = instantiate("dataset", node)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if (source.shape[-3], source.classes) != (channels, classes):
        theirs = f"{source.shape[-3]} channels and {source.classes} classes"
        raise ConfigError(f"dataset: got {dataset}, with {theirs}; allowed by the weights: {channels} and {classes}")
    return _Dataset(dataset, source.shape[-1])


def _one(key: str, allowed: Sequence[str], given: Mapping[str, str]) -> str:
    """The user's choice, or the only one there is."""
    if key in given and given[key] not in allowed:
        raise ConfigError(f"{key}: got {given[key]}; allowed by the weights: {', '.join(allowed)}")
    if key not in given and len(allowed) > 1:
        choices = " or ".join(f"{key}={value}" for value in allowed)
        raise ConfigError(f"{key}: the weights do not tell; give {choices}")
    return given.get(key, allowed[0])


def _placed(file: Path, state: Mapping[str, Tensor], own: Mapping[str, Tensor], parts: Parts) -> dict[str, Tensor]:
    """The weights under our names: all of ours, and nothing else.

    Raises:
        ConfigError: if a tensor is left over, missing, of another shape or kind, or not finite.
    """
    placed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        here = f"{BACKBONE}{renamed(name, parts)}"
        if here not in own or here in placed:
            raise ConfigError(f"{file}: {name} is left over: the network has no place for it")
        if tensor.shape != own[here].shape:
            shapes = " instead of ".join(str([*t.shape]) for t in (tensor, own[here]))
            raise ConfigError(f"{file}: {name} is {shapes}")
        placed[here] = _value(f"{file}: {name}", tensor, own[here].dtype)
        if here.endswith(".running_var") and (placed[here] < 0).any():
            raise ConfigError(f"{file}: {name} has negative entries; allowed: variances")
    for here in own:
        if here not in placed:
            there = renamed(here.removeprefix(BACKBONE), [(here, there) for there, here in parts])
            raise ConfigError(f"{file}: {there or here} is missing: the network needs it")
    return placed


def _value(said: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in the number format of the network.

    Raises:
        ConfigError: if it consists of another kind of numbers, or some are not finite in that format.
    """
    if (tensor.is_floating_point(), tensor.is_complex()) != (dtype.is_floating_point, False):
        kind = "floating-point numbers" if dtype.is_floating_point else "integers"
        raise ConfigError(f"{said} is {str(tensor.dtype).removeprefix('torch.')}; allowed: {kind}")
    value = tensor.to(dtype)
    if not value.isfinite().all():
        raise ConfigError(f"{said} has entries that are not finite; allowed: finite numbers")
    return value


def renamed(name: str, parts: Parts) -> str | None:
    """The name of a tensor here; None if it belongs to none of the parts."""
    for there, here in parts:
        if name == there or name.startswith(f"{there}."):
            return here + name.removeprefix(there)
    return None


def _write(job: Job, checkpoint: Checkpoint) -> bool:
    """Writes the run unless it is there; everything is on the disk before anything gets its name, weights last."""
    if _is_there(job.home / CHECKPOINT, job.training):
        return True
    runs = Path(job.config["runs"])
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs, prefix=".import-") as folder:
        staged = Path(folder)
        files: dict[str, Any] = {CONFIG: plain(job.config), "overrides.yaml": [*job.overrides]}
        for name, content in files.items():
            (staged / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        checkpoint.save(staged / CHECKPOINT)
        job.home.mkdir(exist_ok=True)
        for name in (*files, CHECKPOINT):
            os.replace(staged / name, job.home / name)
    return False


def _is_there(path: Path, signature: str) -> bool:
    try:
        return path.exists() and Checkpoint.load(path).signature == signature
    except CheckpointError:  # damaged: written anew
        return False
