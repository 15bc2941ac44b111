"""Connections that come and go while their number stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snnrobust.randomness import generator
from snnrobust.settings import NonNegative, Positive
from snnrobust.training.connectivity.base import Connectivity, Wiring, silence, trained_synapses

LEAST = 1e-30
"""What a connection may begin with: well above the smallest numbers of float32, below which it would be absent."""


@dataclass(frozen=True)
class Rewired(Connectivity):
    """Bayesian connectivity sampling (Özdenizci and Legenstein, ICML 2021, after DEEP R, Bellec et al., ICLR 2018).

    `w = s rho [rho > 0]` with a sign `s` that never changes: that of the weight that the training begins with, of an
    absent one a random one. After the step of the optimizer, which moves the connections that there are, each of them
    gets `lr * noise * N(0, 1)`; one whose `rho` is no longer positive is disconnected, and the optimizer forgets it. As
    many as are missing are connected: each in a layer drawn with a probability in proportion to its size (among those
    that are not full), there at a place drawn among the absent ones. So the number of connections of all layers
    together is after every step what it was before the training.

    Args:
        noise: standard deviation of what is added, in units of the learning rate; 1e-6 in the published code.
        initial: `rho` of a new connection, as published.

    Raises:
        ValueError: if `initial` is so small that float32 would make it zero.
    """

    noise: NonNegative = 1e-6
    initial: Positive = 1e-12

    def __post_init__(self) -> None:
        if self.initial < LEAST:
            raise ValueError(
                f"initial: got {self.initial:g}; allowed: at least {LEAST:g}, or it would be no connection"
            )

    def wire(self, model: nn.Module, seed: int) -> Wiring:
        random = generator("rewiring", seed)
        return _Sampled(self, [_Layer(weight, random) for weight in trained_synapses(model)], random)


class _Layer:
    """One weight, the places of its connections (as if it were flat), and the signs of all its entries.

    A step costs what the connections cost, but for setting zeros.
    """

    def __init__(self, weight: Tensor, random: torch.Generator) -> None:
        now, drawn = weight.detach(), torch.rand(weight.shape, generator=random) < 0.5
        self.weight = weight
        self.absent = now == 0
        self.places = (~self.absent).flatten().nonzero().squeeze(1)
        self.negative = torch.where(self.absent, drawn.to(now.device), now < 0)

    @property
    def room(self) -> int:
        return self.weight.numel() - len(self.places)

    def disconnect(self, scale: float, optimizer: Optimizer, random: torch.Generator) -> None:
        """Adds `scale * N(0, 1)` to the connections, lets go of those that cross zero, and forgets all else."""
        values = self.weight.take(self.places)
        if scale > 0:
            values += scale * torch.randn(len(values), generator=random).to(values)  # signs make no difference to it
        crossed = self._signed(self.places, values) <= 0  # NaN stays: it has to end the training
        gone, self.places, values = self.places[crossed], self.places[~crossed], values[~crossed]
        self.weight.zero_().put_(self.places, values)
        self.absent.put_(gone, torch.ones_like(gone, dtype=torch.bool))
        for held in optimizer.state.get(self.weight, {}).values():
            if isinstance(held, Tensor) and held.shape == self.weight.shape:
                held.put_(gone, torch.zeros_like(gone, dtype=held.dtype))

    def connect(self, number: int, initial: float, random: torch.Generator) -> None:
        """Draws connections among the absent ones."""
        drawn = places(self.absent, self.room, number, random)
        self.places = torch.cat([self.places, drawn])
        self.absent.put_(drawn, torch.zeros_like(drawn, dtype=torch.bool))
        self.weight.put_(drawn, self._signed(drawn, torch.full_like(drawn, initial, dtype=self.weight.dtype)))

    def state(self) -> dict[str, Any]:
        return {"places": self.places, "negative": self.negative}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.negative.copy_(state["negative"])
        self.places = state["places"].to(self.places)
        self.absent.fill_(True).put_(self.places, torch.zeros_like(self.places, dtype=torch.bool))

    def _signed(self, at: Tensor, values: Tensor) -> Tensor:
        return torch.where(self.negative.take(at), -values, values)


class _Sampled(Wiring):
    def __init__(self, settings: Rewired, layers: Sequence[_Layer], random: torch.Generator) -> None:
        self.settings, self.layers, self.random = settings, layers, random
        self.sizes = torch.tensor([layer.weight.numel() for layer in layers], dtype=torch.float64)
        self.connections = sum(len(layer.places) for layer in layers)

    def before_step(self) -> None:
        for layer in self.layers:
            silence(layer.weight, layer.absent)

    @torch.no_grad()
    def after_step(self, optimizer: Optimizer) -> None:
        scale = float(optimizer.param_groups[0]["lr"]) * self.settings.noise
        for layer in self.layers:
            layer.disconnect(scale, optimizer, self.random)
        self._connect()

    def state(self) -> dict[str, Any]:
        return {"random": self.random.get_state(), "layers": [layer.state() for layer in self.layers]}

    def restore(self, state: Mapping[str, Any]) -> None:
        for layer, kept in zip(self.layers, state["layers"], strict=True):
            layer.restore(kept)
        self.random.set_state(state["random"])
        self.connections = sum(len(layer.places) for layer in self.layers)

    def _connect(self) -> None:
        """Draws a layer for each of the connections that are missing; again for those that found no room."""
        while missing := self.connections - sum(len(layer.places) for layer in self.layers):
            share = self.sizes * torch.tensor([layer.room > 0 for layer in self.layers])
            drawn = torch.multinomial(share, missing, replacement=True, generator=self.random)
            for layer, wanted in zip(self.layers, drawn.bincount(minlength=len(share)).tolist(), strict=True):
                layer.connect(min(layer.room, wanted), self.settings.initial, self.random)


def places(absent: Tensor, room: int, number: int, random: torch.Generator) -> Tensor:
    """Draws `number` different places that are absent, `[number]` int64; every set of them is equally probable.

    In a sparse layer, places are drawn among all; what is not absent, or was drawn before, is drawn again.

    Args:
        absent: bool, of any shape; places count its entries as if it were flat.
        room: how many are absent.
        number: at most as many.
        random: on the CPU, whatever the device of `absent` is.
    """
    total, device = absent.numel(), absent.device
    if 2 * (total - room + number) > total:
        order = torch.randperm(room, generator=random)[:number].to(device)
        return absent.flatten().nonzero().squeeze(1)[order]
    found = torch.empty(0, dtype=torch.int64, device=device)
    while len(found) < number:
        more = torch.randint(total, (number - len(found),), generator=random).to(device)
        found = torch.cat([found, more[absent.take(more)]]).unique()
    return found
