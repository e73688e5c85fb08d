"""Stage `train`: ask the policy, fit the challenger, register it, and write what it and the incumbent predict on the evaluation rows."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from retrain import types, workspace
from retrain.config import Config, Task, build, class_name, feature_types
from retrain.data.manifest import CONTENT_DIGITS, Manifest
from retrain.data.schema import Schema
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, Windows, batches_in, plan_references
from retrain.gate.alpha_spending import to_look
from retrain.gate.decision import gate_digest
from retrain.gate.estimates import (
    CHALLENGER,
    EVALUATION,
    INCUMBENT,
    WINDOW,
)
from retrain.models.digests import model_digest, recipe_digest
from retrain.models.fitting import known_classes
from retrain.models.model_files import file_digest
from retrain.models.scoring import Model, Scored, score_rows, spread_classes
from retrain.models.strategy import ParentModel, Strategy
from retrain.models.training import FittedModel, measure_latency, train
from retrain.pipeline import observe
from retrain.pipeline.loop import Incumbent, TrainingPlan, plan_training
from retrain.pipeline.predictions import with_scores
from retrain.registry import runs, versions
from retrain.registry.ledger import Entry, Ledger, rolled_back
from retrain.registry.runs import StoredModel
from retrain.registry.store import Store, open_store
from retrain.types import ChallengerRecord, DecisionRecord, LedgerPointer, ModelRecord

LONGEST_TAG = 4900
log = logging.getLogger("retrain")


@dataclass(frozen=True)
class Registry:
    """The versions of MLflow's registry. Raises PromotionError where tags and ledger disagree."""

    config: Config
    store: Store
    entries: Sequence[Entry]

    def record(self, version: int) -> ModelRecord:
        return versions.checked_record(versions.get_version(self.store, version), self.entries)

    def load(self, version: int) -> Model:
        trusted = self.config.trusted_types
        return versions.load_version(self.store, version, trusted, self.entries)


def run(config: Config) -> None:
    snapshot = SnapshotStore(workspace.SNAPSHOT)
    manifest = snapshot.manifest()
    store = open_store(config)
    ledger = Ledger.open(store)
    versions.follow_ledger(store, ledger)
    runs.end_abandoned(store)
    history = ledger.entries()
    _point_to(ledger, store, history)
    decision = observe.look(config, manifest, store, history)
    types.save(workspace.DECISION, decision)
    observe.show(decision)
    if decision.champion_version is not None:
        runs.log_monitoring(store, decision, len(manifest.labelled))
    if not decision.retrain:
        _decline(decision.reason, manifest, decision)
        return
    recipe = recipe_digest(config, manifest.digest)
    rollback = rolled_back(history, recipe)
    if rollback is not None:
        reason = (
            f"This recipe on this snapshot gave version {rollback.previous}, which {rollback.who} rolled back "
            f"(ledger entry {rollback.seq}: {rollback.reason}). Change the recipe, let a new batch arrive, or bring the version "
            f'back: retrain promote {rollback.previous} --reason "..."'
        )
        _decline(reason, manifest, decision)
        return
    # Loaded before the fit: an incumbent that can't be loaded must not cost a training first.
    plan = plan_training(
        config,
        manifest.labelled,
        history,
        Registry(config, store, history),
        build(Strategy, config.strategy, "strategy").continues,
    )
    base = versions.load_parent(config, store, plan.parent, history) if plan.parent else None
    record = _train(config, store, snapshot, plan, base, recipe, decision)
    record.reason, record.decay, record.ledger_length = (
        decision.reason,
        decision.decay,
        len(history),
    )
    _record_look(config, ledger, record)
    types.save(workspace.CHALLENGER, record)
    if record.note:
        log.info("%s", record.note)
    log.info(
        "Challenger version %d: %s rows, %.1f s to fit",
        record.challenger.version,
        f"{record.rows:,}",
        record.fit_seconds,
    )


def _point_to(ledger: Ledger, store: Store, history: Sequence[Entry]) -> None:
    """Write down which ledger the results belong to, and warn where an earlier one is gone: a first champion is judged mildly."""
    types.save(workspace.LEDGER_POINTER, LedgerPointer(store.registered_model, ledger.run_id))
    champion = None if history else types.promoted_champion(store.registered_model)
    if champion is not None:
        log.warning(
            "The ledger of `%s` in this tracking store is empty, though %s names version %d as champion: the store was deleted, or it "
            "is another one. A first champion is trained and compared with the baseline only. If that is not what you want, bring the "
            "store back (with `tracking: local`, mlflow.db and mlruns/), then `dvc repro -f`.",
            store.registered_model,
            workspace.PROMOTION,
            champion,
        )


def _record_look(config: Config, ledger: Ledger, record: ChallengerRecord) -> None:
    """Write down that the configured gate is about to be asked about these predictions: here the store is open anyway.

    Stage `evaluate` then needs it, and MLflow, only where another gate is asked.
    """
    gate = gate_digest(config, record.incumbent is not None)
    look = ledger.record_look(to_look(record, gate))
    record.look, record.unseen, record.looks = look.look, look.unseen, {gate: look.look}


def _decline(reason: str, manifest: Manifest, decision: DecisionRecord) -> None:
    """No challenger: the stages that follow have nothing to do."""
    _write_predictions(pl.DataFrame())
    types.save(
        workspace.CHALLENGER,
        ChallengerRecord(False, reason, manifest.digest, decision.newest_batch),
    )
    if reason != decision.reason:  # which has been said
        log.info("No challenger: %s", reason)


def _train(
    config: Config,
    store: Store,
    snapshot: SnapshotStore,
    plan: TrainingPlan[Model],
    base: ParentModel | None,
    recipe: str,
    decision: DecisionRecord,
) -> ChallengerRecord:
    """Fit, predict and register in one MLflow run."""
    manifest, windows, incumbent = snapshot.manifest(), plan.windows, plan.incumbent
    newest = manifest.labelled[-1].period
    tags = _tags(config, manifest, windows, incumbent) | {
        "policy": decision.policy,
        "decision": decision.reason[:LONGEST_TAG],
    }
    with runs.start_run(store, f"retrain {newest}", config, tags) as run_id:
        log.info("Training %s on rows before %s", tags["model"], windows.evaluation.start.date())
        runs.log_json(dataclasses.asdict(decision), "decision.json")
        training = train(config, manifest, snapshot, windows.training, base)
        rows = _rows_to_judge(config, snapshot, windows.evaluation, incumbent)
        models = {CHALLENGER: Model(training.pipeline, feature_types(config))}
        models |= {INCUMBENT: incumbent.model} if incumbent else {}
        scored = score_rows(models, rows, config)
        predictions = _to_predictions(config, rows, scored, training)
        stored = _log(config, manifest, training, rows, run_id)
        facts = measure_latency(training.pipeline, rows.head(1000), config) | {
            "model_megabytes": stored.size / 1e6
        }
        version = _register(config, store, manifest, training, stored, run_id, recipe, facts)
    lacking = (
        [name for name in incumbent.model.features if name not in rows.columns] if incumbent else []
    )
    if lacking:
        log.warning(
            "The incumbent was trained on %s, which the rows lack: it is scored as missing.",
            ", ".join(lacking),
        )
    judging = batches_in(manifest.labelled, windows.evaluation)
    return ChallengerRecord(
        retrained=True,
        reason="",
        snapshot=manifest.digest,
        newest_batch=newest,
        challenger=_model_record(version, training, stored.sha256),
        incumbent=incumbent.record if incumbent else None,
        run_id=run_id,
        model=tags["model"],
        strategy=tags["strategy"],
        note=training.note,
        rows=training.rows,
        fit_seconds=training.fit_seconds,
        evaluation_start=windows.evaluation.start.isoformat(),
        evaluation_end=windows.evaluation.end.isoformat(),
        evaluation_batches={batch.period: batch.content[:CONTENT_DIGITS] for batch in judging},
        missing_columns=lacking,
        task=config.data.task.name,
        classes=scored.classes,
        unknown_classes={
            name: unknown for name, unknown in scored.unknown_classes.items() if unknown
        },
        new_levels=training.new_levels(rows.filter(pl.col(WINDOW) == EVALUATION)),
        facts=facts,
        recipe=recipe,
        code=runs.code_record(config),
        predictions=_write_predictions(predictions),
    )


def _tags(
    config: Config, manifest: Manifest, windows: Windows, incumbent: Incumbent[Model] | None
) -> dict[str, str]:
    periods = [batch.period for batch in manifest.labelled]
    return {
        "kind": "retraining",
        "model": class_name(config.model.estimator),
        "strategy": class_name(config.strategy),
        "snapshot": manifest.digest,
        "snapshot_dvc": workspace.snapshot_dvc_hash() or "none",
        "batches": f"{periods[0]} to {periods[-1]} ({len(periods)})",
        "evaluation_window": str(windows.evaluation),
        "incumbent_version": str(incumbent.record.version) if incumbent else "none",
    }


def _rows_to_judge(
    config: Config, snapshot: SnapshotStore, evaluation: Window, incumbent: Incumbent[Model] | None
) -> pl.DataFrame:
    """The evaluation rows, then those of the reference windows while there is an incumbent; `window` tells them apart.

    They carry all columns that either model was trained on: a challenger with other features is compared on the same rows.
    """
    labelled = snapshot.manifest().labelled
    columns = {*Schema(config.data).columns, *(incumbent.model.features if incumbent else ())}
    windows = {EVALUATION: evaluation} | (
        plan_references(labelled, config.evaluation) if incumbent else {}
    )
    parts = []
    for name, window in windows.items():
        read = snapshot.read(
            [batch.period for batch in batches_in(labelled, window)], list(columns)
        )
        parts.append(
            window.rows(read, config.data.time_column).with_columns(pl.lit(name).alias(WINDOW))
        )
    return pl.concat(parts, how="diagonal_relaxed")


def _to_predictions(
    config: Config, rows: pl.DataFrame, scored: Scored, training: FittedModel
) -> pl.DataFrame:
    """Window, time, keys, target and every model's scores of each row."""
    columns = list(dict.fromkeys([WINDOW, config.data.time_column, *config.data.key_columns]))
    baseline = training.baseline
    if config.data.task is Task.multiclass:
        baseline = spread_classes(baseline, known_classes(training.pipeline), scored.classes)
    return with_scores(config, rows.select(columns), scored, baseline)


def _log(
    config: Config, manifest: Manifest, training: FittedModel, sample: pl.DataFrame, run_id: str
) -> StoredModel:
    """Data set, figures and model to the active run."""
    import mlflow

    runs.log_dataset(config, manifest, "training")
    mlflow.log_metrics(
        {
            "training/rows": training.rows,
            "training/batches": len(training.contents),
            "training/fit_seconds": training.fit_seconds,
        }
    )
    return runs.log_model(config, training.pipeline, "challenger", sample)


def _register(
    config: Config,
    store: Store,
    manifest: Manifest,
    training: FittedModel,
    stored: StoredModel,
    run_id: str,
    recipe: str,
    facts: dict[str, float],
) -> int:
    """A new version for the logged model, with the alias `challenger`; returns its number."""
    import mlflow

    tags = versions.version_tags(
        training, "challenger", manifest.digest, stored.sha256, recipe, model_digest(config)
    )
    version = versions.register(store, stored.model_id, run_id, tags)
    versions.set_alias(store, versions.CHALLENGER, version)
    mlflow.log_metrics({f"budget/{name}": value for name, value in facts.items()})
    mlflow.set_tags(
        {
            "challenger_version": str(version),
            "strategy_note": training.note,
            "continued_from": ", ".join(map(str, training.lineage)) or "none",
        }
    )
    return version


def _write_predictions(predictions: pl.DataFrame) -> str:
    with workspace.atomic_write(workspace.PREDICTIONS) as temporary:
        predictions.write_parquet(temporary)
    return file_digest(workspace.PREDICTIONS)


def _model_record(version: int, training: FittedModel, sha256: str) -> ModelRecord:
    return ModelRecord(
        version,
        training.window.start.isoformat(),
        training.window.end.isoformat(),
        list(training.contents),
        training.contents,
        sha256,
    )
