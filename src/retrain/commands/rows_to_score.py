"""A file with rows to score, as the schema reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from retrain.config import ColumnType, Config
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.files import PARQUET
from retrain.data.reading.schema_casters import schema_casters
from retrain.data.reading.table import read_one
from retrain.errors import DataError

PART = 100_000  # rows in memory at a time


def read_input(config: Config, path: Path, features: Mapping[str, ColumnType]) -> pl.DataFrame:
    """A file whose features are read as the schema says, written as those of the source are. Others
    are as they are found: a label that can't be read keeps no row from being scored."""
    node: Any = config.data.source
    while isinstance(node, dict) and isinstance(
        node.get("source"), dict
    ):  # wrapped, as by `WithLabels`
        node = node["source"]
    said = {
        key: node.get(key)
        for key in ("separator", "decimal", "encoding", "day_first", "date_formats")
    }
    dialect = Dialect(**said)
    casters = schema_casters(config.data, dialect, node.get("time_format"))
    named = {name: casters[name] for name in features if name in casters}
    # The place goes into a column of the output, which travels.
    rows = read_one(path, dialect, named, whole=features, shown=path.name)
    if not rows.width:
        raise DataError(
            f"{path.name} is empty, without even a header, so there is nothing to score."
        )
    return rows


def read_in_parts(
    config: Config, path: Path, features: Mapping[str, ColumnType]
) -> Iterator[pl.DataFrame]:
    """The rows of `read_input`, some at a time. Of Parquet no more than a part is in memory; the
    types of text are told from all of it."""
    if path.is_file() and path.name.lower().endswith(PARQUET):
        yield from _parquet_in_parts(path)
        return
    rows = read_input(config, path, features)
    yield from rows.iter_slices(PART) if len(rows) else [rows]


def _parquet_in_parts(path: Path) -> Iterator[pl.DataFrame]:
    try:
        file = pl.scan_parquet(path, glob=False)
        if not file.collect_schema():
            raise DataError(f"{path.name} has no columns, so there is nothing to score.")
        empty = True
        for rows in file.collect_batches(chunk_size=PART):
            empty = False
            yield rows
        if empty:
            yield file.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path.name} can't be read: {str(error).splitlines()[0]}.",
            hint="put it there again, whole, with the ending of what it is",
        ) from error
