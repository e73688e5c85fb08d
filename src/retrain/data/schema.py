"""What a batch must look like. Broken rows go to quarantine with the reason; a broken batch is refused as a whole."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from retrain.columns import own_column, refuse_reserved
from retrain.config import Column, ColumnType, DataConfig, Task
from retrain.data.misfits import column_kinds, without_misfits
from retrain.data.periods import Period
from retrain.data.reading.conversions import (
    DTYPES,
    can_be_kept,
    holds_flags,
    holds_nothing,
    is_categorical,
    to_feature,
    to_times,
    whole_numbers,
)
from retrain.data.reading.table import split_problems
from retrain.data.target_words import is_positive, split_words, two_capitals
from retrain.errors import DataError

REASON, ROW = own_column("quarantine_reason"), own_column("row")
EARLIER_REASON = "quarantine_reason"  # in snapshots of earlier versions of this project
TARGET_DTYPES = {Task.binary: pl.Boolean, Task.multiclass: pl.String, Task.regression: pl.Float64}
# Of `sparse`: names with their values, such as "gene_17:2.5 gene_40:1"; what is not named is 0.
PAIRS = r"^(\S+:[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?( |$))*$"
# A batch with so many labelled rows and one class only has lost its labels; a smaller one may just be quiet.
SUSPICIOUSLY_CONSTANT = 500
SHOWN_ROWS = 3  # of those that a message names
Locate = Callable[[Sequence[int]], list[str]]


@dataclass(frozen=True)
class CheckedBatch:
    """A batch after its contract: every row of the source is in exactly one of the three frames."""

    labelled: pl.DataFrame
    unlabelled: pl.DataFrame
    quarantined: pl.DataFrame

    @property
    def everything(self) -> pl.DataFrame:
        """All rows, without the reasons for quarantine."""
        parts = (self.labelled, self.unlabelled, self.quarantined.drop(REASON, strict=False))
        return pl.concat(parts, how="diagonal_relaxed")


class Schema:
    """Columns, types, nulls, ranges, levels and keys of a batch, from `conf/data/`."""

    def __init__(self, data: DataConfig) -> None:
        self.data = data
        self.columns = list(
            dict.fromkeys([data.time_column, *data.key_columns, *data.features, data.target_column])
        )

    @cached_property
    def digest(self) -> str:
        """Changes when a rule changes: then batches that were checked under the old rules are checked again."""
        features = {
            name: [str(value) for value in vars(column).values()]
            for name, column in self.data.features.items()
        }
        rules = [
            features,
            self.columns,
            self.data.key_columns,
            self.data.maximum_quarantine_share,
            self.data.period.name,
            self.data.task.name,
            self.data.positive_label,
        ]
        return hashlib.sha256(json.dumps(rules).encode()).hexdigest()[:16]

    def check(
        self, batch: pl.DataFrame, period: Period, locate: Locate | None = None
    ) -> CheckedBatch:
        """Sort a batch's rows into labelled, unlabelled and quarantined. `locate` says where some of its rows lie.

        Raises DataError when the batch breaks the contract as a whole: no rows, a missing column, a wrong type,
        rows outside the period, repeated keys, a constant target, or too many broken rows.
        """
        locate = locate or _by_number
        batch, unread = split_problems(batch)
        batch, misfits = without_misfits(batch, column_kinds(self.data))
        batch, slips = self._without_slips(batch, period, locate)
        batch = self._typed(batch, period)
        told = self._outside(batch, period)
        for reasons in (_placed(misfits, locate), _placed(slips, locate), unread):
            told = told if reasons is None else reasons.zip_with(reasons.is_not_null(), told)
        sound = told.is_null()
        self._check_keys(batch, sound, period, locate)
        batch = batch.with_row_index(ROW)
        broken = self._broken_rows(batch.filter(sound), told)
        batch = batch.join(broken, on=ROW, how="left", maintain_order="left").drop(ROW)
        quarantined = batch.filter(pl.col(REASON).is_not_null())
        share = len(quarantined) / len(batch)
        if share > self.data.maximum_quarantine_share:
            common = quarantined.group_by(REASON).len().sort("len", descending=True).row(0)
            self._refuse(
                period,
                f"{share:.1%} of its rows break the contract ({len(quarantined):,} of {len(batch):,}; most often {common[0]})",
                "or raise `data.maximum_quarantine_share`",
            )
        sound = (
            batch.filter(pl.col(REASON).is_null())
            .drop(REASON)
            .sort(self.data.time_column, *self.data.key_columns)
        )
        target = pl.col(self.data.target_column)
        labelled = sound.filter(target.is_not_null())
        if (
            len(labelled) >= SUSPICIOUSLY_CONSTANT
            and labelled[self.data.target_column].n_unique() < 2
        ):
            value = labelled[self.data.target_column][0]
            self._refuse(
                period,
                f"its target `{self.data.target_column}` is constant ({value} in all {len(labelled):,} labelled rows)",
            )
        return CheckedBatch(labelled, sound.filter(target.is_null()), quarantined)

    def _refuse(self, period: Period, what: str, way_out: str = "") -> None:
        raise DataError(
            f"Batch {period.key} is refused: {what}. The snapshot stays as it was. "
            f"Mend the batch at its source{', ' + way_out if way_out else ''}, or set `data.as_of` to an earlier period; then `dvc repro`."
        )

    def _named(self, column: str) -> str:
        """A column with the key of the config that asks for it."""
        data = self.data
        roles = {
            "time_column": [data.time_column],
            "target_column": [data.target_column],
            "key_columns": data.key_columns,
        }
        key = next((key for key, names in roles.items() if column in names), "features")
        return f"`{column}` (`data.{key}`)"

    def _typed(self, batch: pl.DataFrame, period: Period) -> pl.DataFrame:
        if batch.is_empty():
            self._refuse(period, "it has no rows")
        refuse_reserved(batch.columns, f"Batch {period.key}")
        missing = [name for name in self.columns if name not in batch.columns]
        if missing:
            found = ", ".join(f"`{name}`" for name in batch.columns[:40])
            self._refuse(
                period, f"it has no column {', '.join(map(self._named, missing))} (it has {found})"
            )
        series = []
        for name in self.columns:
            column = self.data.features.get(name)
            if name == self.data.time_column:
                series.append(self._time(batch[name], period))
            elif name == self.data.target_column:
                series.append(self._target(batch[name], period))
            elif column is not None:
                series.append(self._feature(batch[name], column, period))
            else:
                series.append(batch[name])
        # Columns outside the contract are kept as they are: an older champion may have been trained on them.
        others = [
            values
            for values in batch
            if values.name not in self.columns and can_be_kept(values.dtype)
        ]
        return pl.DataFrame(series + others)

    def _time(self, values: pl.Series, period: Period) -> pl.Series:
        times = to_times(values)
        if times is None:
            self._refuse(
                period,
                f"its time column `{values.name}` has type {values.dtype}, not a date or date and time",
            )
        return times

    def _target(self, values: pl.Series, period: Period) -> pl.Series:
        task = self.data.task
        if holds_nothing(values):
            return pl.Series(values.name, [None] * len(values), dtype=TARGET_DTYPES[task])
        if task is Task.regression and values.dtype.is_numeric():
            return values.cast(pl.Float64).fill_nan(None)
        if task is Task.multiclass and (is_categorical(values.dtype) or values.dtype == pl.Boolean):
            return values.cast(pl.String)
        if task is Task.multiclass and whole_numbers(values):
            return values.fill_nan(None).cast(pl.Int64).cast(pl.String)
        if task is Task.binary and self.data.positive_label is not None:
            return is_positive(values, self.data.positive_label)
        if task is Task.binary and holds_flags(values):
            return (values.fill_nan(None) if values.dtype.is_float() else values).cast(pl.Boolean)
        wanted = {
            Task.binary: "true/false or 1/0",
            Task.multiclass: "a string or a whole number for each class",
            Task.regression: "a number",
        }
        self._refuse(
            period,
            f"its target `{values.name}` has type {values.dtype} and must be {wanted[task]} (`data.task: {task.name}`)",
        )

    def _without_slips(
        self, batch: pl.DataFrame, period: Period, locate: Locate
    ) -> tuple[pl.DataFrame, pl.Series | None]:
        """The batch without the few words of its target that are neither of its two classes, and why, for each row.

        Raises DataError where so many are that nothing tells which of them is meant.
        """
        name, label = self.data.target_column, self.data.positive_label
        if self.data.task is not Task.binary or label is None or name not in batch.columns:
            return batch, None
        values = batch[name]
        words = (
            None
            if two_capitals(values, label)
            else split_words(values, label, self.data.maximum_quarantine_share)
        )
        if words is None:
            return batch, None
        if words.unclear:
            texts = values.cast(pl.String).str.strip_chars()
            counted = [
                f"{word} ({self._named_rows((texts == word).fill_null(False), locate)})"
                for word in list(words.others)[:SHOWN_ROWS]
            ]
            more = (
                f" and {len(words.others) - SHOWN_ROWS:,} more"
                if len(words.others) > SHOWN_ROWS
                else ""
            )
            self._refuse(
                period,
                f"its target `{name}` holds {', '.join(counted)}{more} beside the positive label {label}",
            )
        why = f"{name}: '" + values.cast(pl.String) + f"' is neither {label} nor {words.negative}"
        return batch.with_columns(values.set(words.odd, None)), why.set(~words.odd, None)

    @staticmethod
    def _named_rows(which: pl.Series, locate: Locate) -> str:
        """How many rows, and where the first of them lie."""
        rows = which.arg_true().to_list()
        more = ", ..." if len(rows) > SHOWN_ROWS else ""
        return f"{len(rows):,} row{'s' if len(rows) != 1 else ''}: {'; '.join(locate(rows[:SHOWN_ROWS]))}{more}"

    def _feature(self, values: pl.Series, column: Column, period: Period) -> pl.Series:
        converted = to_feature(values, column.type)
        if converted is not None:
            return converted
        self._refuse(
            period,
            f"its column `{values.name}` has type {values.dtype}, and the contract says {column.type.name}",
        )

    def _outside(self, batch: pl.DataFrame, period: Period) -> pl.Series:
        """Why the time of a row is wrong, null where it isn't."""
        name, times = self.data.time_column, batch[self.data.time_column]
        outside = ((times < period.start) | (times >= period.end)).fill_null(False)
        why = pl.Series([None], dtype=pl.String).new_from_index(0, len(batch))
        why = why.set(times.is_null(), f"{name}: missing")
        return why.set(outside, f"{name}: outside the period {period.key}")

    def _check_keys(
        self, batch: pl.DataFrame, sound: pl.Series, period: Period, locate: Locate
    ) -> None:
        """Raises DataError, with the first keys that come more than once and where, for rows that share their key."""
        keys = batch.select(self.data.key_columns)
        rows = sound.arg_true()
        repeated = keys[rows].is_duplicated()
        if not repeated.any():
            return
        names = list(keys.columns)
        shared = keys.with_row_index(ROW)[rows].filter(repeated)
        groups = shared.group_by(names, maintain_order=True).agg(pl.col(ROW)).head(SHOWN_ROWS)
        told = []
        for *values, places in groups.rows():
            more = ", ..." if len(places) > SHOWN_ROWS else ""
            key = dict(zip(names, values, strict=True))
            told.append(f"{key} ({'; '.join(locate(places[:SHOWN_ROWS]))}{more})")
        self._refuse(
            period,
            f"{len(shared):,} of its {len(rows):,} rows share their key, such as {', '.join(told)}",
        )

    def _broken_rows(self, batch: pl.DataFrame, told: pl.Series) -> pl.DataFrame:
        """Row number and reason of each row that breaks a rule about single values, and of those whose reason is `told`."""
        import pandera.polars as pa  # 0.6 s that a run without a new batch need not pay

        # Pandera adds columns of its own beside those of the batch, which may have the same names.
        names = {f"feature {number}": name for number, name in enumerate(self.data.features)}
        schema = pa.DataFrameSchema(
            {alias: _pandera_column(self.data.features[name]) for alias, name in names.items()}
        )
        known = pl.DataFrame({ROW: told.is_not_null().arg_true(), REASON: told.drop_nulls()})
        try:
            schema.validate(
                pl.DataFrame([batch[name].alias(alias) for alias, name in names.items()]), lazy=True
            )
        except pa.errors.SchemaErrors as error:
            cases = error.failure_cases
            if cases["index"].null_count():
                raise DataError(
                    f"The contract can't be checked: {cases.filter(pl.col('index').is_null()).row(0)}"
                ) from error
            column = pl.col("column").replace_strict(names, return_dtype=pl.String)
            reason = pl.format("{}: {}", column, pl.col("check").replace("not_nullable", "missing"))
            per_row = cases.group_by(pl.col("index").alias("at"), maintain_order=True).agg(
                reason.sort().str.join("; ").alias(REASON)
            )
            per_row = per_row.select(batch[ROW].gather(per_row["at"]).alias(ROW), REASON)
            return pl.concat([known.cast({ROW: pl.get_index_type()}), per_row])
        return known.cast({ROW: pl.get_index_type()})


def _by_number(rows: Sequence[int]) -> list[str]:
    return [f"row {row + 1}" for row in rows]


def _placed(reasons: pl.Series | None, locate: Locate) -> pl.Series | None:
    """Reasons with the places of their rows."""
    if reasons is None or locate is _by_number:
        return reasons
    rows = reasons.is_not_null().arg_true()
    places = pl.Series(locate(rows.to_list()), dtype=pl.String)
    return reasons.scatter(rows, reasons.gather(rows) + " (" + places + ")")


def _pandera_column(column: Column) -> Any:
    import pandera.polars as pa

    checks = []
    if column.type is ColumnType.numeric:
        # Without a range of its own a number must at least be finite.
        checks.append(
            pa.Check.ge(column.minimum if column.minimum is not None else -sys.float_info.max)
        )
        checks.append(
            pa.Check.le(column.maximum if column.maximum is not None else sys.float_info.max)
        )
    if column.type is ColumnType.sparse:
        checks.append(pa.Check.str_matches(PAIRS, name="names with values"))
    if column.levels is not None:
        checks.append(pa.Check.isin(column.levels))
    return pa.Column(DTYPES[column.type], nullable=column.nullable, checks=checks)
