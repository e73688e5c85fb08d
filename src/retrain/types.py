"""What one stage hands to the next: typed, and stored as JSON under `reports/`. Times are ISO 8601 strings."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from retrain.errors import RetrainError
from retrain.workspace import PROMOTION, read_json, write_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Record = TypeVar("Record")


class Strict:
    """A record refuses a key that it does not know: it was written by another version of this project."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass
class RefusalRecord(Strict):
    """Why the newest update of a data set's snapshot was refused, so that the snapshot stayed as it was."""

    data: str
    time: str
    reason: str


@dataclass
class ScoreRecord(Strict):
    """A loss on a batch, with its two-sided 95 % interval. `version` is whose it is, where that is not the champion itself."""

    period: str
    value: float
    low: float | None
    high: float | None
    version: int | None = None


@dataclass
class ChangeRecord(Strict):
    """How far something lies from the reference batch, how far neighbours usually do, and how often an unchanged one would."""

    distance: float
    usual: float | None
    p_value: float | None
    importance: float | None = None


@dataclass
class DecisionRecord(Strict):
    """Written by train before all else: what the newest batch says, whether to train a challenger on this snapshot, and why."""

    retrain: bool
    reason: str
    policy: str
    snapshot: str
    newest_batch: str
    new_rows: int
    figures: dict[str, float] = field(default_factory=dict)  # that the policy decided by
    champion_version: int | None = None
    loss: str = ""
    scores: list[ScoreRecord] = field(
        default_factory=list
    )  # of the champion, on batches that it has not learnt from
    expected: list[ScoreRecord] = field(default_factory=list)  # on batches whose labels are late
    decay: float | None = None  # how much worse the champion has become, if known
    watched_batch: str = ""  # the newest, labelled or not
    reference_batch: str = ""
    alarms: list[str] = field(default_factory=list)
    families: dict[str, ChangeRecord] = field(default_factory=dict)
    features: dict[str, ChangeRecord] = field(default_factory=dict)  # the most worrying first
    news: list[str] = field(default_factory=list)
    held_back: dict[str, str] = field(default_factory=dict)  # batch -> why it looks broken


@dataclass
class ModelRecord(Strict):
    """A registered version and the span of time that its training rows lie in, [from, until)."""

    version: int
    trained_from: str
    trained_until: str
    batches: list[str] = field(default_factory=list)
    contents: dict[str, str] = field(
        default_factory=dict
    )  # content digest of each batch when it was trained on
    sha256: str = ""  # of its file


@dataclass
class CodeRecord:
    """What trained a model, by which the ledger can say later whether the tracking store still holds the same."""

    git_commit: str = ""
    config: str = ""  # sha256 of the config that the run keeps
    patch: str = (
        ""  # sha256 of the uncommitted code that the run keeps; empty when all was committed
    )


@dataclass
class ChallengerRecord(Strict):
    """Written by train: the pointer to what it registered, and what evaluate and promote need to know about it."""

    retrained: bool
    reason: str
    snapshot: str
    newest_batch: str
    challenger: ModelRecord | None = None
    incumbent: ModelRecord | None = None
    run_id: str | None = None
    model: str = ""
    strategy: str = ""
    note: str = ""  # how the strategy came to its model
    rows: int = 0
    fit_seconds: float = 0.0
    evaluation_start: str = ""
    evaluation_end: str = ""
    evaluation_batches: dict[str, str] = field(default_factory=dict)  # content digest by period
    missing_columns: list[str] = field(
        default_factory=list
    )  # that the incumbent was trained on and the rows lack
    task: str = "binary"
    classes: list[str] = field(
        default_factory=list
    )  # labels behind the target's numbers, of either model and the rows
    unknown_classes: dict[str, dict[str, int]] = field(
        default_factory=dict
    )  # model -> class -> evaluation rows
    new_levels: dict[str, int] = field(
        default_factory=dict
    )  # feature -> evaluation rows with a level unseen in training
    facts: dict[str, float] = field(default_factory=dict)  # latency and size of the challenger
    recipe: str = ""  # digest of the snapshot and of everything in the config that shapes the model
    decay: float | None = None  # how much worse the champion had become by then, if known
    look: int = 1  # which one the verdict of the configured gate is
    unseen: float = 1.0  # share of the evaluation window that no look at an earlier one has seen
    looks: dict[str, int] = field(
        default_factory=dict
    )  # digest of a gate -> which look its verdict is, where recorded
    ledger_length: int = 0
    predictions: str = ""  # sha256 of the predictions file
    code: CodeRecord = field(default_factory=CodeRecord)


@dataclass
class PromotionRecord(Strict):
    """Written by promote: who serves now. `candidate` waits for approval."""

    verdict: str | None
    moved: bool
    champion: int | None
    previous: int | None
    ledger_entry: int | None
    candidate: int | None = None
    registered_model: str = ""


@dataclass
class LedgerPointer:
    """Written by train beside the local store: the ledger that the results in `reports/` belong to."""

    registered_model: str
    run_id: str


def save(path: Path, record: Any) -> None:
    write_json(path, _reader(type(record)).dump_python(record, mode="json"))


def load(path: Path, kind: type[Record], made_by: str) -> Record:
    """Raises RetrainError naming the stage when the file is missing, damaged or of another version of this project.

    Nothing in it is interpolated or converted, whatever names the data have.
    """
    from pydantic import ValidationError

    content = read_json(path, made_by)
    try:
        return _reader(kind).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RetrainError(
            f"{path} does not fit this version of the project ({f'`{where}`: ' if where else ''}{first['msg']}). "
            f"Run `dvc repro -f -s {made_by}` to make it again."
        ) from error


def promoted_champion(registered_model: str) -> int | None:
    """The champion that the last pipeline run here saw in the ledger; None where there was none, or nothing has run."""
    try:
        promoted = load(PROMOTION, PromotionRecord, "promote")
    except RetrainError:
        return None
    return promoted.champion if promoted.registered_model == registered_model else None


@functools.cache
def _reader(kind: type) -> TypeAdapter:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
