"""Where batches come from. A source of your own is a subclass of `Source` and a YAML that names
it."""

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
from retrain.data.periods import period_keys
from retrain.data.reading.casting import Caster
from retrain.data.reading.conversions import is_time
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.files import SUFFIXES, readable, stamp_files
from retrain.data.reading.parts import PLACE, PROBLEM, add_problem, find_places
from retrain.data.reading.schema_casters import date_columns, schema_casters, typed_columns
from retrain.data.reading.table import read_one, read_table, with_problems
from retrain.data.reading.time_column import with_times
from retrain.errors import ConfigError, DataError
from retrain.lazy import sqlalchemy
from retrain.ranges import PositiveCount

ROW_NUMBER = "row_number"
_PERIOD, _FILLED, _OF_LABEL = (
    own_column("period"),
    own_column("filled_time"),
    own_column("of_label"),
)


class Source(ABC):
    """Where batches come from. Subclass it, write `periods`, `fingerprint` and `read`, and name the
    class under `source:` in a file of conf/data/.

    A batch holds the rows of one period as they arrived: labelled where the label is known, null
    where it isn't. The arguments of `__init__` are keys in the YAML.

    Examples
    --------
    >>> import polars as pl
    >>> class Dice(Source):
    ...     def periods(self) -> list[str]:
    ...         return ["2013-01", "2013-02"]
    ...
    ...     def fingerprint(self, period: str) -> str:
    ...         return "1"  # a batch never changes once it is there
    ...
    ...     def read(self, period: str) -> pl.DataFrame:
    ...         return pl.DataFrame({"time": [f"{period}-01"] * 6, "eyes": range(1, 7)})
    >>> Dice().read("2013-02").height
    6
    """

    def bind(self, data: DataConfig) -> None:  # noqa: B027 - most sources need not know
        """Called once, before anything else.

        Parameters
        ----------
        data
            What `data:` in the config says of times, periods, keys and target.
        """

    @abstractmethod
    def periods(self) -> list[str]:
        """The keys of the batches that have arrived.

        Returns
        -------
        list of str
            Such as `2013-01` for a month, in any order.

        Raises
        ------
        DataError
            If the source can't be reached.
        """

    @abstractmethod
    def fingerprint(self, period: str) -> str:
        """A cheap stamp of a batch: while it stays the same, the batch is not read again.

        Parameters
        ----------
        period
            One of the keys that `periods` gives.

        Returns
        -------
        str
            Such as size and time of change of a file.
        """

    @abstractmethod
    def read(self, period: str) -> pl.DataFrame:
        """The rows of a batch: one for each thing to predict.

        Parameters
        ----------
        period
            One of the keys that `periods` gives.

        Returns
        -------
        polars.DataFrame
            The keys, the time, the features and the target of the schema, by name. Others are
            ignored; types are cast by the schema.

        Raises
        ------
        DataError
            If the batch can't be read.
        """


class BatchFiles(Source):
    """One CSV, Parquet or JSON Lines file a batch, its name the period key.

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
        self.folder, self.time_format = Path(folder), time_format
        self.dialect = Dialect(separator, decimal, encoding, day_first, date_formats or {})
        self.casters: dict[str, Caster] = {}
        self.data: DataConfig | None = None

    def bind(self, data: DataConfig) -> None:
        self.data = data
        self.casters = schema_casters(data, self.dialect, self.time_format)

    def periods(self) -> list[str]:
        if not self.folder.is_dir():
            raise DataError(
                f"The source folder {self.folder} is missing (`data.source.folder`). Make it, and "
                "put one file a batch into it."
            )
        found = [_stem(path.name) for path in self.folder.iterdir() if readable(path.name)]
        twice = {key for key in found if found.count(key) > 1}
        if twice:
            raise DataError(
                f"{self.folder} holds more than one file for {', '.join(sorted(twice))}. Keep one "
                "of each."
            )
        return found

    def fingerprint(self, period: str) -> str:
        status = self._path(period).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    def read(self, period: str) -> pl.DataFrame:
        table = read_one(self._path(period), self.dialect, self.casters, date_columns(self.data))
        time = self.data.time_column if self.data else None
        if self.time_format and time in table.columns and not is_time(table.schema[time]):
            table = with_times(table, time, self.time_format, self.dialect.day_first)
        return table

    def _path(self, period: str) -> Path:
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if readable(path.name) and _stem(path.name) == period and path.is_file():
                return path
        raise DataError(f"{self.folder} has no file for {period}.")


class Table(Source):
    """One table that is cut into batches by the time of its rows, or into batches of
    `rows_per_batch` rows in time order.

    A batch of a fixed number of rows appears once it is full. `time_format` says how text or whole
    numbers become times: a strptime format, or epoch_s, epoch_ms, epoch_us; `date_formats` how
    dates of other columns are written, by column; `day_first` how dates such as 01/02/2023 are
    meant. With `number_rows`, a column counts the rows of each batch, as a key for tables that have
    none: `row_number`, or what `number_rows` names instead.
    """

    def __init__(
        self,
        rows_per_batch: PositiveCount | None = None,
        time_format: str | None = None,
        number_rows: bool | str = False,
        day_first: bool | None = None,
        date_formats: dict[str, str] | None = None,
    ) -> None:
        self.date_formats = date_formats
        self.rows_per_batch, self.time_format, self.day_first = (
            rows_per_batch,
            time_format,
            day_first,
        )
        self.row_number = ROW_NUMBER if number_rows is True else number_rows or None

    def bind(self, data: DataConfig) -> None:
        """Raises ConfigError when the length of a batch is said in two ways, or in none."""
        self.data = data
        self.time_column, self.period = data.time_column, data.period
        if (self.period is PeriodKind.rows) != (self.rows_per_batch is not None):
            raise ConfigError(
                "`data.period: rows` and `data.source.rows_per_batch` go together: set both or "
                "none."
            )

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
        """First row and number of rows of each batch: in order of time they lie together, so a
        batch is a view, no copy."""
        runs = self._batches.select(pl.col(_PERIOD).rle().struct.unnest())
        starts = runs["len"].cum_sum() - runs["len"]
        return dict(zip(runs["value"], zip(starts, runs["len"], strict=True), strict=True))

    @functools.cached_property
    def _batches(self) -> pl.DataFrame:
        # Before reading: what changes in between is then read again by the next run.
        self._stamp  # noqa: B018
        table = self.load()
        if self.time_column not in table.columns:
            found = ", ".join(table.columns[:40])
            raise DataError(
                f"The table has no column `{self.time_column}` (`data.time_column`). It has "
                f"{found}."
            )
        refuse_reserved(
            (name for name in table.columns if name not in (PROBLEM, PLACE)), "The table"
        )
        if self.row_number in table.columns:
            raise DataError(
                f"The table has a column `{self.row_number}` itself, so its rows can't be numbered "
                "under that name. Name "
                "another one in `data.source.number_rows` and `data.key_columns`, or take "
                "`number_rows` away to use the "
                "column as it is."
            )
        table = with_times(table, self.time_column, self.time_format, self.day_first)
        # A row without a time goes to quarantine in the batch of the rows beside it.
        table = table.with_columns(
            table[self.time_column].forward_fill().backward_fill().alias(_FILLED)
        )
        table = table.sort(_FILLED, maintain_order=True)
        if self.rows_per_batch is None:
            return table.with_columns(
                period_keys(pl.col(_FILLED), self.period).alias(_PERIOD)
            ).drop(_FILLED)
        number = pl.int_range(pl.len()) // self.rows_per_batch
        full = table.head(len(table) // self.rows_per_batch * self.rows_per_batch).drop(_FILLED)
        return full.with_columns(number.cast(pl.String).str.zfill(6).alias(_PERIOD))


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
                "The address of the database is not known: set the environment variable "
                f"{self.uri_from_env}, "
                "or `data.source.uri` if it holds no password."
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
                f"The labels have no column {', '.join(missing)} (`data.source.labels`)."
            )
        repeated = labels.select(self.key_columns).is_duplicated()
        if repeated.any():
            rows = repeated.arg_true().head(3).to_list()
            keys = labels.select(self.key_columns)[rows].to_dicts()
            places = find_places(labels, rows)
            shown = ", ".join(f"{key} ({place})" for key, place in zip(keys, places, strict=True))
            raise DataError(
                "The labels name some keys more than once (`data.source.labels`), in "
                f"{repeated.sum():,} rows such as {shown}: "
                "keep the newest of each."
            )
        problems = [pl.col(name).alias(name + _OF_LABEL) for name in (PROBLEM, PLACE)]
        told = problems if PROBLEM in labels.columns else []
        return labels.select(*self.key_columns, self.target_column, *told)


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
            f"The query can't be read from the database: {cause}. Mend `data.source`."
        ) from None


def _stem(name: str) -> str:
    """The period key in a file's name: all before its ending."""
    lower = name.lower()
    suffix = max((suffix for suffix in SUFFIXES if lower.endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)]
