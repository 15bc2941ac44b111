"""Settings are checked against source text: nothing is imported, and every mistake is one line."""

import sys

import pytest

from snnrobust.schema import Parameter, check_node, check_value, parameters_of, unknown

SOURCE = """
raise RuntimeError("this module must never be imported")

@dataclass(frozen=True)
class Data:
    rate: float
    steps: int = 3
    constant = 7

class Plain:
    def __init__(self, width, *, depth: int = 2): ...

class Bare: ...

class Derived(Plain): ...

def function(a: int, b: str = "x"): ...

def anything(**settings): ...
"""


@pytest.fixture
def toys(tmp_path, monkeypatch, request):
    """A package whose modules cannot be imported; its name is new for every test, since answers are cached."""
    name = f"toys_{request.node.name.partition('[')[0]}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("from elsewhere import Gone\n")
    (tmp_path / name / "parts.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def lines(node):
    return list(check_node("node", node))


def test_parameters_of_a_dataclass_are_its_annotated_fields(toys):
    assert parameters_of(f"{toys}.parts.Data") == {
        "rate": Parameter("float", required=True),
        "steps": Parameter("int", required=False),
    }


def test_parameters_of_a_class_are_those_of_its_constructor(toys):
    assert parameters_of(f"{toys}.parts.Plain") == {
        "width": Parameter(None, required=True),
        "depth": Parameter("int", required=False),
    }


def test_parameters_of_a_function(toys):
    expected = {"a": Parameter("int", required=True), "b": Parameter("str", required=False)}
    assert parameters_of(f"{toys}.parts.function") == expected


def test_a_class_without_constructor_and_bases_takes_nothing(toys):
    assert parameters_of(f"{toys}.parts.Bare") == {}


@pytest.mark.parametrize("target", ["parts.Derived", "parts.anything", "Gone"])
def test_what_the_source_does_not_tell_is_left_unchecked(toys, target):
    assert parameters_of(f"{toys}.{target}") is None
    assert lines({"_target_": f"{toys}.{target}", "whatever": 1}) == []


def test_reading_parameters_imports_nothing(toys):
    parameters_of(f"{toys}.parts.Data")
    assert not any(name.startswith(toys) for name in sys.modules)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no_such_package.module.Name", "installed package"),
        ("snnrobust", "package.module.Name"),
        ("snnrobust.models.absent.Net", "there is no module 'snnrobust.models.absent'"),
        ("snnrobust.models.convnet.Net", "convnet.py defines no class or function 'Net'"),
    ],
)
def test_a_target_that_does_not_exist_is_named(target, said):
    (line,) = lines({"_target_": target})
    assert line.startswith("node._target_: ")
    assert target in line
    assert said in line


def test_a_missing_parameter_is_named_unless_the_node_is_partial(toys):
    node = {"_target_": f"{toys}.parts.Data"}
    assert lines(node) == ["node.rate: missing; it has no default"]
    assert lines({**node, "_partial_": True}) == []


def test_parameters_that_are_handed_over_late_are_not_offered(toys):
    (line,) = lines({"_target_": f"{toys}.parts.Data", "_partial_": True, "stepz": 1})
    assert line == "node.stepz: unknown key; did you mean steps? allowed: steps"


def test_nested_nodes_are_checked_too():
    threat = {"_target_": "snnrobust.threat.Linf", "eps": 2}
    node = {"_target_": "snnrobust.attacks.gradient.ProjectedGradient", "threat": threat}
    assert lines(node) == ["node.threat.eps: got 2; allowed: less than or equal to 1"]


def test_annotations_of_other_packages_are_not_evaluated(toys):
    assert lines({"_target_": f"{toys}.parts.Data", "rate": "fast"}) == []


def test_values_without_a_target_pass():
    assert [lines(value) for value in ({"a": 1}, None, 3, "x", [1])] == [[]] * 5


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, "Positive"),
        (0.5, "Fraction"),
        ([1, 2], "tuple[PositiveInt, ...]"),
        ([], "tuple[PositiveInt, ...]"),
        (None, "float | None"),
        ("sgd", "Literal['adam', 'sgd']"),
        (object(), "Surrogate"),
        (object(), "Mapping[str, Scalar]"),
    ],
)
def test_allowed_values_pass(value, annotation):
    assert list(check_value("key", value, annotation)) == []


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (0, "Positive"),
        (float("inf"), "Positive"),
        (float("nan"), "NonNegative"),
        (1.5, "PositiveInt"),
        (True, "PositiveInt"),
        ("1", "PositiveInt"),
        (1, "bool"),
        (1, "AboveOne"),
        (1, "HeldOut"),
        (0, "LeftOpenFraction"),
        (256, "Byte"),
        ([1, "x"], "tuple[PositiveInt, ...]"),
        ("rmsprop", "Literal['adam', 'sgd']"),
        (None, "str"),
    ],
)
def test_other_values_are_one_mistake_each(value, annotation):
    (line,) = check_value("key", value, annotation)
    assert line.startswith(f"key: got {value!r}; allowed: ")
    assert "\n" not in line


def test_unknown_keys_suggest_the_nearest_and_list_all():
    assert unknown("a.weigth", "weigth", ["weight", "step"]) == (
        "a.weigth: unknown key; did you mean weight? allowed: step, weight"
    )
    assert unknown("a.b", "b", []) == "a.b: unknown key; allowed: no keys"
