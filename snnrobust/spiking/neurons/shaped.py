"""Parameters of the shape of their layer, which only its input tells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter, is_lazy

from snnrobust.spiking.neuron import Neuron


class ShapedParameter(nn.Module, ABC):
    """A module with one parameter, made by the first forward pass, or by loading a state that has it.

    A subclass registers an `UninitializedParameter` under `learned`, and calls `fit` on what arrives.
    """

    learned: str
    """The name of the parameter."""
    initial: float
    """What it is filled with."""

    @abstractmethod
    def shape_for(self, x: Tensor) -> tuple[int, ...]:
        """Of the parameter, for currents or spikes `[T, N, ...]`."""

    def fit(self, x: Tensor) -> None:
        """Makes the parameter for `x`, if there is none yet.

        Raises:
            ValueError: if there is one of another shape.
        """
        shape, parameter = self.shape_for(x), getattr(self, self.learned)
        if isinstance(parameter, UninitializedParameter):
            parameter.materialize(shape, device=x.device)
            with torch.no_grad():
                parameter.fill_(self.initial)
        elif parameter.shape != shape:
            raise ValueError(
                f"neuron: got an input for which {self.learned} has the shape {[*shape]}; allowed: "
                f"{[*parameter.shape]}, as in the first forward pass"
            )

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        parameter, saved = getattr(self, self.learned), state_dict.get(prefix + self.learned)
        if isinstance(parameter, UninitializedParameter) and isinstance(saved, Tensor) and not is_lazy(saved):
            parameter.materialize(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Shaped(ShapedParameter, Neuron):
    """A neuron with such a parameter.

    Raises:
        ValueError: in a later forward pass, if the input asks for another shape.
    """

    def forward(self, current: Tensor) -> Tensor:
        self.fit(current)
        return super().forward(current)
