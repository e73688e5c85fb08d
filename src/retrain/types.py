"""One frozen type for each fact that a stage writes, the ledger keeps and functions pass on.

Each validates and serializes itself. Times are ISO 8601 strings.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Annotated

from retrain.lazy import pydantic
from retrain.record import Record


@dataclass(frozen=True)
class RefusalRecord(Record):
    """Why the newest update of a data set's snapshot was refused, so that it stayed as it was."""

    data: str
    time: str
    reason: str


@dataclass(frozen=True)
class Score(Record):
    """A loss on a batch that the model was not trained on, with its two-sided 95 % interval.

    Attributes
    ----------
    period
        The batch.
    value
        The monitored loss.
    low, high
        Ends of the interval; None where they are not known.
    version
        Whose loss it is, where that is not the champion but its version before the refit.
    blocks
        The losses of the batch's blocks of time, where they are known.
    baseline_loss
        The loss of the best constant prediction for the same rows.
    """

    period: str
    value: float
    low: float | None = None
    high: float | None = None
    version: int | None = None
    blocks: Annotated[tuple[float, ...], pydantic.Field(exclude=True)] = ()
    baseline_loss: Annotated[float | None, pydantic.Field(exclude=True)] = None


@dataclass(frozen=True)
class Change(Record):
    """How far something lies from the reference batch.

    Attributes
    ----------
    distance
        Of several features together the largest one.
    usual
        The usual distance between neighbours; None without history, or of several features.
    p_value
        How often an unchanged batch would lie as far off; None without history.
    importance
        By how much the champion's loss grows when the feature is shuffled.
    """

    distance: float
    usual: float | None = None
    p_value: float | None = None
    importance: float | None = None


@dataclass(frozen=True)
class Decision(Record):
    """Whether to train a challenger, and why.

    Attributes
    ----------
    retrain
        The answer.
    reason
        Full sentences.
    figures
        What it was decided by, also when the answer is no.
    """

    retrain: bool
    reason: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DecisionRecord(Decision):
    """Written by train before all else: the decision, and what the newest batch shows."""

    policy: str
    snapshot: str
    newest_batch: str
    new_rows: int
    champion_version: int | None = None
    loss: str = ""
    scores: list[Score] = field(default_factory=list)  # of the champion
    expected: list[Score] = field(default_factory=list)  # on batches whose labels are late
    decay: float | None = None  # how much worse the champion has become, if known
    watched_batch: str = ""  # the newest, labelled or not
    reference_batch: str = ""
    alarms: list[str] = field(default_factory=list)
    families: dict[str, Change] = field(default_factory=dict)
    features: dict[str, Change] = field(default_factory=dict)  # the most worrying first
    news: list[str] = field(default_factory=list)  # schema changes
    held_back: dict[str, str] = field(default_factory=dict)  # batch -> why it is on hold


@dataclass(frozen=True)
class ModelRecord(Record):
    """A model and what it was trained on; kept as the tags of its version.

    The time of its training rows lies in [trained_from, trained_until). `version` is 0 until it is
    registered.
    """

    version: int
    trained_from: str
    trained_until: str
    batches: list[str] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)  # content digest of each batch
    sha256: str = ""  # of its file
    role: str = "challenger"  # or refit
    rows: int = 0
    snapshot: str = ""
    recipe: str = ""  # digest of the snapshot and of all in the config that shapes the model
    model_digest: str = ""  # of features, encoding and estimator
    continued_from: list[int] = field(default_factory=list)  # versions, newest first
    strategy_choice: str = ""  # which of several strategies won
    refit_of: int | None = None


@dataclass(frozen=True)
class CodeRecord(Record):
    """What trained a model, by which the ledger tells whether the store still holds the same."""

    git_commit: str = ""
    config: str = ""  # sha256 of the config that the run keeps
    patch: str = ""  # sha256 of the uncommitted code that the run keeps; empty when there was none


@dataclass(frozen=True)
class Importance(Record):
    """By model and feature, by how much the loss grows when the feature is shuffled: on how many
    rows, and how long that took."""

    rows: int = 0
    seconds: float = 0.0
    growth: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ChallengerRecord(Record):
    """Written by train: what it registered, and what evaluate and promote need to know about it."""

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
    # That the incumbent was trained on and the rows lack.
    missing_columns: list[str] = field(default_factory=list)
    task: str = "binary"
    # Labels behind the target's numbers, of either model and the rows.
    classes: list[str] = field(default_factory=list)
    # By model and class the number of evaluation rows.
    unknown_classes: dict[str, dict[str, int]] = field(default_factory=dict)
    # By feature the evaluation rows with a level unseen in training.
    new_levels: dict[str, int] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)  # latency and size of the challenger
    recipe: str = ""  # digest of the snapshot and of everything in the config that shapes the model
    decay: float | None = None  # how much worse the champion had become by then, if known
    look: int = 1  # which one the verdict of the configured gate is
    unseen: float = 1.0  # share of the evaluation window that no look at an earlier one has seen
    # By digest of a gate which look its verdict is, where recorded.
    looks: dict[str, int] = field(default_factory=dict)
    ledger_length: int = 0
    predictions: str = ""  # sha256 of the predictions file
    code: CodeRecord = field(default_factory=CodeRecord)
    importance: Importance = field(default_factory=Importance)

    @property
    def registered(self) -> ModelRecord:
        """The challenger, of which there must be one."""
        assert self.challenger is not None, self.reason
        return self.challenger

    @property
    def evaluation_digest(self) -> str:
        """Stands for the evaluation rows: models compared on the same ones have the same."""
        rows = self.evaluation_start, self.evaluation_end, *sorted(self.evaluation_batches.items())
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PromotionRecord(Record):
    """Written by promote: who serves now. `candidate` waits for approval."""

    verdict: str | None
    moved: bool
    champion: int | None
    previous: int | None
    ledger_entry: int | None
    candidate: int | None = None
    registered_model: str = ""
    ledger_digest: str = ""  # of all entries up to `ledger_entry`


@dataclass(frozen=True)
class LedgerPointer(Record):
    """Written by train beside the local store: the ledger that `reports/` belongs to."""

    registered_model: str
    run_id: str
