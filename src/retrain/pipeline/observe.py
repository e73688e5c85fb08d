"""What the newest batch says about data and champion, and the policy's decision. Part of stage `train`; by itself it changes nothing."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from retrain.config import Config, build, class_name
from retrain.data.manifest import CONTENT_DIGITS, Manifest, read_manifest
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, plan_windows
from retrain.errors import DataError
from retrain.models.digests import recipe_digest
from retrain.models.metrics import monitoring_loss
from retrain.monitoring.policy import Decision, Policy, PolicyContext, Score
from retrain.pipeline.loop import find_promotion, policy_context
from retrain.registry.store import Store, open_store, store_exists
from retrain.types import ChangeRecord, DecisionRecord, ScoreRecord
from retrain.workspace import MONITORING_CACHE, SNAPSHOT

if TYPE_CHECKING:
    from retrain.monitoring.drift import Change
    from retrain.monitoring.observation import Observation
    from retrain.monitoring.performance import DeployedModel
    from retrain.registry.ledger import Entry

log = logging.getLogger("retrain")
FIRST = Decision(
    True, "There is no champion yet, so the first one is trained whatever the policy says."
)


def run(config: Config) -> None:
    """For a person: what the policy would say now, and why."""
    manifest = read_manifest(SNAPSHOT)
    store, entries = None, []
    if store_exists(config.tracking):
        from retrain.registry.ledger import Ledger

        store = open_store(config)
        entries = Ledger.open(store).entries()
    decision = look(config, manifest, store, entries)
    show(decision)
    for period, why in decision.held_back.items():
        log.info("Batch %s is on hold: %s", period, why)


def look(
    config: Config, manifest: Manifest, store: Store | None, entries: Sequence[Entry]
) -> DecisionRecord:
    """Observe and decide. Raises DataError when there is no labelled row, ModelError when the champion can't be loaded."""
    from retrain.monitoring.observation import observe

    if not manifest.labelled:
        held = [batch.period for batch in manifest.batches if batch.on_hold]
        why = f" (on hold: {', '.join(held)})" if held else ""
        raise DataError(
            f"The snapshot has no labelled row{why}. Set `data.as_of` to a period whose labels are known; then `dvc repro`."
        )
    watched = _watched(config, store, entries, manifest) if store is not None else None
    snapshot = SnapshotStore(SNAPSHOT)
    observation: Observation = observe(config, manifest, snapshot, watched, MONITORING_CACHE)
    policy = build(Policy, config.policy, "policy")
    situation = None
    if watched is None:
        decision = (
            _nothing_new(config, manifest, store, entries) if store is not None else None
        ) or FIRST
    else:
        drift = observation.drift.families if observation.drift else {}
        situation = policy_context(
            config,
            manifest.labelled,
            entries,
            observation.scores,
            {name: change.p_value for name, change in drift.items()},
            observation.expected_baseline_loss,
        )
        decision = _trained_on_hold(manifest, watched) or _nothing_new(
            config, manifest, store, entries
        )
        decision = decision or policy.decide_within_limits(situation)
    return _record(config, manifest, observation, situation, decision, watched)


def _watched(
    config: Config, store: Store, entries: Sequence[Entry], manifest: Manifest
) -> DeployedModel | None:
    from retrain.monitoring.performance import DeployedModel
    from retrain.registry.ledger import current_champion
    from retrain.registry.versions import get_version, load_version

    champion = current_champion(entries)
    if champion is None:
        return None
    digest = get_version(store, champion.champion).tags.get("model_sha256", "")[:16]
    model = load_version(store, champion.champion, config.trusted_types, entries)
    until = datetime.fromisoformat(champion.trained_until)
    unrefitted, unrefitted_until, twin_version = model, until, None
    if (
        until > plan_windows(manifest.labelled, config.evaluation).evaluation.start
        and champion.challenger != champion.champion
    ):
        twin_version = champion.challenger
        unrefitted = load_version(store, twin_version, config.trusted_types, entries)
        unrefitted_until = datetime.fromisoformat(champion.challenger_trained_until)
    # A version that was brought back was compared once, earlier.
    loss = monitoring_loss(config.data.metric, config.data.task)
    promotion, window = find_promotion(entries, champion, loss), None
    if promotion is not None:
        span = promotion.evaluation_start, promotion.evaluation_end
        window = Window(*map(datetime.fromisoformat, span))
    return DeployedModel(
        champion.champion,
        model,
        until,
        unrefitted,
        unrefitted_until,
        digest,
        window,
        twin_version,
    )


def _trained_on_hold(manifest: Manifest, watched: DeployedModel) -> Decision | None:
    """A no, whatever the policy: the champion was trained on a batch that is on hold by now, so what came before can't judge it."""
    newest = manifest.batches[-1]
    if (
        not newest.on_hold
        or newest.first_time is None
        or newest.first_time >= watched.trained_until
    ):
        return None
    return Decision(
        False,
        f"Batch {newest.period} is on hold, and champion version {watched.version} was trained on it: mend it, list it under "
        f"`monitoring.accept`, or `retrain rollback`. `retrain status` says why it is on hold.",
    )


def _nothing_new(
    config: Config, manifest: Manifest, store: Store, entries: Sequence[Entry]
) -> Decision | None:
    """A no, whatever the policy: all that has come since the last verdict is on hold, or waits for its labels. The same challenger
    would be trained again, and judged on the same rows."""
    from retrain.registry.ledger import VERDICT
    from retrain.registry.versions import find_number, model_record

    newest, used = manifest.batches[-1], manifest.labelled[-1].period
    last = next((entry for entry in reversed(entries) if entry.kind == VERDICT), None)
    if (
        newest.period == used
        or last is None
        or last.newest_batch != used
        or not _same_recipe(config, last)
    ):
        return None
    version = find_number(store, last.challenger)
    if version is None:
        return None
    batches = {batch.period: batch.content[:CONTENT_DIGITS] for batch in manifest.labelled}
    if any(
        batches.get(period) != content for period, content in model_record(version).contents.items()
    ):
        return None
    if newest.on_hold:
        reason = f"Batch {newest.period} is on hold, and nothing else has come since the last verdict. `retrain status` says why."
    else:
        reason = f"The labels of batch {newest.period} are not there yet, and nothing else has come since the last verdict."
    if last.champion is None:
        reason += (
            f" There is no champion: challenger version {last.challenger}, of the same recipe and the same rows, got the verdict "
            f"{last.verdict}. Mend or accept the batch, change the recipe, or, to ask another gate, set `data.as_of: {used}`; "
            "then `dvc repro`."
        )
    return Decision(False, reason)


def _same_recipe(config: Config, verdict: Entry) -> bool:
    """Whether today's features, model, strategy, seed and windows are those of a verdict's challenger."""
    return recipe_digest(config, verdict.snapshot) == verdict.recipe


def _record(
    config: Config,
    manifest: Manifest,
    observation: Observation,
    situation: PolicyContext | None,
    decision: Decision,
    watched: DeployedModel | None,
) -> DecisionRecord:
    newest, drift = manifest.labelled[-1], observation.drift
    rate = config.monitoring.false_alarm_rate
    held = {batch.period: batch.why_on_hold for batch in manifest.batches if batch.on_hold}
    return DecisionRecord(
        retrain=decision.retrain,
        reason=decision.reason,
        policy=class_name(config.policy),
        figures={
            name: float(value) for name, value in decision.figures.items() if math.isfinite(value)
        },
        snapshot=manifest.digest,
        newest_batch=newest.period,
        new_rows=situation.new_rows if situation else newest.rows,
        champion_version=watched.version if watched else None,
        loss=monitoring_loss(config.data.metric, config.data.task),
        scores=[_score(score) for score in observation.scores],
        expected=[_score(score) for score in observation.expected],
        decay=situation.decay if situation else None,
        watched_batch=drift.batch if drift else "",
        reference_batch=drift.reference if drift else "",
        alarms=drift.alarms(rate) if drift else [],
        families={name: _change(change) for name, change in drift.families.items()}
        if drift
        else {},
        features={
            name: dataclasses.replace(
                _change(drift.features[name]), importance=observation.importance.get(name)
            )
            for name in observation.ranked()
        }
        if drift
        else {},
        news=drift.schema_changes if drift else [],
        held_back=held,
    )


def _change(change: Change) -> ChangeRecord:
    return ChangeRecord(change.distance, _finite(change.usual), _finite(change.p_value))


def _score(score: Score) -> ScoreRecord:
    return ScoreRecord(
        score.period, score.value, _finite(score.low), _finite(score.high), score.version
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def show(record: DecisionRecord) -> None:
    """The decision and what led to it, in the log."""
    for line in describe(record):
        log.info("%s", line)


def describe(record: DecisionRecord) -> list[str]:
    """What was seen, a line each."""
    lines = [f"{'Retrain' if record.retrain else 'No retraining'}: {record.reason}"]
    for score in record.scores[-3:]:
        spread = (
            f" [{score.low:.4f}, {score.high:.4f}]"
            if score.low is not None and score.high is not None
            else ""
        )
        rows = f"on batch {score.period}"
        if score.version is not None:
            rows = f"on the rows of batch {score.period} that it was not trained on"
        lines.append(f"{_whose(record, score)} has {record.loss} {score.value:.4f}{spread} {rows}")
    for score in record.expected:
        lines.append(
            f"{_whose(record, score)} is expected to have {record.loss} {score.value:.4f} on batch {score.period}, whose labels are late"
        )
    if record.alarms:
        likely = ", ".join(list(record.features)[:3])
        lines.append(
            f"Drift of {', '.join(record.alarms)} in batch {record.watched_batch} against {record.reference_batch}; look at {likely} first"
        )
    lines += (
        [f"News of batch {record.watched_batch}: {'; '.join(record.news)}"] if record.news else []
    )
    return lines


def _whose(record: DecisionRecord, score: ScoreRecord) -> str:
    """The version that a loss is of: that of the champion before its refit is another one."""
    if score.version is None:
        return f"Champion version {record.champion_version}"
    return f"Version {score.version} (champion version {record.champion_version} before its refit)"
