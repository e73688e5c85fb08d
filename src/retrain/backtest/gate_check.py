"""Does the configured gate work on this data? Champions and challengers whose worth is known, put before it.

For each of the newest batches the history up to it is taken as all that there is: a champion that knows the batches
before, the evaluation window that the pipeline would have used, and the batch that came next, which says who was truly
better. A promotion is wrong when the challenger is worse there than the gate allows, or than LARGEST_MARGIN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from retrain.backtest.corruptions import flip_labels, leak_target, resample, shuffle_column
from retrain.backtest.history_view import NOT_MEASURED
from retrain.columns import own_column
from retrain.config import Column, ColumnType, Config, Task, feature_types
from retrain.data.manifest import Manifest
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, batches_in, plan_windows
from retrain.errors import DataError
from retrain.gate.checks import NonInferiority, Superiority
from retrain.gate.comparison import Verdict
from retrain.gate.decision import CheckSpec, decide
from retrain.gate.estimates import CHALLENGER, INCUMBENT
from retrain.models import fitting
from retrain.models.metrics import baseline_score, row_loss_for
from retrain.models.scoring import Model, score_rows
from retrain.pipeline.predictions import (
    asked_metrics,
    compare_predictions,
    with_block,
    with_scores,
)

EQUAL, WORSE, BETTER, USUAL = "equal", "worse", "better", "usual"
LEAK = own_column("leaked_target")
WRONG_AT_MOST = 0.05
LARGEST_MARGIN = (
    0.05  # of the champion's loss: worse than that is wrong, whatever margin the gate allows
)
RUINED_SLICE_SHARE = 0.2  # the slice to ruin is the one nearest to this share of the rows


@dataclass(frozen=True)
class EvaluationPoint:
    """What was known at one batch: rows before it, its rows before the evaluation window, that window, and what came next."""

    batch: str
    old: pl.DataFrame
    fresh: pl.DataFrame
    judged: pl.DataFrame
    later: pl.DataFrame

    @property
    def known(self) -> pl.DataFrame:
        return pl.concat([self.old, self.fresh])


@dataclass(frozen=True)
class Trial:
    """One comparison: the verdict, and by how much the challenger's loss was larger on the two sets of rows."""

    scenario: str
    kind: str
    batch: str
    promoted: bool
    reason: str
    wrong: bool
    judged_difference: float
    later_difference: float


def find_eras(
    config: Config, snapshot: SnapshotStore, count: int, most_rows: int | None
) -> Iterator[EvaluationPoint]:
    """The newest `count` batches that have a past and, where there is one, a next batch; oldest first.

    With `most_rows`, only every so many rows of the past are kept. Raises DataError when no batch has a past.
    """
    manifest = snapshot.manifest()
    labelled = manifest.labelled
    numbers = [number for number in range(1, len(labelled)) if _splits(config, manifest, number)]
    with_next = [number for number in numbers if number + 1 < len(labelled)] or numbers
    if not with_next:
        raise DataError(
            "The gate can't be checked on one batch: a champion needs a past. Let more batches arrive."
        )
    for number in with_next[-count:]:
        yield _era(config, snapshot, manifest, number, most_rows)


def _splits(config: Config, manifest: Manifest, number: int) -> bool:
    try:
        plan_windows(manifest.labelled[: number + 1], config.evaluation)
    except DataError:
        return False
    return True


def _era(
    config: Config, snapshot: SnapshotStore, manifest: Manifest, number: int, most_rows: int | None
) -> EvaluationPoint:
    labelled, time = manifest.labelled, config.data.time_column
    windows = plan_windows(labelled[: number + 1], config.evaluation)
    newest = labelled[number]
    border = min(newest.first_time, windows.evaluation.start)
    old = Window(windows.training.start, border)
    past = old.rows(snapshot.read([batch.period for batch in batches_in(labelled, old)]), time)
    fresh = Window(border, windows.training.end).rows(snapshot.read([newest.period]), time)
    judging = [batch.period for batch in batches_in(labelled[: number + 1], windows.evaluation)]
    judged = windows.evaluation.rows(snapshot.read(judging), time)
    later = snapshot.read([labelled[number + 1].period]) if number + 1 < len(labelled) else judged
    step = max(1, -(-(len(past) + len(fresh)) // most_rows)) if most_rows else 1
    return EvaluationPoint(
        newest.period, past.gather_every(step), fresh.gather_every(step), judged, later
    )


class GateCheck:
    """Runs the scenarios of one era against the configured gate."""

    def __init__(self, config: Config, specs: Mapping[str, CheckSpec]) -> None:
        self.config, self.specs = config, specs
        self.target = config.data.target_column

    def trials(
        self, point: EvaluationPoint, progress: Callable[[str], None] = lambda scenario: None
    ) -> Iterator[Trial]:
        """Every scenario once. Models that several scenarios need are fitted once."""
        known = point.known
        champion, usual = self._fit(point.old), self._fit(known)
        half = self._fit(point.old.head(len(point.old) // 2))
        yield self._try(point, "champion against itself", EQUAL, champion, champion)
        one, two = (self._fit(resample(known, seed), seed) for seed in (1, 2))
        yield self._try(point, "refits with other seeds, on resampled rows", EQUAL, one, two)
        for share in (0.05, 0.1, 0.2, 0.4):
            progress(f"labels flipped, {share:.0%}")
            flipped = pl.concat([point.old, flip_labels(point.fresh, self.target, share, seed=3)])
            yield self._try(
                point,
                f"{share:.0%} of the newest labels flipped",
                WORSE,
                self._fit(flipped),
                champion,
            )
        column = self._most_used(champion, point.judged)
        shuffled = self._fit(shuffle_column(known, column, seed=4))
        yield self._try(point, f"column shuffled ({column})", WORSE, shuffled, champion)
        yield self._try(
            point, "feature that leaks the target", WORSE, self._fit_with_leak(known), champion
        )
        yield self._try(point, "only the older half of the rows", WORSE, half, champion)
        name, ruined = self._slice(known)
        wrong = self._fit(
            flip_labels(known, self.target, 1.0, seed=5, where=known.select(ruined).to_series())
        )
        yield self._try(point, f"one slice ruined ({name})", WORSE, wrong, champion)
        yield self._try(point, "champion of half the rows, then all", BETTER, usual, half)
        noisy = self._fit(flip_labels(point.old, self.target, 0.3, seed=6))
        yield self._try(
            point, "champion of 30% wrong labels, then right ones", BETTER, usual, noisy
        )
        yield self._try(point, "the usual retraining", USUAL, usual, champion)

    def _fit(self, rows: pl.DataFrame, seed: int | None = None) -> Model:
        config = (
            self.config
            if seed is None
            else dataclasses.replace(self.config, seed=self.config.seed + seed)
        )
        return Model(
            fitting.fit(fitting.build_pipeline(config), rows, config), feature_types(config)
        )

    def _fit_with_leak(self, rows: pl.DataFrame) -> Model:
        """Trained with a column that is missing when it has to predict."""
        leak = {LEAK: Column(ColumnType.numeric, nullable=True)}
        data = dataclasses.replace(self.config.data, features=self.config.data.features | leak)
        config = dataclasses.replace(self.config, data=data)
        fitted = fitting.fit(
            fitting.build_pipeline(config), leak_target(rows, self.target, LEAK), config
        )
        return Model(fitted, feature_types(config))

    def _most_used(self, champion: Model, rows: pl.DataFrame) -> str:
        """The feature whose shuffling costs the champion most (permutation importance, Breiman 2001)."""

        def cost(name: str) -> float:
            shuffled = shuffle_column(rows, name, seed=7)
            return score_rows({"champion": champion}, shuffled, self.config).loss(
                "champion", self.config
            )

        return max(list(champion.features)[:50], key=cost)

    def _slice(self, rows: pl.DataFrame) -> tuple[str, pl.Expr]:
        """The level of a category whose share of the rows is nearest to RUINED_SLICE_SHARE; without categories, a quartile."""
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
        models = {CHALLENGER: challenger, INCUMBENT: incumbent}
        scored = score_rows(models, point.judged, self.config)
        constant = best_constant(self.config, point.known, scored.classes)
        comparison = compare_predictions(
            self.config,
            with_scores(self.config, with_block(self.config, point.judged), scored, constant),
            asked_metrics(self.config, self.specs.values()),
            scored.classes,
            scored.unknown_classes,
        )
        comparison = dataclasses.replace(comparison, facts=NOT_MEASURED)
        decision = decide(comparison, self.specs)
        promoted = decision.verdict is Verdict.promote
        later = score_rows(models, point.later, self.config)
        losses = [later.loss(name, self.config) for name in models]
        judged = [scored.loss(name, self.config) for name in models]
        difference = judged[0] - judged[1]
        wrong = promoted and self._is_wrong(kind, losses[0] - losses[1], losses[1])
        return Trial(
            scenario,
            kind,
            point.batch,
            promoted,
            decision.reason,
            wrong,
            difference,
            losses[0] - losses[1],
        )

    def _is_wrong(self, kind: str, worsening: float, incumbent: float) -> bool:
        """Whether a promotion is wrong: worse afterwards by more than the gate allows; of equals, any if it demands a gain."""
        primary = next(iter(self.specs.values())).check
        if kind == EQUAL and isinstance(primary, Superiority):
            return True
        margin = 0.0
        loss = row_loss_for(self.config.data.metric, self.config.data.task)
        if (
            isinstance(primary, NonInferiority)
            and (primary.metric or self.config.data.metric) == loss
        ):
            margin = primary.margin * (incumbent if primary.margin_is == "relative" else 1)
        return worsening > min(margin, LARGEST_MARGIN * incumbent)


def best_constant(config: Config, known: pl.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """The baseline's prediction, as the pipeline's: the best constant for the rows that were known, not for those that judge."""
    data = config.data
    target = fitting.to_target(known, config)
    if data.task is Task.multiclass:
        target = target[np.isin(target, classes)]
    return baseline_score(
        fitting.to_codes(target, classes, data.task), data.metric, data.task, len(classes)
    )


@dataclass(frozen=True)
class Line:
    """All comparisons of one scenario. `failed`: wrong promotions are more than chance would make of WRONG_AT_MOST."""

    scenario: str
    kind: str
    count: int
    promoted: int
    wrong: int
    judged_difference: float
    later_difference: float

    @property
    def failed(self) -> bool:
        return (
            self.kind in (EQUAL, WORSE)
            and share_interval(self.wrong, self.count)[0] > WRONG_AT_MOST
        )


def summarize(trials: Sequence[Trial]) -> list[Line]:
    """One line for each scenario, in the order of their first trial. Names in brackets differ between batches."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.scenario.split(" (")[0], []).append(trial)
    return [
        Line(
            scenario,
            group[0].kind,
            len(group),
            sum(trial.promoted for trial in group),
            sum(trial.wrong for trial in group),
            float(np.mean([trial.judged_difference for trial in group])),
            float(np.mean([trial.later_difference for trial in group])),
        )
        for scenario, group in groups.items()
    ]


def failures(lines: Sequence[Line]) -> list[str]:
    """What was wrongly promoted too often: single scenarios, and all of a kind together, which shows it with fewer batches."""
    failed = [line.scenario for line in lines if line.failed]
    for kind in (EQUAL, WORSE):
        group = [line for line in lines if line.kind == kind]
        wrong, count = sum(line.wrong for line in group), sum(line.count for line in group)
        if count and share_interval(wrong, count)[0] > WRONG_AT_MOST:
            failed.append(f"{wrong} of {count} {kind} challengers together")
    return failed


def share_interval(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934, Biometrika 26)."""
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)
