"""Stage `train`: ask the policy, fit and register the challenger, and write the predictions.

Predictions are those of challenger and incumbent on the evaluation rows: stage `evaluate` and
replays of gates need no model.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from retrain import workspace
from retrain.config import Config, Task, build, class_name, feature_types
from retrain.data.manifest import CONTENT_DIGITS, Manifest
from retrain.data.schema import Schema
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, batches_in, plan_references
from retrain.gate.alpha_spending import to_look
from retrain.gate.decision import gate_digest
from retrain.gate.estimates import CHALLENGER, EVALUATION, INCUMBENT, WINDOW
from retrain.lazy import mlflow
from retrain.models.digests import recipe_digest
from retrain.models.fitting import known_classes
from retrain.models.importance import sampled_importance
from retrain.models.model_files import file_digest
from retrain.models.scoring import Model, Scored, score_rows, spread_classes
from retrain.models.strategy import Strategy
from retrain.models.training import FittedModel, measure_latency, train
from retrain.pipeline import observe
from retrain.pipeline.loop import plan_training
from retrain.pipeline.plan import Incumbent, TrainingPlan
from retrain.pipeline.predictions import with_scores
from retrain.registry import runs, versions
from retrain.registry.entries import Entry, rolled_back
from retrain.registry.ledger import Ledger
from retrain.registry.monitoring_run import log_monitoring
from retrain.registry.names import LONGEST_TAG, log_figures
from retrain.registry.store import Store, open_store
from retrain.results import promoted_champion
from retrain.types import (
    ChallengerRecord,
    DecisionRecord,
    LedgerPointer,
    ModelRecord,
)

LATENCY_ROWS = 1000
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
    manifest, store = snapshot.manifest(), open_store(config)
    ledger = Ledger.open(store)
    versions.follow_ledger(store, ledger)
    runs.end_abandoned(store)
    entries = ledger.entries()
    _point_to(ledger, store, entries)
    decision = observe.look(config, manifest, store, entries)
    decision.save(workspace.DECISION)
    observe.show(decision)
    if decision.champion_version is not None:
        log_monitoring(store, decision, len(manifest.labelled))
    refusal = _rolled_back(config, manifest, entries) if decision.retrain else decision.reason
    if refusal:
        _decline(refusal, decision)
        return
    # Planned before the fit: an incumbent that can't be loaded must not cost a training first.
    continues = build(Strategy, config.strategy, "strategy").continues
    models = Registry(config, store, entries)
    plan = plan_training(config, manifest.labelled, entries, models, continues)
    trained = _train(models, snapshot, plan, decision)
    # Recorded here, where the store is open: stage `evaluate` then needs it only for other gates.
    gate = gate_digest(config, trained.incumbent is not None)
    look = ledger.record_look(to_look(trained, gate))
    trained = dataclasses.replace(
        trained, look=look.look, unseen=look.unseen, looks={gate: look.look}
    )
    trained.save(workspace.CHALLENGER)
    if trained.note:
        log.info("%s", trained.note)
    log.info(
        "Challenger version %d: %s rows, %.1f s to fit",
        trained.registered.version,
        f"{trained.rows:,}",
        trained.fit_seconds,
    )


def _point_to(ledger: Ledger, store: Store, entries: Sequence[Entry]) -> None:
    """Write down which ledger the results belong to, and warn where an earlier one is gone."""
    LedgerPointer(store.registered_model, ledger.run_id).save(workspace.LEDGER_POINTER)
    champion = None if entries else promoted_champion(store.registered_model)
    if champion is not None:
        log.warning(
            "The ledger of `%s` in this tracking store is empty, though %s names version %d as "
            "champion: the store was deleted, or it is another one. A first champion is trained "
            "and compared with the baseline only. If that is not what you want, bring the store "
            "back (with `tracking: local`, mlflow.db and mlruns/), then `dvc repro -f`.",
            store.registered_model,
            workspace.PROMOTION,
            champion,
        )


def _rolled_back(config: Config, manifest: Manifest, entries: Sequence[Entry]) -> str:
    """Why this recipe is not trained again on this snapshot, empty where nothing is against it."""
    rollback = rolled_back(entries, recipe_digest(config, manifest.digest))
    if rollback is None:
        return ""
    return (
        f"This recipe on this snapshot gave version {rollback.previous}, which {rollback.who} "
        f"rolled back (ledger entry {rollback.seq}: {rollback.reason}). Change the recipe, let a "
        "new batch arrive, or bring the version back: "
        f'retrain promote {rollback.previous} --reason "..."'
    )


def _decline(reason: str, decision: DecisionRecord) -> None:
    """No challenger: the stages that follow have nothing to do."""
    _write_predictions(pl.DataFrame())
    trained = ChallengerRecord(False, reason, decision.snapshot, decision.newest_batch)
    trained.save(workspace.CHALLENGER)
    if reason != decision.reason:  # which has been logged
        log.info("No challenger: %s", reason)


def _train(
    models: Registry,
    snapshot: SnapshotStore,
    plan: TrainingPlan[Model],
    decision: DecisionRecord,
) -> ChallengerRecord:
    """Fit, predict and register in one MLflow run."""
    config, store, incumbent = models.config, models.store, plan.incumbent
    manifest, evaluation = snapshot.manifest(), plan.windows.evaluation
    parent = None
    if plan.parent is not None:
        parent = versions.load_parent(config, store, plan.parent, models.entries)
    tags = _tags(config, manifest, plan, decision)
    with runs.start_run(store, f"retrain {decision.newest_batch}", config, tags) as run_id:
        log.info("Training %s on rows before %s", tags["model"], evaluation.start.date())
        mlflow.log_dict(decision.content(), "decision.json")
        fitted = train(config, manifest, snapshot, plan.windows.training, parent)
        rows = _rows_to_compare(config, snapshot, evaluation, incumbent)
        compared = {CHALLENGER: Model(fitted.pipeline, feature_types(config))}
        compared |= {INCUMBENT: incumbent.model} if incumbent else {}
        scored = score_rows(compared, rows, config)
        predictions = _to_predictions(config, rows, scored, fitted)
        evaluated = rows.filter(pl.col(WINDOW) == EVALUATION)
        facts = measure_latency(fitted.pipeline, rows.head(LATENCY_ROWS), config)
        runs.log_dataset(config, manifest, "training")
        name = f"challenger {decision.newest_batch}"
        stored = runs.log_model(config, fitted.pipeline, name, rows)
        facts["model_megabytes"] = stored.size / 1e6
        challenger = versions.register(store, stored, run_id, fitted.record)
        versions.set_alias(store, versions.CHALLENGER, challenger.version)
        _log_fit(store, run_id, fitted, challenger, facts)
    batches = batches_in(manifest.labelled, evaluation)
    return ChallengerRecord(
        retrained=True,
        reason=decision.reason,
        snapshot=manifest.digest,
        newest_batch=decision.newest_batch,
        challenger=challenger,
        incumbent=incumbent.record if incumbent else None,
        run_id=run_id,
        model=tags["model"],
        strategy=tags["strategy"],
        note=fitted.note,
        rows=challenger.rows,
        fit_seconds=fitted.fit_seconds,
        evaluation_start=evaluation.start.isoformat(),
        evaluation_end=evaluation.end.isoformat(),
        evaluation_batches={batch.period: batch.content[:CONTENT_DIGITS] for batch in batches},
        missing_columns=_missing_columns(incumbent, rows),
        task=config.data.task.name,
        classes=scored.classes,
        unknown_classes={name: found for name, found in scored.unknown_classes.items() if found},
        new_levels=fitted.new_levels(evaluated),
        facts=facts,
        recipe=challenger.recipe,
        code=runs.code_record(config),
        importance=sampled_importance(compared, evaluated, config),
        decay=decision.decay,
        ledger_length=len(models.entries),
        predictions=_write_predictions(predictions),
    )


def _tags(
    config: Config, manifest: Manifest, plan: TrainingPlan[Model], decision: DecisionRecord
) -> dict[str, str]:
    periods = [batch.period for batch in manifest.labelled]
    return {
        "kind": "retraining",
        "model": class_name(config.model.estimator),
        "strategy": class_name(config.strategy),
        "snapshot": manifest.digest,
        "snapshot_dvc": workspace.snapshot_dvc_hash() or "none",
        "batches": f"{periods[0]} to {periods[-1]} ({len(periods)})",
        "evaluation_window": str(plan.windows.evaluation),
        "incumbent_version": str(plan.incumbent.record.version) if plan.incumbent else "none",
        "policy": decision.policy,
        "decision": decision.reason[:LONGEST_TAG],
    }


def _rows_to_compare(
    config: Config, snapshot: SnapshotStore, evaluation: Window, incumbent: Incumbent[Model] | None
) -> pl.DataFrame:
    """The evaluation rows, then those of the reference windows while there is an incumbent.

    `window` tells them apart. They carry all columns that either model was trained on: a challenger
    with other features is compared on the same rows.
    """
    labelled = snapshot.manifest().labelled
    columns, windows = set(Schema(config.data).columns), {EVALUATION: evaluation}
    if incumbent:
        columns |= set(incumbent.model.features)
        windows |= plan_references(labelled, config.evaluation)
    parts = []
    for name, window in windows.items():
        periods = [batch.period for batch in batches_in(labelled, window)]
        rows = window.rows(snapshot.read(periods, list(columns)), config.data.time_column)
        parts.append(rows.with_columns(pl.lit(name).alias(WINDOW)))
    return pl.concat(parts, how="diagonal_relaxed")


def _missing_columns(incumbent: Incumbent[Model] | None, rows: pl.DataFrame) -> list[str]:
    features = incumbent.model.features if incumbent else ()
    missing = [name for name in features if name not in rows.columns]
    if missing:
        log.warning(
            "The incumbent was trained on %s, which the rows lack: it is scored as missing.",
            ", ".join(missing),
        )
    return missing


def _to_predictions(
    config: Config, rows: pl.DataFrame, scored: Scored, fitted: FittedModel
) -> pl.DataFrame:
    """Window, time, keys, target and every model's scores of each row."""
    columns = list(dict.fromkeys([WINDOW, config.data.time_column, *config.data.key_columns]))
    baseline = fitted.baseline
    if config.data.task is Task.multiclass:
        baseline = spread_classes(baseline, known_classes(fitted.pipeline), scored.classes)
    return with_scores(config, rows.select(columns), scored, baseline)


def _log_fit(
    store: Store,
    run_id: str,
    fitted: FittedModel,
    challenger: ModelRecord,
    facts: dict[str, float],
) -> None:
    """Figures and tags of the fit to the active run; not to its model, where MLflow's own
    functions put them too, without a data set."""
    figures = {
        "training/rows": challenger.rows,
        "training/batches": len(challenger.batches),
        "training/fit_seconds": fitted.fit_seconds,
    }
    budget = {f"budget/{name}": value for name, value in facts.items()}
    log_figures(store.client, run_id, figures | budget)
    mlflow.set_tags(
        {
            "challenger_version": str(challenger.version),
            "strategy_note": fitted.note,
            "continued_from": ", ".join(map(str, challenger.continued_from)) or "none",
        }
    )


def _write_predictions(predictions: pl.DataFrame) -> str:
    with workspace.atomic_write(workspace.PREDICTIONS) as temporary:
        predictions.write_parquet(temporary)
    return file_digest(workspace.PREDICTIONS)
