"""The same history with broken batches in it: what the monitor holds back, what the gate lets through, and what that costs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrain.backtest.corruptions import CORRUPTIONS, Corruption
from retrain.backtest.history_view import HistoryView
from retrain.backtest.model_cache import FitJob, read_batch
from retrain.backtest.replay import Outcome, Plan, simulate
from retrain.data.holds import decide_holds
from retrain.data.manifest import PROFILE, Batch
from retrain.data.profiles import BatchProfile, profile_batch

ONE_IN, FIRST_BROKEN = (
    6,
    4,
)  # batches; the first one comes when there is a history to compare it with


@dataclass(frozen=True)
class FaultInjection:
    """One combination on a history in which one batch of ONE_IN was broken in one way."""

    kind: str
    policy: str
    strategy: str
    gate: str
    monitored: bool  # whether suspicious batches were held back
    broken: int
    held_back: int
    promoted: int  # challengers that were trained on a broken batch, and passed when it arrived
    clean: float  # mean loss of the batches served, without broken ones
    loss: float  # and with


class InMemory:
    """Profiles of a history some of whose batches are broken: what the snapshot holds stays as it is."""

    def __init__(self, summaries: dict[str, BatchProfile]) -> None:
        self.summaries = summaries

    def profile(self, batch: Batch) -> BatchProfile:
        return self.summaries[batch.period]

    def unchanged(self, batch: Batch) -> bool:
        return False

    def put_profile(self, batch: Batch, summary: BatchProfile) -> Batch:
        self.summaries[batch.period] = summary
        digest = hashlib.sha256(summary.to_json().encode()).hexdigest()
        return dataclasses.replace(batch, files=batch.files | {PROFILE: digest})


def inject_faults(history: HistoryView, kind: str, monitored: bool, length: int = 1) -> HistoryView:
    """A history with one batch in ONE_IN broken, or so many in a row; with `monitored`, those that look so are on hold."""
    count, config = len(history.batches), history.config
    first = max(min(FIRST_BROKEN, count - 2), history.first + 1)
    starts = range(first, count - 1, ONE_IN + length - 1)
    broken = [number for start in starts for number in range(start, min(start + length, count - 1))]
    corruptions = {history.batches[number].period: Corruption(kind, number) for number in broken}
    summaries = {}
    for batch, summary in zip(history.batches, history.summaries, strict=True):
        if batch.period in corruptions:
            rows = read_batch(config, history.models.snapshot, batch, corruptions[batch.period])
            summary = profile_batch(rows, rows.clear(), config.data)
        summaries[batch.period] = summary
    monitoring = dataclasses.replace(
        config.monitoring, hold_anomalies=config.monitoring.hold_anomalies and monitored
    )
    batches = decide_holds(history.batches, (kept := InMemory(summaries)), monitoring)
    judged = [kept.summaries[batch.period] for batch in batches]
    return HistoryView(config, batches, judged, history.models, corruptions, history.metrics)


def run_fault_injections(
    history: HistoryView, plans: Sequence[Plan], train: Callable[[Sequence[FitJob]], object]
) -> list[FaultInjection]:
    """Every corruption with every plan; those with a gate of their own also under the monitor's eye."""
    drills = []
    for kind in CORRUPTIONS:
        for monitored in (True, False):
            chosen = [plan for plan in plans if plan.gate is not None or not monitored]
            broken = inject_faults(history, kind, monitored)
            lived = zip(
                simulate(history, chosen, train), simulate(broken, chosen, train), strict=True
            )
            drills += [
                _drill(kind, monitored, plan, broken, *outcomes)
                for plan, outcomes in zip(chosen, lived, strict=True)
            ]
    return drills


def _drill(
    kind: str, monitored: bool, plan: Plan, broken: HistoryView, clean: Outcome, outcome: Outcome
) -> FaultInjection:
    passed = [
        event for event in outcome.events if event.promoted and event.period in broken.corruptions
    ]
    policy, strategy, gate = plan.names
    return FaultInjection(
        kind,
        policy,
        strategy,
        gate,
        monitored,
        len(broken.corruptions),
        len(broken.held & broken.corruptions.keys()),
        len(passed),
        clean.loss,
        outcome.loss,
    )
