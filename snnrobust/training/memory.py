"""Training and evaluation where memory runs out: what is said of it, and smaller passes instead of large ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from snnrobust import distributed
from snnrobust.randomness import remembered
from snnrobust.training.parallel import anywhere, least

SIGNS = (
    "can't allocate memory",  # torch on the CPU
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "ALLOC_FAILED",  # cuBLAS and cuDNN
)
"""What errors say that have no type of their own."""

SMALLER = "training.auto_batch=true, or a smaller training.batch_size"
"""What to do where a training runs out of it."""

Result = TypeVar("Result")


class OutOfMemory(Exception):
    """Memory did not suffice: one line that says for which batch size, and what to do.

    Args:
        message: that line.
        batch_size: samples per pass.
    """

    kind = "out of memory"

    def __init__(self, message: str, batch_size: int) -> None:
        super().__init__(message)
        self.batch_size = batch_size


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def spoken_of(setting: str, batch_size: int, remedy: str) -> Iterator[None]:
    """Turns an error that says that memory did not suffice into an `OutOfMemory` that names a setting."""
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        raise OutOfMemory(f"out of memory with {setting}={batch_size}: try {remedy}", batch_size) from error


class Room:
    """How many samples a pass of a training may have.

    Args:
        model: what is trained.
        batch_size: of the settings.
        halving: whether passes become smaller where memory does not suffice.
    """

    def __init__(self, model: nn.Module, batch_size: int, halving: bool) -> None:
        self.model = model
        self.batch_size = self.micro_batch = batch_size
        self.halving = halving
        self.least = least(model)

    def pieces(self, index: Tensor) -> Sequence[Tensor]:
        """The samples of the passes that a batch is made of: as many in each, but for one more or less."""
        number = min(-(-len(index) // self.micro_batch), max(1, len(index) // self.least))
        return index.tensor_split(number) if number else ()

    def fitting(self, attempt: Callable[[], Result]) -> Result:
        """What `attempt` gives; where memory does not suffice it is called again, from the same beginning, with passes
        half as large. They stay so.

        The same beginning: buffers and global streams as they were, and no gradients. If one of several processes runs
        out of memory, all begin again.

        Raises:
            OutOfMemory: if passes may not become smaller, or cannot.
        """
        back = self._beginning()
        while True:
            result, reason = _attempted(attempt)
            if not anywhere(reason is not None, _device(self.model)):
                assert result is not None
                return result[0]
            self._halve(reason or "in another process")
            back()

    def _beginning(self) -> Callable[[], None]:
        """What takes the model and the streams back to where they are now, if there can be another attempt."""
        if not self.halving:
            return lambda: None
        buffers = [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()]
        streams = remembered()

        def back() -> None:
            with torch.no_grad():
                for buffer, content in buffers:
                    buffer.copy_(content)
            for parameter in self.model.parameters():
                parameter.grad = None
            streams()

        return back

    def _halve(self, reason: str) -> None:
        before = min(self.micro_batch, -(-self.batch_size // distributed.size()))
        self.micro_batch = max(before // 2, self.least)
        if self.halving and self.micro_batch < before:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            distributed.warn(
                f"out of memory with {before} samples per pass ({reason}); goes on with {self.micro_batch}, gradients "
                "accumulated to the same batch"
            )
            return
        least = f", and {before} samples per pass are the fewest" if self.halving else ""
        remedy = "a smaller model" if self.halving else SMALLER
        raise OutOfMemory(
            f"out of memory with training.batch_size={self.batch_size}{least} ({reason}): try {remedy}", self.batch_size
        )


def _attempted(attempt: Callable[[], Result]) -> tuple[tuple[Result] | None, str | None]:
    """What it gives, or why memory did not suffice; nothing of the attempt is held on to then."""
    try:
        return (attempt(),), None
    except Exception as error:
        if not ran_out(error):
            raise
        asked = re.search(r"tried to allocate [\d.]+ \w+", str(error), re.IGNORECASE)
        return None, asked[0].lower() if asked else type(error).__name__


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
