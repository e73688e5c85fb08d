"""What `retrain init` proposes: the schema, its doubts, and a model to begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from retrain.config import ColumnType, PeriodKind, Task
from retrain.data.table_source import ROW_NUMBER

DEFAULT = "hist_gradient_boosting"


@dataclass(frozen=True)
class ModelChoice:
    """A file in conf/model, and why it is chosen."""

    name: str
    why: str


def choose_model(features: Mapping[str, ColumnType], task: Task) -> ModelChoice | None:
    """None where the default will do."""
    if ColumnType.sparse in features.values():
        name = "ridge" if task is Task.regression else "logistic_regression"
        return ModelChoice(name, "trees see sparse columns through 32 components only")
    return None


@dataclass(frozen=True)
class Feature:
    """A guessed column of the schema, and in `note` what it was guessed from."""

    type: ColumnType
    nullable: bool
    note: str
    minimum: float | None = None


@dataclass
class Draft:
    """A guessed schema. `unsure` and `leaks` are sentences for the person who has to check it."""

    task: Task
    metric: str
    positive_label: str | None
    period: PeriodKind
    rows_per_batch: int | None
    time_format: str | None
    key_columns: list[str]
    block_hours: int
    features: dict[str, Feature] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # column -> why
    unsure: list[str] = field(default_factory=list)
    leaks: dict[str, str] = field(default_factory=dict)  # column -> why
    batches: int = 0
    newest_rows: int = 0
    model: ModelChoice | None = None  # where the default won't do
    numbers_rows: bool = False  # the only key is a number that the source gives to each row

    @property
    def source(self) -> dict[str, str | int | bool]:
        """What the source's YAML needs."""
        number = True if self.key_columns == [ROW_NUMBER] else self.key_columns[0]
        needed = {
            "rows_per_batch": self.rows_per_batch,
            "time_format": self.time_format,
            "number_rows": number if self.numbers_rows else None,
        }
        return {key: value for key, value in needed.items() if value}
