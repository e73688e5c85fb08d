"""Stage `monitor`: look at the newest batch and ask the policy whether to retrain."""

from __future__ import annotations

import logging

from retrain import records
from retrain.config import Config, instantiate
from retrain.data.manifest import read_manifest
from retrain.errors import DataError
from retrain.monitoring.policies import Decision, Evidence, Policy
from retrain.project import DECISION, SNAPSHOT
from retrain.records import DecisionRecord
from retrain.tracking.store import store_may_exist

log = logging.getLogger("retrain")
FIRST = Decision(True, "There is no champion yet, so the first one is trained whatever the policy says.")


def run(config: Config) -> None:
    manifest = read_manifest(SNAPSHOT)
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
        from retrain.monitoring.champion import score_champion

        champion, score = score_champion(config, manifest)
    evidence = Evidence(newest.period, newest.rows, newest.positives / newest.rows, share, champion, score)
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
        log.info("Champion version %d has log loss %.4f on batch %s", champion, score, newest.period)
