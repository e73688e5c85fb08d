"""The same history with broken batches in it: what the monitor puts on hold, what the gate lets
through, and what that costs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from retrain.backtest.corruptions import CORRUPTIONS, Corruption
from retrain.backtest.history_view import HistoryView
from retrain.backtest.model_cache import read_batch
from retrain.backtest.outcome import Plan
from retrain.backtest.replay import simulate
from retrain.data.holds import decide_holds
from retrain.data.manifest import PROFILE, Batch
from retrain.data.profiles import BatchProfile, profile_batch

ONE_IN = 6  # batches is broken
FIRST_BROKEN = 4  # when there is a history to compare it with


@dataclass(frozen=True)
class FaultInjection:
    """One combination on a history in which one batch of ONE_IN was broken in one way.

    `monitored`: whether anomalous batches were put on hold. `promoted` counts challengers that were
    trained on a broken batch and passed when it arrived. `clean` is the mean loss of the batches
    served without broken ones, `loss` that with them.
    """

    kind: str
    policy: str
    strategy: str
    gate: str
    monitored: bool
    broken: int
    held_back: int
    promoted: int
    clean: float
    loss: float


class InMemory:
    """Profiles of a history some of whose batches are broken: what the snapshot holds stays."""

    def __init__(self, profiles: dict[str, BatchProfile]) -> None:
        self.profiles = profiles

    def profile(self, batch: Batch) -> BatchProfile:
        return self.profiles[batch.period]

    def unchanged(self, batch: Batch) -> bool:
        return False

    def put_profile(self, batch: Batch, profile: BatchProfile) -> Batch:
        self.profiles[batch.period] = profile
        digest = hashlib.sha256(profile.to_json().encode()).hexdigest()
        return dataclasses.replace(batch, files=batch.files | {PROFILE: digest})


def inject_faults(history: HistoryView, kind: str, monitored: bool, length: int = 1) -> HistoryView:
    """A history with one batch in ONE_IN broken, or so many in a row; with `monitored`, those that
    look so are on hold."""
    count, config = len(history.batches), history.config
    first = max(min(FIRST_BROKEN, count - 2), history.first + 1)
    starts = range(first, count - 1, ONE_IN + length - 1)
    broken = [number for start in starts for number in range(start, min(start + length, count - 1))]
    corruptions = {history.batches[number].period: Corruption(kind, number) for number in broken}
    profiles = {
        batch.period: profile
        for batch, profile in zip(history.batches, history.profiles, strict=True)
    }
    for number in broken:
        batch = history.batches[number]
        rows = read_batch(
            config, history.models.snapshot, batch, corruption=corruptions[batch.period]
        )
        profiles[batch.period] = profile_batch(rows, rows.clear(), config.data)
    monitoring = dataclasses.replace(
        config.monitoring, hold_anomalies=config.monitoring.hold_anomalies and monitored
    )
    batches = decide_holds(history.batches, (kept := InMemory(profiles)), monitoring)
    found = [kept.profile(batch) for batch in batches]
    return HistoryView(config, batches, found, history.models, corruptions, history.specs)


def run_fault_injections(history: HistoryView, plans: Sequence[Plan]) -> list[FaultInjection]:
    """Every corruption with every plan; those with a gate of their own with the monitor too."""
    found = []
    for kind in CORRUPTIONS:
        for monitored in (True, False):
            chosen = [plan for plan in plans if plan.gate is not None or not monitored]
            faulty = inject_faults(history, kind, monitored)
            broken = faulty.corruptions.keys()
            for clean, outcome in zip(
                simulate(history, chosen), simulate(faulty, chosen), strict=True
            ):
                passed = [e for e in outcome.events if e.promoted and e.period in broken]
                names = outcome.policy, outcome.strategy, outcome.gate
                counts = len(broken), len(faulty.on_hold & broken), len(passed)
                losses = clean.loss, outcome.loss
                found.append(FaultInjection(kind, *names, monitored, *counts, *losses))
    return found
