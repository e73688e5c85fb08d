"""Where a challenger is trained and compared, and with whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from retrain.data.windows import Windows
from retrain.types import ModelRecord

M = TypeVar("M")


@dataclass(frozen=True)
class Incumbent(Generic[M]):
    """The version that a challenger is compared with."""

    record: ModelRecord
    model: M


@dataclass(frozen=True)
class TrainingPlan(Generic[M]):
    """Where a challenger is trained and compared, with whom, and which version it continues."""

    windows: Windows
    incumbent: Incumbent[M] | None
    parent: int | None
