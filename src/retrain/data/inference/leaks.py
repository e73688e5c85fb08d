"""Columns that can't have been known when one predicts: they follow the label, the event, or tell the target by themselves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from retrain.config import ColumnType, Task
from retrain.data.inference.leakage import (
    class_with_limits,
    told_of_amounts,
    told_of_classes,
    told_of_one_class,
)

ROWS_LOOKED_AT = 50_000
SUSPICIOUS = {
    Task.binary: 0.95,
    Task.multiclass: 0.95,
    Task.regression: 0.99,
}  # of entropy, or variance of ranks
FOLLOWS_TARGET = 0.95
SAME_SPAN = 0.99
MOST_SPANS = 5
MOST_PARTS, PART_ROWS, FEWEST_PART_ROWS = 100, 500, 50
SAME_SUM = 1e-9  # of the largest target
A_COPY = 1e-9  # what a correlation of 1 may lack


@dataclass
class Leaks:
    """By column why it is suspected, and sentences about those that may be in order."""

    why: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


def find_leaks(
    table: pl.DataFrame,
    features: Mapping[str, ColumnType],
    target: str,
    time: str,
    task: Task,
    keys: Sequence[str],
) -> Leaks:
    """`table` is in order of `time`, `features` are its columns in question, `keys` tell the rows of a batch apart."""
    found = Leaks()
    sample = _some(table)
    later = [
        name
        for name, kind in features.items()
        if kind is ColumnType.datetime and _is_later(sample, name, time)
    ]
    found.why |= {
        name: f"in most rows it lies after `{time}`: known only after the event?" for name in later
    }
    for name in features:
        if (
            name not in found.why
            and sample[name].null_count()
            and (why := _missing_with_target(sample, name, target))
        ):
            found.why[name] = why
    _find_spans(found, sample, features, [time, *later[:MOST_SPANS]])
    labelled = _Labelled(table, target, time, task, keys)
    for name, kind in features.items():
        if name not in found.why and kind is not ColumnType.sparse:
            labelled.look_at(found, name)
    if task is Task.regression:
        _find_parts(
            found,
            sample,
            [name for name, kind in features.items() if kind is ColumnType.numeric],
            target,
        )
    return found


def _some(table: pl.DataFrame) -> pl.DataFrame:
    """The same rows of every table of a length, in their order. Not each k-th: that may be the same hour, or shop, of all."""
    if len(table) <= ROWS_LOOKED_AT:
        return table
    chosen = np.random.default_rng(0).choice(
        len(table), ROWS_LOOKED_AT, replace=False, shuffle=False
    )
    return table[np.sort(chosen)]


def _is_later(sample: pl.DataFrame, name: str, time: str) -> bool:
    return ((sample[name] > sample[time]).mean() or 0) > 0.5


def _missing_with_target(sample: pl.DataFrame, name: str, target: str) -> str | None:
    """Whether a column is there exactly where the label is, and so came with it."""
    unlabelled = sample[target].is_null()
    if not unlabelled.any() or unlabelled.all():
        return None
    missing = sample[name].is_null()
    agree = float((missing == unlabelled).mean())
    both = float((missing & unlabelled).sum() / unlabelled.sum())
    if agree > FOLLOWS_TARGET and both > FOLLOWS_TARGET:
        return f"it is missing exactly where the target is ({both:.0%} of those rows): known only after the event?"
    return None


def _find_spans(
    found: Leaks, sample: pl.DataFrame, features: Mapping[str, ColumnType], moments: list[str]
) -> None:
    """Numbers that are the time between two moments of which the second lies after the event."""
    numbers = [
        name
        for name, kind in features.items()
        if kind is ColumnType.numeric and name not in found.why
    ]
    for first, second in itertools.combinations(moments, 2):
        span = (sample[second] - sample[first]).dt.total_microseconds().cast(pl.Float64)
        for name in numbers:
            both = (
                span.is_not_null()
                & sample[name].is_not_null()
                & sample[name].cast(pl.Float64).is_finite()
            )
            if (
                both.any()
                and told_of_amounts(sample[name].filter(both), span.filter(both).to_numpy())
                > SAME_SPAN
            ):
                found.why[name] = (
                    f"it is the time between `{first}` and `{second}`: known only after the event?"
                )


def _find_parts(found: Leaks, sample: pl.DataFrame, names: Sequence[str], target: str) -> None:
    """Pairs of numbers that make up the target exactly, such as casual and registered riders, or price and quantity."""
    names = [name for name in names if name not in found.why][:MOST_PARTS]
    rows = pl.DataFrame(
        [sample[name].cast(pl.Float64).alias(str(k)) for k, name in enumerate([target, *names])]
    )
    rows = rows.filter(rows["0"].is_not_null())
    values = rows.gather_every(max(1, len(rows) // PART_ROWS)).fill_null(float("nan")).to_numpy()
    amounts, parts = values[:, :1], values[:, 1:]
    nearly = SAME_SUM * np.nanmax(np.abs(amounts), initial=0)
    for k, name in enumerate(names):
        one = parts[:, k : k + 1]
        for sign, made in (("+", one + parts), ("-", one - parts), ("*", one * parts)):
            apart = np.abs(made - amounts)
            same = (np.fmax.reduce(apart, axis=0) <= nearly) & (
                np.isfinite(apart).sum(axis=0) >= FEWEST_PART_ROWS
            )
            for other in np.flatnonzero(same):
                if other != k:
                    why = f"`{name}` {sign} `{names[other]}` is the target"
                    found.why.setdefault(name, why)
                    found.why.setdefault(names[other], why)


class _Labelled:
    """The labelled rows of a table, some of them if they are many, and what one column tells of their target."""

    def __init__(
        self, table: pl.DataFrame, target: str, time: str, task: Task, keys: Sequence[str]
    ) -> None:
        labelled = table[target].is_not_null()
        self.rows, self.time, self.task, self.limit = (
            _some(table.filter(labelled)),
            time,
            task,
            SUSPICIOUS[task],
        )
        before = _some(_before(table, target, time, keys).filter(labelled).to_frame()).to_series()
        if task is Task.regression:
            self.target = self.rows[target].cast(pl.Float64).fill_nan(None)
            self.before = before.cast(pl.Float64).fill_nan(None)
        else:
            self.names = self.rows[target].cast(pl.String).unique().sort()
            kind = pl.Enum(self.names)
            self.target = self.rows[target].cast(pl.String).cast(kind).to_physical()
            self.before = before.cast(pl.String).cast(kind, strict=False).to_physical()

    def look_at(self, found: Leaks, name: str) -> None:
        values = self.rows[name]
        if values.dtype.is_temporal():
            values = (values - self.rows[self.time]).dt.total_microseconds()
        told = self._told(values, self.target)
        if told > self.limit:
            if not self._known_before(values, told):
                found.why[name] = f"it alone tells the target almost perfectly ({told:.4f} of 1)"
        elif self.task is Task.multiclass:
            classes = self.target.to_numpy()
            of_one, which = told_of_one_class(values, classes)
            if of_one > self.limit:
                one = f"class `{self.names[which]}` of the target"
                found.why[name] = f"it alone tells the {one} almost perfectly ({of_one:.4f} of 1)"
            elif (limits := class_with_limits(values, classes, self.limit)) is not None:
                one = f"class `{self.names[limits]}` of the target"
                found.doubts.append(
                    f"`{name}` alone tells the {one} from all others: is it known when one predicts?"
                )

    def _told(self, values: pl.Series, target: pl.Series) -> float:
        known = target.is_not_null()
        if not known.any():
            return 0.0
        values, outcome = values.filter(known), target.filter(known).to_numpy()
        if self.task is Task.regression:
            return told_of_amounts(values, outcome)
        return told_of_classes(values, outcome.astype(np.int64), self.limit)

    def _known_before(self, values: pl.Series, told: float) -> bool:
        """Whether the target just goes on as it was, and the column tells no more than its past, such as yesterday's price;
        or no more than the time does, such as a year."""
        if self.task is Task.regression and _is_copy(values, self.target):
            return False
        if self._told(values, self.before) >= told:
            return True
        numbers = values.drop_nulls()
        grows = numbers.dtype.is_numeric() and (
            numbers.is_sorted() or numbers.is_sorted(descending=True)
        )
        return grows and self._told(self.rows[self.time], self.target) > self.limit


def _before(table: pl.DataFrame, target: str, time: str, keys: Sequence[str]) -> pl.Series:
    """The target of the row before, of the same series where the keys beside the time name one."""
    series = [
        table[name].alias(f"key{k}")
        for k, name in enumerate(keys)
        if name != time and name in table.columns
    ]
    frame = pl.DataFrame([table[target].alias("target"), *series])
    before = pl.col("target").shift(1)
    return frame.select(before.over([key.name for key in series]) if series else before).to_series()


def _is_copy(values: pl.Series, target: pl.Series) -> bool:
    """Whether it is the target itself in another unit."""
    if not values.dtype.is_numeric():
        return False
    correlation = pl.select(pl.corr(values.cast(pl.Float64), target)).item()
    return correlation is not None and abs(correlation) > 1 - A_COPY
