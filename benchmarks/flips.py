"""How many flips break networks of binary event frames; writes docs/results/flips.md and flips.svg.

Run with: python -m benchmarks.flips
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from snnrobust import environment
from snnrobust.attacks.base import Attack
from snnrobust.attacks.flips import RandomFlips, TopFlips
from snnrobust.attacks.flips_sda import SDA
from snnrobust.building import instantiate, load
from snnrobust.cli import main as snnrobust
from snnrobust.data.dataset import Batch
from snnrobust.estimators.pdsg import PDSG
from snnrobust.files import write_atomically
from snnrobust.flips import Flips, distance
from snnrobust.reporting.figures import COLOURS, MARKERS, STYLE
from snnrobust.saved import config_beside
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.spiking.fuse import fused

COUNTS = (5, 10, 20, 50, 100, 200)
SEEDS = (0, 1, 2)
OVERRIDES = (
    "dataset=digits_events_binary", "regularizer=none,gradient_sparsity", f"seed={','.join(map(str, SEEDS))}",
    "device=cpu", "tracker=none",
)  # fmt: skip
OUT = Path("docs/results")


@dataclass(frozen=True)
class Curve:
    """Of one search without a budget: flips `[n]` in the results, and which of these `[n]` are misclassified."""

    flips: Tensor
    broken: Tensor

    @property
    def failures(self) -> int:
        return int((~self.broken).sum())

    @property
    def median(self) -> float:
        """Of the flips of successes (the lower one of two); NaN if there are none."""
        found = self.flips[self.broken].tolist()
        return float(statistics.median_low(found)) if found else float("nan")


def within(curve: Curve, count: int) -> float:
    """Share of all samples that at most `count` flips break; failures are in the denominator."""
    return float((curve.broken & (curve.flips <= count)).double().mean())


@dataclass(frozen=True)
class Result:
    """Of one attack on one network: success rates by number of flips, and what it took.

    `unbounded` (the success rate of any number of flips) and `curve` are of searches without a budget alone.
    """

    within: Mapping[int, float]
    median: float
    failures: int
    forwards: Sequence[float]
    unbounded: float | None = None
    curve: Curve | None = None


@dataclass(frozen=True)
class Network:
    """One trained network and the correctly classified of the first test samples."""

    regularizer: str
    seed: int
    model: SpikingClassifier
    batch: Batch
    accuracy: float


Method = Callable[[Network], Result]


def searched(make: Callable[[int, int], SDA]) -> Method:
    """One search without a budget, read at every count; `make` takes the number of entries and the seed."""

    def run(network: Network) -> Result:
        curve, forwards = attacked(network, make(network.batch.x[0].numel(), network.seed))
        rates = {count: within(curve, count) for count in COUNTS}
        success = 1 - curve.failures / len(curve.flips)
        return Result(rates, curve.median, curve.failures, [forwards], success, curve)

    return run


def repeated(make: Callable[[int, int], Attack]) -> Method:
    """An attack for every count; `make` takes the count and the seed.

    The flips of a sample are the lowest count that breaks it, and it is a failure where none does.
    """

    def run(network: Network) -> Result:
        found = [attacked(network, make(count, network.seed)) for count in COUNTS]
        broken = torch.stack([curve.broken for curve, _ in found])
        rates = dict(zip(COUNTS, broken.double().mean(1).tolist(), strict=True))
        lowest = Curve(torch.tensor(COUNTS)[broken.byte().argmax(0)], broken.any(0))
        return Result(rates, lowest.median, lowest.failures, [forwards for _, forwards in found])

    return run


METHODS: Mapping[str, Method] = {
    "SDA": searched(lambda entries, seed: SDA(Flips(entries), iterations=1000, seed=seed)),
    "SDA, as published": searched(
        lambda entries, seed: SDA(
            Flips(entries), PDSG(), iterations=500, first=10, candidates=entries, reductions=1, seed=seed
        )
    ),
    "top-k, 10 gradients": repeated(lambda count, seed: TopFlips(Flips(count), steps=10, seed=seed)),
    "top-k, 1 gradient": repeated(lambda count, seed: TopFlips(Flips(count), seed=seed)),
    "random": repeated(lambda count, seed: RandomFlips(Flips(count), seed=seed)),
}


def attacked(network: Network, attack: Attack) -> tuple[Curve, float]:
    """Flips and success per sample, judged on the network itself; and the forwards per sample that the attack took."""
    inputs = 0

    def count(_: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal inputs
        inputs += len(arguments[0])

    quick, batch = fused(network.model), network.batch
    quick.register_forward_pre_hook(count)
    found = attack(quick, batch.x, batch.y, batch.index)
    with torch.no_grad():
        broken = network.model(found).argmax(1) != batch.y
    return Curve(distance(found, batch.x), broken), inputs / len(batch.x)


def networks(runs: Path, samples: int) -> Iterator[Network]:
    """The trained networks under `runs`, with the first test samples as far as they are correctly classified."""
    for checkpoint in sorted(runs.glob("*/checkpoint.pt")):
        config = config_beside("runs", checkpoint)
        torch.set_num_threads(1)
        model = load(checkpoint.parent)
        data = instantiate("dataset", config["dataset"]).load().test
        batch = data.batch(torch.arange(min(samples, len(data))))
        with torch.no_grad():
            right = model(batch.x).argmax(1) == batch.y
        chosen = Batch(batch.x[right], batch.y[right], batch.index[right])
        weight = config["regularizer"].get("weight", 0)
        name = f"gradient_sparsity, weight {weight}" if weight else "none"
        yield Network(name, config["seed"], model, chosen, float(right.double().mean()))


def spread(values: Sequence[float | None], scale: float = 100.0, digits: int = 1) -> str:
    """Mean and sample standard deviation, for a table; a dash if a value is missing."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if len(known) < len(values):
        return "–"
    mean, deviation = statistics.mean(known), statistics.stdev(known) if len(known) > 1 else 0.0
    return f"{scale * mean:.{digits}f} ± {scale * deviation:.{digits}f}"


def table(results: Mapping[str, Sequence[Result]]) -> list[str]:
    rows = []
    for name, found in results.items():
        rates = [spread([result.within[count] for result in found]) for count in COUNTS]
        costs = [statistics.mean(costs) for costs in zip(*(r.forwards for r in found), strict=True)]
        cost = f"{costs[0]:.0f}" if max(costs) - min(costs) < 0.5 else f"{min(costs):.0f} to {max(costs):.0f}"
        end = [
            spread([result.unbounded for result in found]),
            spread([result.median for result in found], 1.0),
            ", ".join(str(result.failures) for result in found),
            cost,
        ]
        rows.append(f"| {' | '.join([name, *rates, *end])} |")
    titles = ["attack", *map(str, COUNTS), "no limit", "median flips of successes", "failures", "forwards"]
    return [f"| {' | '.join(titles)} |", f"|---|{'---:|' * (len(titles) - 1)}", *rows]


def figure(results: Mapping[str, Mapping[str, Sequence[Result]]]) -> Figure:
    """Success against the number of flips, one panel for each regularizer."""
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(4.6 * len(results), 3.9), layout="constrained")
        panels = made.subplots(1, len(results), squeeze=False, sharey=True)[0]
        for axes, (regularizer, by_method) in zip(panels, results.items(), strict=True):
            for i, (name, found) in enumerate(by_method.items()):
                _draw(axes, i, name, found)
            axes.set_xscale("log")
            axes.set_xticks((1, *COUNTS), [str(count) for count in (1, *COUNTS)])
            axes.minorticks_off()
            axes.set_ylim(-2, 102)
            axes.set_xlabel("flips")
            axes.set_title(f"regularizer {regularizer} (n = {len(SEEDS)})", fontsize=9)
        panels[0].set_ylabel("broken, of the correctly classified [%]")
        panels[0].legend(fontsize=8, loc="upper left")
    return made


def _draw(axes: Axes, i: int, name: str, found: Sequence[Result]) -> None:
    counts, marker = list(COUNTS), MARKERS[i]
    rates = [[result.within[count] for result in found] for count in counts]
    curves = [result.curve for result in found if result.curve is not None]
    if len(curves) == len(found):
        counts, marker = list(range(1, max(COUNTS) + 1)), ""
        rates = [[within(curve, count) for curve in curves] for count in counts]
    means = torch.tensor([100 * statistics.mean(values) for values in rates])
    widths = torch.tensor([100 * statistics.stdev(values) if len(values) > 1 else 0.0 for values in rates])
    axes.plot(counts, means, color=COLOURS[i], marker=marker, ms=5, lw=1.4, label=name)
    axes.fill_between(counts, means - widths, means + widths, color=COLOURS[i], alpha=0.15, lw=0)


def page(results: Mapping[str, Mapping[str, Sequence[Result]]], found: Sequence[Network], samples: int) -> str:
    commit = environment.commit()
    state = "unknown" if commit is None else str(commit["commit"])[:10] + " with changes" * bool(commit["dirty"])
    entries, ones = found[0].batch.x[0].numel(), found[0].batch.x.flatten(1).sum(1).mean()
    lines = [
        "# Flips of events in binary frames",
        "",
        f"`python -m benchmarks.flips`, commit {state}, {environment.hardware('cpu', 1)['cpu']}, one thread, torch "
        f"{torch.__version__}. The digits as event streams, frames of 0 and 1 (`dataset=digits_events_binary`): "
        f"{entries:,} entries, of which {ones:.0f} are 1 on average. The default ConvNet, seeds "
        f"{', '.join(map(str, SEEDS))}, trained by",
        "",
        "```",
        f"snnrobust train -m {' '.join(OVERRIDES)}",
        "```",
        "",
        f"Attacked: the correctly classified of the first {samples} test samples. Shown: the share of them [%] that at "
        "most so many flips break; failures are in the denominator. Mean ± sample standard deviation over seeds; every "
        "success is judged on the network itself. Forwards: inputs handed to the network per attacked sample, the ones "
        "with a gradient included; for top-k, from 5 to 200 flips.",
        "",
        "SDA is one search without a budget, read at every count. `SDA`: the default, which follows the gradient of "
        "the training. `SDA, as published`: the settings of the paper, which are PDSG, rounds of 10, 20, "
        "30, ... candidates, and one reduction. top-k and random are attacks of their own at every count; the flips of "
        "a sample are then the lowest count that breaks it.",
    ]
    for regularizer, by_method in results.items():
        mine = [network for network in found if network.regularizer == regularizer]
        n = ", ".join(str(len(network.batch.x)) for network in mine)
        clean = spread([network.accuracy for network in mine])
        lines += ["", f"## regularizer: {regularizer}", "", f"Clean: {clean} % of {samples}; attacked: {n}.", ""]
        lines += table(by_method)
    return "\n".join([*lines, "", "![Broken samples against the number of flips](flips.svg)", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/flips"), help="trained there where it is missing")
    parser.add_argument("--samples", type=int, default=200, help="of the test data")
    given = parser.parse_args()
    if snnrobust(["train", "-m", *OVERRIDES, f"runs={given.runs}"]):
        raise SystemExit(1)
    found = [*networks(given.runs, given.samples)]
    results: dict[str, dict[str, list[Result]]] = {}
    for network in sorted(found, key=lambda network: (network.regularizer != "none", network.seed)):
        for name, method in METHODS.items():
            result = method(network)
            results.setdefault(network.regularizer, {}).setdefault(name, []).append(result)
            print(network.regularizer, network.seed, name, result.within, result.median, flush=True)
    content = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure(results).savefig(content, format="svg", metadata={"Date": None})
    write_atomically(OUT / "flips.svg", content.getvalue())
    write_atomically(OUT / "flips.md", page(results, found, given.samples))


if __name__ == "__main__":
    main()
