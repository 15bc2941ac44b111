"""Peak memory of one alternative, in a process of its own: python -m benchmarks.memory CASE ALTERNATIVE THREADS"""

from __future__ import annotations

import resource
import subprocess
import sys

import torch

from benchmarks.networks import CASES
from benchmarks.steps import attack_steps


def peak(case: int, alternative: int, threads: int) -> float:
    """MiB by which the peak grows over what the process holds before the first step."""
    command = [sys.executable, "-m", "benchmarks.memory", str(case), str(alternative), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    case, alternative, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    call = [*attack_steps(CASES[case]).values()][alternative]
    before = resident()
    for _ in range(3):
        call()
    print(resident() - before)


if __name__ == "__main__":
    main()
