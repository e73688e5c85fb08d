"""Where batches come from. A source of your own is a subclass of `Source` and a YAML that names it."""

from __future__ import annotations

import functools
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from retrain.columns import own_column, refuse_reserved
from retrain.config import DataConfig, PeriodKind
from retrain.data.contract import to_times
from retrain.data.periods import period_keys
from retrain.errors import ConfigError, DataError
from retrain.ranges import PositiveCount

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zip")
FORMATS = (".parquet", ".pq", ".csv", ".jsonl", ".ndjson")
SUFFIXES = (*FORMATS, *(kind + packed for kind in FORMATS[2:] for packed in COMPRESSIONS))
MISSING_MARKS = ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "?", ".", "-"]
ROW_NUMBER = "row_number"
EPOCH_UNITS = {"epoch_s": "s", "epoch_ms": "ms", "epoch_us": "us"}
_PERIOD = own_column("period")


class Source(ABC):
    """Batches by period key, as they arrived: labelled where the label is known, null where it isn't."""

    def bind(self, data: DataConfig) -> None:  # noqa: B027 - most sources need not know
        """Told once, before anything else, what the contract says about times, periods, keys and target."""

    @abstractmethod
    def periods(self) -> list[str]:
        """Keys of the batches that have arrived, in any order. Raises DataError if the source can't be reached."""

    @abstractmethod
    def fingerprint(self, period: str) -> str:
        """A cheap stamp of a batch: while it stays the same, the batch is not read again."""

    @abstractmethod
    def read(self, period: str) -> pl.DataFrame:
        """One row for each thing to predict: keys, time, features and target of the contract."""


class BatchFiles(Source):
    """One CSV, Parquet or JSON Lines file a batch, its name the period key."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def periods(self) -> list[str]:
        if not self.folder.is_dir():
            raise DataError(
                f"The source folder {self.folder} is missing (`data.source.folder`). Make it, and put one file a batch into it."
            )
        files = [path.name for path in self.folder.iterdir() if path.name.endswith(SUFFIXES)]
        found = [name.split(".")[0] for name in files]
        twice = {key for key in found if found.count(key) > 1}
        if twice:
            raise DataError(f"{self.folder} holds more than one file for {', '.join(sorted(twice))}. Keep one of each.")
        return found

    def fingerprint(self, period: str) -> str:
        status = self._path(period).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    def read(self, period: str) -> pl.DataFrame:
        return read_file(self._path(period))

    def _path(self, period: str) -> Path:
        for suffix in SUFFIXES:
            path = self.folder / f"{period}{suffix}"
            if path.is_file():
                return path
        raise DataError(f"{self.folder} has no file for {period}.")


class Table(Source):
    """One table that is cut into batches by the time of its rows, or into batches of `rows_per_batch` rows in time order.

    A batch of a fixed number of rows appears once it is full. `time_format` says how text or whole numbers become times:
    a strptime format, or epoch_s, epoch_ms, epoch_us. With `number_rows`, a column counts the rows of each batch, as a
    key for tables that have none: `row_number`, or what `number_rows` names instead.
    """

    def __init__(
        self,
        rows_per_batch: PositiveCount | None = None,
        time_format: str | None = None,
        number_rows: bool | str = False,
    ) -> None:
        self.rows_per_batch, self.time_format = rows_per_batch, time_format
        self.row_number = ROW_NUMBER if number_rows is True else number_rows or None

    def bind(self, data: DataConfig) -> None:
        """Raises ConfigError when the length of a batch is said in two ways, or in none."""
        self.time_column, self.period = data.time_column, data.period
        if (self.period is PeriodKind.rows) != (self.rows_per_batch is not None):
            raise ConfigError("`data.period: rows` and `data.source.rows_per_batch` go together: set both or none.")

    @abstractmethod
    def load(self) -> pl.DataFrame:
        """The whole table. Raises DataError if it can't be read."""

    @abstractmethod
    def stamp(self) -> str:
        """Changes when the table does."""

    def periods(self) -> list[str]:
        return list(self._spans)

    def fingerprint(self, period: str) -> str:
        return self._stamp

    def read(self, period: str) -> pl.DataFrame:
        rows = self._batches.slice(*self._spans[period]).drop(_PERIOD)
        return rows.with_row_index(self.row_number) if self.row_number else rows

    @functools.cached_property
    def _stamp(self) -> str:
        return self.stamp()

    @functools.cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        """First row and number of rows of each batch: in order of time they lie together, so a batch is a view, no copy."""
        runs = self._batches.select(pl.col(_PERIOD).rle().struct.unnest())
        starts = runs["len"].cum_sum() - runs["len"]
        return dict(zip(runs["value"], zip(starts, runs["len"], strict=True), strict=True))

    @functools.cached_property
    def _batches(self) -> pl.DataFrame:
        self._stamp  # noqa: B018 - before reading: what changes in between is then read again by the next run
        table = self.load()
        if self.time_column not in table.columns:
            found = ", ".join(table.columns[:40])
            raise DataError(f"The table has no column `{self.time_column}` (`data.time_column`). It has {found}.")
        refuse_reserved(table.columns, "The table")
        if self.row_number in table.columns:
            raise DataError(
                f"The table has a column `{self.row_number}` itself, so its rows can't be numbered under that name. Name "
                "another one in `data.source.number_rows` and `data.key_columns`, or take `number_rows` away to use the "
                "column as it is."
            )
        table = table.with_columns(parse_times(table[self.time_column], self.time_format))
        table = table.sort(self.time_column, maintain_order=True)
        if self.rows_per_batch is None:
            return table.with_columns(period_keys(pl.col(self.time_column), self.period).alias(_PERIOD))
        number = pl.int_range(pl.len()) // self.rows_per_batch
        full = table.head(len(table) // self.rows_per_batch * self.rows_per_batch)
        return full.with_columns(number.cast(pl.String).str.zfill(6).alias(_PERIOD))


class Files(Table):
    """A table in one file or several with the same columns: CSV, Parquet or JSON Lines.

    `paths` is a path, a glob, or a list of them; local, or a URL of any file system that fsspec knows and whose package
    is installed (s3://, gs://, https://, ...).
    """

    def __init__(self, paths: str | Sequence[str], **table: Any) -> None:
        super().__init__(**table)
        self.paths = paths

    def load(self) -> pl.DataFrame:
        return read_files(self.paths)

    def stamp(self) -> str:
        return stamp_files(self.paths)


class SqlQuery(Table):
    """A table that a SQL query returns, through SQLAlchemy.

    The database's address is `uri`, or the content of the environment variable `uri_from_env`, where it holds a password.
    The query is run in every `dvc repro -f snapshot`: a database has no stamp that says whether it has changed.
    """

    def __init__(self, query: str, uri: str | None = None, uri_from_env: str | None = None, **table: Any) -> None:
        super().__init__(**table)
        self.query, self.uri, self.uri_from_env = query, uri, uri_from_env

    def fingerprint(self, period: str) -> str:
        """Of the rows themselves, each batch on its own: one new row does not make all others be checked again."""
        return hashlib.sha256(self.read(period).hash_rows().sort().to_numpy().tobytes()).hexdigest()[:32]

    def stamp(self) -> str:
        return ""

    def load(self) -> pl.DataFrame:
        uri = os.environ.get(self.uri_from_env) if self.uri_from_env else self.uri
        if not uri:
            raise DataError(
                f"The address of the database is not known: set the environment variable {self.uri_from_env}, "
                "or `data.source.uri` if it holds no password."
            )
        return read_query(uri, self.query)


class WithLabels(Source):
    """Batches whose labels lie elsewhere: `labels` are files with the key columns and the target, joined to the rows of `source`.

    A row without a label there is unlabelled for now. Labels that come later make a new revision of their batch.
    """

    def __init__(self, source: Source, labels: str | Sequence[str]) -> None:
        self.source, self.labels = source, labels

    def bind(self, data: DataConfig) -> None:
        self.key_columns, self.target_column = list(data.key_columns), data.target_column
        self.source.bind(data)

    def periods(self) -> list[str]:
        return self.source.periods()

    def fingerprint(self, period: str) -> str:
        return f"{self.source.fingerprint(period)} {self._stamp}"

    def read(self, period: str) -> pl.DataFrame:
        rows = self.source.read(period)
        return rows.drop(self.target_column, strict=False).join(self._known, on=self.key_columns, how="left")

    @functools.cached_property
    def _stamp(self) -> str:
        return stamp_files(self.labels)

    @functools.cached_property
    def _known(self) -> pl.DataFrame:
        self._stamp  # noqa: B018 - before reading: what changes in between is then read again by the next run
        labels = read_files(self.labels)
        missing = [name for name in (*self.key_columns, self.target_column) if name not in labels.columns]
        if missing:
            raise DataError(f"The labels have no column {', '.join(missing)} (`data.source.labels`).")
        labels = labels.select(*self.key_columns, self.target_column)
        if labels.select(self.key_columns).is_duplicated().any():
            raise DataError("The labels name some keys more than once (`data.source.labels`): keep the newest of each.")
        return labels


def read_file(path: Path | str, filesystem: Any = None) -> pl.DataFrame:
    """A table from one CSV, Parquet or JSON Lines file, the latter two also compressed. Local, or on a file system of fsspec.

    Raises DataError when it is missing or can't be read.
    """
    name = str(path)
    if not name.endswith(SUFFIXES):
        raise DataError(
            f"{Path(name).name} must end in {', '.join(FORMATS)}; text also in {', '.join(COMPRESSIONS)} after that."
        )
    try:
        given: Any = path
        if filesystem is not None or name.endswith(COMPRESSIONS):
            import fsspec

            filesystem = filesystem or fsspec.filesystem("file")
            with filesystem.open(name, "rb", compression="infer" if name.endswith(COMPRESSIONS) else None) as file:
                given = file.read()
        if name.endswith(FORMATS[:2]):
            return pl.read_parquet(given)
        if ".csv" in Path(name).suffixes:
            return _without_markers(pl.read_csv(given, try_parse_dates=True, infer_schema_length=None))
        return pl.read_ndjson(given, infer_schema_length=None)
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path} can't be read: {str(error).splitlines()[0]}. Replace the file by a whole one."
        ) from error


def _without_markers(table: pl.DataFrame) -> pl.DataFrame:
    """Columns that hold numbers and, here and there, a mark for a missing one, as numbers with nulls."""
    numbers = []
    for name in (name for name, dtype in table.schema.items() if dtype == pl.String):
        text = table[name].str.strip_chars()
        marked = text.is_in(MISSING_MARKS)
        values = text.cast(pl.Float64, strict=False)
        if marked.any() and values.is_not_null().any() and (values.is_not_null() | marked | text.is_null()).all():
            numbers.append(pl.when(marked).then(None).otherwise(values).alias(name))
    return table.with_columns(numbers)


def read_files(paths: str | Sequence[str]) -> pl.DataFrame:
    """One table from all files that the paths, globs or URLs name. Columns that some of them lack are null there."""
    tables = []
    for filesystem, path in _find_files(paths):
        tables.append(read_file(path, filesystem))
    try:
        return pl.concat(tables, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"The files of {paths} do not fit together: {str(error).splitlines()[0]}. Give a column one type in all of them."
        ) from error


def stamp_files(paths: str | Sequence[str]) -> str:
    """Changes when one of the files does: from names, sizes, and times or tags."""
    marks = []
    for filesystem, path in _find_files(paths):
        info = filesystem.info(path)
        marks.append([path, info.get("size"), *(str(info.get(key)) for key in ("mtime", "LastModified", "ETag"))])
    return hashlib.sha256(repr(marks).encode()).hexdigest()[:32]


def _find_files(paths: str | Sequence[str]) -> list[tuple[Any, str]]:
    """File system and path of each file. Raises DataError when a path names none, or its file system is not installed."""
    import fsspec

    found = []
    for path in [paths] if isinstance(paths, str) else paths:
        try:
            filesystem, inner = fsspec.core.url_to_fs(str(path))
            names = filesystem.glob(inner) if any(sign in inner for sign in "*?[") else [inner]
            # Not `isfile`: it takes whatever goes wrong, such as a wrong password, for no.
            names = [name for name in names if filesystem.info(name)["type"] == "file"]
        except FileNotFoundError:
            names = []
        except (ImportError, ValueError, OSError) as error:
            raise DataError(f"{path} can't be opened: {error}") from error
        if not names:
            raise DataError(f"There is no file {path}. Mend `data.source`, or put the file there.")
        found += [(filesystem, name) for name in sorted(names)]
    return found


def read_query(uri: str, query: str) -> pl.DataFrame:
    """What a query returns. Raises DataError, without the address, when the database can't be reached or refuses it."""
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri)
        with engine.connect() as connection:
            return pl.read_database(sqlalchemy.text(query), connection, infer_schema_length=None)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        cause = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
        raise DataError(f"The query can't be read from the database: {cause}. Mend `data.source`.") from None


def parse_times(values: pl.Series, time_format: str | None = None) -> pl.Series:
    """A column as times without a zone. Raises DataError, with an example, when it can't be read as such."""
    try:
        if time_format in EPOCH_UNITS:
            times = pl.select(pl.from_epoch(values, time_unit=EPOCH_UNITS[time_format])).to_series()
        elif time_format is not None:
            times = values.cast(pl.String).str.to_datetime(time_format)
        elif values.dtype == pl.String:
            times = _parse_text(values)
        else:
            times = values
        found = to_times(times)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"`{values.name}` can't be read as time (`data.source.time_format`: {time_format}), such as {values.drop_nulls().head(1).to_list()}."
        ) from error
    if found is None:
        raise DataError(
            f"`{values.name}` has type {values.dtype}, such as {values.drop_nulls().head(1).to_list()}: say in "
            "`data.source.time_format` how it becomes a time (a strptime format, epoch_s, epoch_ms or epoch_us)."
        )
    return found.alias(values.name)


def _parse_text(values: pl.Series) -> pl.Series:
    """ISO 8601 times, with or without a zone; those with one become UTC."""
    text = values.drop_nulls().head(1).to_list()
    zoned = bool(text) and (text[0].endswith("Z") or text[0][10:].count("+") == 1 or text[0][10:].count("-") == 1)
    return values.str.to_datetime(time_zone="UTC") if zoned else values.str.to_datetime()
