"""Two real processes that train one network: the same bits in both, and what one process would have trained."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from snnrobust import distributed
from snnrobust.randomness import isolated
from snnrobust.regularizers.gradient_sparsity import GradientSparsity
from snnrobust.spiking.encoder import Poisson
from snnrobust.training.connectivity.rewired import Rewired
from snnrobust.training.defences.adversarial import Adversarial
from snnrobust.training.memory import OutOfMemory
from snnrobust.training.parallel import part, shares
from snnrobust.training.underway import Underway
from snnrobust.training.validation import Validation
from tests.conftest import tiny
from tests.unit.pruned import count, pattern, pruned
from tests.unit.test_memory import Greedy, plain
from tests.unit.test_resume import PGD, _Retracting, wide
from tests.unit.trained import SGD, data, same, trainer

Left = dict[str, Any]

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
import torch.distributed as dist
from pathlib import Path
from tests.unit.test_distributed_training import CASES
number, port, folder = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=int(number), world_size=2)
torch.save({name: case(Path(folder)) for name, case in CASES.items()}, f"{folder}/left.{number}")
dist.destroy_process_group()
"""


def left(run: Any, model: Any, samples: int = 45, **more: Any) -> Left:
    """What a training leaves, as plain containers; by default its epochs end with an uneven batch."""
    epochs: list[tuple[float | None, ...]] = []

    def on_epoch(epoch: Any) -> None:
        if epoch.epoch == more.get("dies_in"):
            raise KeyboardInterrupt
        epochs.append((epoch.train.loss, epoch.train.accuracy, epoch.validation.loss, epoch.robust_accuracy))

    keeper = {"keeper": more["keeper"]} if "keeper" in more else {}
    try:
        trained = run(model, data(samples), data(17, 1), on_epoch, **keeper)
    except KeyboardInterrupt:
        return {"model": model.state_dict(), "epochs": epochs}
    return {
        "model": model.state_dict(), "kept": trained.state, "epochs": epochs, "best": trained.best.epoch,
        "micro_batch": trained.micro_batch,
    }  # fmt: skip


def of_plain(**settings: Any) -> Left:
    return left(trainer(lr=0.01, **settings), plain_classifier())


def of_norm(**settings: Any) -> Left:
    return left(trainer(make=SGD, lr=0.05, **settings), tiny(), 48)


def regularized() -> Left:
    """Differentiates twice."""
    exact = GradientSparsity(weight=0.5, method="exact")
    return left(trainer(exact, Adversarial(PGD, clean_weight=0.5), lr=0.01), plain_classifier())


def plain_classifier() -> Any:
    """Without batch norm and without spikes, whose jumps would turn a rounding into a difference."""
    model = tiny()
    with isolated("plain", 0):
        hidden, out = nn.Linear(64, 16), nn.Linear(16, 4)
    model.backbone = nn.Sequential(nn.Flatten(2), hidden, nn.Tanh(), out)
    return model


def unlike() -> Left:
    """Each process begins with weights of its own."""
    return left(trainer(), tiny(seed=distributed.rank()))


def everything() -> Left:
    run = trainer(
        defence=_Retracting(), lr=0.02, accumulate=2, clip=0.5, validation=Validation("robust_accuracy", PGD, 9, 2)
    )
    model = pruned(tiny(Poisson(3)))
    found = left(replace(run, connectivity=Rewired(noise=1e-2)), model, 41)
    return found | {"connections": count(pattern(model))}


def drawing() -> Left:
    """Rows that are drawn after a step are the same, though the passes draw different numbers."""
    return left(trainer(defence=_Retracting()), wide())


def short_of_memory(auto: bool) -> Left:
    """In the second process alone."""
    greedy = Greedy(4 if distributed.rank() == 1 else 99)
    try:
        return left(trainer(defence=greedy, lr=0.01, auto_batch=auto), plain_classifier()) | {"sizes": greedy.sizes}
    except OutOfMemory as error:
        return {"refused": str(error)}


def kept(folder: Path, dies_in: int | None = None) -> Left:
    underway = Underway(folder / "training.pt", "signature", {})
    run = trainer(lr=0.01, epochs=4)
    return left(run, plain(), keeper=underway.keeper("training"), dies_in=dies_in) | underway.provenance()


CASES: dict[str, Callable[[Path], Left]] = {
    "plain": lambda _: of_plain(),
    "accumulated": lambda _: of_plain(accumulate=2, clip=0.1, ema=0.8),
    "norm": lambda _: of_norm(batch_size=16),
    "leftover": lambda _: left(trainer(), tiny(), 35),
    "regularized": lambda _: regularized(),
    "everything": lambda _: everything(),
    "unlike": lambda _: unlike(),
    "drawing": lambda _: drawing(),
    "halved": lambda _: short_of_memory(auto=True),
    "refused": lambda _: short_of_memory(auto=False),
    "taken_up": lambda folder: kept(folder / "one"),
    "killed": lambda folder: kept(folder / "two", dies_in=3),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What both processes have left; the training in `one` was begun by one process."""
    folder: Path = tmp_path_factory.mktemp("distributed")
    for name in ("one", "two"):
        (folder / name).mkdir()
    kept(folder / "one", dies_in=3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-c", SCRIPT, str(number), port, str(folder)] for number in (0, 1)]
    processes = [subprocess.Popen(c, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        said = [process.communicate(timeout=100)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[0].count("warning: out of memory with 8 samples per pass") == 1
    assert "warning" not in said[1]
    return folder


@pytest.fixture(scope="module")
def both(folder) -> list[dict[str, Left]]:
    return [torch.load(folder / f"left.{number}", weights_only=True) for number in (0, 1)]


def close(first: Left, second: Left, tolerance: float = 1e-5) -> bool:
    weights = all(torch.allclose(t, second["model"][n], atol=tolerance, rtol=0) for n, t in first["model"].items())
    pairs = zip(first["epochs"], second["epochs"], strict=True)
    return weights and all(a == pytest.approx(b, abs=tolerance) for a, b in pairs)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("halved", "refused")])
def test_both_have_the_same_bits_and_take_the_same_decisions(name, both):
    first, second = (found[name] for found in both)
    assert same(first["model"], second["model"])
    assert same(first.get("kept", {}), second.get("kept", {}))
    for what in ("epochs", "best", "micro_batch", "connections", "resumed_at"):
        assert first.get(what) == second.get(what), what
    assert first["epochs"]


def test_without_batch_norm_they_train_what_one_process_trains(both):
    assert close(both[0]["plain"], of_plain())
    assert close(both[0]["accumulated"], of_plain(accumulate=2, clip=0.1, ema=0.8))
    assert close(both[0]["regularized"], regularized())
    assert both[0]["plain"]["best"] == of_plain()["best"]


def test_with_batch_norm_they_train_what_accumulated_halves_train_but_for_running_statistics(both):
    """Each process takes statistics of its half; they are averaged, where halves in a row are weighed by momentum."""
    halves = of_norm(batch_size=8, accumulate=2)
    found, expected = both[0]["norm"], halves
    running = [name for name in found["model"] if "running" in name]
    for name in found["model"].keys() - running:
        if "num_batches" not in name:
            assert torch.allclose(found["model"][name], expected["model"][name], atol=1e-5, rtol=0), name
    assert [e[0] for e in found["epochs"]] == pytest.approx([e[0] for e in expected["epochs"]], abs=1e-5)
    whole = of_norm(batch_size=16)
    for name in running:  # those of one process that sees whole batches, but for the variance between halves
        assert torch.allclose(found["model"][name], whole["model"][name], atol=0.15, rtol=0.15), name


def test_the_number_of_connections_stays(both):
    assert both[0]["everything"]["connections"] == count(pattern(pruned(tiny())))


def test_what_memory_has_no_room_for_in_one_process_is_halved_in_both(both):
    assert [found["halved"]["micro_batch"] for found in both] == [4, 4]
    assert same(both[0]["halved"]["model"], both[1]["halved"]["model"])
    assert both[0]["halved"]["sizes"][:3] == [8, 4, 4]
    assert close(both[0]["halved"], of_plain())
    first, second = (found["refused"]["refused"] for found in both)
    assert first.startswith("out of memory with training.batch_size=16 (in another process)")
    assert second.startswith("out of memory with training.batch_size=16 (")


def test_a_training_goes_on_with_another_number_of_processes(both, folder, tmp_path):
    whole = kept(tmp_path)
    assert both[0]["taken_up"]["resumed_at"] == [3]
    weights = {"model": whole["model"], "epochs": whole["epochs"][2:]}
    assert close(both[0]["taken_up"], weights)
    again = kept(folder / "two")
    assert again["resumed_at"] == [3]
    assert close(again, weights)


@pytest.mark.parametrize(("samples", "fewest", "sizes"), [
    (16, 2, [4, 4, 4, 4]), (7, 2, [3, 2, 2]), (3, 2, [3]), (3, 1, [1, 1, 1]), (1, 2, [1]), (0, 1, [0]),
])  # fmt: skip
def test_parts_are_contiguous_and_never_too_small(samples, fewest, sizes, monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 4)
    found = []
    for number in range(4):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        found.append(part(torch.arange(samples), fewest).tolist())
    assert [len(indices) for indices in found[: len(sizes)]] == sizes
    assert [i for indices in found for i in indices] == list(range(samples))
    assert shares(samples, fewest) == len(sizes)
