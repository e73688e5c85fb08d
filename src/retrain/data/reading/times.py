"""Text as times. How a column writes them is decided over the whole column, never from its first value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from retrain.errors import DataError

EPOCH_UNITS = {"epoch_s": "s", "epoch_ms": "ms", "epoch_us": "us"}
# Beside an empty cell, of times and numbers; of texts, where some of these are words, see `casting`.
MISSING_MARKS = (
    "",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "<NA>",
    "NaN",
    "nan",
    "NaT",
    "null",
    "NULL",
    "None",
    "?",
    ".",
    "-",
)
DAY_FIRST, MONTH_FIRST = "day", "month"
_MOST_SHAPES = 20
# As far as whole numbers are meant as seconds since 1970: from 1973 on, so that 20230131 is a date.
_EPOCHS = ((9, 10, "epoch_s"), (12, 13, "epoch_ms"), (15, 16, "epoch_us"))
_DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 14: "%Y%m%d%H%M%S"}
_ZONE = re.compile(
    r"(?<=\d)(\s?)(Z|[+-]\d{2}(?::?\d{2})?)$|(?<=\d)(\s?(?:UTC|GMT))$|(?<=[AaPp][Mm])(\s?(?:UTC|GMT))$"
)
_CLOCK = re.compile(r"(T| T|,? +|:|_)(\d{1,2}):(\d{2})(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?$")
_COMPACT = re.compile(r"^(\d{8})([T ])(\d{6}|\d{4})$")
_YEAR_FIRST = re.compile(r"^\d{4}([-/.])\d{1,2}\1\d{1,2}$")
_YEAR_LAST = re.compile(r"^(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})$")
_WRITTEN = re.compile(
    r"^([A-Za-z]{3,9},? )?(\d{1,2})([- ./]?)([A-Za-z]{3,9})(\.?,?[- ./]?)(\d{4}|\d{2})$"
)
_WRITTEN_MONTH_FIRST = re.compile(
    r"^([A-Za-z]{3,9},? )?([A-Za-z]{3,9})(\.? |-)(\d{1,2})(,? |-)(\d{4})$"
)


@dataclass(frozen=True)
class ReadTimes:
    """Times without a zone (UTC where the text has one), and how they were read.

    `unread` marks the values that are there and are no time. `formats` were needed, in the order in which they were
    found. `order` is what settled whether the day or the month comes first, where that could be a question; `doubt` a
    sentence for the person who has to check it.
    """

    values: pl.Series
    unread: pl.Series
    formats: tuple[str, ...] = ()
    order: str | None = None
    day_first: bool | None = None
    doubt: str | None = None
    undecided: bool = False  # the doubt is one that nobody but a person can settle
    mixed_zones: bool = False
    zoned: bool = False  # all of them
    dates_only: bool = False
    other: str | None = None  # the format that the doubt is about, where it isn't day against month


@dataclass(frozen=True)
class _Order:
    day_first: bool
    why: str
    doubt: bool
    undecided: bool = False
    other: str | None = None
    year_first: bool = False


def read_times(
    text: pl.Series, time_format: str | None = None, day_first: bool | None = None
) -> ReadTimes:
    """A column of text as times. With a `time_format` nothing is guessed.

    Raises DataError for a `time_format` that can't be one.
    """
    stripped = text.str.strip_chars()
    known = stripped.is_not_null() & ~stripped.is_in(MISSING_MARKS)
    frame = pl.DataFrame({"row": pl.int_range(len(text), eager=True), "text": stripped}).filter(
        known
    )
    if time_format is not None:
        found = [(frame["row"], _parse(frame["text"], time_format))]
        return _gather(text, frame["row"], found, (time_format,))
    return _read_shapes(text, frame, day_first)


def _read_shapes(text: pl.Series, frame: pl.DataFrame, day_first: bool | None) -> ReadTimes:
    """One format after the other, each for all values that it fits, until none is left that looks like a time."""
    rows, found, formats, order, zoned = frame["row"], [], [], None, 0
    for _ in range(_MOST_SHAPES):
        if frame.is_empty():
            break
        candidates = _formats(frame["text"][0])
        if len(candidates) == 2:
            if order is None or not order.doubt:
                order = _settle(frame["text"], candidates, day_first, order)
            if (year := _settle_year(frame["text"], candidates, day_first)) is not None:
                order = year
            year_first = year is not None and year.year_first
            candidates = [
                _year_first(candidates[0])
                if year_first
                else candidates[0 if order.day_first else 1]
            ]
        if not candidates:
            frame = frame.filter(~frame["text"].str.contains(_shape(frame["text"][0])))
            continue
        values = _parse(frame["text"], candidates[0])
        fits = values.is_not_null()
        if not fits[0]:  # such as 31 February: nothing else has its form
            fits = pl.Series([True]).append(fits.slice(1))
        elif candidates[0] not in formats:
            formats.append(candidates[0])
        zoned += int(fits.sum()) if _has_zone(candidates[0]) else 0
        found.append((frame["row"].filter(fits), values.filter(fits)))
        frame = frame.filter(~fits)
    read = _gather(text, rows, found, tuple(formats))
    doubt = None
    if order is not None and order.doubt:
        doubt = f"`{text.name}` holds dates such as {_example(text)}, and no value tells whether the day or the month comes "
        doubt += f"first: read {'day' if order.day_first else 'month'}-first, since {order.why}."
    if doubt and order.other:
        doubt = f"`{text.name}` holds dates such as {_example(text)}, and no value tells whether the day, the month or the "
        doubt += (
            f"year comes first: read as {' or '.join(formats)}, but {order.other} is possible too."
        )
    return ReadTimes(
        read.values,
        read.unread,
        read.formats,
        order.why if order else None,
        order.day_first if order and not order.year_first else None,
        doubt,
        order is not None and order.undecided,
        0 < zoned < len(rows) - int(read.unread.sum()),
        0 < zoned == len(rows) - int(read.unread.sum()),
        bool(formats)
        and not any("%H" in name or "%I" in name or name in EPOCH_UNITS for name in formats),
        order.other if order else None,
    )


def _gather(text: pl.Series, rows: pl.Series, found: list, formats: tuple[str, ...]) -> ReadTimes:
    values = pl.Series(text.name, [None], dtype=pl.Datetime("us")).new_from_index(0, len(text))
    for places, times in found:
        values = values.scatter(places, times)
    wanted = pl.Series([False]).new_from_index(0, len(text)).scatter(rows, True)
    return ReadTimes(values.alias(text.name), wanted & values.is_null(), formats)


def _parse(text: pl.Series, time_format: str) -> pl.Series:
    """Times without a zone, null where a text has another form. Raises DataError when the format is none."""
    try:
        if time_format in EPOCH_UNITS:
            scale = {"s": 1_000_000, "ms": 1_000, "us": 1}[EPOCH_UNITS[time_format]]
            numbers = text.cast(pl.Int64, strict=False)
            if numbers.null_count():
                return (
                    (text.cast(pl.Float64, strict=False) * scale)
                    .round()
                    .cast(pl.Int64)
                    .cast(pl.Datetime("us"))
                )
            return (numbers * scale).cast(pl.Datetime("us"))
        if time_format == "%Y":
            return _parse(text + "-01-01", "%Y-%m-%d")
        if time_format == "%Y%m":
            return _parse(text.str.slice(0, 4) + "-" + text.str.slice(4) + "-01", "%Y-%m-%d")
        if "%,f" in time_format:  # of our own: a comma before the fraction of a second
            point = text.str.replace(r"(:\d{2}),(\d+)", "$1.$2")
            return _parse(point, time_format.replace("%,f", "%.f"))
        if "%z" in time_format or "%#z" in time_format:
            zoned = time_format.replace("%z", "%#z")
            times = text.str.to_datetime(
                zoned, strict=False, time_unit="us", time_zone="UTC", ambiguous="earliest"
            )
            return times.dt.replace_time_zone(None)
        # Of a four-digit year `%Y` would take two digits for the first century.
        times = text.str.to_datetime(time_format, strict=False, time_unit="us")
        return times if "%Y" not in time_format else times.set(times.dt.year() < 1000, None)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{time_format!r} is no format of times: {str(error).splitlines()[0]} Say it as strptime does, such as "
            "%d.%m.%Y %H:%M, or epoch_s, epoch_ms, epoch_us (--time-format, `data.source.time_format`)."
        ) from error


def _formats(example: str) -> list[str]:
    """The formats in which a text may be meant: none, one, or day-first and month-first."""
    if re.fullmatch(r"\d+(\.\d+)?", example):
        return _numeric_formats(example.split(".")[0], "." in example)
    zone = ""
    if found := _ZONE.search(example):
        text = example[: found.start()]
        if found[2] is None:
            zone, example = found[3] or found[4], text
        elif ":" in text or re.search(r"T\d{4,6}$", text):
            zone, example = f"{found[1]}%#z", text
    if found := _COMPACT.match(example):
        return [f"%Y%m%d{found[2]}{'%H%M%S' if len(found[3]) == 6 else '%H%M'}{zone}"]
    clock = ""
    if found := _CLOCK.search(example):
        hour = "%I" if found[6] else "%H"
        fraction = "%,f" if "," in (found[5] or "") else "%.f"
        seconds = ("" if not found[4] else ":%S") + ("" if not found[4] or found[6] else fraction)
        half = found[6].replace(found[6].strip(), "%p") if found[6] else ""
        clock, example = f"{found[1]}{hour}:%M{seconds}{half}", example[: found.start()]
    return [date + clock + zone for date in _date_formats(example)]


def _numeric_formats(digits: str, fraction: bool) -> list[str]:
    if len(digits) in _DIGITS and not fraction:
        return [_DIGITS[len(digits)]]
    return [name for low, high, name in _EPOCHS if low <= len(digits) <= high][:1]


def _date_formats(example: str) -> list[str]:
    if found := _YEAR_FIRST.match(example):
        return [f"%Y{found[1]}%m{found[1]}%d"]
    if re.fullmatch(r"\d{4}-\d{2}", example):
        return ["%Y-%m"]
    if found := _YEAR_LAST.match(example):
        sign, year = found[2], "%Y" if len(found[4]) == 4 else "%y"
        return [f"%d{sign}%m{sign}{year}", f"%m{sign}%d{sign}{year}"]
    if found := _WRITTEN.match(example):
        month = "%b" if len(found[4]) == 3 else "%B"
        return [
            _weekday(found[1])
            + f"%d{found[3]}{month}{found[5]}"
            + ("%Y" if len(found[6]) == 4 else "%y")
        ]
    if found := _WRITTEN_MONTH_FIRST.match(example):
        month = "%b" if len(found[2]) == 3 else "%B"
        return [_weekday(found[1]) + f"{month}{found[3]}%d{found[5]}%Y"]
    return []


def _weekday(text: str | None) -> str:
    if not text:
        return ""
    name = text.rstrip(", ")
    return text.replace(name, "%a" if len(name) == 3 else "%A")


def _settle(
    text: pl.Series, formats: list[str], day_first: bool | None, before: _Order | None
) -> _Order:
    """Whether the day or the month comes first, from all values of one form."""
    if day_first is not None:
        return _Order(day_first, "it was said so (`day_first`)", doubt=False)
    by_day, by_month = (_parse(text, name) for name in formats)
    days, months = by_day.count(), by_month.count()
    if before is not None and days == months:
        return before
    numbers = text.str.extract_groups(r"^(\d+)\D(\d+)").struct
    first, second = (numbers.field(name).cast(pl.Int64, strict=False) for name in ("1", "2"))
    if days != months:
        which, number = (DAY_FIRST, first) if days > months else (MONTH_FIRST, second)
        why = f"the {'first' if days > months else 'second'} number goes up to {number.max()}"
        contradicted = min((first > 12).sum(), (second > 12).sum()) > 0
        return _Order(
            which == DAY_FIRST,
            why + (" in most of them" if contradicted else ""),
            doubt=contradicted,
        )
    sign = formats[0][2]
    if sign == ".":
        return _Order(True, "dates with points are written so", doubt=True)
    ordered = [
        times.drop_nulls().is_sorted() or times.drop_nulls().is_sorted(descending=True)
        for times in (by_day, by_month)
    ]
    if ordered[0] != ordered[1]:
        return _Order(ordered[0], "the rows are then in order of time", True, True)
    if text.n_unique() > 1 and (first.n_unique() == 1) != (second.n_unique() == 1):
        return _Order(
            first.n_unique() == 1,
            "the other number then is the same day of every month",
            True,
            True,
        )
    if sign == "/":
        return _Order(False, "slashes are mostly written so", True, True)
    return _Order(True, f"dates with `{sign}` are mostly written so", True, True)


def _year_first(name: str) -> str:
    """The format with the year first, of one with a year of two digits last."""
    return re.sub(r"^%d(.)%m.%y", r"%y\1%m\1%d", name)


def _settle_year(text: pl.Series, formats: list[str], day_first: bool | None) -> _Order | None:
    """Whether a year of two digits comes first; None where it comes last."""
    if "%y" not in formats[0] or not text.str.contains(r"^\d{2}\D\d{2}\D\d{2}(\D|$)").all():
        return None
    first = _parse(text, _year_first(formats[0]))
    lasts = [_parse(text, name) for name in formats]
    most = max(times.count() for times in lasts)
    if first.count() != most:
        found = first.count() > most
        return (
            _Order(False, "only then all are dates", doubt=False, year_first=True)
            if found
            else None
        )
    last = min((times for times in lasts if times.count() == most), key=_span)
    signs = {
        _narrower(first, last),
        _in_order(first) - _in_order(last),
        _ahead(last) - _ahead(first),
    } - {0}
    if signs == {1}:
        return _Order(
            False, "the times then lie closer, in order or not ahead", doubt=False, year_first=True
        )
    if signs == {-1} or day_first is not None:
        return None
    order = _settle(text, formats, None, None)
    return _Order(order.day_first, order.why, True, True, other=_year_first(formats[0]))


def _span(times: pl.Series) -> float:
    known = times.drop_nulls()
    return (known.max() - known.min()).total_seconds() if len(known) else 0.0


def _narrower(one: pl.Series, other: pl.Series) -> int:
    return int(4 * _span(one) < _span(other)) - int(4 * _span(other) < _span(one))


def _in_order(times: pl.Series) -> int:
    known = times.drop_nulls()
    return int(known.n_unique() > 2 and (known.is_sorted() or known.is_sorted(descending=True)))


def _ahead(times: pl.Series) -> int:
    """Whether more than one in a hundred lie over a year ahead."""
    now = datetime.now(UTC).replace(tzinfo=None)
    return int(((times - now).dt.total_days() > 366).sum() > 0.01 * len(times))


def _shape(example: str) -> str:
    """A pattern of all texts that differ in their digits and letters only."""
    parts = re.findall(r"\d+|[^\W\d_]+|.", example, flags=re.DOTALL)
    kinds = [
        r"\d+" if part.isdigit() else r"[^\W\d_]+" if part.isalpha() else re.escape(part)
        for part in parts
    ]
    return f"(?s)^{''.join(kinds)}$"


def _has_zone(name: str) -> bool:
    return "%#z" in name or name.endswith(("UTC", "GMT")) or name in EPOCH_UNITS


def _example(text: pl.Series) -> str:
    return str(text.drop_nulls()[0])
