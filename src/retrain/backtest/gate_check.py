"""Does the configured gate work on this data? It is asked about challengers whose worth is known.

For each of the newest batches the history up to it is taken as all that there is: a champion
trained on the batches before, the evaluation window that the pipeline would have used, and the
batch that came next, which says who was truly better. A promotion is wrong when the challenger is
worse there than the gate allows, or than LARGEST_MARGIN.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from retrain.backtest.corruptions import flip_labels, leak_target, resample, shuffle_column
from retrain.backtest.gate_check_summary import BETTER, EQUAL, USUAL, WORSE, Trial
from retrain.backtest.history_view import NOT_MEASURED
from retrain.columns import own_column
from retrain.config import Column, ColumnType, Config, Task, feature_types
from retrain.data.manifest import Batch
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, Windows, batches_in, plan_windows
from retrain.errors import DataError
from retrain.gate.checks import NonInferiority, Superiority
from retrain.gate.comparison import Verdict
from retrain.gate.decision import CheckSpec, build_checks, decide
from retrain.gate.estimates import CHALLENGER, INCUMBENT
from retrain.models import fitting
from retrain.models.block_sums import Array
from retrain.models.metrics import baseline_score, row_loss_for
from retrain.models.scoring import Model, score_rows
from retrain.pipeline.predictions import (
    asked_metrics,
    compare_predictions,
    with_block,
    with_scores,
)

LEAK = own_column("leaked_target")
# Of the champion's loss: worse than that is wrong, whatever margin the gate allows.
LARGEST_MARGIN = 0.05
RUINED_SLICE_SHARE = 0.2  # the slice to ruin is the one nearest to this share of the rows


@dataclass(frozen=True)
class EvaluationPoint:
    """What was known at one batch: older rows, its own before the evaluation window, that window's,
    and what came next."""

    batch: str
    old: pl.DataFrame
    fresh: pl.DataFrame
    evaluated: pl.DataFrame
    later: pl.DataFrame

    @property
    def known(self) -> pl.DataFrame:
        return pl.concat([self.old, self.fresh])


@dataclass(frozen=True)
class PointJob:
    """One point of the history to try: `labelled` are the batches up to the next one, of which
    `number` was the newest that was known. With `most_rows`, only every so many rows of the past
    are kept."""

    config: Config
    labelled: Sequence[Batch]
    number: int
    windows: Windows
    most_rows: int | None

    def read(self, snapshot: SnapshotStore) -> EvaluationPoint:
        """Its rows."""
        labelled, evaluation = self.labelled, self.windows.evaluation
        time_column = self.config.data.time_column

        def read(window: Window, batches: Sequence[Batch]) -> pl.DataFrame:
            periods = [batch.period for batch in batches_in(batches, window)]
            return window.rows(snapshot.read(periods), time_column)

        newest, training = labelled[self.number], self.windows.training
        border = min(newest.span[0], evaluation.start)
        old = read(Window(training.start, border), labelled)
        fresh = Window(border, training.end).rows(snapshot.read([newest.period]), time_column)
        evaluated = read(evaluation, labelled[: self.number + 1])
        following = [batch.period for batch in labelled[self.number + 1 :]]
        later = snapshot.read(following) if following else evaluated
        count, most = len(old) + len(fresh), self.most_rows
        step = max(1, -(-count // most)) if most else 1
        return EvaluationPoint(
            newest.period, old.gather_every(step), fresh.gather_every(step), evaluated, later
        )


def find_points(
    config: Config, snapshot: SnapshotStore, count: int, most_rows: int | None
) -> list[PointJob]:
    """The newest `count` batches that have a past and, where there is one, a next batch.

    Raises DataError when no batch has a past.
    """
    labelled, windows = snapshot.manifest().labelled, {}
    for number in range(1, len(labelled)):
        with contextlib.suppress(DataError):  # too short to be split
            windows[number] = plan_windows(labelled[: number + 1], config.evaluation)
    if not windows:
        raise DataError(
            "The gate can't be checked on one batch: a champion needs a past.",
            hint="let more batches arrive",
        )
    numbers = [number for number in windows if number + 1 < len(labelled)] or list(windows)
    return [
        PointJob(config, labelled[: number + 2], number, windows[number], most_rows)
        for number in numbers[-count:]
    ]


def try_point(job: PointJob, snapshot: Path) -> list[Trial]:
    """Every scenario of one point, once."""
    check = GateCheck(job.config, build_checks(job.config.gate, True, job.config.data))
    return list(check.trials(job.read(SnapshotStore(snapshot))))


class GateCheck:
    """Runs the scenarios of one point of the history against the configured gate."""

    def __init__(self, config: Config, specs: Mapping[str, CheckSpec]) -> None:
        self.config, self.specs = config, specs

    def trials(self, point: EvaluationPoint) -> Iterator[Trial]:
        """Every scenario once."""
        for scenario, kind, challenger, incumbent in self._scenarios(point):
            yield self._try(point, scenario, kind, challenger, incumbent)

    def _scenarios(self, point: EvaluationPoint) -> Iterator[tuple[str, str, Model, Model]]:
        """Name, kind, challenger and incumbent. Models that several need are fitted once."""
        target, old, known, fit = self.config.data.target_column, point.old, point.known, self._fit
        champion, usual, half = fit(old), fit(known), fit(old.head(len(old) // 2))
        yield "champion against itself", EQUAL, champion, champion
        one, two = (fit(resample(known, seed), seed) for seed in (1, 2))
        yield "refits with other seeds, on resampled rows", EQUAL, one, two
        for share in (0.05, 0.1, 0.2, 0.4):
            flipped = pl.concat([old, flip_labels(point.fresh, target, share, seed=3)])
            yield f"{share:.0%} of the newest labels flipped", WORSE, fit(flipped), champion
        column = self._most_used(champion, point.evaluated)
        shuffled = fit(shuffle_column(known, column, seed=4))
        yield f"column shuffled ({column})", WORSE, shuffled, champion
        yield "feature that leaks the target", WORSE, self._fit_with_leak(known), champion
        yield "only the older half of the rows", WORSE, half, champion
        name, ruined = self._slice(known)
        where = known.select(ruined).to_series()
        wrong = fit(flip_labels(known, target, 1.0, seed=5, where=where))
        yield f"one slice ruined ({name})", WORSE, wrong, champion
        yield "champion of half the rows, then all", BETTER, usual, half
        noisy = fit(flip_labels(old, target, 0.3, seed=6))
        yield "champion of 30% wrong labels, then right ones", BETTER, usual, noisy
        yield "the usual retraining", USUAL, usual, champion

    def _fit(self, rows: pl.DataFrame, seed: int = 0, config: Config | None = None) -> Model:
        """A model of these rows, whatever the strategy."""
        config = config or dataclasses.replace(self.config, seed=self.config.seed + seed)
        pipeline = fitting.fit(fitting.build_pipeline(config), rows, config)
        return Model(pipeline, feature_types(config))

    def _fit_with_leak(self, rows: pl.DataFrame) -> Model:
        """Trained with a column that is missing when it has to predict."""
        data = self.config.data
        features = data.features | {LEAK: Column(ColumnType.numeric, nullable=True)}
        config = dataclasses.replace(self.config, data=dataclasses.replace(data, features=features))
        return self._fit(leak_target(rows, data.target_column, LEAK), config=config)

    def _most_used(self, champion: Model, rows: pl.DataFrame) -> str:
        """The feature whose shuffling costs the champion most.

        References
        ----------
        Breiman 2001, "Random forests", Machine Learning 45 (permutation importance).
        """

        def cost(name: str) -> float:
            scored = score_rows({name: champion}, shuffle_column(rows, name, seed=7), self.config)
            return scored.loss(name, self.config)

        return max(list(champion.features)[:50], key=cost)

    def _slice(self, rows: pl.DataFrame) -> tuple[str, pl.Expr]:
        """The level of a category whose share of the rows is nearest to RUINED_SLICE_SHARE; without
        categories, a quartile."""
        kinds = (ColumnType.categorical, ColumnType.boolean)
        names = [name for name, kind in feature_types(self.config).items() if kind in kinds]
        levels = [
            (abs(count / len(rows) - RUINED_SLICE_SHARE), name, level)
            for name in names
            for level, count in rows[name]
            .drop_nulls()
            .value_counts(name=own_column("rows"))
            .sort(name)
            .iter_rows()
        ]
        if levels:
            _, name, level = min(levels, key=lambda entry: entry[0])
            return f"{name}={level}", pl.col(name) == level
        name = next(iter(self.config.data.features))
        return f"{name} in its lowest quarter", pl.col(name) <= pl.col(name).quantile(0.25)

    def _try(
        self, point: EvaluationPoint, scenario: str, kind: str, challenger: Model, incumbent: Model
    ) -> Trial:
        models, config = {CHALLENGER: challenger, INCUMBENT: incumbent}, self.config
        scored = score_rows(models, point.evaluated, config)
        constant = best_constant(config, point.known, scored.classes)
        comparison = compare_predictions(
            config,
            with_scores(config, with_block(config, point.evaluated), scored, constant),
            asked_metrics(config, self.specs.values()),
            scored.classes,
            scored.unknown_classes,
        )
        decision = decide(dataclasses.replace(comparison, facts=NOT_MEASURED), self.specs)
        promoted = decision.verdict is Verdict.promote
        later = score_rows(models, point.later, config)
        difference, later_difference = (
            found.loss(CHALLENGER, config) - found.loss(INCUMBENT, config)
            for found in (scored, later)
        )
        wrong = promoted and later_difference > self._allowed(kind, later.loss(INCUMBENT, config))
        return Trial(
            scenario,
            kind,
            point.batch,
            promoted,
            decision.reason,
            wrong,
            difference,
            later_difference,
        )

    def _allowed(self, kind: str, incumbent: float) -> float:
        """How much larger the loss of a promoted challenger may be afterwards, given the
        incumbent's: as much as the gate allows. Of equals none may pass, if it demands a gain."""
        primary, data = next(iter(self.specs.values())).check, self.config.data
        if kind == EQUAL and isinstance(primary, Superiority):
            return -np.inf
        metric = primary.metric or data.metric
        if not isinstance(primary, NonInferiority) or metric != row_loss_for(
            data.metric, data.task
        ):
            return 0.0
        margin = primary.margin * (incumbent if primary.margin_is == "relative" else 1)
        return min(margin, LARGEST_MARGIN * incumbent)


def best_constant(config: Config, known: pl.DataFrame, classes: Sequence[str]) -> Array:
    """The baseline's prediction, as the pipeline's: the best constant for the rows that were known,
    not for those of the evaluation window."""
    data, target = config.data, fitting.to_target(known, config)
    if data.task is Task.multiclass:
        target = target[np.isin(target, classes)]
    codes = fitting.to_codes(target, classes, data.task)
    return baseline_score(codes, data.metric, data.task, len(classes))
