"""What a strategy's fit gives, and the fit of most of them: from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from retrain.config import Config, Task
from retrain.data.manifest import Batch
from retrain.errors import DataError
from retrain.lazy import sklearn
from retrain.models import fitting
from retrain.models.block_sums import Array


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
