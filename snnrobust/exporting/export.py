"""From a run to a file of its network, which has been read back before anyone is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnrobust import __version__
from snnrobust.building import instantiate, load
from snnrobust.compressed import packed, same_bits, unpacked
from snnrobust.exporting.graph import content_of, graph_of
from snnrobust.files import write_checked
from snnrobust.identity import training_signature
from snnrobust.saved import checkpoint_of, config_beside
from snnrobust.schema import ConfigError
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.synapses import synapses


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: the file.
        size: of it, in bytes.
        dense: bytes of the same weights in a safetensors file that stores all of them.
        synapses: weights of convolutions and linear layers.
        present: those that are not zero.
    """

    path: Path
    size: int
    dense: int
    synapses: int
    present: int


@dataclass(frozen=True)
class _Found:
    model: SpikingClassifier
    config: Mapping[str, Any]

    @property
    def about(self) -> dict[str, str]:
        """What each file says of itself."""
        kinds = {key: str(self.config[key]["_target_"]) for key in ("model", "dataset", "encoder", "neuron")}
        return {"training_signature": training_signature(self.config), **kinds, "snnrobust": __version__}

    @property
    def weights(self) -> list[str]:
        return [f"{name}.weight" for name in synapses(self.model)]

    def dense(self) -> bytes:
        return packed(self.model.state_dict(), (), self.about)

    def sparse(self) -> bytes:
        return self._unchanged(packed(self.model.state_dict(), self.weights, self.about))

    def safetensors(self) -> bytes:
        return self._unchanged(self.dense())

    def nir(self) -> bytes:
        shape = instantiate("dataset", self.config["dataset"]).shape[-3:]
        return content_of(graph_of(self.model, shape, self.about))

    def _unchanged(self, content: bytes) -> bytes:
        assert same_bits(unpacked(content), self.model.state_dict())
        return content


FORMATS: dict[str, tuple[str, Callable[[_Found], bytes]]] = {
    "sparse": ("weights.sparse.safetensors", _Found.sparse),
    "safetensors": ("weights.safetensors", _Found.safetensors),
    "nir": ("network.nir", _Found.nir),
}
"""By name, the file in the run directory, and what makes its content."""


def export(run: str, form: str = "sparse", out: Path | None = None) -> Exported:
    """Writes the network of a run into a file, atomically.

    Args:
        run: its directory, or the checkpoint in it.
        form: of `FORMATS`.
        out: the file; None for the one of `FORMATS` in the run directory.

    Raises:
        ConfigError: if there is no such run or format, or the format has no place for the network.
        CheckpointError: if the files of the run are damaged.
        OSError: if the file cannot be written, or reads back as something else.
    """
    if form not in FORMATS:
        raise ConfigError(f"format: got {form}; allowed: {', '.join(FORMATS)}")
    checkpoint = checkpoint_of("export", run)
    found = _Found(load(checkpoint), config_beside("export", checkpoint))
    name, make = FORMATS[form]
    try:
        content = make(found)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    path = checkpoint.parent / name if out is None else out
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"out: got {path}; allowed: a file in a folder that exists")
    write_checked(path, content)
    weights = synapses(found.model).values()
    present = sum(int(weight.count_nonzero()) for weight in weights)
    return Exported(path, len(content), len(found.dense()), sum(weight.numel() for weight in weights), present)
