"""Networks made elsewhere: whatever state they keep, every forward is the first one; or they are refused."""

import copy
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnrobust.attacks.guard import untouched
from snnrobust.estimators.surrogate import Surrogate
from snnrobust.foreign import Foreign, load_weights, verify
from snnrobust.spiking.surrogate import rectangle, triangle
from snnrobust.threat import Bounds
from snnrobust.traceless import modules_of, traceless
from tests.contracts.toys import Flat, Toy, assert_same, disturb, state_of

STEPS, CLASSES, PIXELS = 4, 4, 64


class Fire(torch.autograd.Function):
    """A step with the derivative of a sigmoid."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 1).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        s = torch.sigmoid(4 * (u - 1))
        return 4 * grad * s * (1 - s)


class State(NamedTuple):
    v: torch.Tensor


@dataclass
class Record:
    v: torch.Tensor | None = None


class Leaky(nn.Module):
    """A cell that keeps its membrane as some libraries do: made at the first forward, of the size of that batch."""

    def recall(self, current):
        raise NotImplementedError

    def keep(self, v):
        raise NotImplementedError

    def forward(self, current):
        v = self.recall(current)
        v = 0.9 * (torch.zeros_like(current) if v is None or v.shape != current.shape else v) + current
        spikes = Fire.apply(v)
        self.keep(v * (1 - spikes))
        return spikes


class Attribute(Leaky):
    mem = None

    def recall(self, current):
        return self.mem

    def keep(self, v):
        self.mem = v


class Buffer(Leaky):
    def __init__(self):
        super().__init__()
        self.register_buffer("mem", None)

    recall, keep = Attribute.recall, Attribute.keep


class InPlace(Leaky):
    """Changes its buffer, instead of replacing it."""

    mem: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("mem", torch.zeros(1))

    def recall(self, current):
        return self.mem.expand_as(current) if self.mem.numel() == 1 else self.mem.clone()

    def keep(self, v):
        with torch.no_grad():
            self.mem.resize_(v.shape).copy_(v)


class Tuple(Leaky):
    state = None

    def recall(self, current):
        return self.state and self.state.v

    def keep(self, v):
        self.state = State(v)


class Listed(Leaky):
    def __init__(self):
        super().__init__()
        self.history = {"v": deque([None])}

    def recall(self, current):
        return self.history["v"][-1]

    def keep(self, v):
        self.history["v"].append(v)


class Recorded(Leaky):
    def __init__(self):
        super().__init__()
        self.record = Record()

    def recall(self, current):
        return self.record.v

    def keep(self, v):
        self.record.v = v


class Network(nn.Module):
    """Rates of spikes over `STEPS` steps, of which no state is ever reset."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell
        self.inputs = nn.Linear(PIXELS, 16)
        self.outputs = nn.Linear(16, CLASSES)

    def forward(self, x):
        return torch.stack([self.outputs(self.cell(self.inputs(x.flatten(1)))) for _ in range(STEPS)]).mean(0)


class Unregistered(Network):
    """Its cell lies in a plain list, which torch does not look into."""

    def __init__(self, cell):
        super().__init__(None)
        self.cells = [cell]

    def forward(self, x):
        self.cell = self.cells[0]
        del self._modules["cell"]
        self.__dict__["cell"] = self.cells[0]
        return super().forward(x)


class Several(nn.Module):
    """SpikingJelly with `step_mode="m"`."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            layer.Conv2d(1, 4, 3, padding=1), layer.BatchNorm2d(4), neuron.LIFNode(detach_reset=True), layer.Flatten(),
            layer.Linear(4 * PIXELS, CLASSES), neuron.ParametricLIFNode(),
        )  # fmt: skip
        functional.set_step_mode(self.net, "m")

    def forward(self, x):
        return self.net(x.unsqueeze(0).expand(STEPS, *x.shape)).mean(0)


class Recurrent(nn.Module):
    """A GRU over rows that starts where it ended."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 16, batch_first=True)
        self.outputs = nn.Linear(16, CLASSES)
        self.hidden = None

    def forward(self, x):
        if self.hidden is not None and self.hidden.shape[1] != len(x):
            self.hidden = None
        out, self.hidden = self.gru(x.squeeze(1), self.hidden)
        return self.outputs(out[:, -1])


class Counting(nn.Module):
    """Adapts a threshold at every call and keeps an array beside it."""

    def __init__(self):
        super().__init__()
        self.outputs = nn.Linear(PIXELS, CLASSES)
        self.calls, self.trace = 0, np.zeros(1)

    def forward(self, x):
        self.calls += 1
        self.trace += 0.5
        return self.outputs(x.flatten(1)) * self.calls + float(self.trace[0]) * x.flatten(1)[:, :CLASSES]


STATEFUL = {
    "spikingjelly, step by step": lambda: Network(neuron.LIFNode()),
    "spikingjelly, several steps": Several,
    "attribute": lambda: Network(Attribute()),
    "buffer": lambda: Network(Buffer()),
    "buffer in place": lambda: Network(InPlace()),
    "named tuple": lambda: Network(Tuple()),
    "containers": lambda: Network(Listed()),
    "dataclass": lambda: Network(Recorded()),
    "hidden from torch": lambda: Unregistered(Attribute()),
    "gru": Recurrent,
    "counter and array": Counting,
}


def made(make):
    """In eval mode, with weights at which its neurons fire."""
    torch.manual_seed(0)
    network = make().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1 and "gru" not in name:
                parameter.mul_(6)
    return network


def images(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 8, 8, generator=generator), torch.randint(CLASSES, (n,), generator=generator)


def gradient(model, x):
    x = x.clone().requires_grad_()
    logits = model(x)
    (found,) = torch.autograd.grad(logits.softmax(1)[:, 0].sum(), x)
    return logits.detach(), found


def checked(network, x, y, **settings):
    model = Foreign(network, **settings)
    with untouched(model):
        return verify(model, x, y)


def refused(network, x, y, **settings):
    with pytest.raises(ValueError, match=r"^model: ") as error:
        checked(network, x, y, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(params=STATEFUL)
def make(request):
    return STATEFUL[request.param]


# --- state


def test_the_second_forward_of_such_a_network_is_another_one(make):
    """The trap itself: without it the tests below say nothing."""
    network, (x, _) = made(make), images(12)
    with torch.no_grad():
        assert not torch.allclose(network(x), network(x), atol=1e-3)


def test_every_forward_is_the_first_one_whatever_ran_before(make):
    x, y = images(12)
    expected = gradient(made(make), x)
    model = Foreign(made(make))
    assert verify(model, x, y) == []
    for other in (images(12, seed=2)[0], images(5)[0], x):
        model(other.requires_grad_())
        logits, slope = gradient(model, x)
        assert torch.equal(logits, expected[0])
        assert torch.equal(slope, expected[1])
    assert slope.abs().sum() > 0


def test_memories_that_were_left_are_reset_for_each_forward_and_there_again_afterwards():
    x, y = images(12)
    expected = made(Several)(x)
    network = made(Several)
    for batch in (12, 7):
        network(images(batch, seed=3)[0])
        left = [*functional.collect_reset_modules(network)]
        before = [module.v for module in left]
        assert torch.equal(Foreign(network)(x), expected)
        assert checked(network, x, y) == []
        assert all(module.v is v for module, v in zip(left, before, strict=True))
        assert all(v.requires_grad for v in before)  # not even their graphs have changed


@pytest.mark.parametrize("batch", [32, 12])
@pytest.mark.parametrize("name", ["attribute", "buffer", "dataclass", "gru"])
def test_state_that_was_left_and_that_nobody_can_reset_is_refused(name, batch):
    """Also where it is that of a batch size that only some of the evaluation's batches have."""
    x, y = images(32)
    network = made(STATEFUL[name])
    network(images(batch, seed=3)[0])
    assert "state left over from an earlier batch" in refused(network, x, y)
    fresh = made(STATEFUL[name])
    assert checked(fresh, x, y) == []


def test_state_that_cannot_be_reached_is_refused():
    class Secret(Network):
        def forward(self, x):
            SECRET.append(super().forward(x).detach() * 0.1)
            return super().forward(x) + sum(s.mean() for s in SECRET)

    SECRET: list[torch.Tensor] = []
    assert "the same batch gives other logits the second time" in refused(made(lambda: Secret(nn.Tanh())), *images(12))


def test_a_forward_that_fails_leaves_nothing_behind():
    network = made(STATEFUL["attribute"])
    model, (x, _) = Foreign(network), images(12)
    expected = model(x)
    network.outputs.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(x)
    assert "mem" not in vars(network.cell)
    network.outputs._forward_hooks.clear()
    assert torch.equal(model(x), expected)


def test_two_forwards_can_share_one_graph():
    """Nothing that the first one needs for its gradient is changed by the second."""
    model, (x, _) = Foreign(made(STATEFUL["buffer in place"])), images(12)
    x.requires_grad_()
    together = torch.autograd.grad((model(x) + model(x)).softmax(1)[:, 0].sum(), x)[0]
    assert together.isfinite().all()


def test_everything_is_back_after_a_forward():
    network: Any = Toy(PIXELS)
    shared = torch.ones(2)
    network.a, network.b = shared, [shared, (shared, torch.Size([3])), {shared}]
    network.graph = shared.clone().requires_grad_() * 2
    before, held = dict(vars(network)), network.b[0]
    with traceless(network):
        assert not network.graph.requires_grad  # no backward pass reaches what was before
        assert network.a is not shared
        assert network.a is network.b[0] is network.b[1][0]  # two references to one tensor stay that
        network.a += 1
        network.b.append(3)
        network.norm.running_mean += 1
        network.norm.register_buffer("late", torch.zeros(1))
        network.late, network.stochastic = 1, True
        del network.bounds
    assert vars(network).keys() == before.keys()
    assert all(vars(network)[name] is value for name, value in before.items())
    assert network.b[0] is held
    assert len(network.b) == 3
    assert torch.equal(shared, torch.ones(2))
    assert network.graph.requires_grad
    assert torch.equal(network.norm.running_mean, torch.zeros(PIXELS))
    assert "late" not in dict(network.norm.named_buffers())


def test_networks_may_refer_to_themselves():
    network: Any = Toy(PIXELS)
    network.me = [network]
    network.me.append(network.me)
    with traceless(network):
        assert network.me[0] is network
        assert network.me[1] is network.me
    assert len(modules_of(network)) == len([*network.modules()])


def test_estimators_of_own_neurons_act_inside_a_foreign_network(make_tiny, images):
    own, (x, y) = make_tiny(), images
    wrapped = Foreign(nn.Sequential(own))
    assert verify(wrapped, x, y) == []
    found = {}
    for shape in (triangle(), rectangle(2.0)):
        for name, model in (("own", own), ("wrapped", wrapped)):
            with Surrogate(shape).applied(model) as view:
                found[name] = gradient(view, x)
        assert torch.equal(found["own"][1], found["wrapped"][1])
    assert not torch.equal(gradient(own, x)[1], found["own"][1])


# --- modes, draws, neighbours


class Convolutional(nn.Sequential):
    def __init__(self, **norm):
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, **norm), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
            nn.Linear(4 * 36, CLASSES),
        )  # fmt: skip


class Drawing(Toy):
    def forward(self, x):
        return super().forward(x) + 0.5 * torch.rand(len(x), 1) * x.flatten(1)[:, :CLASSES]


def test_batch_norm_and_dropout_are_evaluated_in_eval_mode_and_left_in_theirs():
    network, (x, y) = made(Convolutional).train(), images(12)
    disturb(network)
    before = state_of(network)
    assert checked(network, x, y) == []
    assert_same(before, state_of(network))
    expected = copy.deepcopy(network).eval()(x)
    with untouched(model := Foreign(network)):
        assert torch.equal(model(x), expected)


def test_statistics_of_the_batch_are_refused():
    x, y = images(12)
    said = refused(made(lambda: Convolutional(track_running_stats=False)), x, y)
    assert "samples have other logits alone" in said


def test_a_network_that_draws_has_to_say_so():
    x, y = images(12)
    assert "stochastic=True" in refused(Drawing(PIXELS), x, y)
    assert checked(Drawing(PIXELS), x, y, stochastic=True) == []
    assert Foreign(Drawing(PIXELS), stochastic=True).stochastic


def test_noise_that_belongs_to_a_place_in_the_batch_is_refused():
    class Fixed(Toy):
        def forward(self, x):
            noise = torch.rand(len(x), CLASSES, generator=torch.Generator().manual_seed(0))
            return super().forward(x) + noise

    assert "in another order" in refused(Fixed(PIXELS), *images(12))


def test_verification_moves_no_random_stream():
    state = torch.get_rng_state()
    checked(Drawing(PIXELS), *images(12), stochastic=True)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_sample_and_double_precision_are_enough():
    x, y = images(1)
    network = made(Several)
    assert checked(network, x, y) == []
    assert checked(network.double(), x.double(), y) == []
    assert Foreign(network)(x.double()).dtype == torch.double


# --- outputs


class Returning(Toy):
    def __init__(self, change):
        super().__init__(PIXELS)
        self.change = change

    def forward(self, x):
        return self.change(super().forward(x))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda z: (z, z), "returns tuple; allowed: a tensor of logits"),
        (lambda z: z[:, 0], "got logits [12] for 12 inputs"),
        (lambda z: z[None], "got logits [1, 12, 4] for 12 inputs"),
        (lambda z: z[:, :3], "got logits [12, 3] for 12 inputs and labels up to 3; allowed: [12, K] with K >= 4"),
        (lambda z: z / 0, "some logits are not finite"),
        (lambda z: z.detach(), "no gradient"),
        (lambda z: z.argmax(1), "got logits [12]"),
        (lambda z: z @ torch.ones(7), "fails on inputs of shape (12, 1, 8, 8) (RuntimeError: "),
    ],
)
def test_what_is_no_classifier_is_refused(change, said):
    x, _ = images(12)
    assert said in refused(Returning(change), x, torch.arange(12) % CLASSES)


def test_one_class_is_none():
    assert "K >= 2" in refused(Returning(lambda z: z[:, :1]), images(12)[0], torch.zeros(12, dtype=torch.long))


def test_probabilities_are_named():
    x, y = images(12)
    (caution,) = checked(Returning(lambda z: z.softmax(1)), x, y)
    assert "look like probabilities" in caution
    for change in (lambda z: z, lambda z: z.log_softmax(1), lambda z: z.sigmoid()):
        assert checked(Returning(change), x, y) == []


def test_equal_logits_everywhere_pass():
    assert checked(Flat(PIXELS), *images(12)) == []


def test_rounding_is_not_a_difference():
    """Sums in another order in batches of another size, and a spike that moves with them."""

    class Rounding(Toy):
        def forward(self, x):
            z = super().forward(x) * (1 + 1e-6 * len(x))
            return (
                z + (len(x) == 12) * torch.eye(len(x), CLASSES)[:, [3, 0, 1, 2]] * (torch.arange(len(x)) < 1)[:, None]
            )

    assert checked(Rounding(PIXELS), *images(12)) == []


# --- weights


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {}}}])
def test_weights_come_from_a_state_dict_or_the_only_one_in_a_file(wrap, tmp_path):
    source, target = Toy(PIXELS, seed=1), Toy(PIXELS)
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pt")
    load_weights(target, tmp_path / "weights.pt")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


class Payload:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"weights": 3}, "holds none"),
        ({"model": Toy(2).state_dict(), "ema": Toy(2).state_dict()}, r"holds 2 of them \(model, ema\)"),
        (Toy(3).state_dict(), "does not fit the model .*size mismatch"),
        ({f"module.{name}": t for name, t in Toy(2).state_dict().items()}, "does not fit the model .*Missing key"),
        (torch.zeros(3), "holds none"),
        (Payload(), "not a file of tensors alone"),
    ],
)
def test_weights_that_cannot_be_used_are_one_line(content, said, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"^checkpoint: {path}: {said}") as error:
        load_weights(Toy(2), path)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_absent_and_damaged_weights_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        load_weights(Toy(2), tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ValueError, match="not a file of tensors alone, or damaged"):
        load_weights(Toy(2), tmp_path / "text.pt")


def test_bounds_are_those_given():
    assert Foreign(Toy(2)).bounds == Bounds(0.0, 1.0)
    assert Foreign(Toy(2), Bounds(-1.0, 2.0)).bounds.width == 3
