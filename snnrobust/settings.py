"""Constrained types for everything that a yaml file or the command line may set.

A setting is checked against the annotation of the parameter that receives it (`schema.py`), without importing
torch. The names below say what is allowed; `Literal[...]`, `bool`, `str`, `tuple[X, ...]` and `X | None` work as well.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Interval

Positive = Annotated[float, Gt(0)]
AboveOne = Annotated[float, Gt(1)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
HeldOut = Annotated[float, Interval(ge=0.01, lt=1)]
LeftOpenFraction = Annotated[float, Interval(gt=0, le=1)]
ShareBelowOne = Annotated[float, Interval(ge=0, lt=1)]
BelowHalf = Annotated[float, Interval(gt=0, lt=0.5)]
PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
Percentage = Annotated[float, Interval(gt=0, le=100)]
Contrast = Annotated[float, Interval(ge=0.01, le=10)]
Rate = Annotated[float, Interval(ge=0, le=10_000)]
Byte = Annotated[int, Interval(ge=1, le=255)]
