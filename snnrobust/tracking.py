"""Trackers: mirrors of a run. The run directory is the record; a tracker that fails costs a warning, never a run."""

from __future__ import annotations

import os
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from snnrobust.settings import Positive


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
        """Values of one epoch, `epoch` among them."""

    @abstractmethod
    def finish(self, summary: Mapping[str, Any], failed: bool = False) -> str | None:
        """The final measures; closes the run. Returns the folder to upload later, if there is one."""


class Tracker(ABC):
    """Settings of a tracker; `start` opens a run at it."""

    @abstractmethod
    def start(self, run: Description) -> Tracked: ...


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

    Args:
        mode: `offline` needs no account and no network, and prints the line that uploads later; `online` falls back
            to offline, with a warning, where the server does not answer; `disabled` writes nothing.
        project: at W&B.
        entity: user or team; None is the account's default.
        group: None is the sweep that a run belongs to.
        tags: in addition to dataset, model, regularizer and suite.
        timeout: seconds to wait for the server before a run starts.
    """

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "snnrobust"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    timeout: Positive = 15.0

    def start(self, run: Description) -> Tracked:
        mirror = _Mirror()
        mirror.open(self, run)
        return mirror


class _Mirror(Tracked):
    """A W&B run, or nothing after its first failure."""

    def __init__(self) -> None:
        self.run: Any = None

    def open(self, settings: Wandb, run: Description) -> None:
        self._attempt("start", lambda: self._init(settings, run))

    def log(self, values: Mapping[str, float]) -> None:
        if self.run is not None:
            self._attempt("log to", lambda: self.run.log(dict(values)))

    def finish(self, summary: Mapping[str, Any], failed: bool = False) -> str | None:
        run, self.run = self.run, None
        if run is None:
            return None
        offline, folder = run.settings.mode == "offline", str(run.settings.sync_dir)
        self._attempt("finish", lambda: self._close(run, summary, failed))
        return folder if offline else None

    def _init(self, settings: Wandb, run: Description) -> None:
        # Offline mode otherwise still looks up a host name, for error reports.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self.run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group or run.group,
            job_type=run.job_type,
            name=run.name,
            id=run.identity,
            resume="allow" if settings.mode == "online" else None,
            tags=[*run.tags, *settings.tags],
            config=dict(run.config),
            dir=str(run.folder),
            mode=self._reachable(settings),
            # Otherwise a second run in the same process silently continues the first one.
            reinit="finish_previous",
            settings=wandb.Settings(
                init_timeout=settings.timeout, console="off", disable_git=True, save_code=False, x_disable_stats=True
            ),
        )
        # Steps that decrease are dropped; the epoch as a metric of its own is not.
        self.run.define_metric("epoch", hidden=True)
        self.run.define_metric("*", step_metric="epoch")

    def _reachable(self, settings: Wandb) -> Literal["offline", "online", "disabled"]:
        """`online` only where the server answers and a key is there: the client would block for long, then fail."""
        if settings.mode != "online":
            return settings.mode
        import wandb

        url = urlsplit(wandb.setup().settings.base_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            socket.create_connection((url.hostname or "", port), timeout=min(settings.timeout, 5.0)).close()
        except OSError as error:
            _warn(f"the W&B server at {url.netloc} does not answer ({error}); this run is tracked offline")
            return "offline"
        if not wandb.login(prompt=False, verify=False):
            _warn("no W&B API key (`wandb login`, or WANDB_API_KEY); this run is tracked offline")
            return "offline"
        return "online"

    def _close(self, run: Any, summary: Mapping[str, Any], failed: bool) -> None:
        run.summary.update(dict(summary))
        run.finish(exit_code=int(failed))

    def _attempt(self, action: str, attempt: Callable[[], None]) -> None:
        """Runs one call to the client; its first failure ends the mirror with a warning."""
        try:
            attempt()
        except Exception as error:  # whatever the client raises, the run goes on
            _warn(f"could not {action} W&B ({type(error).__name__}: {error}); the run goes on without it")
            self._abandon()

    def _abandon(self) -> None:
        """Closes a run that fails at the tracker; left open, it would be taken for a success by the next one."""
        run, self.run = self.run, None
        try:
            if run is not None:
                run.finish(exit_code=1)
        except Exception as error:
            _warn(f"could not close it either ({type(error).__name__}: {error})")


def _warn(text: str) -> None:
    print(f"warning: {' '.join(text.split())}", file=sys.stderr)
