"""The same history with broken batches in it: what the monitor holds back, what the gate lets through, and what that costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrain.backtest.corruptions import CORRUPTIONS, Corruption
from retrain.backtest.fits import Job, read_batch
from retrain.backtest.history import History
from retrain.backtest.replay import Outcome, Plan, live_through
from retrain.data.summary import BatchSummary, summarize
from retrain.data.suspicion import find_suspicions, measure_jumps

ONE_IN, FIRST_BROKEN = 6, 4  # batches; the first one comes when there is a history to compare it with


@dataclass(frozen=True)
class Drill:
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


def break_history(history: History, kind: str, monitored: bool) -> History:
    """A history with one batch in ONE_IN broken; with `monitored`, those that look so are held back."""
    count = len(history.batches)
    first = max(min(FIRST_BROKEN, count - 2), history.first + 1)
    broken = range(first, count - 1, ONE_IN)
    corruptions = {history.batches[number].period: Corruption(kind, number) for number in broken}
    summaries: list[BatchSummary] = []
    sound: list[BatchSummary] = []
    hidden = set()
    for batch, summary in zip(history.batches, history.summaries, strict=True):
        if batch.period in corruptions:
            rows = read_batch(history.config, history.workshop.snapshot, batch, corruptions[batch.period])
            summary = summarize(rows, rows.clear(), history.config.data)
            summary = dataclasses.replace(summary, jumps=measure_jumps(summary, sound))
            if monitored and find_suspicions(summary, sound):
                hidden.add(batch.period)
        summaries.append(summary)
        if batch.period not in hidden:
            sound.append(summary)
    return History(
        history.config, history.batches, summaries, history.workshop, corruptions, frozenset(hidden), history.metrics
    )


def run_drills(history: History, plans: Sequence[Plan], train: Callable[[Sequence[Job]], object]) -> list[Drill]:
    """Every corruption with every plan; those with a gate of their own also under the monitor's eye."""
    drills = []
    for kind in CORRUPTIONS:
        for monitored in (True, False):
            chosen = [plan for plan in plans if plan.gate is not None or not monitored]
            broken = break_history(history, kind, monitored)
            lived = zip(live_through(history, chosen, train), live_through(broken, chosen, train), strict=True)
            drills += [
                _drill(kind, monitored, plan, broken, *outcomes) for plan, outcomes in zip(chosen, lived, strict=True)
            ]
    return drills


def _drill(kind: str, monitored: bool, plan: Plan, broken: History, clean: Outcome, outcome: Outcome) -> Drill:
    passed = [event for event in outcome.events if event.promoted and event.period in broken.corruptions]
    policy, strategy, gate = plan.names
    return Drill(
        kind,
        policy,
        strategy,
        gate,
        monitored,
        len(broken.corruptions),
        len(broken.hidden),
        len(passed),
        clean.loss,
        outcome.loss,
    )
