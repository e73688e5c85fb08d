"""What the ledger's next entry must be: pure, so that every interleaving can be tested."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from retrain.errors import PromotionError
from retrain.gate.alpha_spending import Look, look_number
from retrain.gate.comparison import Comparison, Verdict
from retrain.registry.entries import (
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
    run_id: str | None
    git_commit: str | None


@dataclass(frozen=True)
class AuditContext:
    """What an entry also records: digests of comparison and config, and the commit."""

    comparison: str
    config: str
    git_commit: str | None
    approval_required: bool = False


@dataclass(frozen=True)
class Promotion:
    """A verdict to carry out. `new_version` would serve: the challenger, or its refit."""

    trained: ChallengerRecord
    compared: Comparison
    new_version: ModelRecord
    audit: AuditContext

    @property
    def promoted(self) -> bool:
        return self.compared.verdict is Verdict.promote

    @property
    def waits(self) -> bool:
        """Whether it needs manual approval."""
        return self.promoted and self.audit.approval_required

    def is_written(self, entry: Entry) -> bool:
        """Whether an entry is that of this verdict, or of its refusal."""
        same = entry.challenger, entry.comparison
        return same == (self.trained.registered.version, self.audit.comparison)

    def entry(self, entries: Sequence[Entry]) -> Entry:
        """The entry for this verdict after these."""
        trained, compared, new = self.trained, self.compared, self.new_version
        champion, until = _serving(entries)
        moves = self.promoted and not self.waits
        figures = compared.flat()
        if trained.decay is not None:
            figures[DECAY] = trained.decay
        return Entry(
            kind=VERDICT,
            verdict=str(compared.verdict),
            reason=compared.reason[:LONGEST_REASON],
            champion=new.version if moves else champion,
            previous=champion,
            trained_until=new.trained_until if moves else until,
            challenger=trained.registered.version,
            challenger_trained_until=trained.registered.trained_until,
            incumbent=trained.incumbent.version if trained.incumbent else None,
            comparison=self.audit.comparison,
            snapshot=trained.snapshot,
            newest_batch=trained.newest_batch,
            git_commit=self.audit.git_commit,
            run_id=trained.run_id,
            recipe=trained.recipe,
            evaluation_start=trained.evaluation_start,
            evaluation_end=trained.evaluation_end,
            predictions=trained.predictions[:16],
            look=compared.look,
            gate=compared.gate,
            candidate=new.version if self.waits else None,
            config=self.audit.config,
            trained_commit=trained.code.git_commit,
            run_config=trained.code.config,
            run_patch=trained.code.patch,
            models=_model_files(trained.registered, new, trained.incumbent),
            checks={name: check.outcome.value for name, check in compared.checks.items()},
            figures={
                name: value
                for name, value in figures.items()
                if not (trained.incumbent and name.endswith("baseline"))
            },
            seq=len(entries),
        )


def _serving(entries: Sequence[Entry]) -> tuple[int | None, str | None]:
    """The champion and the end of its training."""
    serving = current_champion(entries)
    return (serving.champion, serving.trained_until) if serving else (None, None)


def _model_files(*models: ModelRecord | None) -> dict[str, str]:
    return {str(model.version): model.sha256 for model in models if model and model.sha256}


def next_entry(entries: Sequence[Entry], promotion: Promotion, looks: Sequence[Look] = ()) -> Entry:
    """The entry for a verdict: the one that is there already for this comparison, or the next one.

    Raises Refused when the champion has moved, for another challenger's sake, since this one was
    compared, or when the ledger counts another look than it was compared at.
    """
    new = promotion.new_version.version
    for entry in reversed(entries):
        carried_out = (
            not promotion.promoted
            or entry.champion == new
            # Its refit serves, and is no longer wanted.
            or (entry.moved and new == promotion.trained.registered.version)
            or (promotion.waits and entry.candidate == new)
        )
        if promotion.is_written(entry) and carried_out and entry.kind != REFUSAL:
            return entry
    _refuse_overtaken(entries, promotion, looks)
    return promotion.entry(entries)


def _refuse_overtaken(
    entries: Sequence[Entry], promotion: Promotion, looks: Sequence[Look]
) -> None:
    trained, compared = promotion.trained, promotion.compared
    challenger = trained.registered.version
    again = "Repeat the comparison: `dvc repro -f -s train`, then `dvc repro`."
    for entry in entries[trained.ledger_length :]:
        if entry.moved and entry.challenger != challenger:
            raise Refused(
                f"The champion has moved to version {entry.champion} (ledger entry {entry.seq}, "
                f"{entry.time}, by {entry.who}) since version {challenger} was compared.",
                hint=again,
            )
    rollback = rolled_back(entries, trained.recipe)
    if rollback is not None:
        raise Refused(
            f"The recipe of version {challenger} was rolled back on this snapshot "
            f"(ledger entry {rollback.seq}: {rollback.reason}).",
            hint=f'A person can bring it back: retrain promote {challenger} --reason "..."',
        )
    window = trained.evaluation_start, trained.evaluation_end
    look = look_number(entries, *window, trained.predictions[:16], compared.gate, looks)
    if look != compared.look:
        raise Refused(
            f"Version {challenger} was compared as look {compared.look} at its evaluation rows, "
            f"but it is look {look} by now: the ledger counts others before it.",
            hint=again,
        )


def plan_refusal(entries: Sequence[Entry], promotion: Promotion, reason: str) -> Entry | None:
    """The entry for a verdict that could not be carried out; None when it is there already."""
    if any(entry.kind == REFUSAL and promotion.is_written(entry) for entry in entries):
        return None
    champion, until = _serving(entries)
    return dataclasses.replace(
        promotion.entry(entries),
        kind=REFUSAL,
        reason=reason[:LONGEST_REASON],
        champion=champion,
        trained_until=until,
        candidate=None,
    )


def plan_choice(entries: Sequence[Entry], kind: str, origin: VersionInfo, reason: str) -> Entry:
    """The entry for an override or a rollback.

    Raises PromotionError when that version serves already.
    """
    model, serving = origin.model, current_champion(entries)
    if serving is not None and serving.champion == model.version:
        raise PromotionError(
            f"Version {model.version} is champion already (ledger entry {serving.seq})."
        )
    return Entry(
        kind=kind,
        verdict="",
        reason=reason[:LONGEST_REASON],
        champion=model.version,
        previous=serving.champion if serving else None,
        trained_until=model.trained_until,
        challenger=origin.unrefitted.version,
        challenger_trained_until=origin.unrefitted.trained_until,
        incumbent=None,
        comparison="",
        snapshot=model.snapshot,
        newest_batch=model.batches[-1] if model.batches else "",
        git_commit=origin.git_commit,
        run_id=origin.run_id,
        recipe=model.recipe,
        models=_model_files(model, origin.unrefitted),
        seq=len(entries),
    )


def plan_approval(
    entries: Sequence[Entry], version: int | None, trained_until: str, reason: str
) -> Entry:
    """The entry for a manual approval.

    Raises PromotionError when no candidate waits, or another one.
    """
    pending = waiting_candidate(entries, version)
    return dataclasses.replace(
        pending,
        kind=APPROVAL,
        reason=reason[:LONGEST_REASON],
        champion=pending.candidate,
        previous=_serving(entries)[0],
        trained_until=trained_until,
        candidate=None,
        seq=len(entries),
    )


def waiting_candidate(entries: Sequence[Entry], version: int | None) -> Entry:
    """The verdict that waits for approval.

    Raises PromotionError when there is none, or its version is not the one named.
    """
    pending = pending_approval(entries)
    if pending is None:
        raise PromotionError(
            "No version waits for approval.",
            hint="With `approval: required` in conf/gate/, `dvc repro` leaves one after a "
            "`promote` verdict.",
        )
    if version is not None and version != pending.candidate:
        raise PromotionError(
            f"Version {version} does not wait for approval; version {pending.candidate} does "
            f"(ledger entry {pending.seq})."
        )
    return pending


def rollback_target(entries: Sequence[Entry]) -> int:
    """The version that last served before the champion, leaving out what was rolled back.

    Raises PromotionError without one.
    """
    line = deployment_history(entries)
    target = line[-2].champion if len(line) > 1 else None
    if target is None:
        raise PromotionError(
            "No version served before the champion, so there is none to go back to.",
            hint='`retrain promote VERSION --reason "..."` lets another version serve.',
        )
    return target
