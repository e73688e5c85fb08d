"""The model that a strategy may continue from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from retrain.models.scoring import Model
from retrain.types import ModelRecord


@dataclass(frozen=True)
class ParentModel:
    """The model that a strategy may continue from: the newest version that was trained on none of
    the evaluation rows.

    Attributes
    ----------
    model
        The fitted Pipeline (`model.pipeline`) and its features.
    trained_until
        The end of the time span of its training rows.
    record
        Its entry in the registry; None for a model of a backtest.
    lineage
        Its own version number, and those that it was continued from, newest first.
    refusal
        Why it can't be continued; None where it can.
    """

    model: Model
    trained_until: datetime
    record: ModelRecord | None = None
    lineage: tuple[int, ...] = ()
    refusal: str | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"version {self.record.version}" if self.record else "a model of the rows before"
