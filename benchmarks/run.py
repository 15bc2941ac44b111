"""Times training and attack steps, a whole protocol and the delivery of data; writes docs/benchmarks.md.

Run with: make bench
"""

from __future__ import annotations

import statistics
from pathlib import Path

import torch

from benchmarks import protocol
from benchmarks.events import conversions
from benchmarks.images import delivery
from benchmarks.memory import peak
from benchmarks.networks import CASES, STEPS
from benchmarks.pairs import Timing, measure
from benchmarks.steps import NUMBER, attack_steps
from benchmarks.training import CASES as training_cases
from benchmarks.training import training_steps, verdict
from snnrobust import environment

THREADS = 2
ROUNDS = 3


def table(title: str, timings: list[Timing], scale: float = 1.0) -> list[str]:
    rows = [
        f"| {t.name} | {t.median / scale:.1f} | {t.lowest / scale:.1f} - {t.highest / scale:.1f} | {1 / t.ratio:.2f} |"
        for t in timings
    ]
    return [
        f"### {title}",
        "",
        "| | ms, median | range | times as fast as the first |",
        "|---|---:|---:|---:|",
        *rows,
        "",
    ]


def training() -> list[str]:
    lines = []
    for case in training_cases:
        with protocol.threads(THREADS):
            timings = measure(training_steps(case), rounds=11, warmup=2)
        lines += [*table(f"{case.name}, batch {case.batch}, IF", timings), verdict(timings), ""]
    return lines


def steps() -> list[str]:
    lines = []
    for number, case in enumerate(CASES):
        with protocol.threads(THREADS):
            timings = measure(attack_steps(case), rounds=7, warmup=2)
        fused, floor, once = timings[2], timings[4], timings[5]
        lines += table(f"{case.name}, batch {case.batch}", timings, NUMBER)
        memory = {t.name: peak(number, i, THREADS) for i, t in enumerate(timings[:5])}
        lines += [
            f"Against the floor: fused takes {fused.median / floor.median:.2f} of a step with ReLU on {STEPS} times "
            f"the batch, {fused.median / once.median / STEPS:.2f} of {STEPS} steps of one time step each. "
            "Peak memory beyond what is held between attacks: "
            + ", ".join(f"{name} {size:.0f} MiB" for name, size in memory.items())
            + ".",
            "",
        ]
    return lines


def whole() -> list[str]:
    experiment, model, data = protocol.trained()
    eps = protocol.half_survives(model, experiment, data)
    lines = ["| eps | threads | torchattacks, s | snnrobust, s | times as fast | largest difference in accuracy |"]
    lines += ["|---:|---:|---:|---:|---:|---:|"]
    detail = []
    for budget, number in ((eps, THREADS), (eps, 1), (2 * eps, THREADS)):
        with protocol.threads(number):
            pairs = [
                (protocol.theirs(experiment, model, data, budget), protocol.ours(experiment, model, data, budget))
                for _ in range(ROUNDS)
            ]
        one, other = pairs[0]
        seconds = [statistics.median(p[side].seconds for p in pairs) for side in (0, 1)]
        ratio = statistics.median(a.seconds / b.seconds for a, b in pairs)
        gap = max(abs(one.accuracy[name] - other.accuracy[name]) for name in one.accuracy if name != "uniform_noise")
        lines.append(
            f"| {budget:g} | {number} | {seconds[0]:.1f} | {seconds[1]:.1f} | {ratio:.1f} | {100 * gap:.1f} points |"
        )
        if budget == eps and number == THREADS:
            rows = [f"{n} {100 * one.accuracy[n]:.1f} / {100 * other.accuracy[n]:.1f}" for n in one.accuracy]
            detail = ["", f"Accuracies at eps {budget:g} (torchattacks / snnrobust, %): " + ", ".join(rows) + ".", ""]
    return [*lines, *detail]


def main() -> None:
    commit = environment.commit()
    state = "unknown" if commit is None else str(commit["commit"])[:10] + " with changes" * bool(commit["dirty"])
    lines = [
        "# Benchmarks",
        "",
        f"`make bench`, commit {state}, {environment.hardware('cpu', THREADS)['cpu']}, torch {torch.__version__}, "
        f"T={STEPS}. In one process, in turn; medians over rounds; ratios are medians of pairs.",
        "",
        f"## A training step ({THREADS} threads)",
        "",
        "Forward, loss and backward with gradient-sparsity regularization (SR); random weights. The published style is "
        "written from the formulas: a loop over time in eager torch, the stem at every step, the regularizer sample by "
        "sample.",
        "",
        *training(),
        f"## A gradient step of an attack ({THREADS} threads)",
        "",
        "PGD from the input; random weights with warmed-up batch norm. The fused network has the same logits up to "
        "rounding and makes the same decisions (tested); in bfloat16, examples are crafted on a rounded network and "
        "judged in float32.",
        "",
        *steps(),
        "## A whole protocol",
        "",
        "Clean, noise, FGSM and PGD with 10, 30 and 50 steps, each the worst case over four estimators, on the 359 "
        f"test samples of the digits (ConvNet, 12 epochs, seed 0); {ROUNDS} pairs. The budget is the one at which "
        "about half survive, then twice that. PGD starts at the input on both sides, so that they compute the same.",
        "",
        *whole(),
        "## Data",
        "",
        *delivery(),
        *conversions(),
    ]
    page = Path("docs/benchmarks.md")
    _, *commands = page.read_text().partition("\n## Sweeps\n")  # timed by other commands, which the section names
    page.write_text("\n".join(lines) + "".join(commands))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
