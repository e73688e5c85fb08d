"""`retrain train` outside the pipeline: one candidate, scored on rows of the training window that
it was not trained on.

Champion, challenger and the evaluation window stay out of it: rows that chose a recipe could not
judge it any more.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.config import Config, build, class_name, feature_types
from retrain.data.manifest import Batch, Manifest, read_manifest
from retrain.data.schema import Schema
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import (
    Window,
    batches_in,
    block_index,
    block_of,
    plan_validation,
    plan_windows,
)
from retrain.errors import ConfigError, DataError, ModelError, RetrainError
from retrain.lazy import mlflow
from retrain.masking import mask
from retrain.models import training
from retrain.models.digests import candidate_digest
from retrain.models.fitting import build_pipeline
from retrain.models.metrics import find_metric, shown_metrics
from retrain.models.parent import ParentModel
from retrain.models.scoring import Model, score_rows
from retrain.models.strategies import Full
from retrain.models.strategy import Strategy
from retrain.models.training_set import TrainingSet
from retrain.record import Record
from retrain.registry import runs
from retrain.registry.processes import end_abandoned
from retrain.registry.store import CANDIDATES, open_store
from retrain.workspace import SNAPSHOT

log = logging.getLogger("retrain")
ERROR_TAG, LONGEST_ERROR = "error", 1000
DIGEST_TAG = (
    "candidate"  # stands for recipe, snapshot and code: what has it need not be fitted again
)
RECORD = "candidate.json"


@dataclass(frozen=True)
class CandidateRecord(Record):
    """What a candidate's run keeps for ranking it, and for adopting it.

    Attributes
    ----------
    overrides
        Of `conf/`, that made its configuration.
    metric
        The primary one.
    scored_on
        Stands for the validation rows and their blocks: only on the same ones can two be compared.
    replicates
        The metric on all of those rows, then without each block of time; None where it is no
        number.
    """

    overrides: list[str]
    metric: str
    scored_on: str
    replicates: list[float | None]


@dataclass(frozen=True)
class Candidate:
    """A finished candidate: its run and its metrics on the validation window."""

    run_id: str
    metrics: dict[str, float]
    fit_seconds: float


def run(config: Config, overrides: Sequence[str]) -> None:
    """Fit and score the candidate that a person asks for."""
    if any(one.lstrip("+").startswith("sweep=") for one in overrides):
        raise ConfigError(
            "`sweep=...` names a space to search, and without -m one candidate is trained.",
            hint=f"retrain train -m {' '.join(overrides)}",
        )
    end_abandoned(open_store(config))
    found = train(config, overrides)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in found.metrics.items())
    log.info("Candidate (run %s): %s, %.1f s to fit", found.run_id, figures, found.fit_seconds)
    log.info(
        "The champion is untouched. To put this recipe before the gate, make it the default in "
        "conf/config.yaml, then `dvc repro`."
    )


def train(
    config: Config,
    overrides: Sequence[str],
    parent: str | None = None,
    name: str = "candidate",
    more: Mapping[str, str] | None = None,
) -> Candidate:
    """Fit the configured recipe on the training window less its newest part, score it there, log it
    to MLflow.

    Whatever goes wrong after the store has opened leaves a failed run behind, so that no job of a
    sweep is lost. `more` are tags.
    """
    store = open_store(config)
    tags = {
        "kind": "candidate",
        "model": class_name(config.model.estimator),
        "strategy": class_name(config.strategy),
    } | dict(more or {})
    with runs.start_run(store, name, config, tags, CANDIDATES, parent) as run_id:
        try:
            return Candidate(run_id, *_fit_and_score(config, overrides))
        except Exception as error:
            mlflow.set_tag(ERROR_TAG, one_line(error))
            raise


def one_line(error: Exception) -> str:
    """An error as it goes into a table or a tag, where a hint has no line of its own."""
    if isinstance(error, RetrainError):
        text = f"{error.message.rstrip('.')} ({error.hint})" if error.hint else error.message
    else:
        text = f"{type(error).__name__}: {mask(str(error))}".removesuffix(": ")
    return " ".join(text.split())[:LONGEST_ERROR]


def _fit_and_score(config: Config, overrides: Sequence[str]) -> tuple[dict[str, float], float]:
    """In the active run: metrics on the validation window, and the seconds that the fit took."""
    build_pipeline(config)  # before anything is read
    manifest = _matching_manifest(config)
    windows = plan_validation(plan_windows(manifest.labelled, config.evaluation))
    validation_window = str(windows.evaluation)
    digest = candidate_digest(config, manifest.digest)
    mlflow.set_tags(
        {"snapshot": manifest.digest, "validation_window": validation_window, DIGEST_TAG: digest}
    )
    batches = batches_in(manifest.labelled, windows.training)
    columns, data = tuple(Schema(config.data).columns), config.data

    def read(batch: Batch) -> pl.DataFrame:
        return _rows(manifest.digest, batch.period, columns)

    validating = [read(batch) for batch in batches_in(manifest.labelled, windows.evaluation)]
    validation = windows.evaluation.rows(
        pl.concat(validating, how="diagonal_relaxed"), data.time_column
    )
    base = _base(config, batches, windows.training, read)
    fitted = training.fit(config, batches, windows.training, read, base)
    model = Model(fitted.pipeline, feature_types(config))
    scored = score_rows({"candidate": model}, validation, config)
    metrics = {
        name: find_metric(name, data.task).value(scored.target, scored.scores["candidate"])
        for name in shown_metrics(data.task, [data.metric])
    }
    replicates = find_metric(data.metric, data.task).replicates(
        scored.target, scored.scores["candidate"], _block_codes(validation, config)
    )
    record = CandidateRecord(
        list(overrides),
        data.metric,
        f"{manifest.digest} {validation_window} {config.evaluation.block_hours}",
        [value if math.isfinite(value) else None for value in replicates.tolist()],
    )
    mlflow.log_dict(record.content(), RECORD)
    runs.log_dataset(config, manifest, "training")
    logged = {f"{metric}/validation": value for metric, value in metrics.items()}
    logged |= {"training/rows": fitted.rows, "training/fit_seconds": fitted.fit_seconds}
    mlflow.log_metrics(logged)
    if not math.isfinite(metrics[data.metric]):
        raise ModelError(
            f"`data.metric` {data.metric} is {metrics[data.metric]} on the validation window, no "
            "number to rank by.",
            hint="choose a metric that these rows can be evaluated by, or let more rows arrive",
        )
    runs.log_model(config, fitted.pipeline, "candidate", validation)
    return metrics, fitted.fit_seconds


def _block_codes(rows: pl.DataFrame, config: Config) -> NDArray[np.int64]:
    """Number of each row's block of time, from 0 without gaps."""
    block = block_of(config.evaluation)
    numbers = rows.select(block_index(config.data.time_column, block)).to_series()
    return np.unique(numbers.to_numpy(), return_inverse=True)[1]


def _matching_manifest(config: Config) -> Manifest:
    """Raises DataError when the snapshot was made under another `data` config than the
    candidate's."""
    manifest = read_manifest(SNAPSHOT)
    as_of, newest = config.data.as_of, manifest.batches[-1].period
    if manifest.schema != Schema(config.data).digest or (as_of is not None and newest > as_of):
        raise DataError(
            f"The snapshot (up to {newest}) was made under another `data` configuration than this "
            "candidate's. Candidates train on the snapshot as it is.",
            hint="write the change into conf/data/ and run `dvc repro snapshot` first",
        )
    return manifest


def _base(
    config: Config, batches: Sequence[Batch], window: Window, read: Callable[[Batch], pl.DataFrame]
) -> ParentModel | None:
    """For a strategy that continues: the recipe trained on all but the newest batch of the window,
    as a champion would be.

    The champion itself may have been trained on the validation rows.
    """
    if not build(Strategy, config.strategy, "strategy").continues or len(batches) < 2:
        return None
    before = Window(window.start, batches[-1].span[0])
    fitted = Full().fit(TrainingSet(config, batches[:-1], before, read))
    return ParentModel(Model(fitted.pipeline, feature_types(config)), before.end)


@functools.lru_cache(maxsize=64)
def _rows(snapshot: str, period: str, columns: tuple[str, ...]) -> pl.DataFrame:
    """The labelled rows of a batch, read once for all jobs of a sweep. `snapshot` only keys the
    cache."""
    return SnapshotStore(SNAPSHOT).read([period], columns)
