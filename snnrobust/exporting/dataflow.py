"""The layers of a network in the order in which they compute, and where each gets its input from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnrobust.spiking.neuron import Neuron

INPUT = "input"


@dataclass(frozen=True)
class Step:
    """One layer at work.

    Args:
        name: its path in the network, points being underscores; `INPUT` is the name of what the network is given.
        layer: itself.
        inputs: the steps whose results it is given.
        shape: of its result for one sample and one step of time.
    """

    name: str
    layer: nn.Module
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


def steps(network: nn.Module, shape: tuple[int, int, int]) -> list[Step]:
    """What happens in one forward pass on `[T, B, C, H, W]`; the last step gives the logits.

    Args:
        network: of layers, blocks of them, and nothing in between.
        shape: `(C, H, W)`.

    Raises:
        ValueError: in one line, if anything but layers computes in it.
    """
    try:
        graph = _Tracer().trace(network)
    except fx.proxy.TraceError as error:
        raise ValueError(f"model: decides by its input what it computes ({str(error).splitlines()[0]})") from error
    shapes = _Shapes(fx.GraphModule(network, graph))
    with torch.no_grad():
        shapes.run(torch.zeros(1, 1, *shape))
    for node in graph.nodes:
        if node.op not in ("placeholder", "call_module", "output"):
            raise ValueError(f"model: computes {node.name} between its layers; allowed: layers alone")
    names = {node: INPUT if node.op == "placeholder" else node.name for node in graph.nodes}
    return [
        Step(node.name, network.get_submodule(str(node.target)), tuple(names[n] for n in node.args), shapes.of[node])
        for node in graph.nodes
        if node.op == "call_module"
    ]


class _Tracer(fx.Tracer):
    """Follows what modules do with each other, down to layers, neurons, and what joins the two ways of a block."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Neuron) or not [*m.children()]

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not isinstance(m, nn.Sequential):
            return super().call_module(m, forward, args, kwargs)
        (sequence,) = args  # one layer after the other, also where two of them have a kernel in common
        for layer in m:
            sequence = layer(sequence)
        return sequence


class _Shapes(fx.Interpreter):
    """Notes the shapes of all results, without time and batch."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.of: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Tensor:
        result: Tensor = super().run_node(n)
        self.of[n] = tuple(result.shape[2:])
        return result
