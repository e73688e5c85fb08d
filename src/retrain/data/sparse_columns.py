"""Tables of thousands of numeric columns that are mostly zero: as one feature of type `sparse`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl

from retrain.config import DataConfig
from retrain.data.source import Source

MANY_COLUMNS = 1000  # of more numeric ones `retrain init` makes one sparse feature
CELLS_AT_ONCE = 25_000_000


class SparseColumns(Source):
    """The batches of `source`, their numeric columns that the schema does not name as one sparse
    column, `into`.

    A row becomes a text such as `gene_17:2.5 gene_40:1` of what is neither 0 nor missing in it.
    `leave_out` are dropped.
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
        return to_sparse(rows, numeric_columns(rows, self.named), self.into)


def numeric_columns(rows: pl.DataFrame, except_for: set[str]) -> list[str]:
    """Columns of numbers and flags, in order."""
    return [
        name
        for name, dtype in rows.schema.items()
        if name not in except_for and (dtype.is_numeric() or dtype == pl.Boolean)
    ]


def to_sparse(rows: pl.DataFrame, names: Sequence[str], into: str) -> pl.DataFrame:
    """The rows with some columns as one of text; a row of zeros has an empty text."""
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
    packed = pl.concat(texts) if texts else pl.Series(dtype=pl.String)
    return rows.drop(names).with_columns(packed.alias(into))


def pair_names(names: Sequence[str]) -> list[str]:
    """What columns are called in a sparse text: their names without white space, and no two the
    same."""
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
