"""An entry of the ledger, and what a list of them says: who serves, who came before, what waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from retrain.errors import PromotionError
from retrain.lazy import pydantic
from retrain.record import Record

# What an entry can be: the gate's verdict, a move that was refused, manual approval of a candidate,
# a version that overrides the gate, and a way back.
VERDICT, REFUSAL, APPROVAL = "verdict", "refusal", "approval"
OVERRIDE, ROLLBACK = "override", "rollback"


DECAY = "decay"  # how much worse the incumbent had become when the challenger was trained


@dataclass(frozen=True)
class Entry(Record):
    """One line of history. `champion` serves from this entry on; it moved if not `previous`.

    `challenger` earned the champion its place: itself, or the version that it is the refit of.
    """

    kind: str  # one of those above
    verdict: str  # the gate's; empty where a person decided
    reason: str
    champion: int | None
    previous: int | None
    trained_until: str | None  # of the champion
    challenger: int
    challenger_trained_until: str
    incumbent: int | None
    comparison: str  # digest
    snapshot: str
    newest_batch: str
    git_commit: str | None
    run_id: str | None
    recipe: str = ""  # digest of snapshot and config that the challenger was made of
    evaluation_start: str = ""
    evaluation_end: str = ""
    predictions: str = ""  # digest
    look: int = 1
    gate: str = ""  # digest of its checks
    candidate: int | None = None  # the version that waits for approval
    config: str = ""  # digest of the config under which the verdict was carried out
    # What trained the challenger, as the run holds it: the commit, and the sha256 of config.yaml
    # (empty in entries of earlier versions of this project) and of code.patch (empty without).
    trained_commit: str = ""
    run_config: str = ""
    run_patch: str = ""
    models: dict[str, str] = field(default_factory=dict)  # sha256 of the model file by version
    checks: dict[str, str] = field(default_factory=dict)  # outcome by name
    figures: dict[str, float] = field(default_factory=dict)
    who: str = ""
    time: str = ""
    id: str = ""
    before: str = ""  # digest of all entries before it; empty in those of earlier versions
    seq: Annotated[int, pydantic.Field(exclude=True)] = 0

    @property
    def moved(self) -> bool:
        return self.champion != self.previous


def model_digest_of(entries: Sequence[Entry], version: int) -> str | None:
    """The sha256 of a version's model file by its first entry, None where there is none."""
    digests = (entry.models.get(str(version)) for entry in entries)
    return next((digest for digest in digests if digest is not None), None)


def trained_until_of(entries: Sequence[Entry], version: int) -> str | None:
    """Where a version's training rows end by its first entry, None where there is none."""
    for entry in entries:
        if entry.challenger == version:
            return entry.challenger_trained_until
        if entry.champion == version:
            return entry.trained_until
    return None


def training_of(entries: Sequence[Entry], run_id: str) -> Entry | None:
    """The first entry that names what trained the versions of a run; None if there is none."""
    return next((entry for entry in entries if entry.run_id == run_id and entry.run_config), None)


def current_champion(entries: Sequence[Entry]) -> Entry | None:
    """The entry that put the serving champion in place, None before the first promotion."""
    return next((entry for entry in reversed(entries) if entry.moved), None)


def deployment_history(entries: Sequence[Entry]) -> list[Entry]:
    """The moves that put the champion and those before it in place, newest last.

    A rollback takes away everything after the version that it restores, so that the next one goes
    further back.
    """
    line: list[Entry] = []
    for entry in entries:
        if not entry.moved:
            continue
        if entry.kind == ROLLBACK:
            # To the last time that it served, so that what served before that stays reachable.
            served = [earlier.champion for earlier in line]
            places = [place for place, version in enumerate(served) if version == entry.champion]
            del line[places[-1] if places else len(line) - 1 :]
        line.append(entry)
    return line


def rolled_back(entries: Sequence[Entry], recipe: str) -> Entry | None:
    """The rollback that took away a champion of this recipe.

    None if there was none or a person brought it back.
    """
    recipes: dict[int | None, str] = {}
    found = None
    for entry in entries:
        if entry.kind == ROLLBACK and recipes.get(entry.previous) == recipe:
            found = entry
        if entry.moved:
            recipes[entry.champion] = entry.recipe
            if entry.kind != VERDICT and entry.recipe == recipe:
                found = None
    return found


def pending_approval(entries: Sequence[Entry]) -> Entry | None:
    """The verdict whose version waits for approval: the newest, unless another or a move came
    after."""
    newest = next((entry for entry in reversed(entries) if entry.kind != REFUSAL), None)
    return newest if newest is not None and newest.candidate is not None else None


def find_incumbent(entries: Sequence[Entry], evaluation_start: str) -> int | None:
    """The version to compare with on rows from `evaluation_start` on. None before the first.

    It is the champion. When it was refitted on this very window, the challenger that earned its
    promotion stands in: same recipe, without the window. So a changed recipe on an unchanged
    snapshot has to match what serves. Raises PromotionError when both have seen rows of the window:
    an older version would be too easy to beat.
    """
    champion = current_champion(entries)
    if champion is None:
        return None
    for version, until in _trained_until(champion):
        if until <= evaluation_start:
            return version
    raise PromotionError(
        f"The champion, version {champion.champion}, was trained on rows of this evaluation "
        f"window, which starts at {evaluation_start[:16].replace('T', ' ')}: it was promoted on a "
        "newer snapshot or a shorter window. Nothing can be compared with it fairly.",
        hint="Set `data.as_of` and `evaluation` back to theirs, or let a new batch arrive; "
        "then `dvc repro`.",
    )


def find_parent(entries: Sequence[Entry], evaluation_start: str) -> int | None:
    """The version to continue from, None before the first.

    Of those that served, and their challengers, the newest that was trained on no row from
    `evaluation_start` on, with rows in between.
    """
    for entry in reversed(deployment_history(entries)):
        for version, until in _trained_until(entry):
            if until < evaluation_start:
                return version
    return None


def _trained_until(entry: Entry) -> Iterator[tuple[int, str]]:
    """An entry's champion and the challenger that it is the refit of, with their training's end."""
    if entry.champion is not None and entry.trained_until is not None:
        yield entry.champion, entry.trained_until
    yield entry.challenger, entry.challenger_trained_until
