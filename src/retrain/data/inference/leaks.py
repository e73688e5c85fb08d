"""Columns that can't have been known when one predicts: they follow the label, the event, or
explain the target alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from retrain.config import ColumnType, Task
from retrain.data.inference.explained import (
    entropy_by_intervals,
    entropy_by_levels,
    explained_entropy,
    explained_variance,
    indicator_levels,
)

ROWS_LOOKED_AT = 50_000
CLASS_ROWS = 5000  # for intervals of single classes, of which there may be many
# Of entropy, or variance of ranks.
SUSPICIOUS = {Task.binary: 0.95, Task.multiclass: 0.95, Task.regression: 0.99}
FOLLOWS_TARGET = 0.95
SAME_SPAN = 0.99
MOST_SPANS = 5
MOST_PARTS, PART_ROWS, FEWEST_PART_ROWS = 100, 500, 50
SAME_SUM = 1e-9  # of the largest target
SAME_QUOTIENT = 1e-3  # of the usual target: rates are rounded
A_COPY = 1e-9  # what a correlation of 1 may lack
AFTER = "known only after the event?"


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
    """`table` is in order of `time`, `features` are its columns in question, `keys` tell the rows
    of a batch apart."""
    found, sample = Leaks(), _some(table)

    def named(kind: ColumnType) -> list[str]:
        return [name for name, one in features.items() if one is kind and name not in found.why]

    later = [
        name
        for name in named(ColumnType.datetime)
        if ((sample[name] > sample[time]).mean() or 0) > 0.5
    ]
    found.why |= dict.fromkeys(later, f"in most rows it lies after `{time}`: {AFTER}")
    for name in features:
        if name not in found.why and _missing_with_target(sample[name], sample[target]):
            found.why[name] = f"it is missing exactly where the target is: {AFTER}"
    _find_spans(found, sample, named(ColumnType.numeric), [time, *later[:MOST_SPANS]])
    labelled = _Labelled(table, target, time, task, keys)
    for name, kind in features.items():
        if name not in found.why and kind is not ColumnType.sparse:
            labelled.check(found, name)
    if task is Task.regression:
        _find_parts(found, sample, named(ColumnType.numeric)[:MOST_PARTS], target)
    return found


def _some(table: pl.DataFrame) -> pl.DataFrame:
    """The same rows of every table of a length, in their order. Not each k-th: that may be the same
    hour, or shop, of all."""
    if len(table) <= ROWS_LOOKED_AT:
        return table
    random = np.random.default_rng(0)
    return table[np.sort(random.choice(len(table), ROWS_LOOKED_AT, replace=False, shuffle=False))]


def _missing_with_target(values: pl.Series, target: pl.Series) -> bool:
    """Whether a column is there exactly where the label is, and so came with it."""
    missing, unlabelled = values.is_null(), target.is_null()
    if not missing.any() or not unlabelled.any() or unlabelled.all():
        return False
    both = (missing & unlabelled).sum() / unlabelled.sum()
    return bool((missing == unlabelled).mean() > FOLLOWS_TARGET and both > FOLLOWS_TARGET)


def _find_spans(
    found: Leaks, sample: pl.DataFrame, numbers: Sequence[str], moments: Sequence[str]
) -> None:
    """Numbers that are the time between two moments of which the second lies after the event."""
    for first, second in itertools.combinations(moments, 2):
        span = (sample[second] - sample[first]).dt.total_microseconds().cast(pl.Float64)
        for name in numbers:
            both = span.is_not_null() & sample[name].cast(pl.Float64).is_finite().fill_null(False)
            amounts = span.filter(both).to_numpy()
            if explained_variance(sample[name].filter(both), amounts) > SAME_SPAN:
                found.why[name] = f"it is the time between `{first}` and `{second}`: {AFTER}"


def _find_parts(found: Leaks, sample: pl.DataFrame, names: Sequence[str], target: str) -> None:
    """Pairs of numbers that make up the target exactly, such as casual and registered riders, or
    price and quantity; or but for a factor, such as cases for each thousand people."""
    rows = pl.DataFrame(
        [sample[name].cast(pl.Float64).alias(str(k)) for k, name in enumerate([target, *names])]
    )
    rows = rows.filter(rows["0"].is_not_null())
    values = rows.gather_every(max(1, len(rows) // PART_ROWS)).fill_null(float("nan")).to_numpy()
    amounts, parts = values[:, :1], values[:, 1:]
    sizes = np.abs(amounts[np.isfinite(amounts) & (amounts != 0)])
    if not len(sizes):
        return
    exactly, nearly = SAME_SUM * sizes.max(), SAME_QUOTIENT * np.median(sizes)
    for k, name in enumerate(names):
        one = parts[:, k : k + 1]
        for sign, made in (("+", one + parts), ("-", one - parts), ("*", one * parts)):
            for other in _equal(made, amounts, exactly):
                if other != k:
                    why = f"`{name}` {sign} `{names[other]}` is the target"
                    found.why = {name: why, names[other]: why} | found.why
        with np.errstate(divide="ignore", invalid="ignore"):
            quotients = np.where(parts != 0, one / parts, np.nan)
            factors = np.where(quotients != 0, amounts / quotients, np.nan)
        usual = pl.DataFrame(factors).fill_nan(None).median().to_numpy().astype(float)
        for other in _equal(usual * quotients, amounts, nearly):
            if other != k and not {name, names[other]} & found.why.keys():
                found.doubts.append(
                    f"`{name}` / `{names[other]}` is the target, but for a factor: are both known "
                    "when one predicts?"
                )


def _equal(made: np.ndarray, amounts: np.ndarray, nearly: float) -> np.ndarray:
    """Numbers of the columns that equal the amounts, shape (rows, 1), in all rows of enough where
    they are there."""
    apart = np.abs(made - amounts)
    enough = np.isfinite(apart).sum(axis=0) >= FEWEST_PART_ROWS
    return np.flatnonzero((np.fmax.reduce(apart, axis=0) <= nearly) & enough)


class _Labelled:
    """The labelled rows of a table, some of them if they are many, and how much one column explains
    of their target."""

    def __init__(
        self, table: pl.DataFrame, target: str, time: str, task: Task, keys: Sequence[str]
    ) -> None:
        before = _before(table, target, time, keys)
        known = table[target].is_not_null()
        self.rows = _some(table.filter(known))
        self.before = _some(before.filter(known).to_frame()).to_series()
        self.time, self.task, self.limit, self.target = (
            time,
            task,
            SUSPICIOUS[task],
            self.rows[target],
        )
        if task is Task.regression:
            self.target, self.before = (
                one.cast(pl.Float64).fill_nan(None) for one in (self.target, self.before)
            )
        else:
            self.names = self.target.cast(pl.String).unique().sort()
            self.target, self.before = (
                one.cast(pl.String).cast(pl.Enum(self.names), strict=False).to_physical()
                for one in (self.target, self.before)
            )

    def check(self, found: Leaks, name: str) -> None:
        values = self.rows[name]
        if values.dtype.is_temporal():
            values = (values - self.rows[self.time]).dt.total_microseconds()
        share = self._explained(values, self.target)
        if share > self.limit:
            if not self._known_before(values, share):
                found.why[name] = f"it alone tells the target almost perfectly ({share:.4f} of 1)"
        elif self.task is Task.multiclass:
            self._check_classes(found, values.alias(name))

    def _check_classes(self, found: Leaks, values: pl.Series) -> None:
        """A flag or fee of one class is a leak; limits of a number may be honest: petals of iris
        setosa are short."""
        classes, levels = self.target.to_numpy(), indicator_levels(values)
        flags = [(classes == k).astype(np.int64) for k in range(len(self.names))]
        shares = [entropy_by_levels(levels, flag) for flag in flags]
        best = int(np.argmax(shares))
        if shares[best] > self.limit:
            one = f"class `{self.names[best]}` of the target"
            found.why[values.name] = (
                f"it alone tells the {one} almost perfectly ({shares[best]:.4f} of 1)"
            )
            return
        step = -(-len(values) // CLASS_ROWS)
        for k, flag in enumerate(flags):
            if entropy_by_intervals(values.gather_every(step), flag[::step]) > self.limit:
                found.doubts.append(
                    f"`{values.name}` alone tells the class `{self.names[k]}` of the target from "
                    "all others: is it known when "
                    "one predicts?"
                )
                return

    def _explained(self, values: pl.Series, target: pl.Series) -> float:
        known = target.is_not_null()
        if not known.any():
            return 0.0
        values, outcome = values.filter(known), target.filter(known).to_numpy()
        if self.task is Task.regression:
            return explained_variance(values, outcome)
        return explained_entropy(values, outcome.astype(np.int64))

    def _known_before(self, values: pl.Series, share: float) -> bool:
        """Whether the target just goes on as it was, and the column explains no more than its past,
        such as yesterday's price; or no more than the time does, such as a year."""
        numeric = values.dtype.is_numeric()
        if self.task is Task.regression and numeric:
            correlation = pl.select(pl.corr(values.cast(pl.Float64), self.target)).item()
            if correlation is not None and abs(correlation) > 1 - A_COPY:
                return False  # the target itself in another unit
        if self._explained(values, self.before) >= share:
            return True
        numbers = values.drop_nulls()
        grows = numeric and (numbers.is_sorted() or numbers.is_sorted(descending=True))
        return grows and self._explained(self.rows[self.time], self.target) > self.limit


def _before(table: pl.DataFrame, target: str, time: str, keys: Sequence[str]) -> pl.Series:
    """The target of the row before, of the same series where the keys beside the time name one."""
    names = [name for name in keys if name != time and name in table.columns]
    series = [table[name].alias(f"key{k}") for k, name in enumerate(names)]
    before = pl.col("target").shift(1)
    frame = pl.DataFrame([table[target].alias("target"), *series])
    return frame.select(before.over([key.name for key in series]) if series else before).to_series()
