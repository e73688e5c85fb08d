"""Stage `promote`: carry out the verdict, write it down, and show what happened."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime

from retrain.config import Approval, Config, to_yaml
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window
from retrain.errors import PromotionError
from retrain.gate.comparison import Comparison
from retrain.models.training import train, with_selected_strategy
from retrain.pipeline.loop import append, is_refitted
from retrain.registry import runs, versions
from retrain.registry.chain import digest_of
from retrain.registry.entries import Entry
from retrain.registry.ledger import Ledger
from retrain.registry.names import fit_text, log_figures
from retrain.registry.store import Store, open_store
from retrain.registry.transitions import AuditContext, Promotion
from retrain.report import notify, publish, review
from retrain.report.best_effort import best_effort
from retrain.report.outcome import Outcome
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
    decision = DecisionRecord.load(DECISION, "train")
    trained = ChallengerRecord.load(CHALLENGER, "train")
    compared = Comparison.load(COMPARISON, "evaluate")
    record = PromotionRecord(
        compared.verdict,
        moved=False,
        champion=decision.champion_version,
        previous=None,
        ledger_entry=None,
        registered_model=config.tracking.registered_model,
    )
    if not trained.retrained:
        outcome = Outcome(decision, trained, compared, record)
        publish.to_files(config, outcome)
        review.write(config.data.metric, outcome)
        record.save(PROMOTION)
        notify.tell_outcome(config.notify, outcome)
        log.info("The champion stays as it is: %s", trained.reason)
        return
    if compared.verdict is None or compared.predictions != trained.predictions:
        raise PromotionError(
            f"{COMPARISON} is about other predictions than those of challenger version "
            f"{trained.registered.version}: stage `evaluate` has not compared it yet. "
            "Nothing was changed.",
            hint="Run `dvc repro`.",
        )
    store = open_store(config)
    ledger = Ledger.open(store)
    version = trained.registered
    if is_refitted(compared.verdict, config.gate.refit):
        version = refit(config, store, trained, ledger.entries())
    entry = append(ledger, Promotion(trained, compared, version, _audit_context(config)))
    champion = versions.follow_ledger(store, ledger)
    record = dataclasses.replace(
        record,
        moved=entry.moved and champion == entry.champion,  # a later command may have moved it on
        champion=champion,
        previous=entry.previous,
        ledger_entry=entry.seq,
        ledger_digest=digest_of(ledger.texts()[: entry.seq + 1]),
        candidate=entry.candidate,
    )
    outcome = Outcome(decision, trained, compared, record)
    with best_effort("The summary"):
        publish.to_terminal(trained, compared, record)
    drawn = publish.to_files(config, outcome, store, ledger.entries())
    review.write(config.data.metric, outcome, drawn)
    with best_effort("The comparison in MLflow"):
        publish.to_mlflow(config, store, trained, compared, record, version, drawn)
    record.save(PROMOTION)
    notify.tell_outcome(config.notify, outcome)


def _audit_context(config: Config) -> AuditContext:
    return AuditContext(
        comparison=hashlib.sha256(COMPARISON.read_bytes()).hexdigest()[:16],
        config=hashlib.sha256(to_yaml(config).encode()).hexdigest()[:16],
        git_commit=current_commit().sha,
        # Who queues experiments wants to choose among them: none may serve since it ended last.
        approval_required=config.gate.approval is Approval.required or in_experiment_copy(),
    )


def refit(
    config: Config, store: Store, trained: ChallengerRecord, entries: Sequence[Entry]
) -> ModelRecord:
    """The promoted recipe once more, with the evaluation rows included.

    One that a killed run left behind is taken up.
    """
    assert trained.run_id is not None
    found = versions.find_refit(store, trained.registered.version)
    if found is not None:
        return found
    snapshot = SnapshotStore(SNAPSHOT)
    window = Window(datetime.min, datetime.fromisoformat(trained.evaluation_end))
    log.info("Refitting with the evaluation rows included")
    version = versions.get_version(store, trained.registered.version)
    challenger, parent = versions.model_record(version), None
    if challenger.continued_from:
        parent = versions.load_parent(config, store, challenger.continued_from[0], entries)
    recipe = with_selected_strategy(config, challenger.strategy_choice)
    fitted = train(recipe, snapshot.manifest(), snapshot, window, parent)
    sample = snapshot.read([trained.newest_batch]).tail(5)
    with runs.start_refit(store, trained.run_id, f"{trained.newest_batch}: refit") as run_id:
        stored = runs.log_model(config, fitted.pipeline, f"refit {trained.newest_batch}", sample)
        metrics = {"rows": fitted.record.rows, "fit_seconds": fitted.fit_seconds}
        figures = {f"training/{name}": value for name, value in metrics.items()}
        log_figures(store.client, run_id, figures)
    record = dataclasses.replace(
        fitted.record,
        role="refit",
        refit_of=challenger.version,
        recipe=trained.recipe,
        strategy_choice=challenger.strategy_choice,
    )
    registered = versions.register(store, stored, run_id, record)
    name = fit_text(f"{trained.newest_batch}: refit v{registered.version}")
    store.client.update_run(run_id, name=name)
    return registered
