"""Stage `train`: fit the challenger, register it, and write what it and the incumbent predict on the evaluation rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from retrain import project, records
from retrain.config import Config
from retrain.data.manifest import Manifest
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Windows, batches_in, plan_windows
from retrain.modeling.model_files import file_digest, import_first
from retrain.modeling.training import Training, train
from retrain.promotion import registry
from retrain.promotion.figures import BASELINE, CHALLENGER, INCUMBENT, TARGET
from retrain.promotion.ledger import Ledger, find_incumbent
from retrain.records import ChallengerRecord, DecisionRecord, ModelRecord
from retrain.tracking import runs
from retrain.tracking.store import Store, open_store

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

log = logging.getLogger("retrain")


@dataclass(frozen=True)
class Incumbent:
    """The champion to compare with, loaded."""

    record: ModelRecord
    pipeline: Pipeline


def run(config: Config) -> None:
    decision = records.load(project.DECISION, DecisionRecord, "monitor")
    snapshot = SnapshotStore(project.SNAPSHOT)
    manifest = snapshot.manifest()
    if not decision.retrain:
        _write_predictions(pl.DataFrame())
        records.save(
            project.CHALLENGER, ChallengerRecord(False, decision.reason, manifest.digest, decision.newest_batch)
        )
        log.info("No challenger: %s", decision.reason)
        return
    windows = plan_windows(manifest.labelled, config.evaluation)
    import_first()
    store = open_store(config)
    ledger = Ledger.open(store)
    registry.follow_ledger(store, ledger)
    runs.end_abandoned(store)
    history = ledger.entries()
    # Loaded before the fit: an incumbent that can't be loaded must not cost a training first.
    incumbent = _load_incumbent(config, store, find_incumbent(history, windows.evaluation.start.isoformat()))
    newest = manifest.labelled[-1].period
    tags = _tags(config, manifest, windows, incumbent)
    with runs.start_run(store, f"retrain {newest}", config, tags) as run_id:
        log.info("Training %s on rows before %s", tags["model"], windows.evaluation.start.date())
        training = train(config, manifest, snapshot, windows.training)
        judging = [batch.period for batch in batches_in(manifest.labelled, windows.evaluation)]
        rows = windows.evaluation.rows(snapshot.read(judging), config.data.time_column)
        predictions = _predict(config, training, incumbent, rows)
        version = _log(config, store, manifest, training, rows, run_id)
    predictions_digest = _write_predictions(predictions)
    record = ChallengerRecord(
        retrained=True,
        reason=decision.reason,
        snapshot=manifest.digest,
        newest_batch=newest,
        challenger=_model_record(version, training),
        incumbent=incumbent.record if incumbent else None,
        run_id=run_id,
        model=tags["model"],
        strategy=tags["strategy"],
        rows=training.rows,
        fit_seconds=training.fit_seconds,
        evaluation_start=windows.evaluation.start.isoformat(),
        evaluation_end=windows.evaluation.end.isoformat(),
        ledger_length=len(history),
        predictions=predictions_digest,
    )
    records.save(project.CHALLENGER, record)
    log.info("Challenger version %d: %s rows, %.1f s to fit", version, f"{training.rows:,}", training.fit_seconds)


def _load_incumbent(config: Config, store: Store, record: ModelRecord | None) -> Incumbent | None:
    if record is None:
        return None
    tags = registry.get_version(store, record.version).tags
    pipeline = registry.load_version(store, record.version, config.trusted_types)
    batches = tags.get("batches", "").split(", ")
    return Incumbent(ModelRecord(record.version, tags.get("trained_from", ""), record.trained_until, batches), pipeline)


def _tags(config: Config, manifest: Manifest, windows: Windows, incumbent: Incumbent | None) -> dict[str, str]:
    periods = [batch.period for batch in manifest.labelled]
    return {
        "kind": "retraining",
        "model": config.model.estimator["_target_"].rsplit(".", 1)[-1],
        "strategy": config.strategy["_target_"].rsplit(".", 1)[-1],
        "snapshot": manifest.digest,
        "batches": f"{periods[0]} to {periods[-1]} ({len(periods)})",
        "evaluation_window": str(windows.evaluation),
        "incumbent_version": str(incumbent.record.version) if incumbent else "none",
    }


def _log(
    config: Config, store: Store, manifest: Manifest, training: Training, sample: pl.DataFrame, run_id: str
) -> int:
    """Log model, data set and figures to the active run, register the version; returns its number."""
    import mlflow

    runs.log_dataset(config, manifest, "training")
    mlflow.log_metrics(
        {
            "training/rows": training.rows,
            "training/batches": len(training.batches),
            "training/fit_seconds": training.fit_seconds,
        }
    )
    model_id, sha256 = runs.log_model(config, training.pipeline, "challenger", sample)
    version = registry.register(
        store, model_id, run_id, registry.version_tags(training, "challenger", manifest.digest, sha256)
    )
    registry.set_alias(store, registry.CHALLENGER, version)
    mlflow.set_tag("challenger_version", str(version))
    return version


def _predict(config: Config, training: Training, incumbent: Incumbent | None, rows: pl.DataFrame) -> pl.DataFrame:
    """Both models on the same raw rows, each with its own preprocessing."""
    from retrain.modeling.pipeline import predict, to_target

    columns = list(dict.fromkeys([config.data.time_column, *config.data.key_columns]))
    predictions = rows.select(columns).with_columns(
        pl.Series(TARGET, to_target(rows, config)),
        pl.Series(CHALLENGER, predict(training.pipeline, rows, config)),
        pl.lit(training.positive_share).alias(BASELINE),
    )
    if incumbent is not None:
        predictions = predictions.with_columns(pl.Series(INCUMBENT, predict(incumbent.pipeline, rows, config)))
    return predictions


def _write_predictions(predictions: pl.DataFrame) -> str:
    with project.replacing(project.PREDICTIONS) as temporary:
        predictions.write_parquet(temporary)
    return file_digest(project.PREDICTIONS)


def _model_record(version: int, training: Training) -> ModelRecord:
    return ModelRecord(
        version, training.window.start.isoformat(), training.window.end.isoformat(), list(training.batches)
    )
