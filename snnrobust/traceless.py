"""Forwards that leave no trace: a network's state is what it was before, whatever the forward did to it.

Spiking networks of most libraries keep the membrane from one forward to the next: in attributes, in buffers, in
memories of their own. An attack calls the network many times, and each call would start where the last one ended.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

STRUCTURE = frozenset(vars(nn.Module())) - {"_buffers"}
"""What every module has (parameters, submodules, hooks, mode): not the state of a forward."""


PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, type})
"""Values that cannot change; most attributes are of these types."""


@contextmanager
def traceless(network: nn.Module) -> Iterator[None]:
    """Runs its body on copies of the network's state, without their autograd graphs; then puts the originals back.

    State is whatever modules hold apart from `STRUCTURE`: buffers and attributes; tensors, arrays, and containers of
    them. Attributes that appear during the body disappear. Parameters and modules are the same objects throughout.
    What is set on a module between two forwards, such as an estimator's rule, stays.
    """
    before = [(module, _state(module)) for module in modules_of(network)]
    memo: dict[int, Any] = {}
    try:
        for module, state in before:
            vars(module).update({name: _copied(value, memo) for name, value in state.items()})
        yield
    finally:
        for module, state in before:
            for name in _state(module).keys() - state.keys():
                del vars(module)[name]
            vars(module).update(state)


def modules_of(network: nn.Module) -> list[nn.Module]:
    """All modules, also those in lists and mappings that torch knows nothing of."""
    return [value for value in _reached(network) if isinstance(value, nn.Module)]


def tensors_of(network: nn.Module) -> list[Tensor]:
    """All tensors that are state."""
    return [v for v in _reached(network) if isinstance(v, Tensor) and not isinstance(v, nn.Parameter)]


def _state(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in STRUCTURE}


def _reached(network: nn.Module) -> Iterator[Any]:
    """The network and everything in it, each object once."""
    seen: dict[int, Any] = {}
    left: deque[Any] = deque([network])
    while left:
        value = left.popleft()
        if type(value) in PLAIN or id(value) in seen:
            continue
        seen[id(value)] = value
        yield value
        if isinstance(value, nn.Module):
            left += [*value.children(), *_state(value).values()]
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple | set | deque):
            left += value
        elif _is_record(value):
            left += [getattr(value, field.name, None) for field in fields(value)]


def _is_record(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of containers, tensors and arrays in any depth; two references to one object stay that."""
    if type(value) in PLAIN or isinstance(value, nn.Module):
        return value
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, Tensor):
        memo[id(value)] = value if isinstance(value, nn.Parameter) else value.detach().clone()
    elif isinstance(value, np.ndarray | set):
        memo[id(value)] = value.copy()
    elif isinstance(value, dict):
        memo[id(value)] = mapping = copy.copy(value)
        mapping.update({name: _copied(entry, memo) for name, entry in value.items()})
    elif isinstance(value, list | deque):
        memo[id(value)] = entries = copy.copy(value)
        for number, entry in enumerate(value):
            entries[number] = _copied(entry, memo)
    elif isinstance(value, tuple):
        memo[id(value)] = _copied_tuple(value, memo)
    elif _is_record(value):
        memo[id(value)] = record = copy.copy(value)
        for field in fields(value):
            object.__setattr__(record, field.name, _copied(getattr(value, field.name), memo))
    else:
        return value
    return memo[id(value)]


def _copied_tuple(value: tuple[Any, ...], memo: dict[int, Any]) -> tuple[Any, ...]:
    entries = [_copied(entry, memo) for entry in value]
    if all(new is old for new, old in zip(entries, value, strict=True)):
        return value  # also sizes and other tuples that are not made from their entries one by one
    return tuple(entries) if type(value) is tuple else type(value)(*entries)
