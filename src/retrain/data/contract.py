"""What a batch must look like. Broken rows go to quarantine with the reason; a broken batch is refused as a whole."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from retrain.columns import own_column, refuse_reserved
from retrain.config import Column, ColumnType, DataConfig, Task
from retrain.data.casting import without_case
from retrain.data.periods import Period
from retrain.data.reading import split_problems
from retrain.errors import DataError

REASON, ROW = own_column("quarantine_reason"), own_column("row")
EARLIER_REASON = "quarantine_reason"  # in snapshots of earlier versions of this project
DTYPES = {
    ColumnType.numeric: pl.Float64,
    ColumnType.categorical: pl.String,
    ColumnType.boolean: pl.Boolean,
    ColumnType.datetime: pl.Datetime("us"),
    ColumnType.text: pl.String,
    ColumnType.sparse: pl.String,
}
TARGET_DTYPES = {Task.binary: pl.Boolean, Task.multiclass: pl.String, Task.regression: pl.Float64}
# Of `sparse`: names with their values, such as "gene_17:2.5 gene_40:1"; what is not named is 0.
PAIRS = r"^(\S+:[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?( |$))*$"
# A batch with so many labelled rows and one class only has lost its labels; a smaller one may just be quiet.
SUSPICIOUSLY_CONSTANT = 500


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


class Contract:
    """Columns, types, nulls, ranges, levels and keys of a batch, from `conf/data/`."""

    def __init__(self, data: DataConfig) -> None:
        self.data = data
        self.columns = list(dict.fromkeys([data.time_column, *data.key_columns, *data.features, data.target_column]))

    @cached_property
    def digest(self) -> str:
        """Changes when a rule changes: then batches that were checked under the old rules are checked again."""
        features = {
            name: [str(value) for value in vars(column).values()] for name, column in self.data.features.items()
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

    def check(self, batch: pl.DataFrame, period: Period) -> CheckedBatch:
        """Sort a batch's rows into labelled, unlabelled and quarantined.

        Raises DataError when the batch breaks the contract as a whole: no rows, a missing column, a wrong type,
        rows outside the period, repeated keys, a constant target, or too many broken rows.
        """
        batch, unread = split_problems(batch)
        batch = self._typed(batch, period)
        told = self._outside(batch, period)
        told = told.zip_with(told.is_not_null(), self._infinite(batch))
        if unread is not None:
            told = unread.zip_with(unread.is_not_null(), told)
        sound = told.is_null()
        self._check_keys(batch.filter(sound), period)
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
        sound = batch.filter(pl.col(REASON).is_null()).drop(REASON).sort(self.data.time_column, *self.data.key_columns)
        target = pl.col(self.data.target_column)
        labelled = sound.filter(target.is_not_null())
        if len(labelled) >= SUSPICIOUSLY_CONSTANT and labelled[self.data.target_column].n_unique() < 2:
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

    def _typed(self, batch: pl.DataFrame, period: Period) -> pl.DataFrame:
        if batch.is_empty():
            self._refuse(period, "it has no rows")
        refuse_reserved(batch.columns, f"Batch {period.key}")
        missing = [name for name in self.columns if name not in batch.columns]
        if missing:
            found = ", ".join(f"`{name}`" for name in batch.columns[:40])
            self._refuse(period, f"it has no column {', '.join(f'`{name}`' for name in missing)} (it has {found})")
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
        others = [values for values in batch if values.name not in self.columns and _can_be_kept(values.dtype)]
        return pl.DataFrame(series + others)

    def _time(self, values: pl.Series, period: Period) -> pl.Series:
        times = to_times(values)
        if times is None:
            self._refuse(
                period, f"its time column `{values.name}` has type {values.dtype}, not a date or date and time"
            )
        return times

    def _target(self, values: pl.Series, period: Period) -> pl.Series:
        task = self.data.task
        if _holds_nothing(values):
            return pl.Series(values.name, [None] * len(values), dtype=TARGET_DTYPES[task])
        if task is Task.regression and values.dtype.is_numeric():
            return values.cast(pl.Float64).fill_nan(None)
        if task is Task.multiclass and (is_categorical(values.dtype) or values.dtype == pl.Boolean):
            return values.cast(pl.String)
        if task is Task.multiclass and _whole_numbers(values):
            return values.fill_nan(None).cast(pl.Int64).cast(pl.String)
        if task is Task.binary and self.data.positive_label is not None:
            return self._is_positive(values, period)
        if task is Task.binary and _holds_flags(values):
            return values.cast(pl.Boolean)
        wanted = {
            Task.binary: "true/false or 1/0",
            Task.multiclass: "a string or a whole number for each class",
            Task.regression: "a number",
        }
        self._refuse(
            period,
            f"its target `{values.name}` has type {values.dtype} and must be {wanted[task]} (`data.task: {task.name}`)",
        )

    def _is_positive(self, values: pl.Series, period: Period) -> pl.Series:
        """Which labels are the positive one: by value, so that 2.0 is 2, and of words whatever their capitals."""
        texts = (values.fill_nan(None) if values.dtype.is_float() else values).cast(pl.String)
        label = without_case(self.data.positive_label)
        words = {text: without_case(text) for text in texts.drop_nulls().unique()}
        others = sorted({text for text, word in words.items() if word != label})
        if not others and len(words) == 2 and self.data.positive_label in words:
            return texts == self.data.positive_label  # two words that differ in their capitals only
        if len({words[text] for text in others}) > 1:
            self._refuse(
                period,
                f"its target `{values.name}` holds {', '.join(others[:3])} beside the positive label {self.data.positive_label}",
            )
        return texts.replace_strict(words, return_dtype=pl.String) == label

    def _feature(self, values: pl.Series, column: Column, period: Period) -> pl.Series:
        converted = to_feature(values, column.type)
        if converted is not None:
            return converted
        self._refuse(
            period, f"its column `{values.name}` has type {values.dtype}, and the contract says {column.type.name}"
        )

    def _outside(self, batch: pl.DataFrame, period: Period) -> pl.Series:
        """Why the time of a row is wrong, null where it isn't."""
        name, times = self.data.time_column, batch[self.data.time_column]
        outside = ((times < period.start) | (times >= period.end)).fill_null(False)
        why = pl.Series([None], dtype=pl.String).new_from_index(0, len(batch))
        why = why.set(times.is_null(), f"{name}: missing")
        return why.set(outside, f"{name}: outside the period {period.key}")

    def _infinite(self, batch: pl.DataFrame) -> pl.Series:
        """Why the amount of a row is none to learn from, null where it is one or missing."""
        name, values = self.data.target_column, batch[self.data.target_column]
        why = pl.Series([None], dtype=pl.String).new_from_index(0, len(batch))
        if self.data.task is not Task.regression:
            return why
        infinite = values.is_infinite().fill_null(False)
        return (f"{name}: " + values.cast(pl.String) + " is not a finite number").zip_with(infinite, why)

    def _check_keys(self, batch: pl.DataFrame, period: Period) -> None:
        repeated = batch.filter(batch.select(self.data.key_columns).is_duplicated())
        if len(repeated):
            example = repeated.select(self.data.key_columns).row(0, named=True)
            self._refuse(period, f"{len(repeated):,} of its {len(batch):,} rows share their key, such as {example}")

    def _broken_rows(self, batch: pl.DataFrame, told: pl.Series) -> pl.DataFrame:
        """Row number and reason of each row that breaks a rule about single values, and of those whose reason is `told`."""
        import pandera.polars as pa  # 0.6 s that a run without a new batch need not pay

        # Pandera adds columns of its own beside those of the batch, which may have the same names.
        names = {f"feature {number}": name for number, name in enumerate(self.data.features)}
        schema = pa.DataFrameSchema({alias: _pandera_column(self.data.features[name]) for alias, name in names.items()})
        known = pl.DataFrame({ROW: told.is_not_null().arg_true(), REASON: told.drop_nulls()})
        try:
            schema.validate(pl.DataFrame([batch[name].alias(alias) for alias, name in names.items()]), lazy=True)
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


def to_feature(values: pl.Series, kind: ColumnType) -> pl.Series | None:
    """A column as the contract's type of it, with NaN as null; None when it is of another kind."""
    dtype = DTYPES[kind]
    if _holds_nothing(values):
        return pl.Series(values.name, [None] * len(values), dtype=dtype)
    if kind is ColumnType.datetime:
        return to_times(values)
    same_kind = {
        ColumnType.numeric: values.dtype.is_numeric() or values.dtype == pl.Boolean,
        ColumnType.categorical: is_categorical(values.dtype) or _whole_numbers(values),
        ColumnType.boolean: _holds_flags(values),
        ColumnType.text: values.dtype == pl.String,
        ColumnType.sparse: values.dtype == pl.String,
    }
    if not same_kind[kind]:
        return None
    if kind is ColumnType.categorical and values.dtype.is_float():
        values = values.fill_nan(None).cast(pl.Int64)
    values = values.cast(dtype)
    return values.fill_nan(None) if dtype == pl.Float64 else values


def to_times(values: pl.Series) -> pl.Series | None:
    """Dates and times as microseconds without a zone; None for other types. Times with a zone are turned into UTC, where no
    hour of a change to or from daylight saving is missing or comes twice."""
    if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone:
        values = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if values.dtype == pl.Date or isinstance(values.dtype, pl.Datetime):
        return values.cast(pl.Datetime("us"))
    return None


def is_categorical(dtype: pl.DataType) -> bool:
    """Whether a column of this type can hold levels: strings, or whole numbers that stand for them."""
    return dtype in (pl.String, pl.Categorical, pl.Enum) or dtype.is_integer()


def _can_be_kept(dtype: pl.DataType) -> bool:
    return not (dtype.is_nested() or dtype in (pl.Object, pl.Null))


def _holds_flags(values: pl.Series) -> bool:
    """Whether a column holds true and false, or numbers that are all 1 or 0."""
    return values.dtype == pl.Boolean or (values.dtype.is_numeric() and bool(((values == 0) | (values == 1)).all()))


def _whole_numbers(values: pl.Series) -> bool:
    """Whether floating-point numbers are all whole, as those of codes with gaps are."""
    known = values.fill_nan(None).drop_nulls() if values.dtype.is_float() else None
    return known is not None and bool((known == known.floor()).all()) and not known.is_infinite().any()


def _holds_nothing(values: pl.Series) -> bool:
    """Whether every value is missing: a CSV file then says nothing about the type."""
    return values.null_count() == len(values)


def _pandera_column(column: Column) -> Any:
    import pandera.polars as pa

    checks = []
    if column.type is ColumnType.numeric:
        # Without a range of its own a number must at least be finite.
        checks.append(pa.Check.ge(column.minimum if column.minimum is not None else -sys.float_info.max))
        checks.append(pa.Check.le(column.maximum if column.maximum is not None else sys.float_info.max))
    if column.type is ColumnType.sparse:
        checks.append(pa.Check.str_matches(PAIRS, name="names with values"))
    if column.levels is not None:
        checks.append(pa.Check.isin(column.levels))
    return pa.Column(DTYPES[column.type], nullable=column.nullable, checks=checks)
