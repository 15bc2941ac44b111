"""Checks settings against the annotations of what receives them, by reading source text: nothing is imported.

A config node with a `_target_` is checked against the parameters of that class or function: unknown keys, missing
keys, types and ranges (`settings.py`). Reading the source instead of importing it keeps torch out, so that an error
answers at once, and needs no second copy of the parameters. Two conventions make it sound: a class lists all of its
settings itself, and annotates them with names from `settings.py`, `typing.Literal` and builtins. A parameter with any
other annotation (a nested object, or one that is handed over later) is checked by name alone.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from snnrobust import settings

_NAMES = {**vars(builtins), **{k: v for k, v in vars(settings).items() if not k.startswith("_")}, "Literal": Literal}
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_GROUPS = {"Attack": "attack", "Threat": "threat", "Estimator": "estimator"}
"""Annotations of objects that a config group brings to any place."""


class ConfigError(Exception):
    """One line per mistake: the key, what was given, what is allowed."""


@dataclass(frozen=True)
class Parameter:
    """Of a class or function: `annotation` as source text (None if it has none), and whether it must be given."""

    annotation: str | None
    required: bool


def check_node(key: str, node: Any) -> Iterator[str]:
    """Mistakes in `node` (plain containers) and everything below it.

    Args:
        key: dotted path of the node, for messages.
        node: a mapping with `_target_` is checked, one without is searched for such; any other value is passed
            through. A `_partial_` node may lack parameters: they are handed over once the data is known.
    """
    if not isinstance(node, Mapping):
        return
    if "_target_" not in node:
        for name, value in node.items():
            yield from check_node(f"{key}.{name}", value)
        return
    target = str(node["_target_"])
    try:
        parameters = parameters_of(target)
    except LookupError as error:
        yield f"{key}._target_: {error}"
        return
    if parameters is None:
        return
    required = {name for name, parameter in parameters.items() if parameter.required}
    partial = bool(node.get("_partial_", False))
    given = {name: value for name, value in node.items() if not name.startswith("_")}
    for name, value in given.items():
        path = f"{key}.{name}"
        if name in parameters:
            yield from check_value(path, value, parameters[name].annotation, trusted=target.startswith("snnrobust."))
            yield from check_node(path, value)
        else:
            yield unknown(path, name, [p for p in parameters if not (partial and p in required)])
    for name in sorted(required - given.keys() if not partial else ()):
        yield f"{key}.{name}: missing; it has no default"


def unknown(path: str, name: str, allowed: list[str]) -> str:
    """The message for a key that does not exist."""
    close = get_close_matches(name, allowed, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{path}: unknown key; {hint}allowed: {', '.join(sorted(allowed)) or 'no keys'}"


def check_value(path: str, value: Any, annotation: str | None, trusted: bool = True) -> Iterator[str]:
    """The mistake in one value, if its annotation says what is allowed.

    Annotations of packages that are not trusted are not evaluated.
    """
    group = _GROUPS.get(annotation or "")
    if group and not isinstance(value, Mapping):
        yield f"{path}: got {value!r}; allowed: a choice of the group {group}, by [+]{group}@{path}=NAME"
    expected = _evaluate(annotation) if trusted and annotation else None
    if expected is None:
        return
    try:
        TypeAdapter(expected, config=_STRICT).validate_python(_tuples(value))
    except ValidationError as error:
        yield f"{path}: got {value!r}; allowed: {_allowed(error)}"


def _allowed(error: ValidationError) -> str:
    """What pydantic would have accepted, in a few words; alternatives of a union joined by "or"."""
    words = []
    for detail in error.errors():
        where = "".join(f"entry {part} " for part in detail["loc"] if isinstance(part, int))
        text = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        words.append(where + text)
    return " or ".join(dict.fromkeys(words))


def _tuples(value: Any) -> Any:
    """Lists become tuples, since sequences are annotated as tuples."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


@cache
def _evaluate(annotation: str) -> Any:
    """The type that an annotation names, or None if it uses names beyond those of the convention."""
    tree = ast.parse(annotation, mode="eval")
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if not names <= _NAMES.keys() or any(isinstance(node, ast.Call) for node in ast.walk(tree)):
        return None
    return eval(compile(tree, annotation, "eval"), {"__builtins__": {}}, dict(_NAMES))


@cache
def parameters_of(target: str) -> Mapping[str, Parameter] | None:
    """Parameters of a dotted class or function; None where its source cannot be read (compiled, or re-exported).

    Raises:
        LookupError: if there is no such package, module or name; the message says what is missing.
    """
    path, name = _locate(target)
    if path is None:
        return None
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return _arguments(statement.args, skip=0)
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return _of_class(statement)
    if path.name == "__init__.py":
        return None
    raise LookupError(f"got {target!r}; {path.name} defines no class or function {name!r}")


def _locate(target: str) -> tuple[Path | None, str]:
    """The source file that should define `target`, and the name in it; the file is None if it is not Python source."""
    package, *rest = target.split(".")
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:
        spec = None
    if spec is None or not rest:
        raise LookupError(f"got {target!r}; allowed: package.module.Name of an installed package")
    if spec.origin is None or not spec.origin.endswith("__init__.py"):
        return (Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None), rest[0]
    folder = Path(spec.origin).parent
    while len(rest) > 1 and (folder / rest[0]).is_dir():
        folder = folder / rest.pop(0)
    if len(rest) == 1:
        return folder / "__init__.py", rest[0]
    module = folder / f"{rest[0]}.py"
    if not module.exists():
        if package == "snnrobust":
            raise LookupError(f"got {target!r}; there is no module {'.'.join(target.split('.')[:-1])!r}")
        return None, rest[0]
    return module, rest[1]


def _of_class(statement: ast.ClassDef) -> Mapping[str, Parameter] | None:
    for item in statement.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _arguments(item.args, skip=1)
    if not any("dataclass" in ast.unparse(decorator) for decorator in statement.decorator_list):
        return {} if not statement.bases else None
    return {
        item.target.id: Parameter(ast.unparse(item.annotation), item.value is None)
        for item in statement.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not _is_constant(item.annotation)
    }


def _is_constant(annotation: ast.expr) -> bool:
    """`ClassVar[...]`: the same for all objects of a class, hence no setting."""
    return isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("ClassVar")


def _arguments(arguments: ast.arguments, skip: int) -> Mapping[str, Parameter] | None:
    if arguments.kwarg is not None:
        return None
    positional = (arguments.posonlyargs + arguments.args)[skip:]
    plain = len(positional) - len(arguments.defaults)
    parameters = {arg.arg: _parameter(arg, i < plain) for i, arg in enumerate(positional)}
    for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters[arg.arg] = _parameter(arg, default is None)
    return parameters


def _parameter(arg: ast.arg, required: bool) -> Parameter:
    return Parameter(ast.unparse(arg.annotation) if arg.annotation else None, required)
