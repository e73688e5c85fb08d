"""Stage `promote`: carry out the verdict, write it down, and show what happened."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime

from retrain import types
from retrain.config import Approval, Config, to_yaml
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window
from retrain.errors import PromotionError
from retrain.gate.comparison import Comparison
from retrain.models.digests import model_digest
from retrain.models.training import train, with_selected_strategy
from retrain.pipeline.loop import append, is_refitted
from retrain.registry import runs, versions
from retrain.registry.ledger import Entry, Ledger
from retrain.registry.store import Store, open_store
from retrain.registry.transitions import AuditContext
from retrain.report import publish
from retrain.report.best_effort import best_effort
from retrain.types import (
    ChallengerRecord,
    DecisionRecord,
    ModelRecord,
    PromotionRecord,
)
from retrain.workspace import (
    CHALLENGER,
    COMPARISON,
    DECISION,
    PROMOTION,
    SNAPSHOT,
    current_commit,
    in_experiment_copy,
)

log = logging.getLogger("retrain")


def run(config: Config) -> None:
    decision = types.load(DECISION, DecisionRecord, "train")
    trained = types.load(CHALLENGER, ChallengerRecord, "train")
    compared = types.load(COMPARISON, Comparison, "evaluate")
    if not trained.retrained:
        record = PromotionRecord(
            None,
            False,
            decision.champion_version,
            None,
            None,
            registered_model=config.tracking.registered_model,
        )
        publish.to_files(config, decision, trained, compared, record)
        types.save(PROMOTION, record)
        log.info("The champion stays as it is: %s", trained.reason)
        return
    if compared.verdict is None or compared.predictions != trained.predictions:
        raise PromotionError(
            f"{COMPARISON} is about other predictions than those of challenger version {trained.challenger.version}: stage `evaluate` "
            "has not judged it yet. Run `dvc repro`. Nothing was changed."
        )
    refits = is_refitted(compared.verdict, config.gate.refit)
    store = open_store(config)
    ledger = Ledger.open(store)
    new_version = refit(config, store, trained, ledger.entries()) if refits else trained.challenger
    entry = append(ledger, trained, compared, new_version, _circumstances(config))
    champion = versions.follow_ledger(store, ledger)
    moved = entry.moved and champion == entry.champion  # a later command may have moved it on
    record = PromotionRecord(
        compared.verdict,
        moved,
        champion,
        entry.previous,
        entry.seq,
        entry.candidate,
        store.registered_model,
    )
    drawn = publish.to_files(config, decision, trained, compared, record)
    with best_effort("The comparison in MLflow"):
        publish.to_mlflow(store, trained, compared, record, new_version, drawn)
    types.save(PROMOTION, record)
    with best_effort("The summary"):
        publish.to_terminal(trained, compared, record)


def _circumstances(config: Config) -> AuditContext:
    return AuditContext(
        comparison=hashlib.sha256(COMPARISON.read_bytes()).hexdigest()[:16],
        config=hashlib.sha256(to_yaml(config).encode()).hexdigest()[:16],
        git_commit=current_commit().sha,
        # Who queues experiments wants to choose among them: none may serve just because it ended last.
        approval_required=config.gate.approval is Approval.required or in_experiment_copy(),
    )


def refit(
    config: Config, store: Store, trained: ChallengerRecord, entries: Sequence[Entry]
) -> ModelRecord:
    """The promoted recipe once more, with the evaluation rows included. One that a killed run left behind is taken up."""
    import mlflow

    found = versions.find_version(store, trained.run_id, "refit")
    if found is not None:
        return versions.model_record(found)
    snapshot = SnapshotStore(SNAPSHOT)
    manifest = snapshot.manifest()
    window = Window(datetime.min, datetime.fromisoformat(trained.evaluation_end))
    log.info("Refitting with the evaluation rows included")
    challenger = versions.get_version(store, trained.challenger.version).tags
    lineage, choice = challenger.get("continued_from"), challenger.get("strategy_choice", "")
    base = (
        versions.load_parent(config, store, int(lineage.split(", ")[0]), entries)
        if lineage
        else None
    )
    training = train(with_selected_strategy(config, choice), manifest, snapshot, window, base)
    sample = snapshot.read([trained.newest_batch]).tail(5)
    with mlflow.start_run(run_id=trained.run_id):
        stored = runs.log_model(config, training.pipeline, "refit", sample)
        mlflow.log_metrics({"refit/rows": training.rows, "refit/fit_seconds": training.fit_seconds})
    tags = versions.version_tags(
        training, "refit", manifest.digest, stored.sha256, trained.recipe, model_digest(config)
    )
    tags |= {"refit_of": str(trained.challenger.version), "strategy_choice": choice}
    version = versions.register(store, stored.model_id, trained.run_id, tags)
    return versions.model_record(versions.get_version(store, version))
