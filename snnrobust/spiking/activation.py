"""What stands in the place of spiking neurons in an analog network: the same weights, no spikes and no time."""

from __future__ import annotations

from torch import Tensor, nn

from snnrobust.settings import Positive


class ReLU(nn.Module):
    """`max(0, scale i)` on currents of any shape; at every step by itself, without memory.

    Args:
        scale: of the current. `gain / threshold` of a neuron without leak makes it the firing rate of that neuron
            under a constant current, up to rounding and saturation.
    """

    def __init__(self, scale: Positive = 1.0) -> None:
        super().__init__()
        self.scale = float(scale)

    def forward(self, current: Tensor) -> Tensor:
        return (current if self.scale == 1.0 else current * self.scale).relu()

    def extra_repr(self) -> str:
        return f"scale={self.scale}"
