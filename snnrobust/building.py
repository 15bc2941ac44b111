"""From a checked config to objects: experiments, and classifiers that were saved. Imports torch when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from snnrobust.check import FOREIGN_NODES, NODES, SAVED_NODES, check_saved
from snnrobust.identity import training_signature
from snnrobust.saved import TRANSFER, checkpoint_of, config_beside
from snnrobust.schema import ConfigError

if TYPE_CHECKING:
    import torch

    from snnrobust.attacks.base import Attack
    from snnrobust.conversion.base import Start
    from snnrobust.experiment import Experiment
    from snnrobust.foreign_experiment import ForeignExperiment
    from snnrobust.spiking.classifier import SpikingClassifier
    from snnrobust.tracking import Tracker


def build(config: Mapping[str, Any]) -> tuple[Experiment, Tracker]:
    """The objects that a checked config describes. Imports torch.

    Raises:
        ConfigError: if an object refuses its settings in combination.
        CheckpointError: if the source of a transferred attack cannot be used.
    """
    from snnrobust.experiment import Experiment

    wired = ["connectivity"] if config.get("connectivity") else []
    parts = _parts(config, [*NODES, *wired])
    tracker = parts.pop("tracker")
    start = config.get("start")
    parts |= {} if start is None else {"start": partial(_start, start, parts["device"])}
    return Experiment(**parts, reference=_reference(config, parts["device"])), tracker


def build_foreign(config: Mapping[str, Any]) -> tuple[ForeignExperiment, Tracker]:
    """The same for a model made elsewhere, whose class is not imported before the model is asked for.

    Raises:
        ConfigError: if an object refuses its settings in combination.
        CheckpointError: if the source of a transferred attack cannot be used.
    """
    from snnrobust.foreign_experiment import ForeignExperiment

    parts = _parts(config, [key for key in FOREIGN_NODES if key != "model"])
    tracker = parts.pop("tracker")
    weights = Path(config["weights"]["path"]) if config["weights"]["path"] else None
    network = partial(instantiate, "model", config["model"])
    return ForeignExperiment(**parts, network=network, weights=weights, stochastic=config["stochastic"]), tracker


def _parts(config: Mapping[str, Any], nodes: Sequence[str]) -> dict[str, Any]:
    """The objects of the given nodes, and what every evaluation needs."""
    import torch

    from snnrobust.evaluation.evaluator import Settings
    from snnrobust.experiment import resolve_device

    torch.set_num_threads(config["threads"])
    try:
        parts = {key: instantiate(key, config[key]) for key in nodes}
        device = resolve_device(config["device"])
        fast = config["evaluation"]["fast"]
        attacks = {name: _attack(f"attacks.{name}", node, device, fast) for name, node in config["attacks"].items()}
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return parts | {
        "attacks": attacks,
        "headline": dict(config["suite"]["headline"]),
        "evaluation": Settings(**config["evaluation"], cascade=config["suite"]["cascade"]),
        "seed": config["seed"],
        "device": device,
    }


def _attack(key: str, node: Mapping[str, Any], device: torch.device, fast: bool) -> Attack:
    """An attack; the source of a transferred one is loaded from its run."""
    if node["_target_"] != TRANSFER:
        attack: Attack = instantiate(key, node)
        return attack
    from snnrobust.attacks.transfer import Transfer
    from snnrobust.spiking.fuse import fused
    from snnrobust.training.checkpoint import CheckpointError

    try:
        source = _run(node["source"]).to(device)
    except CheckpointError as error:
        raise ConfigError(f"{key}.source: {str(error).replace('; force=true trains again', '')}") from error
    inner = _attack(f"{key}.attack", node["attack"], device, fast)
    return Transfer(fused(source) if fast else source, inner)


def _start(node: Mapping[str, Any], device: torch.device) -> Start:
    """What the weights begin with; its source is loaded from its run.

    Raises:
        ValueError: if it refuses its settings.
        CheckpointError: if its source cannot be used.
    """
    own = {key: value for key, value in node.items() if key != "source"}
    make = instantiate("start", own | {"_partial_": True})
    source = {} if "source" not in node else {"source": _run(node["source"]).to(device)}
    try:
        made: Start = make(**source)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith("start") else f"start.{text}") from error
    return made


def _reference(config: Mapping[str, Any], device: torch.device) -> Callable[[], SpikingClassifier] | None:
    """Loads the network whose energy is compared with, when it is called."""
    given = config.get("reference")
    return None if given is None else lambda: _run(given).to(device)


def _run(given: Mapping[str, Any]) -> SpikingClassifier:
    return load(given["path"], given["training_signature"])


def load(path: str | Path, signature: str | None = None) -> SpikingClassifier:
    """The classifier of a run, with its trained weights, in eval mode, on the CPU. Runs no code that the run brings.

    Args:
        path: a run directory, or the checkpoint in it; its config must lie beside it.
        signature: of the training that it must come from, if that is known.

    Raises:
        CheckpointError: in one line, if there is no such run, or its files are damaged or do not belong together.
    """
    from snnrobust.experiment import untrained
    from snnrobust.training.checkpoint import Checkpoint, CheckpointError

    try:
        file = checkpoint_of("checkpoint", path)
        config = config_beside("checkpoint", file)
        check_saved(config)
        model = untrained(**{key: instantiate(key, config[key]) for key in SAVED_NODES}, seed=0)
    except (ConfigError, ValueError) as error:
        raise CheckpointError(str(error).splitlines()[0]) from error
    checkpoint = Checkpoint.load(file)
    expected = signature or training_signature(config)
    if checkpoint.signature != expected:
        raise CheckpointError(f"{file}: weights of training {checkpoint.signature}; expected those of {expected}")
    checkpoint.restore(model, file)
    return model.eval()


def refuse_other_files(config: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Passes silently if results are of the data that a config finds today, or these cannot be looked at.

    Raises:
        DataError: if the data are of other files, for datasets whose content is not published as a whole.
    """
    from snnrobust.data import dataset

    recorded = results.get("split_digests")
    if not recorded:
        return
    try:
        found = instantiate("dataset", config["dataset"]).split_digests()
    except dataset.DataError:  # the data are elsewhere, or gone: the results stay what they are
        return
    than, remedy = "those of the recorded results", "force=true to train and evaluate again"
    dataset.refuse_other_files(recorded, found, than, remedy)


def instantiate(key: str, node: Mapping[str, Any]) -> Any:
    """One object from its node.

    Raises:
        ValueError: if it refuses its settings; the message begins with the key.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate

    try:
        return hydra_instantiate(OmegaConf.create(dict(node)), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            text, inside = str(cause), str(error).partition("full_key:")[2].strip()
            path = f"{key}.{inside}" if inside else key  # of a node in this one
            raise ValueError(text if text.startswith(key) else f"{path}.{text}") from error
        said, reason = in_one_line(error).partition(", set env var")[0], cause
        while reason is not None and reason.__cause__ is not None:
            reason = reason.__cause__
        raise ValueError(f"{key}: {said}" + f" ({type(reason).__name__}: {reason})" * bool(reason)) from error


def in_one_line(error: Exception) -> str:
    """What an error of Hydra or OmegaConf says, and of which key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.partition("full_key:")[2].strip() for line in lines if line.startswith("full_key:")), "")
    said = [line for line in lines if not line.startswith(("full_key:", "object_type="))]
    text = " ".join(said)[:300] or type(error).__name__
    return f"{key}: {text}" if key else text
