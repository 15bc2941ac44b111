"""What `launcher=slurm` does on a real Slurm when things go wrong; run by test_slurm.sh. One line per proof."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time

from proofs import FOUR, Sweep, environment_of, expect, finish, owner, proved, results, same, trainings

SLURM = ("launcher=slurm", "launcher.timeout_min=10")
LONG = ("seed=7", "training.epochs=90")
LIMITED = ("launcher=slurm", "launcher.timeout_min=1", "launcher.signal_delay_s=20")


def queue() -> list[str]:
    done = subprocess.run(["squeue", "-h", "-r", "-o", "%i"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def lost_jobs() -> None:
    """One process is killed, another job cancelled; both are launched again, and go on after their last epoch."""
    start = time.monotonic()
    sweep = Sweep("slurm", *SLURM, *FOUR)
    first = sweep.until(sweep.under_way, "a run under way")[0]
    os.kill(owner(first), signal.SIGKILL)
    killed = time.monotonic()
    second = sweep.until(lambda: [run for run in sweep.under_way() if run != first], "another run under way")[0]
    environment = environment_of(owner(second))
    expect(environment["OMP_NUM_THREADS"] == "1", "one thread in the job", sweep)
    job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    subprocess.run(["scancel", job], check=True)
    sweep.until(lambda: "its process was lost" in sweep.text, "notice of the kill", 60)
    noticed = time.monotonic() - killed
    sweep.ends(0)
    expect(same("slurm", "local"), "the metrics of the local sweep", sweep)
    resumed = {run: record["resumed_at"] for run, record in results("slurm").items()}
    expect(resumed[first.name] and resumed[second.name], f"resumed_at of both, got {resumed}", sweep)
    proved(
        f"kill -9 of one process, scancel of one job: launched again (all noticed after {noticed:.0f} s), resumed at "
        f"epochs {resumed[first.name]} and {resumed[second.name]}, 4 done, metrics those of the local sweep", start
    )  # fmt: skip


def repeated() -> None:
    start = time.monotonic()
    sweep = Sweep("slurm", *SLURM, *FOUR).ends(0)
    expect(sweep.text.count("recorded earlier") == 4 and "4 runs: 4 done" in sweep.text, "all on record", sweep)
    expect(set(trainings("slurm")) == {1}, "each trained to its end once", sweep)
    proved("the same command again: 4 recorded earlier, nothing trained", start)


def interrupted() -> None:
    start = time.monotonic()
    sweep = Sweep("slurm_c", *SLURM, *FOUR)
    sweep.until(sweep.under_way, "a run under way")
    sweep.interrupt()
    sweep.ends(130, 30)
    expect("cancelled" in sweep.text and "Traceback" not in sweep.text, "one line on what was cancelled", sweep)
    end = time.monotonic() + 30
    while len(queue()) > 1 and time.monotonic() < end:
        time.sleep(0.5)
    expect(len(queue()) <= 1, f"nothing in the queue but the long run, got {queue()}", sweep)
    proved("Ctrl-C: status 130, its jobs are cancelled and gone", start)


def orphaned() -> None:
    """The sweep is killed; its jobs go on, and the repeated command shares their work."""
    start = time.monotonic()
    sweep = Sweep("slurm_c", *SLURM, *FOUR)
    sweep.until(lambda: sweep.under_way(4), "a run under way")
    sweep.kill()
    expect(len(queue()) >= 4, f"four jobs left in the queue, got {queue()}", sweep)
    again = Sweep("slurm_c", *SLURM, *FOUR).ends(0)
    expect("is at work on it" in again.text, "waiting for the runs of the first", again)
    expect(set(trainings("slurm_c")) == {1}, f"each trained to its end once, got {trainings('slurm_c')}", again)
    expect(same("slurm_c", "local"), "the metrics of the local sweep", again)
    proved("the sweep killed: its jobs go on, the repeated command waits for them, no run is done twice", start)


def refused() -> None:
    start = time.monotonic()
    sweep = Sweep("slurm_n", *SLURM, *FOUR, "launcher.partition=nowhere").ends(2)
    expect(sweep.text.startswith("snnrobust: launcher: ") and sweep.text.count("\n") == 1, "one line", sweep)
    proved(f"a partition that does not exist: {sweep.text.strip()}", start)


def timed_out(sweep: Sweep, start: float) -> None:
    """A run that takes longer than a job may: requeued by submitit's hook, and resumed."""
    reference = Sweep("local_long", *LONG)
    sweep.ends(0, 900)
    reference.ends(0)
    (record,) = results("slurm_long").values()
    expect(record["resumed_at"], "resumed_at", sweep)
    expect("a process was killed" not in sweep.text, "a requeue rather than a second job", sweep)
    expect(same("slurm_long", "local_long"), "the metrics of the local run", sweep)
    proved(
        f"time limit of a minute: requeued {len(record['resumed_at'])} times, resumed at epochs {record['resumed_at']},"
        " metrics those of the local run", start
    )  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="snnrobust-prove-") as folder:
        os.chdir(folder)
        os.chmod(folder, 0o755)
        start = time.monotonic()
        long = Sweep("slurm_long", *LONG, *LIMITED)
        sweeps = [long]
        try:
            Sweep("local", *FOUR).ends(0)
            for proof in (lost_jobs, repeated, refused, interrupted, orphaned):
                proof()
            timed_out(long, start)
        finally:
            finish(sweeps)
            os.chdir("/")


if __name__ == "__main__":
    main()
