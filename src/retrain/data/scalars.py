"""Statistics of a column as numbers: Polars can't say of which type they are."""

from __future__ import annotations

from typing import Any


def as_float(value: Any) -> float:
    """A minimum, mean or median of numbers; NaN where there are none."""
    return float("nan") if value is None else float(value)
