"""Tables of thousands of numeric columns that are mostly zero: packed into one feature of type `sparse`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl

from retrain.config import DataConfig, Task
from retrain.data.inference.leakage import told_of_amounts, told_of_classes
from retrain.data.inference.leaks import SUSPICIOUS
from retrain.data.sources import Source

MANY_COLUMNS = 1000  # more numeric ones than this are packed by `retrain init`
CELLS_AT_ONCE = 25_000_000
SAMPLE_ROWS = 2000
SUSPICIOUS_CORRELATION = 0.995
LOOKED_AT = 0.8  # of the variance, before a column is looked at closely
SEED = 0


class PackedColumns(Source):
    """The batches of `source`, their numeric columns that the contract does not name packed into the column `into`.

    A row becomes a text such as `gene_17:2.5 gene_40:1` of what is neither 0 nor missing in it. `leave_out` are dropped.
    """

    def __init__(
        self, source: Source, into: str = "columns", leave_out: Sequence[str] = ()
    ) -> None:
        self.source, self.into, self.leave_out = source, into, list(leave_out)

    def bind(self, data: DataConfig) -> None:
        self.named = {data.time_column, data.target_column, *data.key_columns, *data.features} - {
            self.into
        }
        self.source.bind(data)

    def periods(self) -> list[str]:
        return self.source.periods()

    def fingerprint(self, period: str) -> str:
        return f"{self.source.fingerprint(period)} {self.leave_out}"

    def read(self, period: str) -> pl.DataFrame:
        rows = self.source.read(period).drop(self.leave_out, strict=False)
        return pack(rows, numeric_columns(rows, self.named), self.into)

    def locate(self, period: str, rows: Sequence[int]) -> list[str]:
        return self.source.locate(period, rows)


def numeric_columns(rows: pl.DataFrame, except_for: set[str]) -> list[str]:
    """Columns of numbers and flags, in order."""
    return [
        name
        for name, dtype in rows.schema.items()
        if name not in except_for and (dtype.is_numeric() or dtype == pl.Boolean)
    ]


def pack(rows: pl.DataFrame, names: Sequence[str], into: str) -> pl.DataFrame:
    """The rows with some columns packed into one text column; a row of zeros has an empty text."""
    labels = pl.Series(pair_names(names), dtype=pl.String)
    texts = []
    for part in rows.iter_slices(max(1, CELLS_AT_ONCE // max(1, len(names)))):
        cells = np.nan_to_num(part.select(pl.col(names).cast(pl.Float64)).to_numpy(), nan=0.0)
        row, column = np.nonzero(cells)
        pairs = labels.gather(column) + ":" + pl.Series(cells[row, column]).cast(pl.String)
        joined = (
            pl.DataFrame({"row": row, "pairs": pairs})
            .group_by("row", maintain_order=True)
            .agg(pl.col("pairs").str.join(" "))
        )
        numbers = pl.DataFrame({"row": np.arange(len(part))})
        texts.append(
            numbers.join(joined, on="row", how="left", maintain_order="left")["pairs"].fill_null("")
        )
    packed = pl.concat(texts) if texts else pl.Series(into, [], dtype=pl.String)
    return rows.drop(names).with_columns(packed.alias(into))


def pair_names(names: Sequence[str]) -> list[str]:
    """What columns are called in a packed text: their names without white space, and no two the same."""
    simple = [name.replace(" ", "_") for name in names]
    times = Counter(simple)
    return [
        label
        if label
        and not re.search(r"\s|%[0-9A-Fa-f]{2}", label)
        and (label == name or times[label] == 1)
        else re.sub(r"[\s%]", lambda sign: f"%{ord(sign[0]):02X}", name) or "%00"
        for name, label in zip(names, simple, strict=True)
    ]


def find_target_copies(
    rows: pl.DataFrame, names: Sequence[str], target: pl.Series, task: Task
) -> list[str]:
    """Columns that alone tell the target, or one of its classes, almost perfectly: on a sample of the rows.

    All are sorted by, and those whose neighbours have nearly the same target are looked at closely.
    """
    target = target.fill_nan(None) if target.dtype.is_float() else target
    if target.dtype.is_float():
        target = target.set(target.is_infinite(), None)
    chosen = np.flatnonzero(target.is_not_null())
    chosen = chosen[:: max(1, -(-len(chosen) // SAMPLE_ROWS))]
    # In random order, so that equal values are one another's noise; then row by row through NumPy: Polars takes minutes to
    # gather rows of so many columns.
    chosen = np.random.default_rng(SEED).permutation(chosen)
    cells = np.nan_to_num(rows.select(pl.col(names).cast(pl.Float32)).to_numpy()[chosen], nan=0.0)
    values = target.gather(chosen)
    if task is Task.regression:
        amounts = values.cast(pl.Float64).to_numpy()
        outcomes = np.column_stack([amounts, pl.Series(amounts).rank().to_numpy()])
    else:
        classes = values.cast(pl.String).rank("dense").to_numpy().astype(np.int64) - 1
        outcomes = np.eye(int(classes.max()) + 1)[classes]
    outcomes = _standardized(outcomes.astype(np.float32))
    told = (
        np.abs(_standardized(cells).T @ outcomes).max(axis=1) / len(cells) > SUSPICIOUS_CORRELATION
    ).tolist()
    for column in np.flatnonzero(_smoothness(cells, outcomes) > LOOKED_AT):
        one = pl.Series(cells[:, column])
        share = (
            told_of_amounts(one, amounts)
            if task is Task.regression
            else told_of_classes(one, classes)
        )
        told[column] |= share > SUSPICIOUS[task]
    return [name for name, tells in zip(names, told, strict=True) if tells]


def _smoothness(cells: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """For each column the largest share of the variance of an outcome that is the same in rows beside each other."""
    largest = np.zeros(cells.shape[1])
    for column in range(cells.shape[1]):
        steps = np.diff(outcomes[np.argsort(cells[:, column], kind="stable")], axis=0)
        largest[column] = (1 - (steps**2).mean(axis=0) / 2).max()
    return largest


def _standardized(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and variance 1; constant ones are 0."""
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
