"""Stage `monitor`: look at the newest batch and ask the policy whether to retrain."""

from __future__ import annotations

import logging

from retrain import records
from retrain.config import Config, Task, instantiate
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
    share = None
    if earlier_rows and newest.target_mean is not None:
        share = sum(batch.target_mean * batch.rows for batch in earlier) / earlier_rows
    champion, score = None, None
    policy: Policy = instantiate(config.policy, "policy")
    # Champion and ledger live in MLflow: importing it costs seconds, so only a policy that looks at them pays.
    if policy.needs_champion and store_may_exist(config.tracking):
        from retrain.monitoring.champion import score_champion

        champion, score = score_champion(config, manifest)
    evidence = Evidence(newest.period, newest.rows, newest.target_mean, share, champion, score)
    decision = FIRST if policy.needs_champion and champion is None else policy.decide(evidence)
    record = DecisionRecord(
        retrain=decision.retrain,
        reason=decision.reason,
        policy=type(policy).__name__,
        snapshot=manifest.digest,
        newest_batch=newest.period,
        new_rows=newest.rows,
        target_mean=evidence.target_mean,
        earlier_target_mean=share,
        champion_version=evidence.champion_version,
        champion_score=score,
    )
    records.save(DECISION, record)
    log.info("%s: %s", "Retrain" if decision.retrain else "No retraining", decision.reason)
    if share is not None and config.data.task is Task.binary:
        log.info("Positives: %.1f %% of batch %s, %.1f %% before", 100 * newest.target_mean, newest.period, 100 * share)
    elif share is not None:
        log.info("Mean of the target: %.4g in batch %s, %.4g before", newest.target_mean, newest.period, share)
    if score is not None:
        from retrain.modeling.metrics import loss_beside

        loss = loss_beside(config.data.metric, config.data.task)
        log.info("Champion version %d has %s %.4f on batch %s", champion, loss, score, newest.period)
