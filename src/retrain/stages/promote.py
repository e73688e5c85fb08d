"""Stage `promote`: carry out the verdict, write it down, and show what happened."""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime

from retrain import records
from retrain.config import Config
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window
from retrain.modeling.model_files import import_first
from retrain.modeling.training import train
from retrain.project import CHALLENGER, COMPARISON, PROMOTION, SNAPSHOT, current_commit
from retrain.promotion import registry
from retrain.promotion.gate import Verdict
from retrain.promotion.ledger import Entry, Ledger
from retrain.promotion.moves import plan_entry
from retrain.records import ChallengerRecord, ComparisonRecord, ModelRecord, PromotionRecord
from retrain.reporting import publish
from retrain.tracking import runs
from retrain.tracking.store import Store, open_store

log = logging.getLogger("retrain")


def run(config: Config) -> None:
    trained = records.load(CHALLENGER, ChallengerRecord, "train")
    compared = records.load(COMPARISON, ComparisonRecord, "evaluate")
    if not trained.retrained:
        record = PromotionRecord(None, False, None, None, None)
        publish.to_files(config, trained, compared, record)
        records.save(PROMOTION, record)
        log.info("The champion stays as it is: %s", trained.reason)
        return
    promoted = Verdict(compared.verdict) is Verdict.promote
    if promoted and config.gate.refit:
        import_first()
    store = open_store(config)
    ledger = Ledger.open(store)
    newcomer = trained.challenger
    if promoted and config.gate.refit:
        newcomer = refit(config, store, trained)
    entry = append(ledger, trained, compared, newcomer)
    registry.follow_ledger(store, ledger)
    record = PromotionRecord(compared.verdict, entry.moved, entry.champion, entry.previous, entry.seq)
    drawn = publish.to_files(config, trained, compared, record)
    publish.to_mlflow(store, trained, compared, record, newcomer, drawn)
    records.save(PROMOTION, record)
    publish.to_terminal(trained, compared, record)


def refit(config: Config, store: Store, trained: ChallengerRecord) -> ModelRecord:
    """The promoted recipe once more, with the evaluation rows included. One that a killed run left behind is taken up."""
    import mlflow

    found = registry.find_version(store, trained.run_id, "refit")
    if found is not None:
        tags = found.tags
        return ModelRecord(int(found.version), tags["trained_from"], tags["trained_until"], tags["batches"].split(", "))
    snapshot = SnapshotStore(SNAPSHOT)
    manifest = snapshot.manifest()
    window = Window(datetime.min, datetime.fromisoformat(trained.evaluation_end))
    log.info("Refitting with the evaluation rows included")
    training = train(config, manifest, snapshot, window)
    sample = snapshot.read([trained.newest_batch]).tail(5)
    with mlflow.start_run(run_id=trained.run_id):
        model_id, sha256 = runs.log_model(config, training.pipeline, "refit", sample)
        mlflow.log_metrics({"refit/rows": training.rows, "refit/fit_seconds": training.fit_seconds})
    tags = registry.version_tags(training, "refit", manifest.digest, sha256) | {
        "refit_of": str(trained.challenger.version)
    }
    version = registry.register(store, model_id, trained.run_id, tags)
    return ModelRecord(version, tags["trained_from"], tags["trained_until"], list(training.batches))


def append(ledger: Ledger, trained: ChallengerRecord, compared: ComparisonRecord, newcomer: ModelRecord) -> Entry:
    """Write the verdict to the ledger, unless this very verdict is there already; returns its entry.

    Raises PromotionError when the champion has moved since the comparison: the verdict was about another one.
    """
    digest = hashlib.sha256(COMPARISON.read_bytes()).hexdigest()[:16]
    while True:
        entries = ledger.entries()
        planned = plan_entry(entries, trained, compared, newcomer, digest, current_commit().sha)
        if planned.seq < len(entries):  # written by a run that died before it could say so
            return planned
        if ledger.append(planned, len(entries)):
            return ledger.entries()[len(entries)]
