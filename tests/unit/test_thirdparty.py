"""The adapter of torchattacks."""

import pytest
import torch
import torchattacks

from snnrobust.attacks.thirdparty import TorchAttack
from snnrobust.randomness import isolated
from snnrobust.threat import L2, Bounds, Linf
from tests.contracts.toys import Toy

EPS = 0.1


def inputs(low: float = 0.0, high: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = low + (high - low) * torch.rand(6, 1, 8, 8, generator=generator)
    return x, torch.arange(6) % 3


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("FGSM", {}),
        ("PGD", {"random_start": False, "steps": 5, "alpha": 0.03}),
        ("BIM", {"steps": 5}),
        ("MIFGSM", {"steps": 5}),
        ("APGD", {"seed": 3, "steps": 5}),
        ("APGDT", {"seed": 3, "steps": 5, "n_classes": 4}),
        ("Square", {"seed": 3, "n_queries": 30}),
    ],
)
def test_it_equals_torchattacks_called_directly(classifier, images, name, parameters):
    x = images[0]
    y = classifier(x).argmax(1)
    with isolated("elsewhere"):
        expected = getattr(torchattacks, name)(classifier, eps=0.3, **parameters)(x, y)
    assert not torch.equal(expected, x)
    found = TorchAttack(name, Linf(0.3), parameters=parameters)(classifier, x, y)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "norm", "parameters"),
    [
        ("PGDL2", {}, {"steps": 5, "random_start": False}),
        ("APGD", {"norm": "L2"}, {"seed": 3, "steps": 5}),
        ("Square", {"norm": "L2"}, {"seed": 3, "n_queries": 30}),
    ],
)
def test_an_l2_budget_is_passed_on_as_such(images, name, norm, parameters):
    model, x = Toy(64).eval(), images[0]
    y = model(x).argmax(1)
    with isolated("elsewhere"):
        expected = getattr(torchattacks, name)(model, eps=0.5, **norm, **parameters)(x, y)
    assert not torch.equal(expected, x)
    found = TorchAttack(name, L2(0.5), parameters=parameters)(model, x, y)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_an_attack_in_another_norm_is_refused():
    with pytest.raises(ValueError, match=r"name: the eps of torchattacks\.PGD is an l_inf radius"):
        TorchAttack("PGD", L2(EPS))
    with pytest.raises(ValueError, match=r"name: the eps of torchattacks\.PGDL2 is an l_2 radius"):
        TorchAttack("PGDL2", Linf(EPS))
    with pytest.raises(ValueError, match=r"parameters\.norm: .*the budget is the threat's"):
        TorchAttack("APGD", L2(EPS), parameters={"norm": "Linf"})


def test_an_attack_without_budget_equals_torchattacks_called_directly(images):
    model, x = Toy(64).eval(), images[0]
    y = model(x).argmax(1)
    parameters = {"steps": 20, "lr": 0.05, "c": 100}
    expected = torchattacks.CW(model, **parameters)(x, y)
    assert not torch.equal(expected, x)
    found = TorchAttack("CW", None, parameters=parameters)(model, x, y)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_random_start_is_drawn_inside_the_budget():
    model, (x, y) = Toy(64).eval(), inputs()
    found = TorchAttack("PGD", Linf(EPS), parameters={"steps": 0})(model, x, y) - x
    assert 0.9 * EPS < float(found.abs().max()) <= EPS + 1e-6


def test_the_parameters_arrive():
    model, (x, y) = Toy(64).eval(), inputs()
    found = TorchAttack("PGD", Linf(EPS), parameters={"steps": 1, "alpha": 0.01, "random_start": False})(model, x, y)
    assert float((found - x).abs().max()) == pytest.approx(0.01, abs=1e-6)


@pytest.mark.parametrize(("given", "meant"), [("APG", "APGD"), ("AutoAtack", "AutoAttack"), ("sqare", "Square")])
def test_an_unknown_name_is_answered_with_a_suggestion(given, meant):
    with pytest.raises(ValueError, match=rf"name: torchattacks has no attack '{given}'; did you mean {meant}\?"):
        TorchAttack(given, Linf(EPS))


@pytest.mark.parametrize("name", ["apgd", "pgd", "fgsm", "autoattack", "square"])
def test_a_name_in_lower_case_is_answered_with_a_suggestion(name):
    right = {n.lower(): n for n in torchattacks.__all__}[name]
    with pytest.raises(ValueError, match=rf"did you mean {right}\?"):
        TorchAttack(name, Linf(EPS))


def test_a_name_that_is_like_none_is_answered_with_the_list():
    with pytest.raises(ValueError, match=r"it has APGD, APGDT, AutoAttack, .*Square"):
        TorchAttack("zzzzzz", Linf(EPS))


@pytest.mark.parametrize("name", ["LGV", "MultiAttack", "VANILA", "Attack", "__name__"])
def test_what_is_no_attack_is_refused(name):
    with pytest.raises(ValueError, match="torchattacks has no attack"):
        TorchAttack(name, Linf(EPS))


def test_an_unknown_parameter_is_answered_with_the_list():
    with pytest.raises(ValueError, match=r"parameters\.stepps: torchattacks\.PGD takes alpha, random_start, steps;"):
        TorchAttack("PGD", Linf(EPS), parameters={"stepps": 5})


@pytest.mark.parametrize("name", ["PGD", "APGD", "AutoAttack"])
def test_a_budget_among_the_parameters_is_refused(name):
    with pytest.raises(ValueError, match=r"parameters\.eps: .*the budget is the threat's"):
        TorchAttack(name, Linf(EPS), parameters={"eps": 0.3})


@pytest.mark.parametrize(
    ("name", "classes", "parameters"), [("APGDT", 4, {}), ("FAB", 3, {"multi_targeted": True}), ("AutoAttack", 4, {})]
)
def test_the_number_of_classes_is_passed_on(name, classes, parameters):
    """With the ten of their defaults these attacks ask for a ninth runner-up; AutoAttack is a series of them."""
    model = Toy(64, classes=classes).eval()
    x, _ = inputs()
    y = model(x).argmax(1)
    if name != "AutoAttack":
        with pytest.raises(IndexError):
            getattr(torchattacks, name)(model, eps=1e-3, **parameters)(x, y)
        TorchAttack(name, Linf(1e-3), parameters=parameters)(model, x, y)
    found = TorchAttack(name, Linf(0.3), parameters=parameters)(model, x, y)
    assert float((found - x).abs().max()) <= 0.3 + 1e-6
    assert (model(found).argmax(1) != y).any()


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 5.0), (2.0, 2.5)])
def test_other_bounds_are_mapped(low, high):
    width = high - low
    model = Toy(64, bounds=Bounds(low, high)).eval()
    x, y = inputs(low, high)
    found = TorchAttack("PGD", Linf(0.1 * min(width, 1)), parameters={"steps": 10, "alpha": 0.5})(model, x, y)
    change = (found - x).abs()
    assert found.min() >= low
    assert found.max() <= high
    assert float(change.max()) == pytest.approx(0.1 * min(width, 1), rel=1e-3)
    inside = (found > low) & (found < high)
    assert float((change[inside] > 0.099 * min(width, 1)).float().mean()) > 0.95


def test_other_bounds_give_the_mapped_result():
    """A model on [-1, 1] that maps its inputs to [0, 1] first is attacked like the model on [0, 1]."""

    class Shifted(Toy):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward((x + 1) / 2)

    x, y = inputs()
    plain, shifted = Toy(64).eval(), Shifted(64, bounds=Bounds(-1, 1)).eval()
    parameters = {"steps": 3, "random_start": False, "alpha": 0.04}
    expected = TorchAttack("PGD", Linf(EPS), parameters=parameters)(plain, x, y)
    found = TorchAttack("PGD", Linf(2 * EPS), parameters=parameters)(shifted, 2 * x - 1, y)
    torch.testing.assert_close((found + 1) / 2, expected, atol=1e-6, rtol=0)


def test_event_frames_keep_their_places():
    """Steps become channels and come back in the same order."""
    model = Toy(96).eval()
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(4, 3, 2, 4, 4, generator=generator), torch.arange(4)
    flat = torchattacks.FGSM(model, eps=EPS)(x.flatten(1, 2), y).view_as(x)
    torch.testing.assert_close(TorchAttack("FGSM", Linf(EPS))(model, x, y), flat, atol=1e-6, rtol=0)


def test_a_result_outside_the_budget_is_projected():
    model, (x, y) = Toy(64).eval(), inputs()
    found = TorchAttack("GN", Linf(0.01), parameters={"std": 0.5})(model, x, y) - x
    assert float(found.abs().max()) <= 0.01 + 1e-6


def test_it_prints_nothing(capsys, images, classifier):
    TorchAttack("APGD", Linf(EPS))(classifier, *images)
    assert capsys.readouterr().out == ""
