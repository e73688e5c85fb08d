"""Scored rows as a file: Parquet or CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from retrain.errors import DataError
from retrain.workspace import atomic_write

SMALLEST_PLAIN, LARGEST_PLAIN = 1e-4, 1e15  # numbers between them Polars writes without an exponent
OUTPUTS = (".parquet", ".csv")


def with_one_format(table: pl.DataFrame) -> pl.DataFrame:
    """The table with numbers as texts where a CSV file would hold some with an exponent and others
    without.

    They are written out, up to 15 digits before or behind the point; beyond that all of the column
    have an exponent.
    """
    return table.with_columns(
        _written_alike(values)
        for values in table.select(pl.col(pl.Float64, pl.Float32))
        if _is_mixed(values)
    )


def _sizes(values: pl.Series) -> pl.Series:
    """How large the finite numbers are, without zeros and missing ones."""
    return values.filter((values.is_finite() & (values != 0)).fill_null(False)).abs()


def _is_mixed(values: pl.Series) -> bool:
    sizes = _sizes(values)
    return bool(((sizes < SMALLEST_PLAIN) | (sizes >= LARGEST_PLAIN)).any())


def _written_alike(values: pl.Series) -> pl.Series:
    sizes = _sizes(values)
    plain = ((sizes >= 1e-15) & (sizes < 1e15)).all()
    write = np.format_float_positional if plain else np.format_float_scientific
    single = (
        np.float32 if values.dtype == pl.Float32 else np.float64
    )  # with as many digits as tell it from its neighbours
    texts = [value if value is None else write(single(value), trim="0") for value in values]
    return pl.Series(values.name, texts, dtype=pl.String).replace("nan", "NaN")


def write(scored: pl.DataFrame, path: Path) -> None:
    with atomic_write(path) as temporary:
        try:
            parquet = path.name.lower().endswith(".parquet")
            scored.write_parquet(temporary) if parquet else with_one_format(scored).write_csv(
                temporary
            )
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"The scored rows can't be written to {path.name}: {str(error).splitlines()[0]}.",
                hint=f"choose the other of {' and '.join(OUTPUTS)} for `--output`",
            ) from error
