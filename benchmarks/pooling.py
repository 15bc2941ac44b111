"""Max against average pooling in the stem of SEW-ResNet: zeros of the gradient, and what attacks leave.

Writes docs/results/pooling.md. Run with: python -m benchmarks.pooling --root DATA (the folder that holds `cifar10`)
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from snnrobust import environment
from snnrobust.attacks.encoded import Encoded
from snnrobust.attacks.noise import UniformNoise
from snnrobust.building import instantiate, load
from snnrobust.cli import main as snnrobust
from snnrobust.data.dataset import Batch, Split
from snnrobust.evaluation.layers import watched
from snnrobust.evaluation.measures import input_gradient, sparsity, zero_fraction
from snnrobust.files import write_atomically
from snnrobust.job import RESULTS
from snnrobust.saved import config_beside
from snnrobust.spiking.classifier import SpikingClassifier
from snnrobust.threat import Linf

SEEDS = (0, 1, 2)
TRAINED = (
    "dataset=cifar10_sprites", "dataset.train_limit=4000", "dataset.test_limit=300", "dataset/augmentation=flip",
    "dataset.validation=0.02", "model=sew_resnet18", "model.width=16", "model.stem_width=16", "model.pool=max,avg",
    "encoder=phase", "encoder.steps=10", "neuron=if", "neuron.detach_reset=true", "neuron/surrogate=atan",
    "regularizer=none", "training=adam", "training.epochs=8", "training.optimizer.lr=0.002", "training.batch_size=64",
    "threat.eps=6/255", "suite=trail",
    f"seed={','.join(map(str, SEEDS))}", "device=cpu", "tracker=none",
)  # fmt: skip
FURTHER = {
    "max": (("suite=sparse_gradients",), ("suite=trail", "estimator=max_pool_average")),
    "avg": (("suite=sparse_gradients",),),
}
"""Evaluations of the trained networks: more estimators; and max pooling differentiated as average pooling."""
SAMPLES = 300
OUT = Path("docs/results/pooling.md")

ACCURACIES = {
    "clean_accuracy": "clean",
    "noise_accuracy": "noise",
    "fgsm_accuracy": "FGSM",
    "pgd7_accuracy": "PGD-7",
    "encoded_fgsm_accuracy": "FGSM on the code",
    "encoded_pgd7_accuracy": "PGD-7 on the code",
    "substitute": "PGD-7, max pooling differentiated as average pooling",
    "worst": "worst case, `sparse_gradients`",
}
ZEROS = {
    "image": "image",
    "code": "encoded spikes",
    "stem": "spikes before the pooling",
    "image, small": "image, at most 1e-3 of the largest",
    "code, small": "encoded spikes, at most 1e-3 of the largest",
}


@dataclass(frozen=True)
class Network:
    """One trained network: its pooling, and everything measured of it, as shares."""

    pool: str
    seed: int
    figures: Mapping[str, float]


def zeros(model: SpikingClassifier, data: Split) -> dict[str, float]:
    """Shares of entries of the gradient of `p_y` that are exactly zero (or small), means over samples."""
    found: dict[str, list[torch.Tensor]] = {}
    batches = [data.batch(index) for index in torch.arange(min(SAMPLES, len(data))).split(50)]
    with watched(model) as watch:
        for batch in batches:
            image = input_gradient(model, batch.x, batch.y)
            code = _code_gradient(model, batch)
            for name, gradient in {"image": image, "code": code}.items():
                found.setdefault(name, []).append(zero_fraction(gradient))
                found.setdefault(f"{name}, small", []).append(sparsity(gradient))
        layers = watch.means()
    first = next(iter(layers["zero_spike_gradient"]))
    shares = {name: float(torch.cat(values).mean()) for name, values in found.items()}
    return shares | {"stem": layers["zero_spike_gradient"][first], "firing": layers["firing_rate"][first]}


def _code_gradient(model: SpikingClassifier, batch: Batch) -> torch.Tensor:
    behind, code = Encoded(UniformNoise(Linf(0.0))).target(model, batch.x, batch.index)
    return input_gradient(behind, code, batch.y)


def networks(runs: Path, root: Path) -> list[Network]:
    """Every network under `runs`, with the accuracies of its evaluations."""
    found = []
    for checkpoint in sorted(runs.glob("*/checkpoint.pt")):
        config = config_beside("runs", checkpoint)
        torch.set_num_threads(1)
        data = instantiate("dataset", {**config["dataset"], "root": str(root)}).load().test
        figures = zeros(load(checkpoint.parent), data)
        for file in (checkpoint.parent / RESULTS, *checkpoint.parent.glob(f"*/{RESULTS}")):
            results = json.loads(file.read_text())
            metrics = results["metrics"]
            if results["config"]["suite"]["name"] == "sparse_gradients":
                figures["worst"] = metrics["worst_accuracy"]
            elif results["choices"]["estimator"] == "max_pool_average":
                figures["substitute"] = metrics["pgd7_accuracy"]
            else:
                figures |= {name: metrics[name] for name in ACCURACIES if name in metrics}
        found.append(Network(config["model"]["pool"], config["seed"], figures))
    return found


def cell(shares: Sequence[float]) -> str:
    """Mean and sample standard deviation in percent, small ones with more digits; a dash where there is nothing."""
    if not shares:
        return "–"
    digits = 1 if max(shares) >= 0.01 or max(shares) == 0 else 3
    deviation = statistics.stdev(shares) if len(shares) > 1 else 0.0
    return f"{100 * statistics.mean(shares):.{digits}f} ± {100 * deviation:.{digits}f}"


def table(found: Sequence[Network], columns: Mapping[str, str]) -> list[str]:
    rows = [f"| stem pooling | {' | '.join(columns.values())} |", f"|---|{'---:|' * len(columns)}"]
    for pool in ("max", "avg"):
        mine = [network for network in found if network.pool == pool]
        cells = [cell([network.figures[name] for network in mine if name in network.figures]) for name in columns]
        rows.append(f"| {pool} (n = {len(mine)}) | {' | '.join(cells)} |")
    return rows


def page(found: Sequence[Network]) -> str:
    commit = environment.commit()
    state = "unknown" if commit is None else str(commit["commit"])[:10] + " with changes" * bool(commit["dirty"])
    return "\n".join(
        [
            "# Max against average pooling in the stem of SEW-ResNet",
            "",
            f"`python -m benchmarks.pooling`, commit {state}, {environment.hardware('cpu', 1)['cpu']}, one thread, "
            f"torch {torch.__version__}; a narrow SEW-ResNet-18, ImageNet stem, on a part of CIFAR-10, trained by",
            "",
            "```",
            f"snnrobust train -m {' '.join(TRAINED)}",
            "```",
            "",
            "Mean ± sample standard deviation over seeds, in percent.",
            "",
            "## Accuracy [%], budget 6/255",
            "",
            *table(found, ACCURACIES),
            "",
            f"## Share of the gradient's entries that are exactly zero [%], first {SAMPLES} test samples",
            "",
            *table(found, ZEROS),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/pooling"), help="trained there where it is missing")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder of the data")
    given = parser.parse_args()
    if snnrobust(["train", "-m", *TRAINED, f"runs={given.runs}", f"dataset.root={given.root}"]):
        raise SystemExit(1)
    for checkpoint in sorted(given.runs.glob("*/checkpoint.pt")):
        for overrides in FURTHER[config_beside("runs", checkpoint)["model"]["pool"]]:
            if snnrobust(["evaluate", f"checkpoint={checkpoint.parent}", "threat.eps=6/255", *overrides]):
                raise SystemExit(1)
    write_atomically(OUT, page(networks(given.runs, given.root)))


if __name__ == "__main__":
    main()
