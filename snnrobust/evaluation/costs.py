"""What a network costs: its connections, the spikes it sends, the operations they cause, and an estimate of energy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from snnrobust.compressed import packed
from snnrobust.data.dataset import Split
from snnrobust.evaluation.costs_counting import Count, counts, uncounted
from snnrobust.evaluation.costs_traffic import Traffic, traffic
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.neuron import Neuron
from snnrobust.spiking.synapses import densities, sparsity, synapses

ACCUMULATE_PICOJOULE = 0.9
"""One 32-bit floating-point addition in 45 nm (Horowitz, ISSCC 2014)."""
MULTIPLY_ACCUMULATE_PICOJOULE = 4.6
"""One 32-bit floating-point multiplication, 3.7, and addition, 0.9 (ibid.)."""


@dataclass(frozen=True)
class Operations:
    """Means per sample, over all T steps.

    Args:
        spikes: by layer of neurons, those that it sends.
        synaptic: by convolution or linear layer that spikes arrive at, pairs of a spike and a weight other than zero:
            `sum_i psi_i o_i` over the neurons before it, with psi_i the synapses of neuron i and o_i its spikes.
        dense: the same, with the same spikes, were no weight zero.
        multiply_accumulates: by layer with an analog input, pairs of an input entry and a weight other than zero; once
            where the input is constant in time, else at every step.
        code: whether the input code consists of spikes, which count in `synaptic` but not in `spikes`.
    """

    spikes: Mapping[str, float]
    synaptic: Mapping[str, float]
    dense: Mapping[str, float]
    multiply_accumulates: Mapping[str, float]
    code: bool

    @property
    def nanojoule(self) -> float:
        """Per sample: every operation at its energy, and nothing for memory, leak and communication."""
        additions = ACCUMULATE_PICOJOULE * sum(self.synaptic.values())
        return (additions + MULTIPLY_ACCUMULATE_PICOJOULE * sum(self.multiply_accumulates.values())) / 1000


@dataclass(frozen=True)
class Costs:
    """Of one network on one split.

    Args:
        sparsity: share of the weights of convolutions and linear layers that are exactly zero.
        weights: of them.
        stored_weights: those that are not zero.
        stored_bytes: size of the network's file in which absent connections take no place (`compressed.py`).
        densities: by layer, the share of weights that are not zero.
        operations: None if the network has modules that cannot be counted.
        uncounted: those modules.
        reference: costs of the network that the energy is compared with; None: this one, were no connection absent.
    """

    sparsity: float
    weights: int
    stored_weights: int
    stored_bytes: int
    densities: Mapping[str, float]
    operations: Operations | None = None
    uncounted: tuple[str, ...] = ()
    reference: Costs | None = field(default=None)

    def metrics(self) -> dict[str, float]:
        """Scalars; those of spikes only where there are neurons, and no operations where they could not be counted."""
        found: dict[str, float] = {
            "sparsity": self.sparsity,
            "stored_weights": float(self.stored_weights),
            "stored_bytes": float(self.stored_bytes),
        }
        its = self.operations
        if its is None:
            return found
        if its.spikes:
            found["spikes"] = sum(its.spikes.values())
            found["synaptic_operations"] = sum(its.synaptic.values())
            found["energy_ratio"] = self.energy_ratio
        return found | {"energy_nanojoule": its.nanojoule}

    def layers(self) -> dict[str, Mapping[str, float]]:
        """By measure and layer: densities and operations by layer of weights, spikes by layer of neurons."""
        its = self.operations
        spiking = {"spikes": its.spikes, "synaptic_operations": its.synaptic} if its and its.spikes else {}
        return {"density": self.densities, **spiking}

    @property
    def energy_ratio(self) -> float:
        """`E_dense / E_sparse`, of the reference if there is one: above 1 is a saving; NaN without any operation.

        The energy of an addition, the same for both, cancels. The operations of layers with analog input are in neither
        energy, as in the paper on sparse robust networks (CPAL 2025, eq. 10 to 12).
        """
        if self.reference is None:
            return self.ratio_to_dense
        return _ratio(_made(self.reference).synaptic, _made(self).synaptic)

    @property
    def ratio_to_dense(self) -> float:
        """The same against this network, with the spikes it sends, were no connection absent."""
        return _ratio(_made(self).dense, _made(self).synaptic)

    @property
    def spikes_ratio(self) -> float | None:
        """Spikes of the reference over those of this network; None without a reference."""
        return _ratio(_made(self.reference).spikes, _made(self).spikes) if self.reference else None

    def content(self) -> dict[str, Any]:
        """All of it, for `results.json`."""
        return self._own() | {
            "energy_ratio_to_itself_dense": self.ratio_to_dense,
            "energy_ratio_to_reference": self.energy_ratio if self.reference else None,
            "spikes_ratio_to_reference": self.spikes_ratio,
            "reference": self.reference._own() if self.reference else None,
            "accumulate_picojoule": ACCUMULATE_PICOJOULE,
            "multiply_accumulate_picojoule": MULTIPLY_ACCUMULATE_PICOJOULE,
        }

    def _own(self) -> dict[str, Any]:
        its = self.operations
        found = {
            "sparsity": self.sparsity,
            "weights": self.weights,
            "stored_weights": self.stored_weights,
            "stored_bytes": self.stored_bytes,
            "uncounted": list(self.uncounted),
        }
        if its is None:
            return found
        return found | {
            "spikes": sum(its.spikes.values()),
            "synaptic_operations": sum(its.synaptic.values()),
            "synaptic_operations_if_dense": sum(its.dense.values()),
            "multiply_accumulates": sum(its.multiply_accumulates.values()),
            "multiply_accumulates_by_layer": dict(its.multiply_accumulates),
            "energy_nanojoule": its.nanojoule,
            "input_code": "spikes" if its.code else "analog",
        }


def costs(model: SpikingClassifier, data: Split, batch_size: int, seed: int = 0) -> Costs:
    """One forward pass over the data; the model, which must be in eval mode, is left as it was.

    Args:
        model: the network.
        data: what it classifies.
        batch_size: samples per forward; has no influence.
        seed: of a stochastic model's draws.
    """
    weights = synapses(model)
    missing = tuple(uncounted(model))
    return Costs(
        sparsity=sparsity(weights),
        weights=sum(weight.numel() for weight in weights.values()),
        stored_weights=sum(int(weight.count_nonzero()) for weight in weights.values()),
        stored_bytes=len(packed(model.state_dict(), [f"{name}.weight" for name in weights])),
        densities=densities(weights),
        operations=None if missing else operations(model, data, batch_size, seed),
        uncounted=missing,
    )


def operations(model: SpikingClassifier, data: Split, batch_size: int, seed: int = 0) -> Operations:
    """What the network computes; see `costs`."""
    found = traffic(model, data, batch_size, seed)
    made = counts(model, found)
    neurons = [name for name, module in model.named_modules() if isinstance(module, Neuron)]
    samples = found.samples
    spiking = {name: count for name, count in made.items() if count.spiking}
    return Operations(
        spikes={name: sum(float(total.sum()) for total in found.sent.get(name, ())) / samples for name in neurons},
        synaptic={name: count.operations / samples for name, count in spiking.items()},
        dense={name: count.dense_operations / samples for name, count in spiking.items()},
        multiply_accumulates={
            name: count.pairs * _evaluations(name, count, found)
            for name, count in made.items()
            if not count.spiking and count.entries
        },
        code=found.code is not None,
    )


def compared(own: Costs, model: SpikingClassifier, data: Split, batch_size: int, seed: int = 0) -> Costs:
    """The costs `own`, beside those of another network on the same data, which is brought into eval mode.

    Raises:
        ValueError: if that network does not take these data, sends no spikes, or has modules that cannot be counted.
    """
    try:
        its = costs(model.eval(), data, batch_size, seed)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"reference: it does not take these data ({reason}); allowed: runs on the same") from error
    if its.operations is None or not its.operations.spikes:
        reason = f"cannot be counted: {', '.join(its.uncounted)}" if its.uncounted else "has no spiking neurons"
        raise ValueError(f"reference: it {reason}; allowed: runs of spiking networks")
    return Costs(**{**vars(own), "reference": its})


def _evaluations(name: str, count: Count, found: Traffic) -> int:
    """How often a layer is computed for a sample: T times, or once where its input is constant in time."""
    return found.entries[name] // (count.entries * found.samples)


def _made(its: Costs) -> Operations:
    return its.operations or Operations({}, {}, {}, {}, False)


def _ratio(above: Mapping[str, float], below: Mapping[str, float]) -> float:
    """Of the sums over layers; NaN where there is nothing to divide by."""
    total = sum(below.values())
    return sum(above.values()) / total if total else math.nan
