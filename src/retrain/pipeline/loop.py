"""The loop's decisions, each made in one place, from the entries of a ledger.

    config -> snapshot -> train -> evaluate -> promote

For each new batch: what a policy may look at, which windows and versions take part, the verdict,
and the entry that records it. The DVC stages call these functions one by one with files in between
(`config`, `snapshot`, `observe`, `train`, `evaluate` and `promote` beside this file). A backtest
calls all of them for each batch of history, with a ledger in memory and models from its cache.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from retrain.config import Config
from retrain.data.manifest import Batch
from retrain.data.windows import Windows, plan_windows
from retrain.gate import decision
from retrain.gate.alpha_spending import Look, find_look, plan_look
from retrain.gate.comparison import Comparison, Verdict
from retrain.gate.decision import CheckSpec
from retrain.gate.estimates import INCUMBENT
from retrain.models.metrics import monitoring_loss
from retrain.monitoring.policy import PolicyContext, RetrainingGain
from retrain.registry.ledger import (
    DECAY,
    VERDICT,
    Entry,
    current_champion,
    find_incumbent,
    find_parent,
)
from retrain.registry.transitions import Promotion, Refused, next_entry, plan_refusal
from retrain.types import ModelRecord, Score

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class Ledger(Protocol):
    """The append-only record of every verdict, every look and every move of the champion."""

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""

    def looks(self) -> list[Look]:
        """All looks, oldest first."""

    def record_look(self, wanted: Look, verdict: Callable[[Look], str] = ...) -> Look:
        """Record a look unless it is there already; returns it with its number."""

    def append(self, entry: Entry, expected_length: int) -> bool:
        """Append an entry; False when the ledger has grown beyond the expected length."""


class MemoryLedger:
    """A ledger for one replay."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._looks: list[Look] = []

    def entries(self) -> list[Entry]:
        return self._entries

    def looks(self) -> list[Look]:
        return self._looks

    def record_look(self, wanted: Look, verdict: Callable[[Look], str] = lambda _: "") -> Look:
        look = find_look(self._looks, wanted)
        if look is None:
            look = plan_look(self._entries, self._looks, wanted)
            self._looks.append(look)
        return look

    def append(self, entry: Entry, expected_length: int) -> bool:
        if expected_length != len(self._entries):
            return False
        self._entries.append(dataclasses.replace(entry, seq=expected_length))
        return True


class ModelStore(Protocol[M_co]):
    """Versions of models: MLflow's registry, or the cached fits of a backtest."""

    def record(self, version: int) -> ModelRecord:
        """What a version was trained on."""

    def load(self, version: int) -> M_co:
        """The model of a version."""


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


def plan_training(
    config: Config,
    labelled: Sequence[Batch],
    entries: Sequence[Entry],
    models: ModelStore[M],
    continues: bool,
) -> TrainingPlan[M]:
    """Windows, incumbent and parent of a challenger on these batches.

    Raises DataError when there are too few rows, PromotionError when the champion and its version
    before the refit were both trained on rows of the evaluation window.
    """
    windows = plan_windows(labelled, config.evaluation)
    start = windows.evaluation.start.isoformat()
    found = find_incumbent(entries, start)
    incumbent = None
    if found is not None:
        incumbent = Incumbent(models.record(found), models.load(found))
    return TrainingPlan(windows, incumbent, find_parent(entries, start) if continues else None)


def decide(comparison: Comparison, look: Look, specs: Mapping[str, CheckSpec]) -> Comparison:
    """The comparison with the gate's verdict at this look."""
    counted = dataclasses.replace(comparison, look=look.look, unseen=look.unseen, gate=look.gate)
    return decision.decide(counted, specs)


def is_refitted(verdict: Verdict | None, refit: bool) -> bool:
    """Whether the version that will serve is trained again with the evaluation rows included."""
    return refit and verdict is Verdict.promote


def append(ledger: Ledger, promotion: Promotion) -> Entry:
    """Write the verdict to the ledger, unless it is there already; returns its entry.

    Raises Refused, and records that too, when another move or look came first.
    """
    while True:
        entries = ledger.entries()
        try:
            planned = next_entry(entries, promotion, ledger.looks())
        except Refused as refused:
            refusal = plan_refusal(entries, promotion, refused.message)
            if refusal is None or ledger.append(refusal, len(entries)):
                raise
            continue
        if planned.seq < len(entries):  # written by a run that died before it could say so
            return planned
        if ledger.append(planned, planned.seq):
            return ledger.entries()[planned.seq]
