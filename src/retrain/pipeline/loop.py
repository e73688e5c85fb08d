"""The loop: each decision of a retraining, made in one place.

    config -> snapshot -> observe -> decide -> fit -> evaluate -> promote

| step | what is decided | here |
|---|---|---|
| config | what is asked for: `conf/`, composed and checked | |
| snapshot | which batches are known, which of them are on hold | |
| observe | what the newest batch shows of data and champion | `policy_context` |
| decide | when: is it worth a retraining? | `Policy.decide_within_limits` |
| fit | how: on which rows, beside which incumbent, continuing what | `plan_training` |
| evaluate | whether: what the gate says at this look at the rows | `decide` |
| promote | refit on all rows, and the ledger's next entry | `is_refitted`, `append` |

The DVC stages call these functions one by one, with files in between: `config`, `snapshot`, `train`
(with `observe`), `evaluate` and `promote` beside this file. A backtest (`retrain/backtest/replay`)
calls them for each batch of history, with a ledger in memory and models from its cache.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

from retrain.config import Config
from retrain.data.manifest import Batch
from retrain.data.windows import plan_windows
from retrain.gate import decision
from retrain.gate.alpha_spending import Look
from retrain.gate.comparison import Comparison, Verdict
from retrain.gate.decision import CheckSpec
from retrain.pipeline.plan import Incumbent, TrainingPlan
from retrain.pipeline.stores import Ledger, ModelStore
from retrain.registry.entries import Entry, find_incumbent, find_parent
from retrain.registry.transitions import Promotion, Refused, next_entry, plan_refusal

M = TypeVar("M")


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
