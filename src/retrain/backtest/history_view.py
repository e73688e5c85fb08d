"""The batches of a replay: rows to compare on, losses of models, drift between batches."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from retrain.backtest.corruptions import Corruption
from retrain.backtest.losses import Losses
from retrain.backtest.model_cache import CachedFit, ModelCache, read_batch, read_sample
from retrain.config import Config, Task
from retrain.data.manifest import Batch
from retrain.data.periods import parse_delay
from retrain.data.profiles import BatchProfile, ColumnProfile, sample_places
from retrain.data.windows import Window, plan_windows
from retrain.errors import DataError
from retrain.gate.compare import block_codes
from retrain.gate.comparison import Comparison
from retrain.gate.decision import CheckSpec
from retrain.gate.estimates import CHALLENGER, INCUMBENT
from retrain.models.block_sums import Array
from retrain.models.metrics import find_metric, monitoring_loss
from retrain.models.scoring import baseline_loss, spread_classes, to_scored
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
from retrain.pipeline.predictions import (
    asked_metrics,
    compare_predictions,
    with_block,
    with_scores,
)

# Nothing is stored in a replay, and the machine is another one.
NOT_MEASURED = {"latency_one_row_ms": 0.0, "latency_1000_rows_ms": 0.0, "model_megabytes": 0.0}


class HistoryView:
    """What a replay needs to know about the batches, each read and measured once.

    Batches on hold are served, but take no part; those that were accepted later, from then on.

    Parameters
    ----------
    profiles
        Those of the batches.
    corruptions
        How batches arrived corrupted, by period.
    specs
        The checks of all gates, whose metrics are measured.
    """

    def __init__(
        self,
        config: Config,
        batches: Sequence[Batch],
        profiles: Sequence[BatchProfile],
        models: ModelCache,
        corruptions: Mapping[str, Corruption] | None = None,
        specs: Sequence[CheckSpec] = (),
    ) -> None:
        self.config, self.batches, self.profiles = config, tuple(batches), profiles
        self.models, self.corruptions = models, dict(corruptions or {})
        self.loss = monitoring_loss(config.data.metric, config.data.task)
        self.metric = find_metric(self.loss, config.data.task)
        self.specs, self.metrics = specs, asked_metrics(config, specs)
        self.joined = _joined(batches)
        self.first = first_number(config, batches)
        self.verdicts: dict[tuple[object, ...], Comparison] = {}

    @functools.cached_property
    def reach(self) -> int:
        """Over how many earlier batches an evaluation window reaches back at most."""
        reach = 0
        for number in range(self.first, len(self.batches)):
            known = self.batches[: number + 1]
            start = plan_windows(known, self.config.evaluation).evaluation.start
            reach = max(reach, sum(batch.span[1] >= start for batch in known[:-1]))
        # Windows that reach back reach over those that take no part as well.
        return reach + len(self.on_hold) if reach else 0

    @functools.cached_property
    def served(self) -> dict[int, int]:
        """The batches that a champion serves, by number, with the newest one whose labels are there
        when they come."""
        delay = timedelta(seconds=parse_delay(self.config.data.label_delay))
        ends = [batch.until or batch.span[1] for batch in self.batches]
        served = {}
        for number in range(self.first, len(self.batches) - 1):
            known = range(number + 1)
            labelled = [index for index in known if ends[index] + delay <= ends[number]]
            if labelled and labelled[-1] >= self.first:
                served[number + 1] = labelled[-1]
        return served

    @property
    def decided(self) -> list[int]:
        """The batches, by number, after which a model is trained: the first champion, and where
        there is something to decide."""
        return sorted({self.first, *self.served.values()})

    @functools.cached_property
    def on_hold(self) -> frozenset[str]:
        """Batches that are on hold when they arrive, by period."""
        pairs = enumerate(zip(self.batches, self.joined, strict=True))
        return frozenset(batch.period for number, (batch, joined) in pairs if joined != number)

    def takes_part(self, number: int, now: int) -> bool:
        """Whether a batch is used when another one is the newest."""
        return number <= now and self.joined[number] <= now

    def _taking_part(self, now: int) -> list[int]:
        return [number for number in range(now + 1) if self.takes_part(number, now)]

    def known(self, now: int) -> tuple[Batch, ...]:
        """The labelled batches that take part when one is the newest."""
        return tuple(self.batches[number] for number in self._taking_part(now))

    def corruption(self, number: int) -> Corruption | None:
        return self.corruptions.get(self.batches[number].period)

    @functools.cache
    def rows(self, number: int, corruption: Corruption | None = None) -> pl.DataFrame:
        """The rows of a batch in time order with block: as they truly were, or corrupted."""
        batch = self.batches[number]
        return with_block(
            self.config, read_batch(self.config, self.models.snapshot, batch, corruption)
        )

    @functools.cache
    def losses(self, fit: CachedFit, number: int, corruption: Corruption | None = None) -> Losses:
        """A model on the rows of a batch from the end of its training rows on."""
        time = self.config.data.time_column
        rows = Window(fit.until, datetime.max).rows(self.rows(number, corruption), time)
        scores = {CHALLENGER: self.scores(fit, number, corruption)}
        scored = to_scored(self.config, rows, scores, {CHALLENGER: fit.classes})
        return Losses(
            self.metric,
            self.metric.block_sums(scored.target, scored.scores[CHALLENGER], block_codes(rows)),
        )

    def scores(self, fit: CachedFit, number: int, corruption: Corruption | None) -> Array:
        """Predictions for the rows of a batch from the end of the model's training rows on."""
        batch = self.batches[number]
        if corruption is None:
            return fit.scores(batch.period)
        return self.models.scores_of_corrupted(fit, self.config, batch, corruption)

    @functools.cache
    def baseline_loss(self, number: int) -> float:
        """The loss of the best constant on a batch as it arrived."""
        return baseline_loss(self.rows(number, self.corruption(number)), self.config)

    @functools.cache
    def expected_baseline_loss(self, number: int) -> float:
        """The loss of the best constant on the evaluation rows of a batch."""
        return baseline_loss(_joined_rows(self._evaluation(number)), self.config)

    @functools.cache
    def drift(self, number: int, reference: int, fit: CachedFit) -> dict[str, float]:
        """By family the p-value of the change of a batch from another: in any feature, in the
        target, in whole rows, and in what a model predicts."""
        history = [index for index in self._taking_part(number) if index < number][-HISTORY:]
        drift = compare_batches(
            self.profiles[number],
            self.profiles[reference],
            [self.profiles[index] for index in history],
            (self.batches[number].period, self.batches[reference].period),
        )
        drift.families[ROWS] = against_neighbours(self._row_pair, number, reference, history)
        later, earlier, *past = (
            self._predictions(fit, index) for index in (number, reference, *history[-PAIRS - 1 :])
        )
        drift.families[PREDICTIONS] = against_neighbours(column_pair, later, earlier, past)
        return drift.p_values()

    def _row_pair(self, later: int, earlier: int) -> Pair:
        def samples() -> tuple[pl.DataFrame, pl.DataFrame]:
            return self._sample(later), self._sample(earlier)

        def content(number: int) -> str:
            return f"{self.batches[number].content} {self.corruption(number) or ''}"

        names = content(later), content(earlier)
        return separate_once(self.config, samples, names, self.models.remembered)

    def _sample(self, number: int) -> pl.DataFrame:
        batch, corruption = self.batches[number], self.corruption(number)
        return read_sample(self.config, self.models.snapshot, batch, corruption)

    @functools.cache
    def _predictions(self, fit: CachedFit, number: int) -> ColumnProfile:
        """What a model predicts for the sample rows of a batch, as a column."""
        scores = fit.sample_scores().get(self.batches[number].period)
        if scores is None:
            scores = self.scores(fit, number, self.corruption(number))
            scores = scores[sample_places(len(scores))]
        return predicted_column(scores, fit.classes)

    @functools.cache
    def _evaluation(self, number: int) -> dict[int, pl.DataFrame]:
        """The rows in a batch's evaluation window as they arrived, by number of their batch."""
        window = plan_windows(self.known(number), self.config.evaluation).evaluation
        return {
            index: window.rows(
                self.rows(index, self.corruption(index)), self.config.data.time_column
            )
            for index in self._taking_part(number)
            if self.batches[index].span[1] >= window.start
        }

    @functools.cache
    def compare(
        self, challenger: CachedFit, incumbent: CachedFit | None, number: int
    ) -> Comparison:
        """The two on the evaluation window of a batch; without an incumbent, with the baseline."""
        fits = {CHALLENGER: challenger} | ({INCUMBENT: incumbent} if incumbent else {})
        parts = self._evaluation(number)
        rows = _joined_rows(parts)

        def predicted(fit: CachedFit) -> Array:
            scores = [self.scores(fit, index, self.corruption(index)) for index in parts]
            # Rows are in time order, and the window holds the newest of each batch.
            pairs = zip(scores, parts.values(), strict=True)
            return np.concatenate([scores[len(scores) - len(part) :] for scores, part in pairs])

        scored = to_scored(
            self.config,
            rows,
            {name: predicted(fit) for name, fit in fits.items()},
            {name: fit.classes for name, fit in fits.items()},
        )
        constant = challenger.baseline
        if self.config.data.task is Task.multiclass:
            constant = spread_classes(constant, challenger.classes, scored.classes)
        comparison = compare_predictions(
            self.config,
            with_scores(self.config, rows, scored, constant),
            self.metrics,
            scored.classes,
            scored.unknown_classes,
        )
        return dataclasses.replace(comparison, facts=NOT_MEASURED)


def _joined_rows(parts: Mapping[int, pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts.values(), how="diagonal_relaxed")


def first_number(config: Config, batches: Sequence[Batch]) -> int:
    """The first batch after which there is a champion.

    Raises DataError when the history is too short for a replay.
    """
    for number in range(len(batches) - 1):
        try:
            plan_windows(batches[: number + 1], config.evaluation)
        except DataError:
            continue
        return number
    raise DataError(
        "The history is too short to be replayed: a champion, and a batch that it serves, are "
        "needed.",
        hint="let more batches arrive, or lower `evaluation.minimum_blocks`",
    )


def _joined(batches: Sequence[Batch]) -> list[float]:
    """For each batch the number of the one from which on it takes part: its own, or that of the
    last of those that agree with it; infinity for one on hold."""
    numbers = {batch.period: number for number, batch in enumerate(batches)}
    joined: list[float] = []
    for number, batch in enumerate(batches):
        waits = batch.confirmed_by and not batch.accepted
        confirmed = numbers.get(batch.confirmed_by, number) if waits else number
        joined.append(math.inf if batch.on_hold else confirmed)
    return joined
