"""Scored rows as a file: Parquet or CSV."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Callable[[pl.DataFrame], None]]:
    """Takes scored rows in parts, of which it keeps none in memory. The file is there when all have
    been written, and not before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_write(path) as temporary,
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder,
    ):
        parts: list[Path] = []

        def write(part: pl.DataFrame) -> None:
            parts.append(Path(folder) / f"{len(parts):08}.parquet")
            with _told(path):
                if path.name.lower().endswith(".parquet"):
                    part.write_parquet(parts[-1])
                else:
                    with temporary.open("ab") as file:
                        with_one_format(part).write_csv(file, include_header=len(parts) == 1)

        yield write
        if parts[0].exists():
            with _told(path):
                pl.scan_parquet(parts, glob=False).sink_parquet(temporary)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"The scored rows can't be written to {path.name}: {str(error).splitlines()[0]}.",
            hint=f"choose the other of {' and '.join(OUTPUTS)} for `--output`",
        ) from error
