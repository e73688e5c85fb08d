"""What the last pipeline run here came to, from the small files that lie in git."""

from __future__ import annotations

from retrain.errors import RetrainError
from retrain.types import PromotionRecord
from retrain.workspace import PROMOTION


def promoted_champion(registered_model: str) -> int | None:
    """The champion that the last pipeline run here saw in the ledger; None where there was none."""
    try:
        promoted = PromotionRecord.load(PROMOTION, "promote")
    except RetrainError:
        return None
    return promoted.champion if promoted.registered_model == registered_model else None


def gate_refused() -> bool:
    """Whether the newest comparison ended without a promotion. Where nothing was compared, nothing
    was refused."""
    verdict = PromotionRecord.load(PROMOTION, "promote").verdict
    return verdict not in (None, "promote")
