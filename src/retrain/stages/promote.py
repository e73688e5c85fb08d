"""Stage `promote`: carry out the verdict, write it down, and show what happened."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime

from retrain import records
from retrain.config import Approval, Config, to_yaml
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window
from retrain.errors import PromotionError
from retrain.modeling.model_files import import_first
from retrain.modeling.training import model_digest, settled, train
from retrain.project import CHALLENGER, COMPARISON, DECISION, PROMOTION, SNAPSHOT, current_commit, in_copy
from retrain.promotion import registry
from retrain.promotion.gate import Verdict
from retrain.promotion.ledger import Entry, Ledger
from retrain.promotion.moves import Circumstances, Refused, plan_entry, plan_refusal
from retrain.records import ChallengerRecord, ComparisonRecord, DecisionRecord, ModelRecord, PromotionRecord
from retrain.reporting import publish
from retrain.reporting.showing import only_shown
from retrain.tracking import runs
from retrain.tracking.store import Store, open_store

log = logging.getLogger("retrain")


def run(config: Config) -> None:
    decision = records.load(DECISION, DecisionRecord, "train")
    trained = records.load(CHALLENGER, ChallengerRecord, "train")
    compared = records.load(COMPARISON, ComparisonRecord, "evaluate")
    if not trained.retrained:
        record = PromotionRecord(
            None, False, decision.champion_version, None, None, registered_model=config.tracking.registered_model
        )
        publish.to_files(config, decision, trained, compared, record)
        records.save(PROMOTION, record)
        log.info("The champion stays as it is: %s", trained.reason)
        return
    if compared.verdict is None or compared.predictions != trained.predictions:
        raise PromotionError(
            f"{COMPARISON} is about other predictions than those of challenger version {trained.challenger.version}: stage `evaluate` "
            "has not judged it yet. Run `dvc repro`. Nothing was changed."
        )
    refits = Verdict(compared.verdict) is Verdict.promote and config.gate.refit
    if refits:
        import_first()
    store = open_store(config)
    ledger = Ledger.open(store)
    newcomer = refit(config, store, trained, ledger.entries()) if refits else trained.challenger
    entry = append(ledger, trained, compared, newcomer, _circumstances(config))
    champion = registry.follow_ledger(store, ledger)
    moved = entry.moved and champion == entry.champion  # a later command may have moved it on
    record = PromotionRecord(
        compared.verdict, moved, champion, entry.previous, entry.seq, entry.candidate, store.registered_model
    )
    drawn = publish.to_files(config, decision, trained, compared, record)
    with only_shown("The comparison in MLflow"):
        publish.to_mlflow(store, trained, compared, record, newcomer, drawn)
    records.save(PROMOTION, record)
    with only_shown("The summary"):
        publish.to_terminal(trained, compared, record)


def _circumstances(config: Config) -> Circumstances:
    return Circumstances(
        comparison=hashlib.sha256(COMPARISON.read_bytes()).hexdigest()[:16],
        config=hashlib.sha256(to_yaml(config).encode()).hexdigest()[:16],
        git_commit=current_commit().sha,
        # Who queues experiments wants to choose among them: none may serve just because it ended last.
        approval_required=config.gate.approval is Approval.required or in_copy(),
    )


def refit(config: Config, store: Store, trained: ChallengerRecord, entries: Sequence[Entry]) -> ModelRecord:
    """The promoted recipe once more, with the evaluation rows included. One that a killed run left behind is taken up."""
    import mlflow

    found = registry.find_version(store, trained.run_id, "refit")
    if found is not None:
        return registry.model_record(found)
    snapshot = SnapshotStore(SNAPSHOT)
    manifest = snapshot.manifest()
    window = Window(datetime.min, datetime.fromisoformat(trained.evaluation_end))
    log.info("Refitting with the evaluation rows included")
    challenger = registry.get_version(store, trained.challenger.version).tags
    lineage, choice = challenger.get("continued_from"), challenger.get("strategy_choice", "")
    base = registry.load_base(config, store, int(lineage.split(", ")[0]), entries) if lineage else None
    training = train(settled(config, choice), manifest, snapshot, window, base)
    sample = snapshot.read([trained.newest_batch]).tail(5)
    with mlflow.start_run(run_id=trained.run_id):
        stored = runs.log_model(config, training.pipeline, "refit", sample)
        mlflow.log_metrics({"refit/rows": training.rows, "refit/fit_seconds": training.fit_seconds})
    tags = registry.version_tags(
        training, "refit", manifest.digest, stored.sha256, trained.recipe, model_digest(config)
    )
    tags |= {"refit_of": str(trained.challenger.version), "strategy_choice": choice}
    version = registry.register(store, stored.model_id, trained.run_id, tags)
    return registry.model_record(registry.get_version(store, version))


def append(
    ledger: Ledger,
    trained: ChallengerRecord,
    compared: ComparisonRecord,
    newcomer: ModelRecord,
    circumstances: Circumstances,
) -> Entry:
    """Write the verdict to the ledger, unless this very verdict is there already; returns its entry.

    Raises Refused, and writes that down as well, when it was overtaken: the verdict was about another champion.
    """
    while True:
        entries = ledger.entries()
        try:
            planned = plan_entry(entries, trained, compared, newcomer, circumstances, ledger.looks())
        except Refused as refused:
            refusal = plan_refusal(entries, trained, compared, newcomer, circumstances, str(refused))
            if refusal is None or ledger.append(refusal, len(entries)):
                raise
            continue
        if planned.seq < len(entries):  # written by a run that died before it could say so
            return planned
        if ledger.append(planned, len(entries)):
            return ledger.entries()[len(entries)]
