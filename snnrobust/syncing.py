"""Sends what was tracked offline to the W&B server: every run once, several at a time, and on after a kill.

The client of W&B does the sending, in a process of its own for each run; whether a run is there is what lies beside its
data: `run-ID.wandb.synced`, which the client writes. It writes that also where the server refused the data; here such a
mark is taken away again, so that the run is sent once more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snnrobust.claims import Busy, Claim, holder, patiently
from snnrobust.console import counted
from snnrobust.job import EVALUATION_LOCK
from snnrobust.schema import ConfigError
from snnrobust.tracking import UNSENT, away, obstacle, server

SYNCED, LOCK = ".synced", ".sync.lock"
HEADER = 7
"""Bytes of data that hold nothing: the client writes 32 KB at a time, and was killed before the first of them."""
TORN = "ends with an incomplete record"
"""What the client says once it has sent all that was written of a run whose process was killed."""
PATIENCE = 30.0
"""Seconds for which a server may be away during an upload. The client itself would go on trying for hours."""
LOOK = 0.1
"""Seconds between two looks at the client."""
OWN = ("WANDB_SILENT", "WANDB_QUIET", "WANDB_MODE", "WANDB_RESUME", "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_DIR")
"""Settings of the environment that are of a run, or hide what the client says of an upload."""


@dataclass(frozen=True)
class Upload:
    """What became of the tracked data of a run.

    Args:
        state: `sent` now; `there` before, by another process; `running` still, so left for later; `empty`, since its
            process was killed before the client wrote anything; `failed`.
        note: more of it, in one line.
    """

    folder: Path
    state: Literal["sent", "there", "running", "empty", "failed"]
    note: str = ""


def read(arguments: Sequence[str]) -> tuple[Path, int]:
    """The folder and the number of jobs that a command asks for.

    Raises:
        ConfigError: if it asks for anything else.
    """
    settings = dict(given.partition("=")[::2] for given in arguments if "=" in given)
    folders = [given for given in arguments if "=" not in given]
    jobs = settings.pop("jobs", "4")
    if settings or len(folders) > 1 or any(given.startswith("-") for given in folders):
        raise ConfigError(f"sync: got {' '.join(arguments)}; allowed: snnrobust sync [FOLDER] [jobs=4]")
    if not jobs.isdecimal() or int(jobs) == 0:
        raise ConfigError(f"jobs: got {jobs}; allowed: a number from 1")
    return Path(*folders or ["runs"]), int(jobs)


def sync(runs: Path, jobs: int) -> int:
    """Sends all that lies unsent under a folder; a line for each run, then a count and what failed.

    Args:
        runs: folder of run directories, or one of them.
        jobs: runs that are sent at a time.

    Returns:
        0 if everything is there that could be; 1 if not.

    Raises:
        OSError: if there is no such folder.
    """
    waiting = by_run(unsent(runs))
    if not waiting:
        print(f"{runs}: nothing to upload")
        return 0
    if (why := obstacle(PATIENCE)) is not None:
        print(f"snnrobust: {why}; {counted(len(waiting))} to upload", file=sys.stderr)
        return 1
    found: list[Upload] = []
    for upload in _all(waiting, jobs):
        found.append(upload)
        print(f"{upload.state:9}{upload.folder}{f'  ({upload.note})' * bool(upload.note)}", flush=True)
    counts = Counter(upload.state for upload in found)
    print(f"{counted(len(found))}: " + ", ".join(f"{number} {state}" for state, number in counts.items()))
    for upload in found:
        if upload.state == "failed":
            print(f"snnrobust: {upload.folder}: {upload.note}", file=sys.stderr)
    return 1 if counts["failed"] else 0


def unsent(runs: Path) -> list[Path]:
    """The tracked data under a folder that no server has, in the order in which they were begun.

    Raises:
        OSError: if there is no such folder.
    """
    if not runs.is_dir():
        raise FileNotFoundError(2, "no such folder", str(runs))
    files = [file for file in runs.glob("**/wandb/*run-*/run-*.wandb") if not is_sent(file)]
    return sorted(files, key=lambda file: (file.parent.parent, file.parent.name.removeprefix("offline-")))


def is_sent(file: Path) -> bool:
    """Whether the server has it; an online run sent it itself, unless that is marked as not finished."""
    if Path(f"{file}{SYNCED}").exists():
        return True
    return not file.parent.name.startswith("offline-") and not Path(f"{file}{UNSENT}").exists()


def by_run(files: Sequence[Path]) -> dict[Path, list[Path]]:
    """Several of one run are sent one after the other."""
    runs: dict[Path, list[Path]] = {}
    for file in files:
        runs.setdefault(file.parents[2], []).append(file)
    return runs


def _all(waiting: Mapping[Path, Sequence[Path]], jobs: int) -> Iterator[Upload]:
    """First those that nobody is sending; then what becomes of those that other processes are sending."""
    with ThreadPoolExecutor(jobs) as pool:
        busy = []
        for folder, upload in zip(waiting, pool.map(_free, waiting, waiting.values()), strict=True):
            if upload is None:
                busy.append(folder)
            else:
                yield upload
        yield from pool.map(lambda folder: patiently(lambda: _sent(folder, waiting[folder]), wait=True), busy)


def _free(folder: Path, files: Sequence[Path]) -> Upload | None:
    try:
        return _sent(folder, files)
    except Busy:
        return None


def _sent(folder: Path, files: Sequence[Path]) -> Upload:
    """Sends the data of one run.

    Raises:
        Busy: if another process is sending them.
    """
    owner = holder(folder / EVALUATION_LOCK)
    if owner is not None:
        return Upload(folder, "running", owner)
    try:
        with Claim(folder / "wandb" / LOCK) as claim:
            left = [file for file in files if file.exists() and not is_sent(file)]
            full = [file for file in left if file.stat().st_size > HEADER]
            for file in full:
                if (why := _send(file, claim)) is not None:
                    return Upload(folder, "failed", why)
    except OSError as error:
        return Upload(folder, "failed", f"{error.filename or folder}: {error.strerror or error}")
    if left and not full:
        return Upload(folder, "empty", "killed too early; taken up again, the run is tracked from its first epoch")
    return Upload(folder, "sent" if full else "there")


def _send(file: Path, claim: Claim) -> str | None:
    """Has the client send one file; None if the server has it now, otherwise why not.

    The client keeps the claim: should this process be killed, no other one begins before the client has ended.
    """
    address = server()
    kept = {name: value for name, value in os.environ.items() if name not in OWN}
    log = file.parent / "logs" / "sync.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        client = subprocess.Popen(
            [sys.executable, "-m", "wandb", "sync", "--include-online", str(file)],
            # The folder is for logs of its own, which would otherwise lie wherever the command was typed.
            env={**kept, "WANDB_ERROR_REPORTING": "false", "WANDB_BASE_URL": address, "WANDB_DIR": str(log.parent)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(claim.fileno(),),
        )
        try:
            lost = _watch(client, address)
        finally:
            client.kill()
            client.wait()
    if lost is not None:
        return lost
    return _verdict(file, log, client.returncode)


def _watch(client: subprocess.Popen[bytes], address: str) -> str | None:
    """Waits for the client; why not any longer, if the server has been away for too long."""
    answered = looked = time.monotonic()
    while client.poll() is None:
        time.sleep(LOOK)
        now = time.monotonic()
        if now - looked < PATIENCE / 10:
            continue
        looked = now
        why = away(address, PATIENCE)
        if why is None:
            answered = now
        elif now - answered > PATIENCE:
            return why
    return None


def _verdict(file: Path, log: Path, status: int) -> str | None:
    """What the client reports; it marks a run as sent even where it could not send all of it."""
    lines = [line.removeprefix("wandb: ") for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line.removeprefix("ERROR ") for line in lines if line.startswith("ERROR ")]
    synced = Path(f"{file}{SYNCED}")
    if status == 0 and errors and all(TORN in error for error in errors):
        synced.touch()  # there will never be more; taken up again, the run is sent whole
        errors = []
    if status == 0 and not errors and synced.exists():
        Path(f"{file}{UNSENT}").unlink(missing_ok=True)
        return None
    synced.unlink(missing_ok=True)
    return errors[0] if errors else f"wandb sync ended with status {status}; see {log}"
