"""What the ledger's next entry must be: pure, so that every interleaving can be tested."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from retrain.errors import PromotionError
from retrain.gate.alpha_spending import Look, look_number
from retrain.gate.comparison import Comparison, Verdict
from retrain.registry.ledger import (
    APPROVAL,
    DECAY,
    REFUSAL,
    VERDICT,
    Entry,
    current_champion,
    deployment_history,
    pending_approval,
    rolled_back,
)
from retrain.types import ChallengerRecord, ModelRecord

LONGEST_REASON = 1500  # of a param's 6,000 characters


class Refused(PromotionError):
    """A promotion that was overtaken: somebody else's move or look came first."""


@dataclass(frozen=True)
class VersionInfo:
    """What the registry knows about a version that a person wants to serve."""

    model: ModelRecord
    unrefitted: ModelRecord  # the version that it is the refit of, or itself
    snapshot: str
    recipe: str
    run_id: str | None
    git_commit: str | None


@dataclass(frozen=True)
class AuditContext:
    """What an entry also records: the digests of what was judged and under which config, and the commit."""

    comparison: str
    config: str
    git_commit: str | None
    approval_required: bool = False


def next_entry(
    entries: Sequence[Entry],
    trained: ChallengerRecord,
    compared: Comparison,
    new_version: ModelRecord,
    circumstances: AuditContext,
    looks: Sequence[Look] = (),
) -> Entry:
    """The entry for a verdict: the one that is there already for this comparison, or the next one to append.

    `newcomer` is the version that would serve: the challenger, or its refit. Raises Refused when the champion has moved,
    for another challenger's sake, since this one was compared, or when the ledger counts another look than it was judged as.
    """
    challenger = trained.challenger
    promoted = compared.verdict is Verdict.promote
    waits = promoted and circumstances.approval_required
    for entry in reversed(entries):
        same = (
            entry.challenger == challenger.version and entry.comparison == circumstances.comparison
        )
        with_selected_strategy = (
            not promoted
            or entry.champion == new_version.version
            or (
                entry.moved and new_version.version == challenger.version
            )  # its refit serves, and is no longer wanted
            or (waits and entry.candidate == new_version.version)
        )
        if same and with_selected_strategy and entry.kind != REFUSAL:
            return entry
    _refuse_overtaken(entries, trained, compared, looks)
    return _verdict_entry(entries, trained, compared, new_version, circumstances)


def _verdict_entry(
    entries: Sequence[Entry],
    trained: ChallengerRecord,
    compared: Comparison,
    new_version: ModelRecord,
    circumstances: AuditContext,
) -> Entry:
    promoted = compared.verdict is Verdict.promote
    waits = promoted and circumstances.approval_required
    serving = current_champion(entries)
    champion, trained_until = (serving.champion, serving.trained_until) if serving else (None, None)
    previous = champion
    if promoted and not waits:
        champion, trained_until = new_version.version, new_version.trained_until
    return Entry(
        kind=VERDICT,
        verdict=str(compared.verdict),
        reason=compared.reason[:LONGEST_REASON],
        champion=champion,
        previous=previous,
        trained_until=trained_until,
        challenger=trained.challenger.version,
        challenger_trained_until=trained.challenger.trained_until,
        incumbent=trained.incumbent.version if trained.incumbent else None,
        comparison=circumstances.comparison,
        snapshot=trained.snapshot,
        newest_batch=trained.newest_batch,
        git_commit=circumstances.git_commit,
        run_id=trained.run_id,
        recipe=trained.recipe,
        evaluation_start=trained.evaluation_start,
        evaluation_end=trained.evaluation_end,
        predictions=trained.predictions[:16],
        look=compared.look,
        gate=compared.gate,
        candidate=new_version.version if waits else None,
        config=circumstances.config,
        trained_commit=trained.code.git_commit,
        run_config=trained.code.config,
        run_patch=trained.code.patch,
        models=_model_files(trained.challenger, new_version, trained.incumbent),
        checks={name: check.outcome.value for name, check in compared.checks.items()},
        figures={
            name: value
            for name, value in (
                compared.flat() | ({} if trained.decay is None else {DECAY: trained.decay})
            ).items()
            if not (trained.incumbent and name.endswith("baseline"))
        },
        seq=len(entries),
    )


def _model_files(*models: ModelRecord | None) -> dict[str, str]:
    return {
        str(model.version): model.sha256 for model in models if model is not None and model.sha256
    }


def _refuse_overtaken(
    entries: Sequence[Entry],
    trained: ChallengerRecord,
    compared: Comparison,
    looks: Sequence[Look],
) -> None:
    challenger = trained.challenger.version
    again = "Repeat the comparison: `dvc repro -f -s train`, then `dvc repro`."
    for entry in entries[trained.ledger_length :]:
        if entry.moved and entry.challenger != challenger:
            raise Refused(
                f"The champion has moved to version {entry.champion} (ledger entry {entry.seq}, {entry.time}, by {entry.who}) since "
                f"version {challenger} was compared. {again}"
            )
    rollback = rolled_back(entries, trained.recipe)
    if rollback is not None:
        raise Refused(
            f"The recipe of version {challenger} was rolled back on this snapshot (ledger entry {rollback.seq}: {rollback.reason}). "
            f'A person can bring it back: retrain promote {challenger} --reason "..."'
        )
    window = trained.evaluation_start, trained.evaluation_end
    look = look_number(entries, *window, trained.predictions[:16], compared.gate, looks)
    if look != compared.look:
        raise Refused(
            f"Version {challenger} was judged as look {compared.look} at its evaluation rows, but it is look {look} by now: the "
            f"ledger counts others before it. {again}"
        )


def plan_refusal(
    entries: Sequence[Entry],
    trained: ChallengerRecord,
    compared: Comparison,
    new_version: ModelRecord,
    circumstances: AuditContext,
    reason: str,
) -> Entry | None:
    """The entry that says why a verdict could not be carried out; None when it is there already."""
    verdict = _verdict_entry(entries, trained, compared, new_version, circumstances)
    for entry in entries:
        if (
            entry.kind == REFUSAL
            and entry.comparison == verdict.comparison
            and entry.challenger == verdict.challenger
        ):
            return None
    serving = current_champion(entries)
    return dataclasses.replace(
        verdict,
        kind=REFUSAL,
        reason=reason[:LONGEST_REASON],
        champion=serving.champion if serving else None,
        previous=serving.champion if serving else None,
        trained_until=serving.trained_until if serving else None,
        candidate=None,
    )


def plan_choice(entries: Sequence[Entry], kind: str, origin: VersionInfo, reason: str) -> Entry:
    """The entry for a person's choice (override or rollback). Raises PromotionError when that version serves already."""
    serving = current_champion(entries)
    if serving is not None and serving.champion == origin.model.version:
        raise PromotionError(
            f"Version {origin.model.version} is champion already (ledger entry {serving.seq})."
        )
    return Entry(
        kind=kind,
        verdict="",
        reason=reason[:LONGEST_REASON],
        champion=origin.model.version,
        previous=serving.champion if serving else None,
        trained_until=origin.model.trained_until,
        challenger=origin.unrefitted.version,
        challenger_trained_until=origin.unrefitted.trained_until,
        incumbent=None,
        comparison="",
        snapshot=origin.snapshot,
        newest_batch=origin.model.batches[-1] if origin.model.batches else "",
        git_commit=origin.git_commit,
        run_id=origin.run_id,
        recipe=origin.recipe,
        models=_model_files(origin.model, origin.unrefitted),
        seq=len(entries),
    )


def plan_approval(
    entries: Sequence[Entry], version: int | None, trained_until: str, reason: str
) -> Entry:
    """The entry for a person's yes to the waiting candidate. Raises PromotionError when there is none, or another one."""
    pending = waiting_candidate(entries, version)
    serving = current_champion(entries)
    return dataclasses.replace(
        pending,
        kind=APPROVAL,
        reason=reason[:LONGEST_REASON],
        champion=pending.candidate,
        previous=serving.champion if serving else None,
        trained_until=trained_until,
        candidate=None,
        seq=len(entries),
    )


def waiting_candidate(entries: Sequence[Entry], version: int | None) -> Entry:
    """The verdict that waits for approval. Raises PromotionError when there is none, or its version is not the one named."""
    pending = pending_approval(entries)
    if pending is None:
        raise PromotionError(
            "No version waits for approval. With `approval: required` in conf/gate/, `dvc repro` leaves one after a `promote` verdict."
        )
    if version is not None and version != pending.candidate:
        raise PromotionError(
            f"Version {version} does not wait for approval; version {pending.candidate} does (ledger entry {pending.seq})."
        )
    return pending


def rollback_target(entries: Sequence[Entry]) -> int:
    """The version that last served before the champion, leaving out what was rolled back. Raises PromotionError without one."""
    line = deployment_history(entries)
    if len(line) < 2:
        raise PromotionError(
            "No version served before the champion, so there is none to go back to. "
            '`retrain promote VERSION --reason "..."` lets another version serve.'
        )
    return line[-2].champion
