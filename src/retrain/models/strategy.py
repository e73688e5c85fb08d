"""The base class of strategies, and what a strategy is given to train on and gives back."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from retrain.config import Config, Task
from retrain.data.manifest import Batch
from retrain.data.windows import Window, batches_in
from retrain.errors import DataError
from retrain.lazy import sklearn
from retrain.models import fitting
from retrain.models.block_sums import Array
from retrain.models.scoring import Model
from retrain.types import ModelRecord


@dataclass(frozen=True)
class ParentModel:
    """The model that a strategy may continue from: the newest version that was trained on none of
    the evaluation rows.

    Attributes
    ----------
    model
        The fitted Pipeline (`model.pipeline`) and its features.
    trained_until
        The end of the time span of its training rows.
    record
        Its entry in the registry; None for a model of a backtest.
    lineage
        Its own version number, and those that it was continued from, newest first.
    refusal
        Why it can't be continued; None where it can.
    """

    model: Model
    trained_until: datetime
    record: ModelRecord | None = None
    lineage: tuple[int, ...] = ()
    refusal: str | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"version {self.record.version}" if self.record else "a model of the rows before"


@dataclass(frozen=True)
class TrainingSet:
    """Some batches' labelled rows inside a window of time, read when they are asked for.

    Attributes
    ----------
    config
        The whole configuration: `config.data.time_column`, `config.seed`, ...
    batches
        The batches, oldest first, with `period`, `rows` and `span`.
    window
        The span that the rows lie in; it ends where the evaluation window begins.
    read
        Gives all rows of one batch.
    base
        The model to continue from, if there is one.
    """

    config: Config
    batches: Sequence[Batch]
    window: Window
    read: Callable[[Batch], pl.DataFrame]
    base: ParentModel | None = None

    @functools.cached_property
    def rows(self) -> pl.DataFrame:
        """All rows at once, with key, time, feature and target columns."""
        return pl.concat(list(self.parts()), how="diagonal_relaxed")

    def parts(self) -> Iterator[pl.DataFrame]:
        """The rows of one batch after the other: no more than one in memory."""
        for batch in self.batches:
            yield self.window.rows(self.read(batch), self.config.data.time_column)

    def holding(self, batches: Sequence[Batch], window: Window | None = None) -> TrainingSet:
        """The same with other batches or another window."""
        window = window or self.window
        return dataclasses.replace(self, batches=batches_in(batches, window), window=window)


@dataclass(frozen=True)
class FitResult:
    """A fitted Pipeline, and how it came about.

    Attributes
    ----------
    pipeline
        `preprocessing -> estimator`, fitted.
    rows
        The number of rows that it was fitted on.
    batches
        The batches that these came from; empty stands for all that `select` chose.
    note
        What a person should know; run and report show it.
    continued
        Whether it started from the weights of the parent model.
    choice
        Which of several strategies was selected.
    """

    pipeline: sklearn.pipeline.Pipeline
    rows: int
    batches: Sequence[Batch] = ()
    note: str = ""
    continued: bool = False
    choice: str = ""


class Strategy:
    """How to retrain: which batches a challenger is trained on, and how. `conf/strategy/` names
    one.

    Most strategies only `select`. The arguments of `__init__` are the keys of the YAML file; their
    types and ranges (`retrain.ranges`) are checked when `conf/` is composed.

    Attributes
    ----------
    continues
        Whether it continues an earlier version, which is then loaded for it.
    streams
        Whether it reads batches one by one, and again, instead of keeping them.
    chooses
        Whether it selects one of several strategies, which a refit then repeats.

    Examples
    --------
    >>> class Newest(Strategy):
    ...     def __init__(self, batches: int) -> None:
    ...         self.batches = batches
    ...
    ...     def select(self, batches, base=None):
    ...         return list(batches[-self.batches :])
    >>> Newest(2).select(["2013-01", "2013-02", "2013-03"])
    ['2013-02', '2013-03']
    """

    continues: bool = False
    streams: bool = False
    chooses: bool = False

    def check(self, config: Config) -> None:
        """Whether the configured model can be trained this way: any can, unless a strategy says
        otherwise.

        Raises
        ------
        ConfigError
            If it can't.
        """

    def select(self, batches: Sequence[Batch], base: ParentModel | None = None) -> list[Batch]:
        """The batches to train on: all of them, unless a strategy says otherwise.

        Parameters
        ----------
        batches
            Those that begin before the evaluation window, oldest first. What of them lies inside it
            is left out later.
        base
            The model to continue from; only where `continues` is set.

        Returns
        -------
        Some of them, oldest first.
        """
        return list(batches)

    def fit(self, training_set: TrainingSet) -> FitResult:
        """A model of the selected batches: trained from scratch, unless a strategy says
        otherwise."""
        return from_scratch(training_set.rows, training_set.config)


def from_scratch(rows: pl.DataFrame, config: Config, weights: Array | None = None) -> FitResult:
    """A new Pipeline, fitted on some rows.

    Parameters
    ----------
    weights
        How much each row counts, shape (rows,).

    Raises
    ------
    DataError
        If the rows hold one class only.
    """
    data = config.data
    if data.task is not Task.regression and rows[data.target_column].n_unique() < 2:
        raise DataError(
            f"The {len(rows):,} training rows hold one class of `{data.target_column}` only.",
            hint="train on more batches (`strategy`), or mend the labels",
        )
    built = fitting.build_pipeline(config)
    allowed = getattr(built[-1], "max_iter", None)
    fitted = fitting.fit(built, rows, config, weights)
    chosen, note = getattr(fitted[-1], "max_iter", None), ""
    if chosen != allowed:
        note = (
            f"{chosen} of at most {allowed} boosting iterations, the number that did best on later "
            "training rows."
        )
    return FitResult(fitted, len(rows), note=note)
