"""Which of the shipped models `retrain init` begins with, where the default one can't cope with a
table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from retrain.config import ColumnType, Task

DEFAULT = "hist_gradient_boosting"


@dataclass(frozen=True)
class ModelChoice:
    """A file in conf/model, and why it is chosen."""

    name: str
    why: str


def choose_model(features: Mapping[str, ColumnType], task: Task) -> ModelChoice | None:
    """None where the default will do."""
    if ColumnType.sparse in features.values():
        name = "ridge" if task is Task.regression else "logistic_regression"
        return ModelChoice(name, "trees see sparse columns through 32 components only")
    return None
