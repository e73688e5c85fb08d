"""Tables of thousands of numeric columns that are mostly zero: packed into one feature of type `sparse`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from retrain.config import DataConfig
from retrain.data.sources import Source

MANY_COLUMNS = 1000  # more numeric ones than this are packed by `retrain init`
CELLS_AT_ONCE = 25_000_000
SAMPLE_ROWS = 2000
SUSPICIOUS_CORRELATION = 0.995


class PackedColumns(Source):
    """The batches of `source`, their numeric columns that the contract does not name packed into the column `into`.

    A row becomes a text such as `gene_17:2.5 gene_40:1` of what is neither 0 nor missing in it. `leave_out` are dropped.
    """

    def __init__(self, source: Source, into: str = "columns", leave_out: Sequence[str] = ()) -> None:
        self.source, self.into, self.leave_out = source, into, list(leave_out)

    def bind(self, data: DataConfig) -> None:
        self.named = {data.time_column, data.target_column, *data.key_columns, *data.features} - {self.into}
        self.source.bind(data)

    def periods(self) -> list[str]:
        return self.source.periods()

    def fingerprint(self, period: str) -> str:
        return f"{self.source.fingerprint(period)} {self.leave_out}"

    def read(self, period: str) -> pl.DataFrame:
        rows = self.source.read(period).drop(self.leave_out, strict=False)
        return pack(rows, numeric_columns(rows, self.named), self.into)


def numeric_columns(rows: pl.DataFrame, except_for: set[str]) -> list[str]:
    """Columns of numbers and flags, in order."""
    return [
        name
        for name, dtype in rows.schema.items()
        if name not in except_for and (dtype.is_numeric() or dtype == pl.Boolean)
    ]


def pack(rows: pl.DataFrame, names: Sequence[str], into: str) -> pl.DataFrame:
    """The rows with some columns packed into one text column; a row of zeros has an empty text."""
    labels = pl.Series([name.replace(" ", "_") for name in names], dtype=pl.String)
    texts = []
    for part in rows.iter_slices(max(1, CELLS_AT_ONCE // max(1, len(names)))):
        cells = np.nan_to_num(part.select(pl.col(names).cast(pl.Float64)).to_numpy(), nan=0.0)
        row, column = np.nonzero(cells)
        pairs = labels.gather(column) + ":" + pl.Series(cells[row, column]).cast(pl.String)
        joined = (
            pl.DataFrame({"row": row, into: pairs}).group_by("row", maintain_order=True).agg(pl.col(into).str.join(" "))
        )
        numbers = pl.DataFrame({"row": np.arange(len(part))})
        texts.append(numbers.join(joined, on="row", how="left", maintain_order="left")[into].fill_null(""))
    packed = pl.concat(texts) if texts else pl.Series(into, [], dtype=pl.String)
    return rows.drop(names).with_columns(packed.alias(into))


def tell_target(rows: pl.DataFrame, names: Sequence[str], target: pl.Series) -> list[str]:
    """Columns that alone tell the target, or one of its classes, almost perfectly: by correlation, on a sample of the rows."""
    chosen = np.flatnonzero(target.is_not_null())
    chosen = chosen[:: max(1, -(-len(chosen) // SAMPLE_ROWS))]
    # Row by row through NumPy: Polars takes minutes to gather rows of so many columns.
    cells = np.nan_to_num(rows.select(pl.col(names).cast(pl.Float32)).to_numpy()[chosen], nan=0.0)
    values = target.gather(chosen)
    if values.dtype.is_float():
        outcomes = values.to_numpy()[:, None]
    else:
        labels = values.cast(pl.String)
        outcomes = np.column_stack([(labels == label).to_numpy() for label in labels.unique().sort()])
    strongest = np.abs(_standardized(cells).T @ _standardized(outcomes.astype(np.float32))).max(axis=1) / len(cells)
    return [name for name, value in zip(names, strongest, strict=True) if value > SUSPICIOUS_CORRELATION]


def _standardized(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and variance 1; constant ones are 0."""
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
