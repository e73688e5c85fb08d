"""The base class of sources that are one table, and are cut into batches by time."""

from __future__ import annotations

import functools
from abc import abstractmethod

import polars as pl

from retrain.columns import own_column, refuse_reserved
from retrain.config import DataConfig, PeriodKind
from retrain.data.periods import period_keys
from retrain.data.reading.parts import PLACE, PROBLEM
from retrain.data.reading.time_column import with_times
from retrain.data.source import Source
from retrain.errors import ConfigError, DataError
from retrain.ranges import PositiveCount

ROW_NUMBER = "row_number"
_PERIOD, _FILLED = own_column("period"), own_column("filled_time")


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
                "`data.period: rows` and `data.source.rows_per_batch` go together.",
                hint="set both or none",
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
                f"The table has a column `{self.row_number}` itself, so its rows can't be "
                "numbered under that name.",
                hint="name another one in `data.source.number_rows` and `data.key_columns`, or "
                "take `number_rows` away to use the column as it is",
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
