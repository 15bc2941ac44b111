"""Where memory runs out: what is said of it, and trainings in smaller passes. Allocations fail for real."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snnrobust.data.dataset import Splits
from snnrobust.estimators.surrogate import TRAINED
from snnrobust.evaluation.evaluator import Settings
from snnrobust.randomness import isolated
from snnrobust.spiking.encoder import Poisson
from snnrobust.threat import Linf
from snnrobust.training.defences.none import NoDefence
from snnrobust.training.memory import OutOfMemory, Room, ran_out, spoken_of
from tests.conftest import tiny
from tests.contracts.toys import Toy
from tests.unit.interrupted import Disk, assert_equal, killed_after, uninterrupted
from tests.unit.test_resume import CASES
from tests.unit.test_training_loop import experiment
from tests.unit.trained import data, same, train, trainer

TOO_MUCH = 1 << 46
"""Floats that no machine has room for."""


def allocate() -> None:
    torch.empty(TOO_MUCH)


class Greedy(NoDefence):
    """Needs more memory than there is for more than `most` samples, once the pass has been made and a draw taken."""

    def __init__(self, most: int, from_epoch: int = 1) -> None:
        object.__setattr__(self, "most", most)
        object.__setattr__(self, "from_epoch", from_epoch)
        object.__setattr__(self, "sizes", [])

    most: int
    from_epoch: int
    sizes: list[int]

    def step(self, model: Any, batch: Any, look: Any, moment: Any) -> Any:
        loss, at = super().step(model, batch, look, moment)
        torch.rand(3)
        self.sizes.append(len(batch.y))
        if len(batch.y) > self.most and moment.epoch >= self.from_epoch:
            allocate()
        return loss, at


def plain() -> nn.Module:
    """No batch norm, no draws: what a batch is made of makes no difference but for rounding."""
    with isolated("plain"):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 4))


def test_a_real_error_of_the_allocator_is_known_for_what_it_is():
    with pytest.raises(RuntimeError) as caught:
        allocate()
    assert ran_out(caught.value)
    assert ran_out(MemoryError())
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    assert not ran_out(RuntimeError("shapes do not match"))
    assert not ran_out(ValueError("out of memory"))


def test_a_training_that_runs_out_of_memory_says_so_in_one_line(make_tiny):
    with pytest.raises(OutOfMemory) as caught:
        train(trainer(defence=Greedy(8)), make_tiny())
    said = str(caught.value)
    assert said.startswith("out of memory with training.batch_size=16 (")
    assert said.endswith("try training.auto_batch=true, or a smaller training.batch_size")
    assert "\n" not in said
    assert (caught.value.kind, caught.value.batch_size) == ("out of memory", 16)


def test_another_error_is_left_alone(make_tiny):
    class Wrong(NoDefence):
        def step(self, model: Any, batch: Any, look: Any, moment: Any) -> Any:
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        train(trainer(defence=Wrong(), auto_batch=True), make_tiny())


def test_passes_are_halved_until_they_fit_and_stay_so(make_tiny, capsys):
    greedy = Greedy(5)
    trained, _ = train(trainer(defence=greedy, auto_batch=True), make_tiny())
    assert greedy.sizes == [16, 8] + [4] * 4 * 9
    assert trained.micro_batch == 4
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: out of memory with 16 samples per pass (")
    assert second.endswith("goes on with 4, gradients accumulated to the same batch")


def test_smaller_passes_learn_what_the_batch_would_have_taught():
    """Without batch norm, to rounding; with it, exactly what as many batches of their size do."""
    whole, halved = plain(), plain()
    _, epochs = train(trainer(lr=0.01), whole)
    trained, others = train(trainer(lr=0.01, defence=Greedy(4), auto_batch=True), halved)
    assert trained.micro_batch == 4
    for name, weight in whole.state_dict().items():
        assert torch.allclose(weight, halved.state_dict()[name], atol=1e-6, rtol=0)
    assert [e.train.loss for e in epochs] == pytest.approx([e.train.loss for e in others], abs=1e-6)


def test_smaller_passes_equal_accumulated_batches_of_their_size(make_tiny):
    halved, accumulated = make_tiny(), make_tiny()
    train(trainer(defence=Greedy(8), auto_batch=True), halved)
    train(trainer(batch_size=8, accumulate=2), accumulated)
    assert same(halved.state_dict(), accumulated.state_dict())


def test_a_step_is_taken_again_from_its_beginning(make_tiny):
    """The statistics of batch norm and the random streams are those of a run that had small passes at once."""
    models = [tiny(Poisson(3)), tiny(Poisson(3))]
    for model, most in zip(models, (4, 7), strict=True):  # 16, 8, 4, or 16, 8, 4 after a failure of the second part
        train(trainer(defence=Greedy(most), auto_batch=True), model)
    assert same(models[0].state_dict(), models[1].state_dict())

    class Late(Greedy):
        """The second pass of the first step fails, when gradients and statistics of the first are there."""

        def step(self, model: Any, batch: Any, look: Any, moment: Any) -> Any:
            object.__setattr__(self, "most", 4 if len(self.sizes) == 2 else 8)
            return super().step(model, batch, look, moment)

    late = Late(8)
    model = tiny(Poisson(3))
    train(trainer(defence=late, auto_batch=True), model)
    assert late.sizes[:4] == [16, 8, 8, 4]
    assert same(models[0].state_dict(), model.state_dict())


@pytest.mark.parametrize("name", ["adam", "poisson", "rewired", "accumulate", "robust", "adversarial"])
def test_where_memory_suffices_nothing_changes(name):
    run, model = CASES[name]()
    settings = run.settings
    object.__setattr__(settings, "auto_batch", True)
    assert_equal(uninterrupted(CASES[name]), uninterrupted(lambda: (run, model)))


@pytest.mark.parametrize(("model", "least"), [(tiny, 2), (plain, 1)])
def test_where_a_pass_cannot_be_smaller_the_training_ends(model, least):
    greedy = Greedy(0)
    with pytest.raises(OutOfMemory, match=f"batch_size=16, and {least} samples per pass are the fewest") as caught:
        train(trainer(defence=greedy, auto_batch=True), model())
    assert min(greedy.sizes) == least
    assert caught.value.batch_size == 16
    assert "auto_batch" not in str(caught.value)


def test_passes_of_an_uneven_batch_suit_batch_norm():
    room = Room(Toy(4), 16, True)
    room.micro_batch = 2
    assert [len(piece) for piece in room.pieces(torch.arange(7))] == [3, 2, 2]
    room = Room(plain(), 16, True)
    room.micro_batch = 4
    assert [len(piece) for piece in room.pieces(torch.arange(10))] == [4, 3, 3]
    assert [*room.pieces(torch.arange(0))] == []


def test_validation_is_done_in_smaller_passes_too(make_tiny):
    class Room4(nn.Module):
        """Lets few samples through in eval mode."""

        def forward(self, x: Tensor) -> Tensor:
            if not self.training and x.shape[1] > 4:
                allocate()
            return x

    def made_of(layer: nn.Module) -> Any:
        model = make_tiny()
        model.backbone.features = nn.Sequential(layer, *model.backbone.features)
        return model

    limited, free = made_of(Room4()), made_of(nn.Identity())
    trained, epochs = train(trainer(auto_batch=True, epochs=1), limited)
    _, others = train(trainer(epochs=1), free)
    assert trained.micro_batch == 4
    assert same(dict(limited.state_dict()), dict(free.state_dict()))
    assert epochs[0].validation.loss == pytest.approx(others[0].validation.loss, abs=1e-6)
    with pytest.raises(OutOfMemory, match=r"training\.auto_batch=true"):
        train(trainer(epochs=1), made_of(Room4()))


def test_a_training_that_is_taken_up_goes_on_with_small_passes():
    def make() -> Any:
        return trainer(epochs=4, defence=Greedy(8, from_epoch=2), auto_batch=True), tiny()

    disk = Disk()
    whole = uninterrupted(make)
    disk.dies_after = 2
    killed_after(make, disk)
    disk.dies_after = None
    assert_equal(whole, again := uninterrupted(make, disk))
    assert again.trained.micro_batch == whole.trained.micro_batch == 8


def test_another_phase_names_its_own_setting():
    with pytest.raises(OutOfMemory) as caught, spoken_of("evaluation.batch_size", 256, "a smaller one"):
        allocate()
    assert str(caught.value) == "out of memory with evaluation.batch_size=256: try a smaller one"
    assert caught.value.batch_size == 256
    with pytest.raises(ValueError, match="else"), spoken_of("evaluation.batch_size", 256, "a smaller one"):
        raise ValueError("something else")


def test_an_evaluation_that_runs_out_of_memory_names_its_own_setting(make_tiny):
    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            allocate()
            return x

    model = make_tiny()
    model.backbone.features = Full()
    its = experiment(threat=Linf(0.1), estimator=TRAINED, evaluation=Settings(batch_size=16))
    with pytest.raises(
        OutOfMemory, match=r"^out of memory with evaluation\.batch_size=16: try a smaller one$"
    ) as caught:
        its.evaluate(model, Splits(data(), data(16, 1), data(16, 2)))
    assert caught.value.batch_size == 16


LIMITED = """
import json, resource, sys, torch
torch.set_num_threads(1)
from torch import nn
from tests.unit.test_training_loop import experiment
from tests.unit.trained import data, data, trainer, train
from snnrobust.training.memory import OutOfMemory
class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 4), nn.Linear(4, 4)
    def forward(self, x):
        spread = self.first(x.flatten(1)).repeat(1, 1 << 22)  # 64 MiB a sample
        return self.last(torch.tanh(spread).view(len(x), -1, 4).mean(1))
model = Wide()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1200 << 20),) * 2)
try:
    trained, epochs = train(trainer(epochs=1, auto_batch=sys.argv[1] == "true"), model, data(16), data(4, 1))
    print(json.dumps([trained.micro_batch, epochs[0].train.loss]))
except OutOfMemory as error:
    print(json.dumps([error.batch_size, str(error)]))
"""


@pytest.mark.parametrize("auto", ["true", "false"])
def test_with_little_address_space_a_training_goes_on_in_small_passes_or_says_why_not(auto):
    done = subprocess.run([sys.executable, "-c", LIMITED, auto], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    number, other = json.loads(done.stdout)
    if auto == "true":
        assert number in (1, 2, 4)
        assert 0 < other < 10
        assert "warning: out of memory with 16 samples per pass (" in done.stderr
    else:
        assert number == 16
        assert other.startswith("out of memory with training.batch_size=16 (")
