"""What a sweep consists of is declared in a yaml file; a mistake in it is one line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

Declared = TypeVar("Declared", bound=BaseModel)


class Strict(BaseModel):
    """A declaration, or a part of one: nothing that it does not know, and nothing that changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_as(kind: type[Declared], path: Path) -> Declared:
    """The declaration in a yaml file.

    Raises:
        ValueError: in one line, if it is absent or not in order.
    """
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: no yaml: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        detail = error.errors()[0]
        where = "".join(f"{part}: " for part in [".".join(map(str, detail["loc"]))] if part)
        raise ValueError(f"{path}: {where}{detail['msg'].removeprefix('Value error, ')}") from error
