"""Harm to a part of the rows that an average hides, and which columns those parts are cut by."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Annotated

import polars as pl
from annotated_types import Ge, MinLen

from retrain.columns import PREFIX, own_column
from retrain.config import ColumnType, DataConfig
from retrain.errors import ConfigError, PromotionError
from retrain.gate.check import Check, CheckResult, Outcome
from retrain.gate.checks import MarginKind, margin_of
from retrain.gate.comparison import Comparison
from retrain.gate.estimates import (
    INCUMBENT,
    Estimate,
    score_column,
)
from retrain.gate.row_losses import beyond_margin, loss_named, row_losses, sums_by_block
from retrain.ranges import Confidence, Name, NonNegative, PositiveCount

MOST_LEVELS_OF_A_NUMBER = 20
MEND = "mend `by` in conf/gate/"
_SLICE = own_column("slice")
NO_INCUMBENT = CheckResult(Outcome.not_applicable, "there is no incumbent to compare with")


def table_columns(data: DataConfig) -> list[str]:
    """Every column of a batch that a slice can be cut by."""
    return list(
        dict.fromkeys([data.time_column, *data.key_columns, data.target_column, *data.features])
    )


def sliced_columns(data: DataConfig) -> list[str]:
    """What `by: null` means: the categorical and boolean features.

    Never the target, since a model that follows a changed share of positives is always worse on one
    side of it. Never a key that is no feature, nor one that is the whole key: each of its values is
    a row or a customer.
    """
    kinds = (ColumnType.categorical, ColumnType.boolean)
    excluded = {data.time_column, data.target_column}
    excluded |= set(data.key_columns) if len(data.key_columns) == 1 else set()
    return [
        name
        for name, column in data.features.items()
        if column.type in kinds and name not in excluded
    ]


def asked_columns(checks: Sequence[Check], data: DataConfig) -> list[str]:
    """Columns that the checks want to see on the evaluation rows, in the pipeline as in a
    replay."""
    known, asked = table_columns(data), list[str]()
    for check in checks:
        wanted = check.columns_among(known)
        asked += sliced_columns(data) if wanted is None else wanted
    return list(dict.fromkeys(asked))


class Slices(Check):
    """On no slice of the rows is the challenger worse than the incumbent by more than a margin.

    `by` holds columns (each level is a slice; a number with many values is cut at its quartiles)
    and Polars SQL expressions that are true on a slice (`"distance > 2000"`, with quotes around
    names that are no words: `"\\"Loan Type\\" = 'car'"`). What names a column is that column,
    whatever SQL would make of it; null stands for every categorical and boolean feature. A slice
    counts from `minimum_rows` and `minimum_blocks` on. `metric` is a loss of single rows; null for
    the one that goes with the primary metric. It fails when its worsening is proven to exceed the
    margin, with p-values corrected for the number of slices (Holm 1979, Scandinavian Journal of
    Statistics 6).
    """

    def __init__(
        self,
        by: Annotated[list[Name], MinLen(1)] | None,
        metric: str | None,
        margin: NonNegative,
        margin_is: MarginKind,
        confidence: Confidence,
        minimum_rows: PositiveCount,
        minimum_blocks: Annotated[int, Ge(2)],
    ) -> None:
        self.by, self.loss, self.confidence = by, loss_named(metric), confidence
        self.margin, self.margin_is = margin_of(margin, margin_is)
        self.minimum_rows, self.minimum_blocks = minimum_rows, minimum_blocks

    def columns_among(self, known: Collection[str]) -> tuple[str, ...] | None:
        """Raises ConfigError for what names no column, and is no expression about columns
        either."""
        if self.by is None:
            return None
        wanted: list[str] = []
        for by in self.by:
            column = _named_column(by, known)
            needed = [column] if column is not None else _parse(by).meta.root_names()
            missing = [name for name in needed if name not in known]
            if missing:
                raise ConfigError(
                    f"`by` holds {by!r}: the data have no column of that name, and as an SQL "
                    "expression it asks for a column "
                    f"{missing[0]!r}. Their columns: {_shown(known)}.",
                    hint="in an expression, names that are no plain words stand in double quotes",
                )
            wanted += needed
        return tuple(dict.fromkeys(wanted))

    def evaluate(self, comparison: Comparison) -> CheckResult:
        rows = comparison.rows_judged
        if rows is None or score_column(INCUMBENT) not in rows.columns:
            return NO_INCUMBENT
        metric = self.loss or comparison.loss
        losses = row_losses(rows, metric)
        judged: dict[str, tuple[float, float, float]] = {}  # slice -> p-value, worsening, margin
        small = 0
        for name, sums in self._slices(rows, losses, comparison.categories):
            if sums is None or len(sums) < self.minimum_blocks:
                small += 1
                continue
            beyond, worsening, margin = beyond_margin(sums, self.margin, self.margin_is)
            judged[name] = beyond.p_above(0.0), worsening, margin
        skipped = f"; {small} too small to evaluate" if small else ""
        if not judged:
            return CheckResult(
                Outcome.not_applicable, f"no slice has enough rows and blocks{skipped}"
            )
        return self._conclude(metric, judged, skipped)

    def _conclude(
        self, metric: str, judged: dict[str, tuple[float, float, float]], skipped: str
    ) -> CheckResult:
        adjusted = _holm({name: p for name, (p, _, _) in judged.items()})
        worse = [name for name, p in adjusted.items() if p < 1 - self.confidence]
        worst = max(judged, key=lambda name: judged[name][1] - judged[name][2])
        figures = {
            "slices": len(judged),
            "worse": len(worse),
            "largest_worsening": judged[worst][1],
        }
        if worse:
            shown = ", ".join(
                f"{name} {judged[name][1]:+.4f} (p {adjusted[name]:.2g})" for name in worse[:5]
            )
            reason = (
                f"{metric}: worse by more than the margin on {len(worse)} of {len(judged)} slices: "
                f"{shown}{skipped}"
            )
            return CheckResult(Outcome.failed, reason, figures)
        reason = (
            f"{metric}: on none of {len(judged)} slices proven worse by more than the margin; most "
            f"on {worst}: "
            f"{judged[worst][1]:+.4f} (margin {judged[worst][2]:.4f}){skipped}"
        )
        return CheckResult(Outcome.passed, reason, figures)

    def _slices(
        self, rows: pl.DataFrame, losses: pl.DataFrame, categories: Sequence[str] | None
    ) -> Iterator[tuple[str, pl.DataFrame | None]]:
        """Name and sums by block of each slice; None for those of fewer than `minimum_rows`
        rows."""
        for by in self.by if self.by is not None else _categories(rows, categories):
            key, is_column = _key(rows, by)
            keyed = losses.with_columns(key.alias(_SLICE))
            sizes = keyed.group_by(_SLICE).len()
            large = sizes.filter(pl.col("len") >= self.minimum_rows).select(_SLICE)
            # a column may have a hundred thousand levels: only the large ones are looked at singly
            if is_column:
                yield from ((f"{by} of few rows", None) for _ in range(len(sizes) - len(large)))
            keyed = keyed.join(large, on=_SLICE, nulls_equal=True)
            for (level,), part in keyed.partition_by(_SLICE, as_dict=True).items():
                if is_column:
                    yield f"{by}={'missing' if level is None else level}", sums_by_block(part)
                elif level is True:  # an expression names the rows where it is true
                    yield by, sums_by_block(part)
            if not is_column and True not in large[_SLICE]:
                yield by, None


def slice_differences(
    rows: pl.DataFrame, loss: str, by: Sequence[str], minimum_rows: int, minimum_blocks: int
) -> dict[str, tuple[int, Estimate]]:
    """Number of rows of each slice by some columns, and by how much the challenger's mean loss on
    them exceeds the incumbent's. For people: nothing is decided by it."""
    check = Slices(list(by), None, 0.0, "absolute", 0.95, minimum_rows, minimum_blocks)
    found = {}
    for name, sums in check._slices(rows, row_losses(rows, loss), None):
        if sums is not None and len(sums) >= minimum_blocks:
            found[name] = int(sums["len"].sum()), beyond_margin(sums, 0.0, "absolute")[0]
    return found


def _named_column(by: str, known: Collection[str]) -> str | None:
    """The column that `by` names, as it is or as a quoted identifier of SQL; None where it is
    another expression."""
    if by in known:
        return by
    parsed = _parse(by)
    names = parsed.meta.root_names()
    return names[0] if len(names) == 1 and parsed.meta.undo_aliases().meta.is_column() else None


def _shown(known: Collection[str], most: int = 30) -> str:
    names = list(known)
    return ", ".join(map(repr, names[:most])) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )


def _parse(by: str) -> pl.Expr:
    """Raises ConfigError for an expression that Polars can't read."""
    try:
        return pl.sql_expr(by)
    except pl.exceptions.PolarsError as error:
        raise ConfigError(
            f"`by` holds {by!r}, which names no column and is no SQL expression: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _categories(rows: pl.DataFrame, named: Sequence[str] | None) -> list[str]:
    if named is not None:  # one that this project knows and the rows lack has not arrived any more
        return [name for name in named if name in rows.columns]
    kinds = (pl.String, pl.Boolean)
    return [
        name
        for name, dtype in rows.schema.items()
        if dtype in kinds and not name.startswith(PREFIX)
    ]


def _key(rows: pl.DataFrame, by: str) -> tuple[pl.Series, bool]:
    """What tells the slices of `by` apart, and whether that is a column. Raises PromotionError when
    the rows can't tell."""
    named = _named_column(by, rows.columns)
    if named in rows.columns:
        column = rows[named]
        if column.dtype.is_numeric() and column.n_unique() > MOST_LEVELS_OF_A_NUMBER:
            cuts = [
                cut
                for cut in (column.quantile(share) for share in (0.25, 0.5, 0.75))
                if cut is not None
            ]
            column = column.cut(sorted(set(cuts)))
        return column, True
    parsed = _parse(by)
    names = parsed.meta.root_names()
    missing = [name for name in names if name not in rows.columns]
    if missing:
        raise PromotionError(
            f"The gate slices by `{by}`, but the evaluation rows have no column `{missing[0]}`.",
            hint=MEND,
        )
    try:
        truth = rows.select(parsed.alias(_SLICE))[_SLICE]
    except pl.exceptions.PolarsError as error:
        raise PromotionError(
            f"The gate slices by `{by}`, which can't be computed: {str(error).splitlines()[0]}.",
            hint=MEND,
        ) from error
    if truth.dtype != pl.Boolean:
        raise PromotionError(
            f"The gate slices by `{by}`, which is neither a column nor true or false on a row.",
            hint="write the column's name without quotes, or a condition, as `by` in conf/gate/",
        )
    return truth, False


def _holm(p_values: dict[str, float]) -> dict[str, float]:
    """Adjusted p-values, smallest first."""
    adjusted, running = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = running
    return adjusted
