"""What a batch must look like. Broken rows go to quarantine with the reason; a broken batch is refused as a whole."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from retrain.config import Column, ColumnType, DataConfig
from retrain.data.periods import Period
from retrain.errors import DataError

REASON, ROW = "quarantine_reason", "quarantine_row"
_DTYPES = {ColumnType.numeric: pl.Float64, ColumnType.categorical: pl.String, ColumnType.boolean: pl.Boolean}


@dataclass(frozen=True)
class CheckedBatch:
    """A batch after its contract: every row of the source is in exactly one of the three frames."""

    labelled: pl.DataFrame
    unlabelled: pl.DataFrame
    quarantined: pl.DataFrame


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
        ]
        return hashlib.sha256(json.dumps(rules).encode()).hexdigest()[:16]

    def check(self, batch: pl.DataFrame, period: Period) -> CheckedBatch:
        """Sort a batch's rows into labelled, unlabelled and quarantined.

        Raises DataError when the batch breaks the contract as a whole: no rows, a missing column, a wrong type,
        rows outside the period, repeated keys, a constant target, or too many broken rows.
        """
        batch = self._typed(batch, period)
        self._check_time(batch, period)
        self._check_keys(batch, period)
        broken = self._broken_rows(batch)
        batch = batch.with_row_index(ROW).join(broken, on=ROW, how="left", maintain_order="left").drop(ROW)
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
        if len(labelled) and labelled[self.data.target_column].n_unique() < 2:
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
        if values.dtype == pl.Date:
            return values.cast(pl.Datetime("us"))
        if not isinstance(values.dtype, pl.Datetime):
            self._refuse(
                period, f"its time column `{values.name}` has type {values.dtype}, not a date or date and time"
            )
        if values.dtype.time_zone:
            self._refuse(
                period,
                f"its time column `{values.name}` carries the time zone {values.dtype.time_zone}; local or UTC times without one are expected",
            )
        return values.cast(pl.Datetime("us"))

    def _target(self, values: pl.Series, period: Period) -> pl.Series:
        if _holds_nothing(values):
            return pl.Series(values.name, [None] * len(values), dtype=pl.Boolean)
        if values.dtype == pl.Boolean:
            return values
        if values.dtype.is_numeric() and values.drop_nulls().is_in([0, 1]).all():
            return values.cast(pl.Boolean)
        self._refuse(period, f"its target `{values.name}` has type {values.dtype} and must be true/false or 1/0")

    def _feature(self, values: pl.Series, column: Column, period: Period) -> pl.Series:
        wanted = _DTYPES[column.type]
        same_kind = {
            ColumnType.numeric: values.dtype.is_numeric(),
            ColumnType.categorical: values.dtype in (pl.String, pl.Categorical, pl.Enum) or values.dtype.is_integer(),
            ColumnType.boolean: values.dtype == pl.Boolean,
        }
        if _holds_nothing(values):
            return pl.Series(values.name, [None] * len(values), dtype=wanted)
        if same_kind[column.type]:
            values = values.cast(wanted)
            return values.fill_nan(None) if wanted == pl.Float64 else values
        self._refuse(
            period, f"its column `{values.name}` has type {values.dtype}, and the contract says {column.type.name}"
        )

    def _check_time(self, batch: pl.DataFrame, period: Period) -> None:
        times = batch[self.data.time_column]
        outside = (times.is_null() | (times < period.start) | (times >= period.end)).fill_null(True)
        if outside.any():
            example = times.filter(outside)[0]
            self._refuse(
                period,
                f"{outside.sum():,} of its {len(batch):,} rows lie outside the period, such as `{self.data.time_column}` = {example}",
            )

    def _check_keys(self, batch: pl.DataFrame, period: Period) -> None:
        repeated = batch.filter(batch.select(self.data.key_columns).is_duplicated())
        if len(repeated):
            example = repeated.select(self.data.key_columns).row(0, named=True)
            self._refuse(period, f"{len(repeated):,} of its {len(batch):,} rows share their key, such as {example}")

    def _broken_rows(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Row number and reason of each row that breaks a rule about single values."""
        import pandera.polars as pa  # 0.6 s that a run without a new batch need not pay

        schema = pa.DataFrameSchema({name: _pandera_column(column) for name, column in self.data.features.items()})
        try:
            schema.validate(batch, lazy=True)
        except pa.errors.SchemaErrors as error:
            cases = error.failure_cases
            if cases["index"].null_count():
                raise DataError(
                    f"The contract can't be checked: {cases.filter(pl.col('index').is_null()).row(0)}"
                ) from error
            reason = pl.format("{}: {}", "column", pl.col("check").replace("not_nullable", "missing"))
            per_row = cases.group_by(pl.col("index").alias(ROW), maintain_order=True).agg(
                reason.sort().str.join("; ").alias(REASON)
            )
            return per_row.with_columns(pl.col(ROW).cast(pl.get_index_type()))
        return pl.DataFrame(schema={ROW: pl.get_index_type(), REASON: pl.String})


def _can_be_kept(dtype: pl.DataType) -> bool:
    return not (dtype.is_nested() or dtype in (pl.Object, pl.Null))


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
    if column.levels is not None:
        checks.append(pa.Check.isin(column.levels))
    return pa.Column(_DTYPES[column.type], nullable=column.nullable, checks=checks)
