"""What the newest batch shows about data and champion, and the policy's decision.

Part of stage `train`; by itself it changes nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from datetime import datetime

from retrain.config import Config, build, class_name
from retrain.data.manifest import CONTENT_DIGITS, Manifest, read_manifest
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, plan_windows
from retrain.errors import DataError
from retrain.models.digests import recipe_digest
from retrain.models.metrics import monitoring_loss
from retrain.monitoring.observation import Observation, observe
from retrain.monitoring.performance import DeployedModel
from retrain.monitoring.policy import Policy, PolicyContext
from retrain.pipeline.policy_context import find_promotion, policy_context
from retrain.registry.entries import VERDICT, Entry, current_champion
from retrain.registry.ledger import Ledger
from retrain.registry.store import Store, open_store, store_exists
from retrain.registry.versions import find_number, get_version, load_version, model_record
from retrain.report import monitor
from retrain.types import Decision, DecisionRecord, Score
from retrain.workspace import MONITORING_CACHE, SNAPSHOT

log = logging.getLogger("retrain")
FIRST = "There is no champion yet, so the first one is trained whatever the policy says."


def run(config: Config) -> None:
    """For a person: what the policy would say now, and why."""
    store, entries = None, []
    if store_exists(config.tracking):
        store = open_store(config)
        entries = Ledger.open(store).entries()
    decision = look(config, read_manifest(SNAPSHOT), store, entries)
    show(decision)
    monitor.to_terminal(decision)
    for period, why in decision.held_back.items():
        log.info("Batch %s is on hold: %s", period, why)


def look(
    config: Config, manifest: Manifest, store: Store | None, entries: Sequence[Entry]
) -> DecisionRecord:
    """Observe and decide.

    Raises DataError when there is no labelled row, ModelError when the champion can't be loaded.
    """
    if not manifest.labelled:
        held = [batch.period for batch in manifest.batches if batch.on_hold]
        why = f" (on hold: {', '.join(held)})" if held else ""
        raise DataError(
            f"The snapshot has no labelled row{why}.",
            hint="Set `data.as_of` to a period whose labels are known; then `dvc repro`.",
        )
    deployed = _deployed(config, store, entries, manifest) if store is not None else None
    snapshot = SnapshotStore(SNAPSHOT)
    observation = observe(config, manifest, snapshot, deployed, MONITORING_CACHE)
    policy = build(Policy, config.policy, "policy")
    context, decision = None, None
    if deployed is not None:
        context = policy_context(
            config,
            manifest.labelled,
            entries,
            observation.scores,
            observation.drift.p_values() if observation.drift else {},
            observation.expected_baseline_loss,
        )
        decision = _trained_on_hold(manifest, deployed)
    if decision is None and store is not None:
        decision = _nothing_new(config, manifest, store, entries)
    if decision is None:
        decision = policy.decide_within_limits(context) if context else Decision(True, FIRST)
    return _record(config, manifest, observation, context, decision, deployed)


def _deployed(
    config: Config, store: Store, entries: Sequence[Entry], manifest: Manifest
) -> DeployedModel | None:
    """The champion, and the version that stands in for it on the rows that it was refitted with."""
    champion = current_champion(entries)
    if champion is None or champion.champion is None or champion.trained_until is None:
        return None
    digest = model_record(get_version(store, champion.champion)).sha256[:16]
    model = load_version(store, champion.champion, config.trusted_types, entries)
    until = datetime.fromisoformat(champion.trained_until)
    unrefitted, unrefitted_until, stand_in = model, until, None
    evaluation = plan_windows(manifest.labelled, config.evaluation).evaluation
    if until > evaluation.start and champion.challenger != champion.champion:
        stand_in = champion.challenger
        unrefitted = load_version(store, stand_in, config.trusted_types, entries)
        unrefitted_until = datetime.fromisoformat(champion.challenger_trained_until)
    # A version that was brought back was compared once, earlier.
    loss = monitoring_loss(config.data.metric, config.data.task)
    promotion, window = find_promotion(entries, champion, loss), None
    if promotion is not None:
        span = promotion.evaluation_start, promotion.evaluation_end
        window = Window(*map(datetime.fromisoformat, span))
    return DeployedModel(
        champion.champion, model, until, unrefitted, unrefitted_until, digest, window, stand_in
    )


def _trained_on_hold(manifest: Manifest, deployed: DeployedModel) -> Decision | None:
    """No retraining where the champion was trained on a batch that is on hold by now.

    What came before can't be compared with it.
    """
    newest = manifest.batches[-1]
    start = newest.first_time
    if not newest.on_hold or start is None or start >= deployed.trained_until:
        return None
    return Decision(
        False,
        f"Batch {newest.period} is on hold, and champion version {deployed.version} was trained on "
        "it: mend it, list it under `monitoring.accept`, or `retrain rollback`. `retrain status` "
        "says why it is on hold.",
    )


def _nothing_new(
    config: Config, manifest: Manifest, store: Store, entries: Sequence[Entry]
) -> Decision | None:
    """No retraining where all that has come since the last verdict is on hold or has no labels.

    The same challenger would be trained again, and compared on the same rows.
    """
    newest, used = manifest.batches[-1], manifest.labelled[-1].period
    last = next((entry for entry in reversed(entries) if entry.kind == VERDICT), None)
    if newest.period == used or last is None or last.newest_batch != used:
        return None
    version = find_number(store, last.challenger)
    if version is None or recipe_digest(config, last.snapshot) != last.recipe:
        return None
    batches = {batch.period: batch.content[:CONTENT_DIGITS] for batch in manifest.labelled}
    if not model_record(version).contents.items() <= batches.items():
        return None
    nothing = "nothing else has come since the last verdict."
    if newest.on_hold:
        reason = f"Batch {newest.period} is on hold, and {nothing} `retrain status` says why."
    else:
        reason = f"The labels of batch {newest.period} are not there yet, and {nothing}"
    if last.champion is None:
        reason += (
            f" There is no champion: challenger version {last.challenger}, of the same recipe and "
            f"the same rows, got the verdict {last.verdict}. Mend or accept the batch, change the "
            f"recipe, or, to ask another gate, set `data.as_of: {used}`; then `dvc repro`."
        )
    return Decision(False, reason)


def _record(
    config: Config,
    manifest: Manifest,
    observation: Observation,
    context: PolicyContext | None,
    decision: Decision,
    deployed: DeployedModel | None,
) -> DecisionRecord:
    newest, drift = manifest.labelled[-1], observation.drift
    record = DecisionRecord(
        retrain=decision.retrain,
        reason=decision.reason,
        policy=class_name(config.policy),
        figures={
            name: float(value) for name, value in decision.figures.items() if math.isfinite(value)
        },
        snapshot=manifest.digest,
        newest_batch=newest.period,
        new_rows=context.new_rows if context else newest.rows,
        champion_version=deployed.version if deployed else None,
        loss=monitoring_loss(config.data.metric, config.data.task),
        scores=observation.scores,
        expected=observation.expected,
        decay=context.decay if context else None,
        held_back={batch.period: batch.why_on_hold for batch in manifest.batches if batch.on_hold},
    )
    if drift is None:
        return record
    return dataclasses.replace(
        record,
        watched_batch=drift.batch,
        reference_batch=drift.reference,
        alarms=drift.alarms(config.monitoring.false_alarm_rate),
        families=drift.families,
        features={
            name: dataclasses.replace(
                drift.features[name], importance=observation.importance.get(name)
            )
            for name in observation.ranked()
        },
        news=drift.schema_changes,
    )


def show(record: DecisionRecord) -> None:
    """The decision and what led to it, in the log."""
    for line in describe(record):
        log.info("%s", line)


def describe(record: DecisionRecord) -> list[str]:
    """What was seen, a line each."""
    lines = [f"{'Retrain' if record.retrain else 'No retraining'}: {record.reason}"]
    for score in record.scores[-3:]:
        known = score.low is not None and score.high is not None
        spread = f" [{score.low:.4f}, {score.high:.4f}]" if known else ""
        rows = f"on batch {score.period}"
        if score.version is not None:
            rows = f"on the rows of batch {score.period} that it was not trained on"
        lines.append(f"{_whose(record, score)} has {record.loss} {score.value:.4f}{spread} {rows}")
    lines += [
        f"{_whose(record, score)} is expected to have {record.loss} {score.value:.4f} "
        f"on batch {score.period}, whose labels are late"
        for score in record.expected
    ]
    if record.alarms:
        lines.append(
            f"Drift of {', '.join(record.alarms)} in batch {record.watched_batch} against "
            f"{record.reference_batch}; look at {', '.join(list(record.features)[:3])} first"
        )
    if record.news:
        lines.append(f"Schema changes in batch {record.watched_batch}: {'; '.join(record.news)}")
    return lines


def _whose(record: DecisionRecord, score: Score) -> str:
    """The version that a loss is of: the champion, or its version before the refit."""
    if score.version is None:
        return f"Champion version {record.champion_version}"
    return f"Version {score.version} (champion version {record.champion_version} before its refit)"
