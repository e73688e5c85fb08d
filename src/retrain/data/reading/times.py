"""Text as times. How a column writes them is decided over the whole column, never from its first
value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from retrain.data.reading.time_formats import (
    EPOCH_UNITS,
    MISSING_MARKS,
    MOST_SHAPES,
    formats_like,
    has_zone,
    shape_of,
)
from retrain.data.scalars import as_float
from retrain.errors import DataError


@dataclass(frozen=True)
class Order:
    """Whether the day or the month comes first (or a year of two digits), and why.

    `doubt` where a person should check it, `undecided` where nobody but a person can say; `other`
    is the format that the doubt is about, where it isn't day against month.
    """

    day_first: bool
    why: str
    doubt: bool = False
    undecided: bool = False
    other: str | None = None
    year_first: bool = False


@dataclass(frozen=True)
class ReadTimes:
    """Times without a zone (UTC where the text has one), and how they were read.

    `unread` marks the values that are there and are no time. `formats` were needed, in the order in
    which they were found. `order` is there where it could be a question. `with_zone` counts the
    times whose text has a zone.
    """

    values: pl.Series
    unread: pl.Series
    formats: tuple[str, ...] = ()
    order: Order | None = None
    with_zone: int = 0
    example: str = ""

    @property
    def dates_only(self) -> bool:
        """Whether no text has a time of day."""
        clock = ("%H", "%I", *EPOCH_UNITS)
        return bool(self.formats) and not any(part in one for one in self.formats for part in clock)

    @property
    def zoned(self) -> bool:
        """Whether all texts have a zone."""
        return 0 < self.with_zone == self.values.count()

    @property
    def mixed_zones(self) -> bool:
        return 0 < self.with_zone < self.values.count()

    @property
    def day_first(self) -> bool | None:
        return self.order.day_first if self.order and not self.order.year_first else None

    @property
    def undecided(self) -> bool:
        return self.order is not None and self.order.undecided

    @property
    def doubt(self) -> str | None:
        """A sentence for the person who has to check the order of day, month and year."""
        if self.order is None or not self.order.doubt:
            return None
        dates = (
            f"`{self.values.name}` holds dates such as {self.example}, and no value tells whether"
        )
        if self.order.other:
            read = " or ".join(self.formats)
            return (
                f"{dates} the day, the month or the year comes first: read as {read}, but "
                f"{self.order.other} is possible too."
            )
        first = "day" if self.order.day_first else "month"
        return (
            f"{dates} the day or the month comes first: read {first}-first, since {self.order.why}."
        )


def read_times(
    text: pl.Series, time_format: str | None = None, day_first: bool | None = None
) -> ReadTimes:
    """A column of text as times. With a `time_format` nothing is guessed.

    One format after the other is tried for all values that it fits, until none is left that looks
    like a time. Raises DataError for a `time_format` that can't be one.
    """
    stripped = text.str.strip_chars()
    left = pl.DataFrame({"row": pl.int_range(len(text), eager=True), "text": stripped}).filter(
        stripped.is_not_null() & ~stripped.is_in(MISSING_MARKS)
    )
    values = pl.Series(text.name, [None], dtype=pl.Datetime("us")).new_from_index(0, len(text))
    known = pl.Series([False]).new_from_index(0, len(text)).scatter(left["row"], True)
    if time_format is not None:
        values = values.scatter(left["row"], _parse(left["text"], time_format))
        return ReadTimes(values.alias(text.name), known & values.is_null(), (time_format,))
    formats: dict[str, None] = {}
    order, with_zone, example = None, 0, str(stripped.drop_nulls().first())
    for _ in range(MOST_SHAPES):
        if left.is_empty():
            break
        candidates = formats_like(left["text"][0])
        if not candidates:
            left = left.filter(~left["text"].str.contains(shape_of(left["text"][0])))
            continue
        name = candidates[0]
        if len(candidates) > 1:
            order, name = _choose(left["text"], candidates, day_first, order)
        times = _parse(left["text"], name)
        fits = times.is_not_null()
        if fits[0]:
            formats[name] = None
        else:  # such as 31 February: nothing else has its form
            fits = pl.Series([True]).append(fits.slice(1))
        with_zone += int(times.count()) if has_zone(name) else 0
        values = values.scatter(left["row"].filter(fits), times.filter(fits))
        left = left.filter(~fits)
    unread = known & values.is_null()
    return ReadTimes(values.alias(text.name), unread, tuple(formats), order, with_zone, example)


def _parse(text: pl.Series, time_format: str) -> pl.Series:
    """Times without a zone, null where a text has another form. Raises DataError when the format is
    none."""
    if time_format in EPOCH_UNITS:
        scale = {"s": 1_000_000, "ms": 1_000, "us": 1}[EPOCH_UNITS[time_format]]
        whole = text.cast(pl.Int64, strict=False) * scale
        with_fraction = (text.cast(pl.Float64, strict=False) * scale).round()
        return whole.fill_null(with_fraction.cast(pl.Int64, strict=False)).cast(pl.Datetime("us"))
    if time_format in ("%Y", "%Y%m"):  # Polars wants a month, and a sign before it
        month = "01" if time_format == "%Y" else text.str.slice(4)
        text, time_format = (
            (text if time_format == "%Y" else text.str.head(4)) + "-" + month,
            "%Y-%m",
        )
    if "%,f" in time_format:  # of our own: a comma before the fraction of a second
        text, time_format = (
            text.str.replace(r"(:\d{2}),(\d+)", "$1.$2"),
            time_format.replace("%,f", "%.f"),
        )
    zone = "UTC" if "%z" in time_format or "%#z" in time_format else None
    try:
        name = time_format.replace("%z", "%#z")
        times = text.str.to_datetime(name, time_unit="us", time_zone=zone, strict=False)
        times = times.dt.replace_time_zone(None)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{time_format!r} is no format of times: {str(error).splitlines()[0]}",
            hint="say it as strptime does, such as %d.%m.%Y %H:%M, or epoch_s, epoch_ms, epoch_us "
            "(--time-format, `data.source.time_format`).",
        ) from error
    # Of a four-digit year `%Y` would take two digits for the first century.
    return times if zone or "%Y" not in time_format else times.set(times.dt.year() < 1000, None)


def _choose(
    text: pl.Series, formats: list[str], day_first: bool | None, before: Order | None
) -> tuple[Order, str]:
    """The order of day, month and year, from all values of one form, and the format that it
    means."""
    order = before
    if order is None or not order.doubt:
        order = _settle(text, formats, day_first, before)
    if len(formats) == 3 and text.str.contains(r"^\d{2}\D\d{2}\D\d{2}(\D|$)").all():
        order = _settle_year(text, formats, day_first) or order
    return order, formats[2 if order.year_first else 0 if order.day_first else 1]


def _settle(
    text: pl.Series, formats: list[str], day_first: bool | None, before: Order | None
) -> Order:
    """Whether the day or the month comes first."""
    if day_first is not None:
        return Order(day_first, "`day_first` says so")
    by_day, by_month = (_parse(text, name) for name in formats[:2])
    if by_day.count() != by_month.count():
        day = by_day.count() > by_month.count()
        more, fewer = (by_day, by_month) if day else (by_month, by_day)
        contradicted = bool((more.is_null() & fewer.is_not_null()).any())
        return Order(day, f"only then {'most' if contradicted else 'all'} are dates", contradicted)
    if before is not None:
        return before
    sign = formats[0][2]
    if sign == ".":
        return Order(True, "dates with points are written so", doubt=True)
    orders, same = (_in_order(by_day), _in_order(by_month)), [False, False]
    if text.n_unique() > 1:
        same = [times.dt.day().n_unique() == 1 for times in (by_day, by_month)]
    if orders[0] != orders[1]:
        return Order(bool(orders[0]), "the rows are then in order of time", True, True)
    if same[0] != same[1]:
        return Order(same[0], "it then is the same day of every month", True, True)
    return Order(sign != "/", f"dates with `{sign}` are mostly written so", True, True)


def _settle_year(text: pl.Series, formats: list[str], day_first: bool | None) -> Order | None:
    """Whether a year of two digits comes first; None where it comes last."""
    *lasts, first = (_parse(text, name) for name in formats)
    last = min(lasts, key=lambda one: (-one.count(), _span(one)))
    if first.count() != last.count():
        why = "only then all are dates"
        return Order(False, why, year_first=True) if first.count() > last.count() else None
    closer = int(4 * _span(first) < _span(last)) - int(4 * _span(last) < _span(first))
    votes = closer + _in_order(first) - _in_order(last) + _ahead(last) - _ahead(first)
    if votes > 0:
        return Order(False, "the times then lie closer, in order or not ahead", year_first=True)
    if votes < 0 or day_first is not None:
        return None
    order = _settle(text, formats, None, None)
    return Order(order.day_first, order.why, True, True, other=formats[2])


def _span(times: pl.Series) -> float:
    seconds = times.drop_nulls().dt.epoch("s")
    return as_float(seconds.max()) - as_float(seconds.min()) if len(seconds) else 0.0


def _in_order(times: pl.Series) -> int:
    known = times.drop_nulls()
    return int(known.is_sorted() or known.is_sorted(descending=True))


def _ahead(times: pl.Series) -> int:
    """Whether more than one in a hundred lie over a year ahead."""
    now = datetime.now(UTC).replace(tzinfo=None)
    return int(((times - now).dt.total_days() > 366).sum() > 0.01 * len(times))
