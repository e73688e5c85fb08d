"""What an earlier retraining brought, from the ledger."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetrainingGain:
    """What an earlier retraining brought.

    Attributes
    ----------
    known, added
        How many batches the champion knew, and how many more the challenger.
    value
        By how much less the challenger lost on the evaluation window.
    decay
        How much worse the champion had become by then; None where that is not known.
    """

    known: int
    added: int
    value: float
    decay: float | None = 0.0
