"""Columns that can't have been known when one predicts: they follow the label, the event, or
explain the target alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from retrain.columns import own_column
from retrain.config import ColumnType, Task
from retrain.data.inference.explained import (
    Floats,
    explained,
    explained_by_levels,
    explained_share,
    to_outcomes,
)
from retrain.data.scalars import as_float

ROWS_LOOKED_AT = 50_000
# Of the variance of classes, or of ranks.
SUSPICIOUS = {Task.binary: 0.95, Task.multiclass: 0.95, Task.regression: 0.99}
FOLLOWS_TARGET = 0.95
SAME_SPAN = 0.99
MOST_SPANS = 5
MOST_PARTS, PART_ROWS, FEWEST_PART_ROWS = 100, 500, 50
SAME_SUM = 1e-9  # of the largest target
SAME_QUOTIENT = 1e-3  # of the usual target: rates are rounded
A_COPY = 1e-9  # what a correlation of 1 may lack
_BEFORE = own_column("before")
ALONE = "it alone predicts the target"
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
        if as_float((sample[name] > sample[time]).mean()) > 0.5
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
    both = as_float(missing.filter(unlabelled).mean())
    same = as_float((missing == unlabelled).mean())
    return bool(same > FOLLOWS_TARGET and both > FOLLOWS_TARGET)


def _find_spans(
    found: Leaks, sample: pl.DataFrame, numbers: Sequence[str], moments: Sequence[str]
) -> None:
    """Numbers that are the time between two moments of which the second lies after the event."""
    for first, second in itertools.combinations(moments, 2):
        span = (sample[second] - sample[first]).dt.total_microseconds().cast(pl.Float64)
        for name in numbers:
            both = span.is_not_null() & sample[name].is_not_null()
            values = sample[name].filter(both)
            if explained_share(values, span.filter(both), Task.regression) > SAME_SPAN:
                found.why[name] = f"it is the time between `{first}` and `{second}`: {AFTER}"


def _find_parts(found: Leaks, sample: pl.DataFrame, names: Sequence[str], target: str) -> None:
    """Pairs of numbers that make up the target exactly, such as casual and registered riders, or
    price and quantity; or but for a factor, such as cases for each thousand people."""
    rows = sample.filter(sample[target].is_not_null())
    rows = rows.gather_every(max(1, len(rows) // PART_ROWS))
    columns = [rows[name].cast(pl.Float64).fill_null(math.nan).to_numpy() for name in names]
    amounts = rows[target].cast(pl.Float64).to_numpy()
    sizes = np.abs(amounts[np.isfinite(amounts) & (amounts != 0)])
    if not len(sizes):
        return
    exactly, nearly = SAME_SUM * sizes.max(), SAME_QUOTIENT * np.median(sizes)
    for one, other in itertools.permutations(range(len(names)), 2):
        first, second = columns[one], columns[other]
        for sign, made in (("+", first + second), ("-", first - second), ("*", first * second)):
            if _equal(made, amounts, exactly):
                why = f"`{names[one]}` {sign} `{names[other]}` is the target"
                found.why = {names[one]: why, names[other]: why} | found.why
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient = np.where(second != 0, first / second, np.nan)
            factors = np.where(quotient != 0, amounts / quotient, np.nan)
        factors = factors[np.isfinite(factors)]
        usual = np.median(factors) if len(factors) else np.nan
        if (
            _equal(usual * quotient, amounts, nearly)
            and not {
                names[one],
                names[other],
            }
            & found.why.keys()
        ):
            found.doubts.append(
                f"`{names[one]}` / `{names[other]}` is the target, but for a factor: are both "
                "known when one predicts?"
            )


def _equal(made: Floats, amounts: Floats, nearly: float) -> bool:
    """Whether numbers are the amounts, shape (rows,), in all rows of enough where both are."""
    apart = np.abs(made - amounts)
    apart = apart[np.isfinite(apart)]
    return len(apart) >= FEWEST_PART_ROWS and bool(apart.max() <= nearly)


class _Labelled:
    """The labelled rows of a table, some of them if they are many, and how much one column explains
    of their target."""

    def __init__(
        self, table: pl.DataFrame, target: str, time: str, task: Task, keys: Sequence[str]
    ) -> None:
        self.time, self.task, self.limit = time, task, SUSPICIOUS[task]
        known = _usable(table[target], task)
        rows = table.with_columns(_before(table, target, time, keys).alias(_BEFORE))
        self.rows = _some(rows.filter(known))
        self.target, self.before = self.rows[target], self.rows[_BEFORE]

    def check(self, found: Leaks, name: str) -> None:
        values = self.rows[name]
        if values.dtype.is_temporal():
            values = (values - self.rows[self.time]).dt.total_microseconds().alias(name)
        share = explained_share(values, self.target, self.task)
        if share > self.limit:
            if not self._known_before(values, share):
                found.why[name] = f"{ALONE} almost perfectly ({share:.4f} of 1)"
        elif self.task is Task.multiclass:
            self._check_classes(found, values)

    def _check_classes(self, found: Leaks, values: pl.Series) -> None:
        """A flag or fee of one class is a leak; limits of a number may be honest: petals of iris
        setosa are short."""
        outcomes, flags = to_outcomes(self.target, self.task), values
        if values.dtype.is_numeric() and values.n_unique() > 2:  # such as a fee that most rows lack
            flags = values == values.drop_nulls().mode().min()
        by_flag, by_limit = explained_by_levels(flags, outcomes), explained(values, outcomes)
        best = int(np.argmax(by_flag if by_flag.max() > self.limit else by_limit))
        one = f"class `{self.target.cast(pl.String).unique().sort()[best]}` of the target"
        if by_flag[best] > self.limit:
            found.why[values.name] = (
                f"it alone predicts the {one} almost perfectly ({by_flag[best]:.4f} of 1)"
            )
        elif by_limit[best] > self.limit:
            found.doubts.append(
                f"`{values.name}` alone predicts the {one} from all others: is it known when one "
                "predicts?"
            )

    def _known_before(self, values: pl.Series, share: float) -> bool:
        """Whether the target just goes on as it was, and the column explains no more than its past,
        such as yesterday's price; or no more than the time does, such as a year."""
        numeric = values.dtype.is_numeric()
        if self.task is Task.regression and numeric:
            correlation = pl.select(pl.corr(values.cast(pl.Float64), self.target)).item()
            if correlation is not None and abs(correlation) > 1 - A_COPY:
                return False  # the target itself in another unit
        known = _usable(self.before, self.task)
        before = self.before.filter(known)
        if explained_share(values.filter(known), before, self.task) >= share:
            return True
        numbers = values.drop_nulls()
        grows = numeric and (numbers.is_sorted() or numbers.is_sorted(descending=True))
        return grows and explained_share(self.rows[self.time], self.target, self.task) > self.limit


def _usable(target: pl.Series, task: Task) -> pl.Series:
    """Which rows have a label; an infinite amount is none."""
    if task is not Task.regression:
        return target.is_not_null()
    return target.cast(pl.Float64).is_finite().fill_null(False)


def _before(table: pl.DataFrame, target: str, time: str, keys: Sequence[str]) -> pl.Series:
    """The target of the row before, of the same series where the keys beside the time name one."""
    names = [name for name in keys if name != time and name in table.columns]
    series = [table[name].alias(f"key{k}") for k, name in enumerate(names)]
    before = pl.col("target").shift(1)
    frame = pl.DataFrame([table[target].alias("target"), *series])
    return frame.select(before.over([key.name for key in series]) if series else before).to_series()
