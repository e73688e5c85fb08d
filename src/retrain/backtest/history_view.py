"""The batches of a replay, each read once: rows to judge on, losses of models, drift between batches."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.backtest.corruptions import Corruption
from retrain.backtest.model_cache import (
    CachedFit,
    ModelCache,
    first_number,
    reach_of_windows,
    read_batch,
    read_sample,
)
from retrain.config import Config, Task
from retrain.data.manifest import Batch
from retrain.data.periods import parse_delay
from retrain.data.profiles import BatchProfile, ColumnProfile, sample_places
from retrain.data.windows import Window, plan_windows
from retrain.gate.comparison import Comparison, block_codes
from retrain.gate.estimates import CHALLENGER, INCUMBENT, jackknife
from retrain.models.metrics import find_row_loss, monitoring_loss, row_loss_for
from retrain.models.scoring import difficulty, spread_classes, to_scored
from retrain.monitoring.domain_classifier import separate_once
from retrain.monitoring.drift import (
    HISTORY,
    PAIRS,
    PREDICTIONS,
    ROWS,
    Pair,
    against_neighbours,
    column_pair,
    compare_batches,
    predicted_column,
)
from retrain.pipeline.predictions import compare_predictions, with_block, with_scores

# Nothing is stored in a replay, and the machine is another one.
NOT_MEASURED = {"latency_one_row_ms": 0.0, "latency_1000_rows_ms": 0.0, "model_megabytes": 0.0}


@dataclass(frozen=True)
class Losses:
    """A model on a batch: the sum of row losses and the rows of each block of time, both of shape (blocks,)."""

    sums: NDArray
    rows: NDArray
    rooted: bool  # the loss is the square root of the mean

    @property
    def value(self) -> float:
        return self._finish(self.sums.sum() / self.rows.sum())

    def without_blocks(self) -> NDArray:
        """The loss without each block in turn, shape (blocks,)."""
        rows = self.rows.sum() - self.rows
        left = np.divide(
            self.sums.sum() - self.sums, rows, out=np.full(len(rows), np.nan), where=rows > 0
        )
        return np.sqrt(left) if self.rooted else left

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the loss, over its blocks; NaN with one block."""
        return jackknife(np.concatenate([[self.value], self.without_blocks()])).interval()

    def blocks(self) -> tuple[float, ...]:
        return tuple(self._finish(value) for value in self.sums / self.rows)

    def _finish(self, value: float) -> float:
        return math.sqrt(value) if self.rooted else float(value)


class HistoryView:
    """What a replay needs to know about the batches, each read once: rows to judge on, losses of models, drift between batches."""

    def __init__(
        self,
        config: Config,
        batches: Sequence[Batch],
        summaries: Sequence[BatchProfile],
        models: ModelCache,
        corruptions: Mapping[str, Corruption] | None = None,
        metrics: Sequence[str] = (),
    ) -> None:
        """Batches on hold are served, but take no part; those that were accepted later, from then on. `metrics`: all that any gate
        will ask for."""
        self.config, self.batches, self.summaries, self.models = (
            config,
            tuple(batches),
            list(summaries),
            models,
        )
        self.corruptions, self.joined = dict(corruptions or {}), _joined(batches)
        self.first = first_number(config, batches)
        self.reach = reach_of_windows(config, batches, self.first)
        if self.reach:  # then windows reach over those that take no part as well
            self.reach += sum(joined != number for number, joined in enumerate(self.joined))
        self.loss = monitoring_loss(config.data.metric, config.data.task)
        self.row_loss = find_row_loss(row_loss_for(config.data.metric, config.data.task))
        self.rooted = self.loss == "rmse"
        self.metrics = tuple(dict.fromkeys([config.data.metric, self.loss, *metrics]))
        self._rows: dict[tuple[int, bool], pl.DataFrame] = {}
        self._losses: dict[tuple[str, int, bool], Losses] = {}
        self._difficulties: dict[int, float] = {}
        self._drift: dict[tuple[int, int, str], dict[str, float]] = {}
        self._said: dict[tuple[str, int], ColumnProfile] = {}
        self._expected: dict[int, float] = {}
        self._comparisons: dict[tuple, Comparison] = {}
        self.verdicts: dict[tuple, Comparison] = {}

    @functools.cached_property
    def served(self) -> dict[int, int]:
        """The batches that a champion serves, by number, with the newest one whose labels are there when they come."""
        delay = timedelta(seconds=parse_delay(self.config.data.label_delay))
        served = {}
        for number in range(self.first, len(self.batches) - 1):
            arrived = self.batches[number].until
            labelled = [
                index for index in range(number + 1) if self.batches[index].until + delay <= arrived
            ]
            if labelled and labelled[-1] >= self.first:
                served[number + 1] = labelled[-1]
        return served

    @property
    def fit_result(self) -> list[int]:
        """The batches, by number, that models are trained through: the first champion, and where there is something to decide."""
        return sorted({self.first, *self.served.values()})

    @property
    def held(self) -> frozenset[str]:
        """Batches that are on hold when they arrive, by period."""
        late = (
            batch.period
            for number, batch in enumerate(self.batches)
            if self.joined[number] != number
        )
        return frozenset(late)

    def takes_part(self, number: int, now: int) -> bool:
        """Whether a batch is used when another one is the newest."""
        return number <= now and self.joined[number] <= now

    def known(self, number: int) -> tuple[Batch, ...]:
        """The labelled batches that take part when one is the newest."""
        return tuple(
            batch for index, batch in enumerate(self.batches) if self.takes_part(index, number)
        )

    def rows(self, number: int, corrupted: bool = False) -> pl.DataFrame:
        """The rows of a batch in time order with block; as they arrived (`corrupted`), or as they truly were."""
        key = (number, corrupted and self.batches[number].period in self.corruptions)
        if key not in self._rows:
            batch = self.batches[number]
            corruption = self.corruptions.get(batch.period) if key[1] else None
            read = read_batch(self.config, self.models.snapshot, batch, corruption)
            self._rows[key] = with_block(self.config, read)
        return self._rows[key]

    def losses(self, fit: CachedFit, number: int, corrupted: bool = False) -> Losses:
        """A model on the rows of a batch as they truly were, or as they arrived (`corrupted`)."""
        corrupted = corrupted and self.batches[number].period in self.corruptions
        key = (fit.key, number, corrupted)
        if key not in self._losses:
            rows = Window(fit.until, datetime.max).rows(
                self.rows(number, corrupted), self.config.data.time_column
            )
            scores = (
                self.scores(fit, number) if corrupted else fit.scores(self.batches[number].period)
            )
            scored = to_scored(self.config, rows, {CHALLENGER: scores}, {CHALLENGER: fit.classes})
            codes = block_codes(rows)
            values = self.row_loss(scored.target, scored.scores[CHALLENGER])
            self._losses[key] = Losses(np.bincount(codes, values), np.bincount(codes), self.rooted)
        return self._losses[key]

    def difficulty(self, number: int) -> float:
        """How hard the rows of a batch are, as they arrived."""
        if number not in self._difficulties:
            rows = self.rows(number, corrupted=True)
            self._difficulties[number] = difficulty(rows, self.config)
        return self._difficulties[number]

    def drift(self, number: int, reference: int, fit: CachedFit) -> dict[str, float]:
        """How often an unchanged batch would differ as much as one does from another: in any feature, in the target, in whole
        rows, and in what a model predicts."""
        key = (number, reference, fit.key)
        if key not in self._drift:
            history = [index for index in range(number) if self.takes_part(index, number)][
                -HISTORY:
            ]
            names = (self.batches[number].period, self.batches[reference].period)
            summaries = [self.summaries[index] for index in history]
            families = compare_batches(
                self.summaries[number], self.summaries[reference], summaries, names
            ).families
            families[ROWS] = against_neighbours(self._row_pair, number, reference, history)
            told = [self._told(fit, index) for index in (number, reference, *history[-PAIRS - 1 :])]
            families[PREDICTIONS] = against_neighbours(column_pair, told[0], told[1], told[2:])
            self._drift[key] = {name: change.p_value for name, change in families.items()}
        return self._drift[key]

    def _row_pair(self, later: int, earlier: int) -> Pair:
        def samples() -> tuple[pl.DataFrame, pl.DataFrame]:
            return self._sample(later), self._sample(earlier)

        contents = [
            f"{self.batches[index].content} {self.corruptions.get(self.batches[index].period, '')}"
            for index in (later, earlier)
        ]
        return separate_once(self.config, samples, tuple(contents), self.models.remembered)

    def _sample(self, number: int) -> pl.DataFrame:
        batch = self.batches[number]
        return read_sample(
            self.config, self.models.snapshot, batch, self.corruptions.get(batch.period)
        )

    def _told(self, fit: CachedFit, number: int) -> ColumnProfile:
        """What a model says about the sample rows of a batch, as a column."""
        key = (fit.key, number)
        if key not in self._said:
            batch = self.batches[number]
            scores = fit.scores_of_known().get(batch.period)
            if scores is None:
                scores = self.scores(fit, number)
                scores = scores[sample_places(len(scores))]
            self._said[key] = predicted_column(scores, fit.classes)
        return self._said[key]

    def window(self, number: int) -> Window:
        """The evaluation window when a batch is the newest."""
        return plan_windows(self.known(number), self.config.evaluation).evaluation

    def _evaluated(self, number: int) -> list[int]:
        """The batches with rows in the evaluation window of a batch."""
        start = self.window(number).start
        return [
            index
            for index in range(number + 1)
            if self.takes_part(index, number) and self.batches[index].last_time >= start
        ]

    def _evaluation_rows(self, number: int) -> pl.DataFrame:
        """The rows of a batch's evaluation window, as they arrived."""
        window, time = self.window(number), self.config.data.time_column
        parts = [
            window.rows(self.rows(index, corrupted=True), time) for index in self._evaluated(number)
        ]
        return pl.concat(parts, how="diagonal_relaxed")

    def expected_difficulty(self, number: int) -> float:
        """How hard the evaluation rows of a batch are."""
        if number not in self._expected:
            self._expected[number] = difficulty(self._evaluation_rows(number), self.config)
        return self._expected[number]

    def compare(
        self, challenger: CachedFit, incumbent: CachedFit | None, number: int
    ) -> Comparison:
        """The two on the evaluation window of a batch; without an incumbent, with the baseline."""
        fits = {CHALLENGER: challenger} | ({INCUMBENT: incumbent} if incumbent else {})
        key = (*(fit.key for fit in fits.values()), number)
        if key not in self._comparisons:
            config, start = self.config, self.window(number).start
            rows = self._evaluation_rows(number)
            found = {
                name: np.concatenate(
                    [self._scores_from(fit, index, start) for index in self._evaluated(number)]
                )
                for name, fit in fits.items()
            }
            scored = to_scored(
                config, rows, found, {name: fit.classes for name, fit in fits.items()}
            )
            constant = challenger.baseline
            if config.data.task is Task.multiclass:
                constant = spread_classes(constant, challenger.classes, scored.classes)
            comparison = compare_predictions(
                config,
                with_scores(config, rows, scored, constant),
                self.metrics,
                scored.classes,
                scored.unknown_classes,
            )
            self._comparisons[key] = dataclasses.replace(comparison, facts=NOT_MEASURED)
        return self._comparisons[key]

    def _scores_from(self, fit: CachedFit, number: int, start: datetime) -> NDArray:
        """What a model predicts for the rows of a batch, as they arrived, from a time on."""
        time = self.config.data.time_column
        rows = self.rows(number, corrupted=True)
        times = Window(fit.until, datetime.max).rows(rows, time)[time]
        return self.scores(fit, number)[(times >= start).to_numpy()]

    def scores(self, fit: CachedFit, number: int) -> NDArray:
        """What a model predicts for the rows of a batch as they arrived."""
        batch = self.batches[number]
        corruption = self.corruptions.get(batch.period)
        if corruption is None:
            return fit.scores(batch.period)
        return self.models.scores_of_corrupted(fit, self.config, batch, corruption)


def _joined(batches: Sequence[Batch]) -> list[float]:
    """For each batch the number of the one from which on it takes part: its own, or that of the last of those that agree with it;
    infinity for one on hold."""
    numbers = {batch.period: number for number, batch in enumerate(batches)}
    joined: list[float] = []
    for number, batch in enumerate(batches):
        waits = batch.confirmed_by and not batch.accepted
        joined.append(
            math.inf
            if batch.on_hold
            else numbers.get(batch.confirmed_by, number)
            if waits
            else number
        )
    return joined
