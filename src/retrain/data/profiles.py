"""What a batch looks like in some kilobytes: written once when it arrives, so that comparing
batches never reads old rows.

Profiles are mergeable: a distribution is a list of equally likely values (nearest-rank quantiles)
or counts of levels, and a mixture of batches is their union, weighted by rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.columns import own_column
from retrain.config import ColumnType, DataConfig, Task

QUANTILES = 128  # quantiles kept of a number: its distribution function is known to 1/256
GROUPS = 16  # of a number's rows, to hold the target against
MOST_CLASSES = 10
MOST_LEVELS = 100  # the most frequent ones of a category are counted one by one
PROFILED_ROWS = 200_000  # of a larger batch, rows spread evenly over it
SAMPLE_ROWS = 1000
OTHER = "(other)"
LARGEST = 1e150  # numbers beyond it count as it: their squares would not be numbers any more
_COUNT = own_column("count")


@dataclass(frozen=True)
class ColumnProfile:
    """One column. `quantiles`, shape (QUANTILES,), of numbers; `levels` of categories; neither
    where every value is missing.

    `groups` holds the target against the column: for each group of rows its place (a number, or a
    level), how many rows of it are labelled, and the sum of the target over them, one sum for each
    class where there are several.
    """

    rows: int
    nulls: int
    quantiles: list[float] = field(default_factory=list)
    levels: dict[str, int] = field(default_factory=dict)
    groups: list[list[Any]] = field(default_factory=list)  # [place, rows, [sums]]

    @property
    def null_share(self) -> float:
        return self.nulls / self.rows if self.rows else 0.0

    @property
    def is_constant(self) -> bool:
        """Whether there is one value, in all rows that have any."""
        return len(self.levels) == 1 or len({*self.quantiles[:1], *self.quantiles[-1:]}) == 1


@dataclass(frozen=True)
class ShiftMetrics:
    """How far a batch lies from those before it: what it is judged by, and the yardstick for those
    that come after.

    `steps`, by feature: the distance to the batch before. `nearest`: to the nearest of the newest
    earlier ones. `factors`: what their values would have to be multiplied by. `unseen`: the share
    of levels that none of them had. `slope` and `slopes`: how much is left of the relation to the
    target, over all features and by each. Empty for the first batches.
    """

    steps: dict[str, float] = field(default_factory=dict)
    target_step: float | None = None
    nearest: dict[str, float] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    unseen: dict[str, float] = field(default_factory=dict)
    slope: float | None = None
    slopes: dict[str, float] = field(default_factory=dict)
    slope_error: float = 0.0  # its standard error, of so many rows and so strong a relation


@dataclass(frozen=True)
class BatchProfile:
    """A batch: each feature over all its rows, labelled or not; the target over the labelled
    ones."""

    rows: int
    labelled: int
    repeated_share: float  # rows whose features and target all equal those of another row
    target: ColumnProfile
    outcomes: list[str]  # what the sums of groups are of: classes, or the target itself
    outcome_means: list[float]
    features: dict[str, ColumnProfile]
    shift: ShiftMetrics = field(default_factory=ShiftMetrics)

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)


def from_json(text: str) -> BatchProfile:
    """A stored profile, also one of version 0.1.

    Raises ValueError, KeyError or TypeError for anything else.
    """
    content = json.loads(text)
    if "jumps" in content:  # written by version 0.1
        content["shift"] = content.pop("jumps")
        for column in (content["target"], *content["features"].values()):
            column["quantiles"] = column.pop("atoms")
    content["features"] = {
        name: ColumnProfile(**column) for name, column in content["features"].items()
    }
    content["target"] = ColumnProfile(**content["target"])
    content["shift"] = ShiftMetrics(**content["shift"])
    return BatchProfile(**content)


def profile_batch(
    labelled: pl.DataFrame, unlabelled: pl.DataFrame, data: DataConfig
) -> BatchProfile:
    """The profile of a checked batch."""
    rows = (
        pl.concat([labelled, unlabelled], how="diagonal_relaxed") if len(unlabelled) else labelled
    )
    if len(rows) > PROFILED_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, PROFILED_ROWS).astype(np.int64)]
    target = rows[data.target_column]
    names, outcomes = _outcomes(target, data.task)
    known = target.is_not_null().to_numpy()
    compared = [
        name for name in (*data.features, data.target_column) if name not in data.key_columns
    ]
    repeated = 1 - rows.select(compared).n_unique() / len(rows) if len(rows) and compared else 0.0
    features = {
        name: profile_column(
            to_comparable(rows, name, column.type, data.time_column), outcomes, known
        )
        for name, column in data.features.items()
    }
    regression = data.task is Task.regression
    labels = (
        target.drop_nulls().clip(-LARGEST, LARGEST)
        if regression
        else target.drop_nulls().cast(pl.String)
    )
    means = outcomes[known].mean(axis=0) if known.any() else np.zeros(outcomes.shape[1])
    return BatchProfile(
        len(labelled) + len(unlabelled),
        len(labelled),
        float(repeated),
        profile_column(labels, None, None),
        names,
        [float(value) for value in means],
        features,
    )


def sample_rows(labelled: pl.DataFrame, unlabelled: pl.DataFrame, data: DataConfig) -> pl.DataFrame:
    """Some rows spread evenly over a batch, labelled or not, with time, target and features: for
    what needs whole rows."""
    names = list(dict.fromkeys([data.time_column, *data.features, data.target_column]))
    rows = labelled.select(names)
    if len(unlabelled):
        rows = pl.concat([rows, unlabelled.select(names)], how="vertical_relaxed")
        rows = rows.sort(data.time_column, maintain_order=True)
    return rows[sample_places(len(rows))]


def sample_places(count: int) -> NDArray[Any]:
    """Which of so many rows are sampled: int64 of shape (at most SAMPLE_ROWS,)."""
    return np.unique(np.linspace(0, max(0, count - 1), min(count, SAMPLE_ROWS)).astype(np.int64))


def to_comparable(rows: pl.DataFrame, name: str, kind: ColumnType, time_column: str) -> pl.Series:
    """A feature as numbers or levels that may be held against those of other batches.

    A date becomes the days between it and the row's own time, since dates move on by themselves; a
    text its length, a pack of sparse columns the number of its entries.
    """
    values = rows[name]
    if kind is ColumnType.datetime:
        return (values - rows[time_column]).dt.total_seconds().cast(pl.Float64) / 86_400
    if kind is ColumnType.text:
        return values.str.len_chars().cast(pl.Float64)
    if kind is ColumnType.sparse:
        return values.str.count_matches(":").cast(pl.Float64)
    return (
        values
        if kind is ColumnType.categorical
        else values.cast(pl.Float64).clip(-LARGEST, LARGEST)
    )


def _outcomes(target: pl.Series, task: Task) -> tuple[list[str], NDArray[Any]]:
    """Names and values, float64 of shape (rows, names): the target, or one flag for each of the
    most frequent classes; NaN where it is missing."""
    if task is not Task.multiclass:
        numbers = target.cast(pl.Float64).clip(-LARGEST, LARGEST)
        return [target.name], numbers.to_numpy().astype(np.float64)[:, None]
    labels = target.cast(pl.String)
    counts = (
        labels.drop_nulls()
        .value_counts(name=_COUNT)
        .sort([_COUNT, target.name], descending=[True, False])
    )
    names = counts[target.name].head(MOST_CLASSES).to_list()
    flags = [(labels == name).cast(pl.Float64).to_numpy().astype(np.float64) for name in names]
    return names, np.column_stack(flags) if flags else np.empty((len(target), 0))


def profile_column(
    values: pl.Series, outcomes: NDArray[Any] | None, known: NDArray[Any] | None
) -> ColumnProfile:
    """`outcomes` has shape (rows, names) and `known`, shape (rows,), says in which rows the target
    is there."""
    nulls = values.null_count()
    present = values.drop_nulls()
    if present.is_empty():
        return ColumnProfile(len(values), nulls)
    if values.dtype == pl.String:
        counts = present.value_counts(name=_COUNT).sort(
            [_COUNT, values.name], descending=[True, False]
        )
        frequent = dict(counts.head(MOST_LEVELS).iter_rows())
        rest = len(present) - sum(frequent.values())
        levels = frequent | ({OTHER: rest} if rest else {})
        groups = (
            []
            if outcomes is None or known is None
            else _groups_of_levels(values, frequent, outcomes, known)
        )
        return ColumnProfile(len(values), nulls, levels=levels, groups=groups)
    ordered = present.sort().to_numpy()
    places = ((np.arange(QUANTILES) + 0.5) / QUANTILES * len(ordered)).astype(np.int64)
    quantiles = [float(f"{value:.9g}") for value in ordered[places]]
    groups = (
        []
        if outcomes is None or known is None
        else _groups_of_numbers(values, ordered, outcomes, known)
    )
    return ColumnProfile(len(values), nulls, quantiles=quantiles, groups=groups)


def _groups_of_levels(
    values: pl.Series, levels: Mapping[str, int], outcomes: NDArray[Any], known: NDArray[Any]
) -> list[list[Any]]:
    names = pl.Series(list(levels), dtype=pl.String)
    number = values.replace_strict(
        names, np.arange(len(names)), default=None, return_dtype=pl.Int64
    )
    return _sums(number, names.to_list(), outcomes, known)


def _groups_of_numbers(
    values: pl.Series, ordered: NDArray[Any], outcomes: NDArray[Any], known: NDArray[Any]
) -> list[list[Any]]:
    """About equally many rows a group; equal values stay together."""
    borders = np.unique(ordered[(np.arange(1, GROUPS) / GROUPS * len(ordered)).astype(np.int64)])
    number = np.searchsorted(borders, values.to_numpy().astype(np.float64), side="right")
    middles = np.searchsorted(borders, ordered, side="right")
    places = [
        float(np.median(ordered[middles == group]))
        for group in range(len(borders) + 1)
        if (middles == group).any()
    ]
    present = np.unique(middles)
    renumbered = np.full(len(borders) + 1, -1)
    renumbered[present] = np.arange(len(present))
    series = pl.Series(renumbered[number]).set(values.is_null(), None)
    return _sums(series, places, outcomes, known)


def _sums(
    number: pl.Series, places: list[Any], outcomes: NDArray[Any], known: NDArray[Any]
) -> list[list[Any]]:
    counted = known & number.is_not_null().to_numpy()
    codes = number.to_numpy()[counted].astype(np.int64)
    rows = np.bincount(codes, minlength=len(places))
    sums = np.zeros((len(places), outcomes.shape[1]))
    for column, weights in enumerate(outcomes[counted].T):
        sums[:, column] = np.bincount(codes, weights, minlength=len(places))
    return [
        [place, int(count), [float(f"{value:.9g}") for value in line]]
        for place, count, line in zip(places, rows, sums, strict=True)
        if count
    ]
