"""What a result depends on beyond its config: versions, commit, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "snnrobust",
    "torch",
    "torchvision",
    "spikingjelly",
    "torchattacks",
    "tonic",
    "numpy",
    "hydra-core",
    "wandb",
)


def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> dict[str, str | bool] | None:
    """Commit of this source tree and whether it has uncommitted changes; None where it is no git checkout."""
    source = Path(__file__).parent
    if _git(source, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    head, changes = _git(source, "rev-parse", "HEAD"), _git(source, "status", "--porcelain", "--untracked-files=no")
    return None if head is None else {"commit": head, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def hardware(device: str, threads: int) -> dict[str, str | int]:
    """Processor, cores, device in use and threads."""
    return {"cpu": _cpu(), "cores": os.cpu_count() or 0, "device": device, "threads": threads}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
