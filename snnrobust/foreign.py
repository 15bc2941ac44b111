"""Any network as a classifier, after it has shown that it is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn

from snnrobust.randomness import generator, isolated
from snnrobust.threat import Bounds
from snnrobust.traceless import modules_of, tensors_of, traceless

ROUNDING = 1e-4
"""Differences of logits up to this share of their range are rounding."""
TOLERATED = 0.25
"""Share of samples that may differ by more in another batch: there rounding differs, and a spike is a step."""
ALONE = 8
"""Samples that are tried alone."""


class Foreign(nn.Module):
    """A network made elsewhere as a `Classifier`: `x` `[B, ...]` within `bounds` to logits `[B, K]`.

    Every forward starts from the state that the network was handed over with, whatever ran before (`traceless`);
    SpikingJelly's memories are reset before each.

    Args:
        network: maps `[B, ...]` to `[B, K]`.
        bounds: range of `x`.
        stochastic: whether the network draws at random in eval mode.
    """

    def __init__(self, network: nn.Module, bounds: Bounds | None = None, stochastic: bool = False) -> None:
        super().__init__()
        self.network = network
        self.bounds = bounds or Bounds()
        self.stochastic = stochastic

    def forward(self, x: Tensor) -> Tensor:
        with traceless(self.network):
            for module in modules_of(self.network):
                if isinstance(module, MemoryModule):
                    module.reset()
            logits: Tensor = self.network(x)
        return logits


@torch.no_grad()
def verify(model: Foreign, x: Tensor, y: Tensor) -> list[str]:
    """Tries a classifier, in eval mode and frozen.

    Args:
        model: of which all parameters require no gradient.
        x: the first batch, `[B, ...]`.
        y: the classes of all samples.

    Returns:
        What speaks against the results without making them wrong, one line each.

    Raises:
        ValueError: in one line, if it does not give finite logits for every class, or these have no gradient; or,
            unless it is stochastic, if the same batch gives other logits the second time, or a sample's logits depend
            on its batch.
    """
    with isolated("verify"):
        logits = _logits(model, x)
        _refuse_unusable(logits, x, y)
        _refuse_cut_off(model, x)
        if not model.stochastic:
            _refuse_unrepeatable(model, x, logits)
            _refuse_neighbours(model, x, logits)
            _refuse_unrepeatable(model, x, logits)  # now that other batches have run
    return [*_cautions(logits)]


def _logits(model: Foreign, x: Tensor) -> Any:
    try:
        return model(x)
    except Exception as error:  # whatever the network raises
        left = sorted({tuple(tensor.shape) for tensor in tensors_of(model.network) if tensor.dim() > 1})
        hint = f"; state left over from an earlier forward? it holds tensors of shape {left[0]}" if left else ""
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"model: fails on inputs of shape {tuple(x.shape)} ({reason}){hint}") from error


def _refuse_unusable(logits: Any, x: Tensor, y: Tensor) -> None:
    if not isinstance(logits, Tensor):
        raise ValueError(f"model: returns {type(logits).__name__}; allowed: a tensor of logits [B, K]")
    classes = max(2, int(y.max()) + 1)
    if logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < classes:
        got, allowed = list(logits.shape), f"[{len(x)}, K] with K >= {classes}"
        raise ValueError(
            f"model: got logits {got} for {len(x)} inputs and labels up to {int(y.max())}; allowed: {allowed}"
        )
    if not bool(logits.isfinite().all()):
        raise ValueError("model: some logits are not finite; allowed: finite logits")


def _refuse_cut_off(model: Foreign, x: Tensor) -> None:
    with torch.enable_grad():
        if not _logits(model, x[:1].detach().requires_grad_()).requires_grad:
            raise ValueError(
                "model: its logits have no gradient with respect to the inputs (detached, or computed under no_grad in "
                "eval mode): no attack could follow it; allowed: a forward that autograd can follow"
            )


def _refuse_unrepeatable(model: Foreign, x: Tensor, logits: Tensor) -> None:
    differ, size = _differences(_logits(model, x), logits, logits)
    if bool(differ.any()):
        raise ValueError(
            f"model: the same batch gives other logits the second time (by up to {size:.2g}): it draws at random, or "
            "keeps state outside of its modules; allowed: a forward that resets its state, or stochastic=True for one "
            "that is meant to draw"
        )


def _refuse_neighbours(model: Foreign, x: Tensor, logits: Tensor) -> None:
    """In another order, alone, and in batches of every size that something in the network has."""
    order = torch.randperm(len(x), generator=generator("order")).to(x.device)
    trials = {"in another order": (_logits(model, x[order]), logits[order])}
    few = min(len(x), ALONE)
    trials["alone"] = torch.cat([_logits(model, x[i : i + 1]) for i in range(few)]), logits[:few]
    for size in sorted({side for tensor in tensors_of(model.network) for side in tensor.shape if 1 < side < len(x)}):
        trials[f"in a batch of {size}"] = _logits(model, x[:size]), logits[:size]
    for where, (found, expected) in trials.items():
        differ, size_of_it = _differences(found, expected, logits)
        if float(differ.float().mean()) > TOLERATED:
            raise ValueError(
                f"model: samples have other logits {where} (by up to {size_of_it:.2g}): it normalises over the batch, "
                "draws at random, or has state left over from an earlier batch; allowed: a model that treats samples "
                "one by one (reset its state before, or in its forward), or stochastic=True for one that is meant to "
                "draw"
            )


def _differences(found: Tensor, expected: Tensor, logits: Tensor) -> tuple[Tensor, float]:
    """Which samples differ by more than rounding `[B]`, and the largest difference."""
    if found.shape != expected.shape:
        raise ValueError(
            f"model: got logits {list(found.shape)} for {len(expected)} inputs; allowed: one row per input"
        )
    apart = (found - expected).abs().amax(1).nan_to_num(torch.inf)
    return apart > ROUNDING * (logits.max() - logits.min()), float(apart.max())


def _cautions(logits: Tensor) -> Iterable[str]:
    total = logits.sum(1)
    if bool((logits >= 0).all()) and bool((total - 1).abs().max() < 1e-3):
        yield (
            "model: its outputs look like probabilities, not logits: cross-entropy takes the softmax of a softmax, "
            "whose gradient is weak, and the network looks more robust than it is; let it return logits"
        )


def load_weights(network: nn.Module, path: Path) -> None:
    """Loads a state dict, or the only one in a mapping, strictly and with `weights_only=True`.

    Raises:
        ValueError: in one line, if the file is absent, damaged, asks for code, or does not fit.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"checkpoint: {path}: no such file") from None
    except Exception as error:  # damaged archives surface as many types
        raise ValueError(
            f"checkpoint: {path}: not a file of tensors alone, or damaged ({type(error).__name__}); allowed: what "
            "torch.save(model.state_dict(), path) writes"
        ) from error
    try:
        network.load_state_dict(_state_dict(content, path), strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise ValueError(
            f"checkpoint: {path}: does not fit the model ({' '.join(lines[1:] or lines)[:200]})"
        ) from error


def _state_dict(content: Any, path: Path) -> Mapping[str, Any]:
    if _is_state_dict(content):
        found: Mapping[str, Any] = content
        return found
    inside = {str(k): v for k, v in content.items() if _is_state_dict(v)} if isinstance(content, Mapping) else {}
    if len(inside) != 1:
        held = f"{len(inside)} of them ({', '.join(inside)})" if inside else "none"
        raise ValueError(f"checkpoint: {path}: holds {held}; allowed: one state dict, as model.state_dict() gives it")
    return next(iter(inside.values()))


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, Mapping) and bool(content) and all(isinstance(value, Tensor) for value in content.values())
    )
