"""What `launcher=ray` does on a real cluster when things go wrong; run by test_ray.sh. One line per proof."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from proofs import FOUR, Sweep, environment_of, expect, owner, proved, results, same, trainings


def status_of(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def workers(processes: list[int]) -> list[int]:
    """Those of these processes that are still there."""
    return [process for process in processes if Path(f"/proc/{process}").exists()]


def lost_worker(cluster: Sequence[str]) -> None:
    """One of two workers is killed, each on a raylet of its own; its run is launched again and goes on."""
    start = time.monotonic()
    sweep = Sweep("ray", *cluster, *FOUR)
    first, second = sweep.until(lambda: len(found := sweep.under_way()) == 2 and found, "two runs under way")
    parents = {status_of(owner(run))["PPid"] for run in (first, second)}
    expect(len(parents) == 2, "one run on each raylet", sweep)
    expect(environment_of(owner(second))["OMP_NUM_THREADS"] == "1", "one thread in the worker", sweep)
    os.kill(owner(first), signal.SIGKILL)
    killed = time.monotonic()
    sweep.until(lambda: "its process was lost" in sweep.text, "notice of the kill", 60)
    noticed = time.monotonic() - killed
    sweep.ends(0)
    resumed = results("ray")[first.name]["resumed_at"]
    expect(resumed, "resumed_at", sweep)
    expect(same("ray", "local"), "the metrics of the local sweep", sweep)
    proved(
        f"two raylets, kill -9 of one worker: noticed after {noticed:.1f} s, launched again, resumed at epochs "
        f"{resumed}, 4 done, metrics those of the local sweep", start
    )  # fmt: skip


def repeated(cluster: Sequence[str]) -> None:
    start = time.monotonic()
    sweep = Sweep("ray", *cluster, *FOUR).ends(0)
    expect(sweep.text.count("recorded earlier") == 4 and "4 runs: 4 done" in sweep.text, "all on record", sweep)
    expect(set(trainings("ray")) == {1}, "each trained to its end once", sweep)
    proved("the same command again: 4 recorded earlier, nothing trained", start)


def interrupted(name: str, launcher: Sequence[str]) -> None:
    """Ctrl-C, as the terminal sends it: to all processes of the command."""
    start = time.monotonic()
    sweep = Sweep(f"ray_{name}_c", *launcher, *FOUR)
    found = sweep.until(lambda: sweep.under_way(), "a run under way")
    owners = [owner(run) for run in found]
    sweep.interrupt()
    sweep.ends(130, 30)
    expect("Traceback" not in sweep.text, "no traceback", sweep)
    gone(owners, sweep)
    proved(f"Ctrl-C, {name}: status 130, no worker goes on", start)


def orphaned(name: str, launcher: Sequence[str]) -> None:
    """The sweep is killed; its workers end with it, and the repeated command goes on where they were."""
    start = time.monotonic()
    sweep = Sweep(f"ray_{name}_c", *launcher, *FOUR)
    owners = [owner(run) for run in sweep.until(lambda: sweep.under_way(4), "a run under way")]
    sweep.kill()
    gone(owners, sweep)
    again = Sweep(f"ray_{name}_c", *launcher, *FOUR).ends(0)
    expect(same(f"ray_{name}_c", "local"), "the metrics of the local sweep", again)
    proved(f"the sweep killed, {name}: its workers end, the repeated command goes on", start)


def gone(processes: list[int], sweep: Sweep) -> None:
    end = time.monotonic() + 30
    while workers(processes) and time.monotonic() < end:
        time.sleep(0.2)
    expect(not workers(processes), "no worker left", sweep)


HERE = "127.0.0.2"
"""Ray replaces 127.0.0.1 by an address that others can reach; this one it leaves alone, and nobody can."""


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "node_ip_address": HERE})
    try:
        cluster.add_node(num_cpus=1, node_ip_address=HERE)
        print(f"up: Ray {ray.__version__}, two raylets with a core each at {cluster.address}, with a token", flush=True)
        prove(["launcher=ray", f"launcher.address={cluster.address}"])
    finally:
        cluster.shutdown()
        print("stopped: both raylets", flush=True)


def prove(there: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="snnrobust-prove-") as folder:
        os.chdir(folder)  # which no raylet was started in
        try:
            Sweep("local", *FOUR).ends(0)
            lost_worker(there)
            repeated(there)
            interrupted("cluster", there)
            orphaned("cluster", there)
            interrupted("none", ["launcher=ray"])
            orphaned("none", ["launcher=ray"])
        finally:
            os.chdir("/")


if __name__ == "__main__":
    main()
