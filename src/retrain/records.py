"""What one stage hands to the next: typed, and stored as JSON under `reports/`. Times are ISO 8601 strings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from retrain.errors import RetrainError
from retrain.project import PROMOTION, read_json, write_json

Record = TypeVar("Record")


@dataclass
class ScoreRecord:
    """A loss on a batch, with its two-sided 95 % interval."""

    period: str
    value: float
    low: float | None
    high: float | None


@dataclass
class ChangeRecord:
    """How far something lies from the reference batch, how far neighbours usually do, and how often an unchanged one would."""

    distance: float
    usual: float | None
    p_value: float | None
    importance: float | None = None


@dataclass
class DecisionRecord:
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
    scores: list[ScoreRecord] = field(default_factory=list)  # of the champion, on batches that it has not learnt from
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
class ModelRecord:
    """A registered version and the span of time that its training rows lie in, [from, until)."""

    version: int
    trained_from: str
    trained_until: str
    batches: list[str] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)  # content digest of each batch when it was trained on


@dataclass
class ChallengerRecord:
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
    missing_columns: list[str] = field(default_factory=list)  # that the incumbent was trained on and the rows lack
    task: str = "binary"
    classes: list[str] = field(default_factory=list)  # labels behind the target's numbers, of either model and the rows
    unknown_classes: dict[str, dict[str, int]] = field(default_factory=dict)  # model -> class -> evaluation rows
    new_levels: dict[str, int] = field(
        default_factory=dict
    )  # feature -> evaluation rows with a level unseen in training
    facts: dict[str, float] = field(default_factory=dict)  # latency and size of the challenger
    recipe: str = ""  # digest of the snapshot and of everything in the config that shapes the model
    decay: float | None = None  # how much worse the champion had become by then, if known
    look: int = 1
    ledger_length: int = 0
    predictions: str = ""  # sha256 of the predictions file


@dataclass
class FigureRecord:
    """An estimate with its two-sided 95 % interval; null where the rows can't tell."""

    value: float | None
    low: float | None
    high: float | None


@dataclass
class CheckRecord:
    """One check of the gate."""

    outcome: str
    reason: str
    blocks: bool = True
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class ComparisonRecord:
    """Written by evaluate. `verdict` is null when there was no challenger to judge."""

    verdict: str | None
    reason: str
    rows: int = 0
    blocks: int = 0
    target_mean: float | None = None
    look: int = 1
    provenance: dict[str, str] = field(default_factory=dict)  # model -> why it can't have seen the evaluation rows
    bootstrap: dict[str, list[float]] = field(
        default_factory=dict
    )  # row loss -> interval of the difference that counts
    checks: dict[str, CheckRecord] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)  # model -> metric -> FigureRecord
    differences: dict[str, Any] = field(default_factory=dict)  # other model -> metric -> FigureRecord

    def __post_init__(self) -> None:
        """OmegaConf does not build dataclasses two dictionaries deep."""
        for table in (self.scores, self.differences):
            for figures in table.values():
                figures.update(
                    {metric: FigureRecord(**figure) for metric, figure in figures.items() if isinstance(figure, dict)}
                )

    def flat(self) -> dict[str, float]:
        """`<metric>/<model>`, and `<metric>/minus_<other>` with its interval (`_low`, `_high`), where they are known."""
        flat: dict[str, float | None] = {}
        for model, figures in self.scores.items():
            flat |= {f"{metric}/{model}": figure.value for metric, figure in figures.items()}
        for other, figures in self.differences.items():
            for metric, figure in figures.items():
                name = f"{metric}/minus_{other}"
                flat |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
        return {name: value for name, value in flat.items() if value is not None}


@dataclass
class PromotionRecord:
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
    write_json(path, dataclasses.asdict(record))


def load(path: Path, kind: type[Record], made_by: str) -> Record:
    """Raises RetrainError naming the stage when the file is missing, damaged or of another version of this project."""
    content = _literal(read_json(path, made_by))
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), content))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise RetrainError(
            f"{path} does not fit this version of the project ({str(error).splitlines()[0]}). "
            f"Run `dvc repro -f -s {made_by}` to make it again."
        ) from error


def promoted_champion(registered_model: str) -> int | None:
    """The champion that the last pipeline run here saw in the ledger; None where there was none, or nothing has run."""
    try:
        promoted = load(PROMOTION, PromotionRecord, "promote")
    except RetrainError:
        return None
    return promoted.champion if promoted.registered_model == registered_model else None


def _literal(content: Any) -> Any:
    """JSON in which nothing is an interpolation, whatever names the data have."""
    if isinstance(content, dict):
        return {key: _literal(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_literal(value) for value in content]
    return content.replace("${", "\\${") if isinstance(content, str) else content
