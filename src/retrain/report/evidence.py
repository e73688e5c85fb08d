"""What the report shows beside figures: pictures, and a table of classes. Each part may fail by
itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from retrain.config import Config, Task
from retrain.data.snapshot import SnapshotStore
from retrain.gate.estimates import (
    CHALLENGER,
    EVALUATION,
    INCUMBENT,
    TARGET,
    WINDOW,
    score_column,
)
from retrain.gate.slices import slice_differences, sliced_columns
from retrain.models.metrics import row_loss_for
from retrain.pipeline.evaluate import with_features
from retrain.pipeline.predictions import with_block
from retrain.registry.entries import Entry
from retrain.report import batch_pictures, pictures
from retrain.report.best_effort import best_effort
from retrain.report.outcome import Outcome
from retrain.workspace import PREDICTIONS, SNAPSHOT

MOST_COLUMNS, MOST_CLASSES = 6, 50
FEWEST_ROWS, FEWEST_BLOCKS = 50, 3  # of a slice that is shown


@dataclass
class Evidence:
    """Pictures are SVG elements; those of the two models' predictions also go to MLflow."""

    served: str = ""
    slices: str = ""
    importance: str = ""
    losses: str = ""
    named: dict[str, str] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    class_header: list[str] = field(default_factory=list)
    class_rows: list[list[str]] = field(default_factory=list)
    more_classes: int = 0

    @property
    def documents(self) -> dict[str, str]:
        """Pictures that are worth keeping with the run, by name."""
        known = {"scores": self.served, "slices": self.slices, "importance": self.importance}
        return {name: svg for name, svg in (known | self.named).items() if svg}


def gather(config: Config, outcome: Outcome, entries: Sequence[Entry]) -> Evidence:
    """All that can be had; what breaks is left out, with a warning."""
    evidence, decision = Evidence(), outcome.decision
    with best_effort("The champion's history"):
        evidence.served = batch_pictures.served_when(entries, config.data.metric)
        evidence.losses = batch_pictures.losses_of(
            decision.scores, decision.loss, decision.champion_version
        )
    with best_effort("The drift of columns"):
        evidence.columns = _columns(outcome)
    if outcome.trained.retrained:
        loss = row_loss_for(config.data.metric, config.data.task)
        with best_effort("The importance of features"):
            evidence.importance = batch_pictures.draw_importance(
                outcome.trained.importance.growth, decision.loss
            )
        with best_effort("The plots"):
            rows = pl.read_parquet(PREDICTIONS).filter(pl.col(WINDOW) == EVALUATION)
            time_column, task = config.data.time_column, config.data.task
            evidence.named = pictures.draw(rows, time_column, task, loss)
            if task is Task.multiclass:
                _add_classes(evidence, rows, outcome.trained.classes)
            if outcome.trained.incumbent:
                evidence.slices = _slices(config, outcome, rows, loss)
    return evidence


def _slices(config: Config, outcome: Outcome, rows: pl.DataFrame, loss: str) -> str:
    by = sliced_columns(config.data)
    rows = with_features(config, with_block(config, rows), outcome.trained, by)
    present = [name for name in by if name in rows.columns]
    found = slice_differences(rows, loss, present, FEWEST_ROWS, FEWEST_BLOCKS)
    return batch_pictures.draw_slices(found, loss)


def _columns(outcome: Outcome) -> list[str]:
    decision, snapshot = outcome.decision, SnapshotStore(SNAPSHOT)
    manifest = snapshot.manifest()
    batches = decision.reference_batch, decision.watched_batch
    before, after = (manifest.get(period) for period in batches)
    if before is None or after is None:
        return []
    old, new = snapshot.profile(before).features, snapshot.profile(after).features
    shown = [name for name in decision.features if name in old and name in new][:MOST_COLUMNS]
    return [batch_pictures.draw_column(name, old[name], new[name], batches) for name in shown]


def _add_classes(evidence: Evidence, rows: pl.DataFrame, classes: Sequence[str]) -> None:
    """Recall and precision of each class, the most frequent first."""
    models = [model for model in (CHALLENGER, INCUMBENT) if score_column(model) in rows.columns]
    target = rows[TARGET].to_numpy().astype(np.int64)
    guessed = {model: rows[score_column(model)].to_numpy().argmax(axis=1) for model in models}
    count = np.bincount(target, minlength=len(classes))
    order = np.argsort(-count, kind="stable")[:MOST_CLASSES]
    evidence.more_classes = len(classes) - len(order)
    evidence.class_header = ["class", "rows"]
    evidence.class_header += [
        f"{what}, {model}" for what in ("recall", "precision") for model in models
    ]
    hits = {
        model: np.bincount(target[found == target], minlength=len(classes))
        for model, found in guessed.items()
    }
    chosen = {model: np.bincount(found, minlength=len(classes)) for model, found in guessed.items()}
    for number in order:
        evidence.class_rows.append(
            [
                classes[number],
                f"{count[number]:,}",
                *(_percent(hits[model][number], count[number]) for model in models),
                *(_percent(hits[model][number], chosen[model][number]) for model in models),
            ]
        )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"
