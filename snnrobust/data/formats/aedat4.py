"""AEDAT 4, `.aedat4`: CIFAR10-DVS as tonic distributes it, and iniVation's recordings. Read by tonic.

tonic needs the package `aedat` for it, which it does not install by itself.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from snnrobust.data.formats.assemble import assembled
from snnrobust.data.saccades import Recording


def read(path: Path) -> Recording:
    """The events of the first event stream in `path`.

    Raises:
        ValueError: if the package `aedat` is missing, or the file is damaged or has no event stream.
    """
    if find_spec("aedat") is None:
        raise ValueError("is of the format AEDAT 4, which needs the package aedat: pip install aedat")
    from tonic.io import read_aedat4

    try:
        raw = read_aedat4(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # plain Exceptions; of some damage a panic, which is not even that
        raise ValueError(f"cannot be decoded as AEDAT 4: {' '.join(str(error).split())}") from error
    return assembled(raw["x"], raw["y"], raw["t"], raw["on"])  # the decoder's word for the polarity
