"""What the ledger's next entry must be: pure, so that every interleaving can be tested."""

from __future__ import annotations

from collections.abc import Sequence

from retrain.errors import PromotionError
from retrain.promotion.gate import Verdict
from retrain.promotion.ledger import Entry, current_champion
from retrain.records import ChallengerRecord, ComparisonRecord, ModelRecord


def plan_entry(
    entries: Sequence[Entry],
    trained: ChallengerRecord,
    compared: ComparisonRecord,
    newcomer: ModelRecord,
    comparison: str,
    git_commit: str | None,
) -> Entry:
    """The entry for a verdict: the one that is there already for this comparison, or the next one to append.

    `newcomer` is the version that would serve: the challenger, or its refit. Raises PromotionError when the champion has
    moved, for another challenger's sake, since this one was compared.
    """
    challenger = trained.challenger
    promoted = Verdict(compared.verdict) is Verdict.promote
    for entry in entries:
        same = entry.challenger == challenger.version and entry.comparison == comparison
        settled = entry.champion == newcomer.version or newcomer.version == challenger.version
        if same and (settled or not promoted):
            return entry
    for entry in entries[trained.ledger_length :]:
        if entry.moved and entry.challenger != challenger.version:
            raise PromotionError(
                f"The champion has moved to version {entry.champion} (ledger entry {entry.seq}, {entry.time}, by {entry.who}) since "
                f"version {challenger.version} was compared. Repeat the comparison with the new champion: "
                "`dvc repro -f -s train`, then `dvc repro`."
            )
    serving = current_champion(entries)
    champion, trained_until = (serving.champion, serving.trained_until) if serving else (None, None)
    previous = champion
    if promoted:
        champion, trained_until = newcomer.version, newcomer.trained_until
    return Entry(
        kind="verdict",
        verdict=compared.verdict,
        reason=compared.reason[:1500],  # a param holds 6,000 characters
        champion=champion,
        previous=previous,
        trained_until=trained_until,
        challenger=challenger.version,
        challenger_trained_until=challenger.trained_until,
        incumbent=trained.incumbent.version if trained.incumbent else None,
        comparison=comparison,
        snapshot=trained.snapshot,
        newest_batch=trained.newest_batch,
        git_commit=git_commit,
        run_id=trained.run_id,
        seq=len(entries),
    )
