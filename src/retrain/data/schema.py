"""What a batch must look like. Broken rows go to quarantine with the reason; a broken batch is
refused as a whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

import polars as pl

from retrain.columns import own_column, refuse_reserved
from retrain.config import Column, ColumnType, DataConfig, Task
from retrain.data.periods import Period
from retrain.data.reading.conversions import (
    TARGET_KINDS,
    column_kinds,
    compared_words,
    first_of,
    to_feature,
    to_target,
    to_times,
    without_misfits,
)
from retrain.data.reading.parts import add_places, find_places, split_problems
from retrain.errors import DataError

REASON, ROW = own_column("quarantine_reason"), own_column("row")
# Of `sparse`: names with their values, such as "gene_17:2.5 gene_40:1"; what is not named is 0.
PAIRS = r"^(\S+:[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?( |$))*$"
# A batch with so many labelled rows and one class only has lost its labels; a smaller one may just
# be quiet.
SUSPICIOUSLY_CONSTANT = 500
SHOWN_ROWS = 3  # of those that a message names


@dataclass(frozen=True)
class CheckedBatch:
    """A batch after its schema: every row of the source is in exactly one of the three frames."""

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
        """Changes when a rule changes: then batches that were checked under the old rules are
        checked again."""
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

    def check(self, batch: pl.DataFrame, period: Period) -> CheckedBatch:
        """Sort a batch's rows into labelled, unlabelled and quarantined.

        Raises DataError when the batch breaks the schema as a whole: no rows, a missing column, a
        wrong type, rows outside the period, repeated keys, a constant target, or too many broken
        rows.
        """
        arrived = batch
        batch, unread = split_problems(arrived)
        batch, misfits = without_misfits(batch, column_kinds(self.data))
        batch, slips = self._without_slips(batch, period, arrived)
        batch = self._typed(batch, period)
        known = first_of(
            unread, add_places(first_of(slips, misfits), arrived), self._outside(batch, period)
        )
        self._check_keys(batch, known.is_null(), period, arrived)
        reasons = first_of(known, self._broken_rules(batch))
        quarantined = batch.with_columns(reasons.alias(REASON)).filter(reasons.is_not_null())
        share = len(quarantined) / len(batch)
        if share > self.data.maximum_quarantine_share:
            common = quarantined[REASON].value_counts(sort=True, name=ROW).row(0)
            self._refuse(
                period,
                f"{share:.1%} of its rows break the schema ({len(quarantined):,} of "
                f"{len(batch):,}; most often {common[0]})",
                "or raise `data.maximum_quarantine_share`",
            )
        sound = batch.filter(reasons.is_null()).sort(self.data.time_column, *self.data.key_columns)
        target = sound[self.data.target_column]
        labels = target.drop_nulls()
        if len(labels) >= SUSPICIOUSLY_CONSTANT and labels.n_unique() < 2:
            self._refuse(
                period,
                f"its target `{target.name}` is constant ({labels[0]} in all {len(labels):,} "
                "labelled rows)",
            )
        return CheckedBatch(
            sound.filter(target.is_not_null()), sound.filter(target.is_null()), quarantined
        )

    def _refuse(self, period: Period, what: str, way_out: str = "") -> NoReturn:
        raise DataError(
            f"Batch {period.key} is refused: {what}. The snapshot stays as it was.",
            hint=f"mend the batch at its source{', ' + way_out if way_out else ''}, or set "
            "`data.as_of` to an earlier period; then `dvc repro`",
        )

    def _named(self, column: str) -> str:
        """A column with the key of the config that asks for it."""
        data = self.data
        roles = {data.time_column: "time_column", data.target_column: "target_column"}
        roles |= dict.fromkeys(data.key_columns, "key_columns")
        return f"`{column}` (`data.{roles.get(column, 'features')}`)"

    def _typed(self, batch: pl.DataFrame, period: Period) -> pl.DataFrame:
        """The columns of the schema in its types, and behind them all others that can be kept: an
        older champion may have been trained on them."""
        if batch.is_empty():
            self._refuse(period, "it has no rows")
        refuse_reserved(batch.columns, f"Batch {period.key}")
        missing = [name for name in self.columns if name not in batch.columns]
        if missing:
            found = ", ".join(f"`{name}`" for name in batch.columns[:40])
            self._refuse(
                period, f"it has no column {', '.join(map(self._named, missing))} (it has {found})"
            )
        others = [
            values
            for name, values in zip(batch.columns, batch, strict=True)
            if name not in self.columns
            and not (values.dtype.is_nested() or values.dtype in (pl.Object, pl.Null))
        ]
        return pl.DataFrame([self._convert(batch[name], period) for name in self.columns] + others)

    def _convert(self, values: pl.Series, period: Period) -> pl.Series:
        data, name = self.data, values.name
        if name == data.time_column:
            role, wanted, found = "time column", "a date or date and time", to_times(values)
        elif name == data.target_column:
            role, wanted = "target", f"{TARGET_KINDS[data.task]} (`data.task: {data.task.name}`)"
            found = to_target(values, data.task, data.positive_label)
        elif name in data.features:
            role, wanted = "column", data.features[name].type.name
            found = to_feature(values, data.features[name].type)
        else:
            return values
        if found is None:
            self._refuse(
                period, f"its {role} `{name}` has type {values.dtype}, and the schema says {wanted}"
            )
        return found

    def _without_slips(
        self, batch: pl.DataFrame, period: Period, arrived: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.Series]:
        """The batch without the few words of its target that are neither of its two classes, and
        why, for each row.

        Of the words beside the positive one all but the most frequent are slips. Raises DataError
        where they make up more than the tolerated share, or one is as frequent as the one that is
        meant: then nothing tells which of them that is.
        """
        name, label = self.data.target_column, self.data.positive_label
        none = pl.Series([None], dtype=pl.String).new_from_index(0, len(batch))
        if self.data.task is not Task.binary or label is None or name not in batch.columns:
            return batch, none
        words, positive = compared_words(batch[name], label)
        texts = batch[name].cast(pl.String)
        negatives = pl.DataFrame({"word": words, "text": texts.str.strip_chars()}).filter(
            words != positive
        )
        counts = (
            negatives.group_by("word")
            .agg(pl.col("text").min(), rows=pl.len())
            .sort("rows", "word", descending=[True, False])
        )
        if len(counts) < 2:
            return batch, none
        slips = counts["rows"].slice(1)
        tolerated = self.data.maximum_quarantine_share * len(negatives)
        if slips.sum() > tolerated or slips[0] == counts["rows"][0]:
            shown = [
                f"{text} ({self._named_rows((words == word).fill_null(False), arrived)})"
                for word, text, _ in counts.head(SHOWN_ROWS).rows()
            ]
            more = f" and {len(counts) - SHOWN_ROWS:,} more" if len(counts) > SHOWN_ROWS else ""
            self._refuse(
                period,
                f"its target `{name}` holds {', '.join(shown)}{more} beside the positive label "
                f"{label}",
            )
        odd = words.is_in(counts["word"].slice(1).implode()).fill_null(False)
        why = f"{name}: '" + texts + f"' is neither {label} nor {counts['text'][0]}"
        return batch.with_columns(batch[name].set(odd, None)), why.set(~odd, None)

    @staticmethod
    def _named_rows(which: pl.Series, arrived: pl.DataFrame) -> str:
        """How many rows, and where the first of them lie."""
        rows = which.arg_true().to_list()
        more = ", ..." if len(rows) > SHOWN_ROWS else ""
        return (
            f"{len(rows):,} row{'s' if len(rows) != 1 else ''}: "
            f"{'; '.join(find_places(arrived, rows[:SHOWN_ROWS]))}{more}"
        )

    def _outside(self, batch: pl.DataFrame, period: Period) -> pl.Series:
        """Why the time of a row is wrong, null where it isn't."""
        name = self.data.time_column
        time = pl.col(name)
        why = (
            pl.when(time.is_null())
            .then(pl.lit(f"{name}: missing"))
            .when((time < period.start) | (time >= period.end))
            .then(pl.lit(f"{name}: outside the period {period.key}"))
        )
        return batch.select(why.alias(name)).to_series()

    def _check_keys(
        self, batch: pl.DataFrame, sound: pl.Series, period: Period, arrived: pl.DataFrame
    ) -> None:
        """Raises DataError, with the first keys that come more than once and where, for rows that
        share their key."""
        keys = batch.select(self.data.key_columns)
        rows = sound.arg_true()
        repeated = keys[rows].is_duplicated()
        if not repeated.any():
            return
        names = list(keys.columns)
        shared = keys.with_row_index(ROW)[rows].filter(repeated)
        groups = shared.group_by(names, maintain_order=True).agg(pl.col(ROW)).head(SHOWN_ROWS)
        shown = []
        for *values, places in groups.rows():
            more = ", ..." if len(places) > SHOWN_ROWS else ""
            key = dict(zip(names, values, strict=True))
            shown.append(f"{key} ({'; '.join(find_places(arrived, places[:SHOWN_ROWS]))}{more})")
        self._refuse(
            period,
            f"{len(shared):,} of its {len(rows):,} rows share their key, such as "
            f"{', '.join(shown)}",
        )

    def _broken_rules(self, batch: pl.DataFrame) -> pl.Series:
        """Which rules about single values each row breaks; null for none."""
        reasons = [
            pl.select(pl.when(wrong).then(pl.lit(f"{name}: {what}")).alias(f"{name} {what}"))
            for name, column in self.data.features.items()
            for what, wrong in _rules(batch[name], column)
            if wrong.any()
        ]
        if not reasons:
            return pl.Series([None], dtype=pl.String).new_from_index(0, len(batch))
        reason = pl.concat(reasons, how="horizontal").select(
            pl.concat_str(pl.all(), separator="; ", ignore_nulls=True)
        )
        return reason.to_series().replace("", None)


def _rules(values: pl.Series, column: Column) -> Iterator[tuple[str, pl.Series]]:
    """What may be wrong with the values of a column, and of which of them it is true."""
    if not column.nullable:
        yield "missing", values.is_null()
    if column.type is ColumnType.numeric:
        yield "infinite", values.is_infinite()
    if column.minimum is not None:
        yield f"below the minimum {column.minimum:g}", values < column.minimum
    if column.maximum is not None:
        yield f"above the maximum {column.maximum:g}", values > column.maximum
    if column.type is ColumnType.sparse:
        yield "not names with values", ~values.str.contains(PAIRS)
    if column.levels is not None:
        yield "not one of its levels", ~values.is_in(column.levels)
