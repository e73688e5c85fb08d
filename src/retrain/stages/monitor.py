"""Stage `monitor`: look at the newest batch and ask the policy whether to retrain."""

from __future__ import annotations

import logging
from datetime import datetime

from retrain import records
from retrain.config import Config, instantiate
from retrain.data.snapshot import Manifest, SnapshotStore
from retrain.data.windows import Window, block_of, plan_windows
from retrain.errors import DataError
from retrain.modeling.metrics import row_log_loss
from retrain.modeling.model_files import import_first
from retrain.monitoring.policies import Decision, Evidence, Policy
from retrain.project import DECISION, SNAPSHOT
from retrain.records import DecisionRecord, ModelRecord
from retrain.tracking.store import open_store, store_may_exist

log = logging.getLogger("retrain")
FIRST = Decision(True, "There is no champion yet, so the first one is trained whatever the policy says.")


def run(config: Config) -> None:
    snapshot = SnapshotStore(SNAPSHOT)
    manifest = snapshot.manifest()
    labelled = manifest.labelled
    if not labelled:
        raise DataError(
            "The snapshot has no labelled row. Set `data.as_of` to a period whose labels are known; then `dvc repro`."
        )
    newest, earlier = labelled[-1], labelled[:-1]
    earlier_rows = sum(batch.rows for batch in earlier)
    share = sum(batch.positives for batch in earlier) / earlier_rows if earlier_rows else None
    champion, score = None, None
    policy: Policy = instantiate(config.policy, "policy")
    # Champion and ledger live in MLflow: importing it costs seconds, so only a policy that looks at them pays.
    if policy.needs_champion and store_may_exist(config.tracking):
        champion, score = _score_champion(config, manifest, snapshot)
    evidence = Evidence(
        newest.period, newest.rows, newest.positives / newest.rows, share, champion and champion.version, score
    )
    decision = FIRST if policy.needs_champion and champion is None else policy.decide(evidence)
    record = DecisionRecord(
        retrain=decision.retrain,
        reason=decision.reason,
        policy=type(policy).__name__,
        snapshot=manifest.digest,
        newest_batch=newest.period,
        new_rows=newest.rows,
        positive_share=evidence.positive_share,
        earlier_positive_share=share,
        champion_version=evidence.champion_version,
        champion_log_loss=score,
    )
    records.save(DECISION, record)
    log.info("%s: %s", "Retrain" if decision.retrain else "No retraining", decision.reason)
    if share is not None:
        log.info(
            "Positives: %.1f %% of batch %s, %.1f %% before", 100 * evidence.positive_share, newest.period, 100 * share
        )
    if score is not None:
        log.info("Champion version %d has log loss %.4f on batch %s", champion.version, score, newest.period)


def _score_champion(
    config: Config, manifest: Manifest, snapshot: SnapshotStore
) -> tuple[ModelRecord | None, float | None]:
    """The incumbent and its log loss on those rows of the newest batch that it wasn't trained on."""
    import_first()
    from retrain.modeling.pipeline import predict, to_target
    from retrain.promotion.ledger import Ledger, find_incumbent
    from retrain.promotion.registry import load_version

    windows = plan_windows(manifest.labelled, config.evaluation.share_of_newest_batch, block_of(config.evaluation))
    store = open_store(config)
    incumbent = find_incumbent(Ledger.open(store).entries(), windows.evaluation.start.isoformat())
    if incumbent is None:
        return None, None
    unseen = Window(datetime.fromisoformat(incumbent.trained_until), windows.evaluation.end)
    rows = unseen.rows(snapshot.read([manifest.labelled[-1].period]), config.data.time_column)
    scores = predict(load_version(store, incumbent.version, config.trusted_types), rows, config)
    return incumbent, float(row_log_loss(to_target(rows, config), scores).mean())
