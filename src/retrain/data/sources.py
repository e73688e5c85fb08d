"""The sources that come with the engine."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from retrain.columns import own_column
from retrain.config import DataConfig
from retrain.data.reading.casting import Caster
from retrain.data.reading.conversions import is_time
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.files import SUFFIXES, is_address, list_folder, stamp_files
from retrain.data.reading.parts import PLACE, PROBLEM, add_problem, find_places
from retrain.data.reading.schema_casters import date_columns, schema_casters, typed_columns
from retrain.data.reading.table import read_one, read_table, with_problems
from retrain.data.reading.time_column import with_times
from retrain.data.source import Source
from retrain.data.table_source import Table
from retrain.errors import DataError
from retrain.lazy import sqlalchemy

_OF_LABEL = own_column("of_label")


class BatchFiles(Source):
    """One CSV, Parquet or JSON Lines file a batch, its name the period key.

    `folder` is local, or the address of any file system that fsspec knows and whose package is
    installed, such as s3://bucket/incoming; credentials and endpoint come from the environment.
    `separator`, `decimal` and `encoding` say how text files are written, where that can't be found
    out from them; `time_format` how their times are, `date_formats` how the dates of other columns
    are, by column, and `day_first` how dates such as 01/02/2023 are meant.
    """

    def __init__(
        self,
        folder: str,
        time_format: str | None = None,
        separator: str | None = None,
        decimal: str | None = None,
        encoding: str | None = None,
        day_first: bool | None = None,
        date_formats: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.time_format = folder, time_format
        self.dialect = Dialect(separator, decimal, encoding, day_first, date_formats or {})
        self.casters: dict[str, Caster] = {}
        self.data: DataConfig | None = None

    def bind(self, data: DataConfig) -> None:
        self.data = data
        self.casters = schema_casters(data, self.dialect, self.time_format)

    def periods(self) -> list[str]:
        found = [_stem(Path(name).name) for _, name in list_folder(self.folder).files]
        twice = {key for key in found if found.count(key) > 1}
        if twice:
            raise DataError(
                f"{self.folder} holds more than one file for {', '.join(sorted(twice))}.",
                hint="keep one of each",
            )
        return found

    def fingerprint(self, period: str) -> str:
        _, path = self._file(period)
        if is_address(self.folder):
            return stamp_files(f"{self.folder.rstrip('/')}/{Path(path).name}")
        status = Path(path).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    def read(self, period: str) -> pl.DataFrame:
        filesystem, path = self._file(period)
        dates, shown = date_columns(self.data), None
        if is_address(self.folder):
            shown = f"{self.folder.rstrip('/')}/{Path(path).name}"
        table = read_one(
            path, self.dialect, self.casters, dates, shown=shown, filesystem=filesystem
        )
        time = self.data.time_column if self.data else None
        if self.time_format and time in table.columns and not is_time(table.schema[time]):
            table = with_times(table, time, self.time_format, self.dialect.day_first)
        return table

    def _file(self, period: str) -> tuple[Any, str]:
        """The file system and path of a batch."""
        for filesystem, path in list_folder(self.folder).files:
            if _stem(Path(path).name) == period:
                return filesystem, path
        raise DataError(
            f"{self.folder} has no file for {period}.",
            hint=f"put it there, such as {period}.csv",
        )


class Files(Table):
    """A table in one file or several with the same columns: CSV, Parquet or JSON Lines.

    `paths` is a path, a glob, or a list of them; local, or a URL of any file system that fsspec
    knows and whose package is installed (s3://, gs://, https://, ...). `separator`, `decimal` and
    `encoding` as of `BatchFiles`.
    """

    def __init__(
        self,
        paths: str | Sequence[str],
        separator: str | None = None,
        decimal: str | None = None,
        encoding: str | None = None,
        day_first: bool | None = None,
        date_formats: dict[str, str] | None = None,
        **table: Any,
    ) -> None:
        super().__init__(day_first=day_first, date_formats=date_formats, **table)
        self.paths = paths
        self.dialect = Dialect(separator, decimal, encoding, day_first, date_formats or {})

    def load(self) -> pl.DataFrame:
        casters = schema_casters(self.data, self.dialect, self.time_format)
        return read_table(self.paths, self.dialect, casters, date_columns(self.data))

    def stamp(self) -> str:
        return stamp_files(self.paths)


class SqlQuery(Table):
    """A table that a SQL query returns, through SQLAlchemy.

    The database's address is `uri`, or the content of the environment variable `uri_from_env`,
    where it holds a password. The query is run in every `dvc repro -f snapshot`: a database has no
    stamp that says whether it has changed.
    """

    def __init__(
        self, query: str, uri: str | None = None, uri_from_env: str | None = None, **table: Any
    ) -> None:
        super().__init__(**table)
        self.query, self.uri, self.uri_from_env = query, uri, uri_from_env

    def fingerprint(self, period: str) -> str:
        """Of the rows themselves, each batch on its own: one new row does not make all others be
        checked again."""
        return hashlib.sha256(
            self.read(period).hash_rows().sort().to_numpy().tobytes()
        ).hexdigest()[:32]

    def stamp(self) -> str:
        return ""

    def load(self) -> pl.DataFrame:
        uri = os.environ.get(self.uri_from_env) if self.uri_from_env else self.uri
        if not uri:
            raise DataError(
                "The address of the database is not known.",
                hint=f"set the environment variable {self.uri_from_env}"
                if self.uri_from_env
                else "set `data.source.uri_from_env` to the name of an environment variable, or "
                "`data.source.uri` if it holds no password",
            )
        table = read_query(uri, self.query)
        # Some databases, such as SQLite, keep times and flags as text.
        texts = [name for name in typed_columns(self.data) if table.schema.get(name) == pl.String]
        dialect = Dialect(day_first=self.day_first, date_formats=self.date_formats or {})
        casters = schema_casters(self.data, dialect, self.time_format)
        return with_problems(table, {name: casters[name](table[name]) for name in texts})


class WithLabels(Source):
    """Batches whose labels lie elsewhere: `labels` are files with the key columns and the target,
    joined to the rows of `source`.

    A row without a label there is unlabelled for now. Labels that come later make a new revision of
    their batch.
    """

    def __init__(self, source: Source, labels: str | Sequence[str]) -> None:
        self.source, self.labels = source, labels

    def bind(self, data: DataConfig) -> None:
        self.data = data
        self.key_columns, self.target_column = list(data.key_columns), data.target_column
        self.source.bind(data)

    def periods(self) -> list[str]:
        return self.source.periods()

    def fingerprint(self, period: str) -> str:
        return f"{self.source.fingerprint(period)} {self._stamp}"

    def read(self, period: str) -> pl.DataFrame:
        rows, known = self.source.read(period).drop(self.target_column, strict=False), self._known
        for name in self.key_columns:
            if (
                name in rows.columns and rows.schema[name] != known.schema[name]
            ):  # such as 17 there and "K17" here
                rows, known = (
                    frame.with_columns(frame[name].cast(pl.String)) for frame in (rows, known)
                )
        joined = rows.join(known, on=self.key_columns, how="left", suffix=_OF_LABEL)
        problem, place = (name + _OF_LABEL for name in (PROBLEM, PLACE))
        if problem not in joined.columns:
            return joined
        wrong = joined[problem].is_not_null()
        if PROBLEM in rows.columns:
            wrong &= joined[PROBLEM].is_null()
        if PLACE in rows.columns:
            places = pl.when(wrong).then(pl.col(place)).otherwise(pl.col(PLACE))
            joined = joined.with_columns(places.alias(PLACE))
        return add_problem(joined, wrong, joined[problem]).drop(problem, place)

    @functools.cached_property
    def _stamp(self) -> str:
        return stamp_files(self.labels)

    @functools.cached_property
    def _known(self) -> pl.DataFrame:
        # Before reading: what changes in between is then read again by the next run.
        self._stamp  # noqa: B018
        dialect = getattr(self.source, "dialect", Dialect())
        casters = schema_casters(self.data, dialect, None)
        labels = read_table(self.labels, dialect, casters)
        missing = [
            name for name in (*self.key_columns, self.target_column) if name not in labels.columns
        ]
        if missing:
            raise DataError(
                f"The labels have no column {', '.join(missing)} (`data.source.labels`).",
                hint="name the columns of the labels as `data.key_columns` and "
                "`data.target_column` do",
            )
        repeated = labels.select(self.key_columns).is_duplicated()
        if repeated.any():
            rows = repeated.arg_true().head(3).to_list()
            keys = labels.select(self.key_columns)[rows].to_dicts()
            places = find_places(labels, rows)
            shown = ", ".join(f"{key} ({place})" for key, place in zip(keys, places, strict=True))
            raise DataError(
                "The labels name some keys more than once (`data.source.labels`), in "
                f"{repeated.sum():,} rows such as {shown}.",
                hint="keep the newest label of each",
            )
        problems = [pl.col(name).alias(name + _OF_LABEL) for name in (PROBLEM, PLACE)]
        problem_columns = problems if PROBLEM in labels.columns else []
        return labels.select(*self.key_columns, self.target_column, *problem_columns)


def read_query(uri: str, query: str) -> pl.DataFrame:
    """What a query returns. Raises DataError, without the address, when the database can't be
    reached or refuses it."""
    try:
        engine = sqlalchemy.create_engine(uri)
        with engine.connect() as connection:
            return pl.read_database(sqlalchemy.text(query), connection, infer_schema_length=None)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        cause = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"The query can't be read from the database: {cause}.",
            hint="mend `data.source`",
        ) from None


def _stem(name: str) -> str:
    """The period key in a file's name: all before its ending."""
    lower = name.lower()
    suffix = max((suffix for suffix in SUFFIXES if lower.endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)]
