"""What a policy may look at, from the batches, the ledger's entries and the champion's losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from retrain.config import Config
from retrain.data.manifest import Batch
from retrain.gate.estimates import INCUMBENT
from retrain.models.metrics import monitoring_loss
from retrain.monitoring.gain import RetrainingGain
from retrain.monitoring.policy import PolicyContext
from retrain.registry.entries import DECAY, VERDICT, Entry, current_champion
from retrain.types import Score


def policy_context(
    config: Config,
    labelled: Sequence[Batch],
    entries: Sequence[Entry],
    scores: Sequence[Score],
    drift: Mapping[str, float],
    expected_baseline_loss: float,
) -> PolicyContext:
    """What a policy may look at. There must be a champion.

    Parameters
    ----------
    labelled
        The labelled batches that are used, oldest first.
    scores
        The champion's losses on batches, oldest first; those that it was trained on are left out.
    drift
        By family, the p-value of the newest batch's change.
    expected_baseline_loss
        The loss of the best constant on the rows that the champion was promoted on.
    """
    champion = current_champion(entries)
    assert champion is not None and champion.champion is not None
    loss = monitoring_loss(config.data.metric, config.data.task)
    numbers = {batch.period: number for number, batch in enumerate(labelled)}
    newest = newest_batches(labelled, entries)
    trained_through = min(
        newest[champion.champion], _newest_before(labelled, champion.trained_until)
    )
    verdicts = [
        entry for entry in entries if entry.kind == VERDICT and entry.newest_batch in numbers
    ]
    promotion = find_promotion(entries, champion, loss)
    return PolicyContext(
        period=labelled[-1].period,
        newest=len(labelled) - 1,
        trained_through=trained_through,
        new_rows=sum(batch.rows for batch in labelled[trained_through + 1 :]),
        attempts=tuple(sorted({numbers[entry.newest_batch] for entry in verdicts})),
        scores=tuple(score for score in scores if numbers[score.period] > trained_through),
        expected=promotion.figures[_challenger(loss)] if promotion else None,
        expected_baseline_loss=expected_baseline_loss,
        drift=drift,
        false_alarm_rate=config.monitoring.false_alarm_rate,
        gains=tuple(_gains(verdicts, newest, numbers, loss)),
    )


def _gains(
    verdicts: Sequence[Entry], newest: Mapping[int, int], numbers: Mapping[str, int], loss: str
) -> Iterator[RetrainingGain]:
    """What each retraining brought, where it was compared with an incumbent."""
    for entry in verdicts:
        gain = entry.figures.get(f"{loss}/minus_{INCUMBENT}")
        if entry.incumbent is not None and gain is not None:
            known = newest.get(entry.incumbent, 0) + 1
            added = numbers[entry.newest_batch] + 1 - known
            yield RetrainingGain(known, added, -gain, entry.figures.get(DECAY))


def newest_batches(labelled: Sequence[Batch], entries: Sequence[Entry]) -> dict[int, int]:
    """By version, the number of the batch that was the newest when it was trained.

    Where that batch is no longer used: of the newest one with rows before its training's end.
    """
    numbers = {batch.period: number for number, batch in enumerate(labelled)}
    newest: dict[int, int] = {}
    for entry in entries:
        for version, until in (
            (entry.challenger, entry.challenger_trained_until),
            (entry.champion, entry.trained_until),
        ):
            if version is not None and version not in newest:
                number = numbers.get(entry.newest_batch)
                newest[version] = _newest_before(labelled, until) if number is None else number
    return newest


def _newest_before(labelled: Sequence[Batch], until: str | None) -> int:
    """The number of the newest batch with rows before a time, 0 where there is none."""
    for number in range(len(labelled) - 1, 0, -1):
        first = labelled[number].first_time
        if until and first is not None and first.isoformat() < until:
            return number
    return 0


def _challenger(loss: str) -> str:
    return f"{loss}/challenger"


def find_promotion(entries: Sequence[Entry], champion: Entry, loss: str) -> Entry | None:
    """The newest verdict with the loss of the challenger that earned a champion its place."""
    for entry in reversed(entries):
        if entry.challenger == champion.challenger and _challenger(loss) in entry.figures:
            return entry
    return None
