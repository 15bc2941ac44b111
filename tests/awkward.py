"""Models that tell where they are, or that their process does not survive, for tests with real processes."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from snnrobust.models.convnet import ConvNet


class Telling(ConvNet):
    """Leaves a file in `$TOLD`, named after its process, each time one is made."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        numba = sys.modules.get("numba")
        told = {
            "environment": dict(os.environ),
            "torch": torch.get_num_threads(),
            "numba": numba.get_num_threads() if numba else None,
            "folder": os.getcwd(),
            "interrupts": signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        }
        (Path(os.environ["TOLD"]) / str(os.getpid())).write_text(json.dumps(told))


class Fatal(ConvNet):
    """Ends its process where it has two channels: as the kernel does that runs out of memory."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if settings["channels"] == [2]:
            os.kill(os.getpid(), signal.SIGKILL)


class Leaving(ConvNet):
    """Asks Python to exit where it has two channels."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if settings["channels"] == [2]:
            sys.exit(3)
