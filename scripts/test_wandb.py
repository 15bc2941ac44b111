"""`make test-wandb`: tracking, uploads and what can go wrong with them, for real, against a server on 127.0.0.1.

One line for each proof; the first that fails ends it with a non-zero status. Everything is stopped at the end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scripts.wandb_runs import KILLED, Runs, equal
from scripts.wandb_server import Proxy, Server, installed

VENV = Path(__file__).parent.parent / ".venv-wandb"


class Proofs(Runs):
    def online(self) -> str:
        self.done(*self.train("online", mode="online"))
        (home,) = self.homes("online", "results.json")
        self.same(home.parent)
        assert self.done("sync", "online")[0] == "online: nothing to upload\n"
        return "curves, summary and config at the server are those of the run directory; nothing is left to upload"

    def offline(self) -> str:
        out, _ = self.done(*self.train("offline", "seed=1", mode="offline"))
        (home,) = self.homes("offline", "results.json")
        assert f"upload with: snnrobust sync {home.parent.relative_to(self.folder)}" in out, out
        assert self.done("sync", "offline")[0].splitlines()[-1] == "1 run: 1 sent"
        self.same(home.parent)
        return "the same after snnrobust sync"

    def again(self) -> str:
        assert self.done("sync", "offline")[0] == "offline: nothing to upload\n"
        runs = self.tracked("client", 1)
        (file,) = (self.folder / "client").glob("run0/wandb/offline-run-*/run-*.wandb")
        client = [sys.executable, "-m", "wandb", "sync", str(file)]
        subprocess.run(client, env=self.env, cwd=self.folder, check=True, capture_output=True)
        assert self.done("sync", "client")[0] == "client: nothing to upload\n"
        self.thirty(runs)
        return "a second sync uploads nothing, nor does one after the client's own wandb sync"

    def killed(self) -> str:
        runs = self.tracked("killed", 6)
        process = self.begin("sync", "killed", "jobs=2")
        assert process.stdout is not None
        assert process.stdout.readline().startswith("sent")
        process.kill()  # its clients live on, and keep their claims
        process.wait()
        out, _ = self.done("sync", "killed", "jobs=2")
        self.thirty(runs)
        return f"killed after the first of six and started again: every point once ({out.splitlines()[-1]})"

    def killed_with_clients(self) -> str:
        runs = self.tracked("torn", 4)
        process = self.begin("sync", "torn", "jobs=2")
        while not any(
            "uploading history" in log.read_text() for log in self.folder.glob("torn/*/wandb/*/logs/sync.log")
        ):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        self.done("sync", "torn", "jobs=2")
        self.thirty(runs, exact=False)
        sent = sum(len(self.server.points(run)["train/loss"]) for run in runs)
        return f"killed with its clients: no point missing, none with two values ({sent - 120} of 120 were sent twice)"

    def incomplete(self) -> str:
        for number, epochs in enumerate((3, 400)):
            command = [sys.executable, "-c", KILLED, f"incomplete/run{number}", str(epochs)]
            process = subprocess.Popen(command, env=self.env, cwd=self.folder, start_new_session=True)
            assert process.wait() == -signal.SIGKILL
        lines = self.done("sync", "incomplete")[0].splitlines()
        assert [line.split()[0] for line in lines[:2]] == ["empty", "sent"], lines
        points = self.server.points("incomplete-run1")["train/loss"]
        equal("incomplete", points, [(epoch, 1 / epoch) for epoch in range(1, len(points) + 1)], exact=True)
        assert self.done("sync", "incomplete")[0].splitlines()[-1] == "1 run: 1 empty"
        return f"tracked runs whose client was killed too: {len(points)} of 400 epochs were written and are sent, once"

    def shared(self) -> str:
        runs = self.tracked("shared", 6)
        both = [self.begin("sync", "shared", "jobs=1") for _ in range(2)]
        said = [process.communicate(timeout=600)[0].splitlines()[-1] for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        self.thirty(runs)
        counts = [int(found[1]) if (found := re.search(r"(\d+) sent", line)) else 0 for line in said]
        assert sum(counts) == 6, said
        assert min(counts) > 0, said
        return f"two at once send six runs, every point once ({counts[0]} and {counts[1]})"

    def refused(self) -> str:
        runs = self.tracked("refused", 2)
        proxy = Proxy(self.server)
        _, err = self.done("sync", "refused", status=1, env={"WANDB_BASE_URL": proxy.url})
        assert all(f"refused/run{i}: " in err for i in range(2)), err
        assert not list((self.folder / "refused").glob("*/wandb/*/*.synced"))
        proxy.close()
        assert self.done("sync", "refused")[0].splitlines()[-1] == "2 runs: 2 sent"
        self.thirty(runs)
        return "a server that refuses the data: status 1 and a list; sent once it takes them"

    def lost(self) -> str:
        runs = self.tracked("lost", 1)
        process = self.begin("sync", "lost")
        while not list((self.folder / "lost").glob("*/wandb/*/logs/sync.log")):
            time.sleep(0.01)
        self.server.kill()
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        assert "does not answer" in err, err
        (line,) = self.done("sync", "lost", status=1)[1].splitlines()
        assert "does not answer" in line, line
        self.server.start()
        self.done("sync", "lost")
        self.thirty(runs, exact=False)
        return "the server goes away during an upload: status 1 in half a minute; sent once it is back"

    def away(self) -> str:
        words = self.train("away", "seed=2", "tracker.finish_timeout=5", mode="online", epochs=8)
        process = self.begin(*words)
        while sum(len(file.read_text().splitlines()) for file in self.homes("away", "history.jsonl")) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        self.server.kill()
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        (home,) = self.homes("away", "results.json")
        assert json.loads(home.read_text())["metrics"]["clean_accuracy"] > 0
        assert "warning: the W&B server has not taken everything" in err, err
        assert "snnrobust sync away" in out, out
        self.server.start()
        assert self.done("sync", "away")[0].splitlines()[-1] == "1 run: 1 sent"
        self.same(home.parent, exact=False)
        return "the server goes away during a run: it ends with its results and a warning; sync sends the rest"

    def sweep(self) -> str:
        several = ("-m", "seed=0,1,2,3", "launcher=parallel", "launcher.jobs=2")
        self.done(*self.train("sweep", *several, mode="online"))
        homes = self.homes("sweep", "results.json")
        assert len(homes) == 4
        for home in homes:
            self.same(home.parent, exact=False)  # clients repeat requests that a busy server answers late
        return "a sweep of four runs, two at a time, online: four runs at the server, each complete"

    def resumed_offline(self) -> str:
        command = self.train("resumed", "seed=4", mode="offline", epochs=12)
        self.stopped_after(4, "resumed", command)
        self.done(*command)
        (home,) = self.homes("resumed", "results.json")
        resumed = json.loads(home.read_text())["resumed_at"]
        assert resumed, "the training began again"
        assert len(list(home.parent.glob("wandb/offline-run-*"))) == 1
        assert self.done("sync", "resumed")[0].splitlines()[-1] == "1 run: 1 sent"
        self.same(home.parent)
        return f"killed offline, taken up at epoch {resumed[0]}: one upload, every point once"

    def resumed_after_sync(self) -> str:
        command = self.train("between", "seed=5", mode="offline", epochs=12)
        self.stopped_after(4, "between", command, signal.SIGINT)
        assert self.done("sync", "between")[0].splitlines()[-1] == "1 run: 1 sent"
        self.done(*command)
        assert self.done("sync", "between")[0].splitlines()[-1] == "1 run: 1 sent"
        (home,) = self.homes("between", "results.json")
        self.same(home.parent, exact=False)
        return "interrupted offline, uploaded, taken up, uploaded: no point missing, none with two values"

    def resumed_online(self) -> str:
        command = self.train("resumed_online", "seed=6", mode="online", epochs=12)
        self.stopped_after(4, "resumed_online", command)
        self.done(*command)
        (home,) = self.homes("resumed_online", "results.json")
        self.same(home.parent, exact=False)
        assert self.done("sync", "resumed_online")[0] == "resumed_online: nothing to upload\n"
        return "killed online, taken up: no point missing, none with two values; nothing is left to upload"


def main(chosen: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Started in the background, Ctrl-C is ignored here and in all processes that are started and interrupted from here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="snnrobust-wandb-", ignore_cleanup_errors=True) as folder:
        server = Server(installed(VENV), Path(folder) / "server")
        try:
            server.start()
            proofs = Proofs(server, Path(folder))
            every: list[Callable[[], str]] = [
                proofs.online, proofs.offline, proofs.again, proofs.killed, proofs.killed_with_clients,
                proofs.incomplete, proofs.shared, proofs.refused, proofs.lost, proofs.away, proofs.sweep,
                proofs.resumed_offline, proofs.resumed_after_sync, proofs.resumed_online,
            ]  # fmt: skip
            for proof in every:
                if chosen and proof.__name__ not in chosen:
                    continue
                began = time.monotonic()
                print(f"ok    {proof.__name__:20}{proof()}  [{time.monotonic() - began:.0f} s]", flush=True)
        except AssertionError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
        finally:
            server.kill()
    print("stopped; nothing of it is left running")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
