"""Neurons with parameters of the shape of their layer, which only their input tells."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter, is_lazy

from snnrobust.spiking.neuron import Neuron


class Shaped(Neuron):
    """A neuron with one parameter, made by the first forward pass, or by loading a state that has it.

    A subclass registers an `UninitializedParameter` under `learned`.

    Raises:
        ValueError: in a later forward pass, if the input asks for another shape.
    """

    learned: str
    """The name of the parameter."""
    initial: float
    """What it is filled with."""

    @abstractmethod
    def shape_for(self, current: Tensor) -> tuple[int, ...]:
        """Of the parameter, for currents `[T, N, ...]`."""

    def forward(self, current: Tensor) -> Tensor:
        shape, parameter = self.shape_for(current), getattr(self, self.learned)
        if isinstance(parameter, UninitializedParameter):
            parameter.materialize(shape, device=current.device)
            with torch.no_grad():
                parameter.fill_(self.initial)
        elif parameter.shape != shape:
            raise ValueError(
                f"neuron: got an input for which {self.learned} has the shape {[*shape]}; allowed: "
                f"{[*parameter.shape]}, as in the first forward pass"
            )
        return super().forward(current)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        parameter, saved = getattr(self, self.learned), state_dict.get(prefix + self.learned)
        if isinstance(parameter, UninitializedParameter) and isinstance(saved, Tensor) and not is_lazy(saved):
            parameter.materialize(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
