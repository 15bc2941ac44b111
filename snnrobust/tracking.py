"""Trackers: mirrors of a run. The run directory is the record; a tracker that fails costs a warning, never a run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from snnrobust.settings import Positive

UNSENT = ".unsent"
"""Ends the name of the mark beside the data of an online run until the server has all of it."""

Mode = Literal["offline", "online", "disabled"]


@dataclass(frozen=True)
class Description:
    """What a tracker is told about a run when it starts."""

    identity: str
    name: str
    group: str | None
    job_type: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    folder: Path


class Tracked(ABC):
    """One run at a tracker. Nothing here raises."""

    @abstractmethod
    def log(self, values: Mapping[str, float]) -> None:
        """Values of one epoch, `epoch` among them. A run that is taken up again is told of all of its epochs again."""

    @abstractmethod
    def finish(self, summary: Mapping[str, Any], failed: bool = False) -> str | None:
        """The final measures; closes the run. Returns the folder to upload later, if there is one."""


class Tracker(ABC):
    """Settings of a tracker; `start` opens a run at it."""

    @abstractmethod
    def start(self, run: Description) -> Tracked: ...


def asked_by_agent() -> bool:
    """Whether a W&B agent started this process, and waits for the measures of a run under an identity of its own."""
    return "WANDB_SWEEP_ID" in os.environ


def retell(history: Path, tracked: Tracked) -> None:
    """Tells a tracked run of the epochs that are on record, as far as they can be read."""
    try:
        for line in history.read_text(encoding="utf-8").splitlines():
            tracked.log(json.loads(line))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        _warn(f"{history}: cannot be read ({error}); the curves of this run are not tracked")


class _Silence(Tracked):
    def log(self, values: Mapping[str, float]) -> None:
        return

    def finish(self, summary: Mapping[str, Any], failed: bool = False) -> str | None:
        return None


@dataclass(frozen=True)
class NoTracker(Tracker):
    """No mirror; the run directory is all there is."""

    def start(self, run: Description) -> Tracked:
        return _Silence()


@dataclass(frozen=True)
class Wandb(Tracker):
    """Weights & Biases by its own client.

    Every epoch is one step there, so that what is sent twice falls on the same point.

    Args:
        mode: `offline` needs no account and no network, `snnrobust sync` uploads later; `online` falls back to
            offline, with a warning, where the server does not answer; `disabled` writes nothing.
        project: at W&B; that of the sweep under a W&B agent, like entity and the identity of the run.
        entity: user or team; None is the account's default.
        group: None is the sweep that a run belongs to.
        tags: in addition to dataset, model, regularizer and suite.
        timeout: seconds to wait for the server before a run starts.
        finish_timeout: seconds to wait at its end until the server has everything; `snnrobust sync` sends the rest.
    """

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "snnrobust"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    timeout: Positive = 15.0
    finish_timeout: Positive = 60.0

    def start(self, run: Description) -> Tracked:
        mirror = _Mirror()
        mirror.open(self, run)
        return mirror


class _Mirror(Tracked):
    """A W&B run, or nothing after its first failure."""

    def __init__(self) -> None:
        self.run: Any = None
        self.told = 0
        self.there = 0
        """Epochs that it was told of, and those of them that the server had before."""

    def open(self, settings: Wandb, run: Description) -> None:
        _quieten()
        if settings.mode != "online":
            self._attempt("start", lambda: self._init(settings, run, settings.mode))
        elif not self._open_online(settings, run):
            self._attempt("start", lambda: self._init(settings, run, "offline"))

    def log(self, values: Mapping[str, float]) -> None:
        self.told += 1
        if self.run is not None and self.told > self.there:
            self._attempt("log to", lambda: self.run.log(dict(values), step=self.told))

    def finish(self, summary: Mapping[str, Any], failed: bool = False) -> str | None:
        run, self.run = self.run, None
        if run is None or run.disabled:
            return None
        mark, folder = _mark(run), str(run.settings.sync_dir)
        self._attempt("finish", lambda: self._close(run, summary, failed))
        return folder if run.offline or mark.exists() else None

    def _open_online(self, settings: Wandb, run: Description) -> bool:
        then = "this run is tracked offline"
        if (why := obstacle(settings.timeout)) is not None:
            _warn(f"{why}; {then}")
            return False
        return self._attempt("start", lambda: self._init(settings, run, "online"), then)

    def _init(self, settings: Wandb, run: Description, mode: Mode) -> None:
        import wandb

        agent = asked_by_agent()
        self.run = wandb.init(
            project=None if agent else settings.project,
            entity=None if agent else settings.entity,
            group=settings.group or run.group,
            job_type=run.job_type,
            name=run.name,
            id=None if agent else run.identity,
            resume="allow" if mode == "online" else None,
            tags=[*run.tags, *settings.tags],
            config=dict(run.config),
            dir=str(run.folder),
            mode=mode,
            # Otherwise a second run in the same process silently continues the first one.
            reinit="finish_previous",
            settings=wandb.Settings(
                init_timeout=settings.timeout, finish_timeout=settings.finish_timeout, finish_timeout_raises=True,
                console="off", disable_git=True, save_code=False, x_disable_stats=True,
            ),
        )  # fmt: skip
        if mode != "disabled":
            _replace_unsent(Path(self.run.settings.sync_file))
        if mode == "online":
            _mark(self.run).touch()
            self.there = max(self.run.step - 1, 0)  # the client says which step comes next
        # Rows that come without a step of their own are drawn over epochs too.
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("*", step_metric="epoch")

    def _close(self, run: Any, summary: Mapping[str, Any], failed: bool) -> None:
        run.summary.update(dict(summary))
        try:
            run.finish(exit_code=int(failed))
        except TimeoutError:
            where = run.settings.sync_dir
            _warn(f"the W&B server has not taken everything; the rest lies in {where} (snnrobust sync sends it)")
            return
        _mark(run).unlink(missing_ok=True)

    def _attempt(self, action: str, attempt: Callable[[], None], then: str = "the run goes on without it") -> bool:
        """Runs one call to the client; its first failure ends the mirror with a warning. Whether there was none."""
        try:
            attempt()
        except Exception as error:  # whatever the client raises, the run goes on
            _warn(f"could not {action} W&B ({type(error).__name__}: {error}); {then}")
            self._abandon()
            return False
        return True

    def _abandon(self) -> None:
        """Closes a run that fails at the tracker; left open, it would be taken for a success by the next one."""
        run, self.run = self.run, None
        try:
            if run is not None:
                run.finish(exit_code=1)
        except Exception as error:
            _warn(f"could not close it either ({type(error).__name__}: {error})")


def obstacle(timeout: float) -> str | None:
    """Why nothing can be sent to the server, in words; None if it answers and a key is there.

    Asked before the client is: that one would block for long, then fail.
    """
    try:
        why = away(server(), timeout)
    except ValueError as error:  # WANDB_BASE_URL, or what stands in a file of the client, is no address
        return f"the W&B client is set up wrongly: {' '.join(str(error).partition('[type=')[0].split())}"
    if why is not None:
        return why
    import wandb

    return None if wandb.login(prompt=False, verify=False) else "no W&B API key (`wandb login`, or WANDB_API_KEY)"


def server() -> str:
    """The address of the server that the client is set to."""
    _quieten()
    import wandb

    return str(wandb.setup().settings.base_url)


def away(server: str, timeout: float) -> str | None:
    """Why a server cannot be reached, in words; None if it answers."""
    url = urlsplit(server)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), timeout=min(timeout, 5.0)).close()
    except OSError as error:
        return f"the W&B server at {url.netloc} does not answer ({error})"
    return None


def _quieten() -> None:
    """Before the client is imported. Even offline it otherwise looks up a host name, for error reports."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")


def _mark(run: Any) -> Path:
    return Path(f"{run.settings.sync_file}{UNSENT}")


def _replace_unsent(file: Path) -> None:
    """Removes what earlier processes left unsent of a run: this one is told of all of its epochs again."""
    for old in file.parent.parent.glob(f"*run-*/{file.name}"):
        offline = old.parent.name.startswith("offline-")
        sent = Path(f"{old}.synced").exists() if offline else not Path(f"{old}{UNSENT}").exists()
        if old != file and not sent:
            shutil.rmtree(old.parent)


def _warn(text: str) -> None:
    print(f"warning: {' '.join(text.split())}", file=sys.stderr)
