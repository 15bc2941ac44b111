"""Peak memory of one alternative, in a process of its own: python -m benchmarks.memory CASE ALTERNATIVE THREADS"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.networks import CASES
from benchmarks.steps import attack_steps


def peak(case: int, alternative: int, threads: int) -> float:
    """MiB by which the peak exceeds what the process holds between two attacks."""
    command = [sys.executable, "-m", "benchmarks.memory", str(case), str(alternative), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def resident(field: str) -> float:
    """MiB of `VmRSS` (now) or `VmHWM` (at most) of this process, by Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def main() -> None:
    case, alternative, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    call = [*attack_steps(CASES[case]).values()][alternative]
    call()  # kernels are compiled, or read from their cache
    ctypes.CDLL(None).malloc_trim(0)  # gives back what is free
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    for _ in range(3):
        call()
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main()
