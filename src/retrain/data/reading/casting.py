"""Columns of text as what the schema says they are, or, before there is one, as what all their values can be.

Numbers, flags and dates keep the narrowest type that holds them, so that the same rows make the same snapshot however
they are written. A value that can't be what its column is becomes null and is marked: its row goes to quarantine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import polars as pl

from retrain.config import ColumnType, DataConfig, Task
from retrain.data.reading.times import MISSING_MARKS, ReadTimes, read_times

# In a column of words only these are surely no words of their own: NA is Namibia, "None" an answer.
MISSING_LABELS = ("", "NaN", "nan", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL")
TRUE, FALSE = ("true", "t", "yes", "y", "1", "1.0"), ("false", "f", "no", "n", "0", "0.0")
_PLAIN = r"^[+-]?(\d+{0}?\d*|{0}\d+)([eE][+-]?\d+)?$"
_GROUPED = r"^[+-]?\d{{1,3}}([{1}' \x{{00a0}}\x{{202f}}]\d{{3}})+({0}\d+)?$"
_CURRENCY = r"[$€£¥₹]|^(USD|EUR|GBP|CHF|JPY)\s*|\s*(USD|EUR|GBP|CHF|JPY)$"
INTEGER = r"^[+-]?(0|[1-9]\d{0,17})$"
LEADING_ZERO = r"^[+-]?0\d+$"
_INFINITE = r"(?i)^[+-]?inf(inity)?$"
_LARGEST_EXACT = 2.0**53


@dataclass(frozen=True)
class Cast:
    """A column after its type was decided. `unread` marks values that are there and don't fit; None when all do."""

    values: pl.Series
    unread: pl.Series | None
    kind: str  # in words, for the message about a value that doesn't fit
    times: ReadTimes | None = None


Caster = Callable[[pl.Series], Cast]


def casters(
    data: DataConfig,
    decimal: str | None,
    time_format: str | None,
    day_first: bool | None,
    date_formats: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Caster]:
    """How each column of the schema is read from text."""

    def numbers(text: pl.Series) -> Cast:
        return cast_numbers(text, decimal)

    def times(text: pl.Series) -> Cast:
        return cast_times(text, date_formats.get(text.name), day_first)

    kinds: dict[ColumnType, Caster] = {
        ColumnType.numeric: numbers,
        ColumnType.boolean: lambda text: cast_flags(text, decimal),
        ColumnType.datetime: times,
        ColumnType.categorical: cast_levels,
        ColumnType.text: lambda text: Cast(text, None, "a text"),
        ColumnType.sparse: lambda text: Cast(text, None, "a text"),
    }
    found: dict[str, Caster] = dict.fromkeys(data.key_columns, cast_key)
    found |= {name: kinds[column.type] for name, column in data.features.items()}
    target: dict[Task, Caster] = {
        Task.regression: lambda text: cast_amounts(text, decimal),
        Task.multiclass: cast_classes,
        Task.binary: cast_words
        if data.positive_label is not None
        else lambda text: cast_flags(text, decimal),
    }
    found[data.target_column] = target[data.task]
    found[data.time_column] = lambda text: cast_times(text, time_format, day_first)
    return found


def cast_numbers(text: pl.Series, decimal: str | None = None) -> Cast:
    """Numbers, whole ones as such. Signs of a currency or per cent, groups of thousands and brackets for a minus are understood.

    Without a `decimal` sign it is a point; but then 1,234 may be a thousand or one and a bit, and is not read.
    """
    values = _with_comma(text) if decimal == "," else text.cast(pl.Float64, strict=False)
    rest = values.is_null() & text.is_not_null()
    if rest.any():
        known = rest & ~text.str.strip_chars().is_in(MISSING_MARKS)
        places = known.arg_true()
        values = (
            values.scatter(places, _written_out(text.gather(places), decimal))
            if len(places)
            else values
        )
        rest = known & values.is_null()
    if values.is_nan().any():
        values = values.fill_nan(None)
    kind = "a number"
    if decimal is None and rest.any() and text.filter(rest).str.contains(r"\d,\d").any():
        kind += ' (if its comma is meant as one: `decimal: ","` under `data.source`, or ".")'
    return Cast(_whole(values, text), rest if rest.any() else None, kind)


def cast_amounts(text: pl.Series, decimal: str | None = None) -> Cast:
    """The numbers of a target, of which an infinite one is as bad as a word."""
    cast = cast_numbers(text, decimal)
    infinite = cast.values.is_infinite().fill_null(False) if cast.values.dtype.is_float() else None
    if infinite is None or not infinite.any():
        return cast
    unread = infinite if cast.unread is None else cast.unread | infinite
    return Cast(
        _whole(cast.values.set(infinite, None), text),
        unread,
        cast.kind.replace("a number", "a finite number"),
    )


def _with_comma(text: pl.Series) -> pl.Series:
    values = text.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
    # A point is a sign of thousands here, or wrong: see `_written_out`.
    return values.set(text.str.contains(".", literal=True).fill_null(False), None)


def _written_out(text: pl.Series, said: str | None) -> pl.Series:
    """Numbers as people write them; null for what is none."""
    bare = (
        text.str.strip_chars()
        .str.replace(r"^\((.*)\)$", "-$1")
        .str.replace_all("\u2212", "-", literal=True)
    )
    bare = (
        bare.str.replace(_CURRENCY, "")
        .str.replace(r"\s*%$", "")
        .str.replace(r"^([+-])\s+", "$1")
        .str.strip_chars()
    )
    decimal = said or "."
    sign, grouping = (r"\.", ",") if decimal == "." else (",", r"\.")
    grouped = bare.str.contains(_GROUPED.format(sign, grouping))
    if said is None:
        grouped &= ~bare.str.contains(r"^[^.]*,[^.]*$")
    plain = bare.str.contains(_PLAIN.format(sign))
    bare = bare.zip_with(
        ~grouped.fill_null(False), bare.str.replace_all(f"[{grouping}' \u00a0\u202f]", "")
    )
    return (
        bare.str.replace(decimal, ".", literal=True)
        .set(~(grouped | plain), None)
        .cast(pl.Float64, strict=False)
    )


def _whole(values: pl.Series, text: pl.Series) -> pl.Series:
    """Whole numbers as such, where no text writes a fraction."""
    known = values.drop_nulls()
    if known.is_empty() or not (
        (known.head(1000) == known.head(1000).floor()).all() and (known == known.floor()).all()
    ):
        return values
    if known.abs().max() >= _LARGEST_EXACT:
        return (
            text.cast(pl.Int64, strict=False)
            if text.drop_nulls().str.contains(INTEGER).all()
            else values
        )
    return values if text.str.contains(r"[.,eE%]").any() else values.cast(pl.Int64)


def cast_flags(text: pl.Series, decimal: str | None = None) -> Cast:
    """True and false, or the numbers 1 and 0."""
    words = text.str.strip_chars().str.to_lowercase()
    missing = words.is_null() | text.str.strip_chars().is_in(MISSING_MARKS)
    unread = ~missing & ~words.is_in((*TRUE, *FALSE))
    if words.filter(~missing & ~unread).is_in(("0", "1", "0.0", "1.0")).all():
        cast = cast_numbers(text.set(unread, None), decimal)
        return Cast(cast.values, unread if unread.any() else None, "true/false or 1/0")
    flags = words.is_in(TRUE).set(missing | unread, None)
    return Cast(flags.alias(text.name), unread if unread.any() else None, "true/false or 1/0")


def cast_times(text: pl.Series, time_format: str | None, day_first: bool | None) -> Cast:
    """Times without a zone, and dates alone as dates."""
    read = read_times(text, time_format, day_first)
    values = read.values.cast(pl.Date) if read.dates_only else read.values
    return Cast(values, read.unread if read.unread.any() else None, "a time", read)


def cast_key(text: pl.Series) -> Cast:
    """Whole numbers where every key is one, without leading zeros; else the texts as they are."""
    return Cast(_integers(text), None, "a key")


def cast_levels(text: pl.Series) -> Cast:
    """Texts; whole numbers, also written as 2.0, where all levels are such."""
    return Cast(_integers(_canonical_numbers(text)), None, "a level")


def cast_words(text: pl.Series) -> Cast:
    """The words of a target, without what stands for a missing label."""
    stripped = text.str.strip_chars()
    stripped = stripped.set(stripped.is_in(MISSING_LABELS), None)
    infinite = stripped.str.contains(_INFINITE).fill_null(False)
    if infinite.any():  # among numbers it is a number that went wrong, among words a word
        finite = stripped.set(infinite, None)
        if finite.cast(pl.Float64, strict=False).null_count() == finite.null_count() < len(finite):
            return Cast(_integers(_canonical_numbers(finite)), infinite, "a class")
    return Cast(_integers(_canonical_numbers(stripped)), None, "a class")


def cast_classes(text: pl.Series) -> Cast:
    """Classes by their value: 2.0 is 2."""
    return cast_words(text)


def _canonical_numbers(text: pl.Series) -> pl.Series:
    """2.0 as 2, where all are numbers: a column of whole numbers with gaps is written so by pandas."""
    known = text.drop_nulls()
    if (
        known.head(1).str.contains(r"^-?\d+(\.\d+)?$").all()
        and known.str.contains(r"^-?(0|[1-9]\d*)(\.0+)?$").all()
    ):
        return text.str.replace(r"\.0+$", "")
    return text


def _integers(text: pl.Series) -> pl.Series:
    known, whole = text.drop_nulls(), r"^(0|-?[1-9]\d{0,17})$"
    if len(known) and known.head(1).str.contains(whole).all() and known.str.contains(whole).all():
        return text.cast(pl.Int64)
    return text


def plain_numbers(frame: pl.DataFrame, names: Collection[str]) -> dict[str, pl.Series]:
    """The text columns whose every value is a number and written as one, of thousands of columns at once."""
    schema = frame.schema  # made anew at each look, which takes its time where there are thousands
    names = [name for name in names if schema[name] == pl.String]
    if not names:
        return {}
    texts = _only(frame, names)
    numbers = texts.select(pl.all().cast(pl.Float64, strict=False))
    given, read = texts.null_count().row(0), numbers.null_count().row(0)
    kept = [
        name
        for name, lost, left in zip(names, given, read, strict=True)
        if lost == left < len(frame)
    ]
    kept = _where(
        _only(numbers, kept), ~pl.all().is_nan().any() & (pl.all().abs().max() < _LARGEST_EXACT)
    )
    kept = _where(_only(texts, kept), ~pl.all().str.contains(LEADING_ZERO).any())
    whole = _where(_only(numbers, kept), (pl.all() == pl.all().floor()).all())
    whole = set(_where(_only(texts, whole), ~pl.all().str.contains(r"[.eE]").any()))
    return {name: numbers[name].cast(pl.Int64) if name in whole else numbers[name] for name in kept}


def _only(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Some columns; by an empty list Polars would select rows."""
    return pl.DataFrame([frame[name] for name in names])


def _where(frame: pl.DataFrame, condition: pl.Expr) -> list[str]:
    """Names of the columns for which a condition over all columns holds."""
    return (
        [name for name, holds in frame.select(condition).row(0, named=True).items() if holds]
        if frame.width
        else []
    )


def cast_as_found(text: pl.Series) -> Cast:
    """A column that no schema describes, strictly: numbers, flags and times only where every value is one."""
    known = text.filter(~text.is_in(MISSING_MARKS)).drop_nulls()
    if known.is_empty():
        return Cast(text.set(text == "", None), None, "a text")
    first = known.head(100)
    if (
        first.cast(pl.Float64, strict=False).is_not_null().all()
        and not known.str.contains(LEADING_ZERO).any()
    ):
        cast = cast_numbers(text)
        if cast.unread is None:
            return cast
    if first.str.to_lowercase().is_in(("true", "false")).all():
        cast = cast_flags(text)
        if cast.unread is None:
            return cast
    if first.str.contains(r"^\d{4}-\d{2}-\d{2}([T ]|$)").all():
        cast = cast_times(text, None, None)
        if cast.unread is None:
            return cast
    return Cast(text, None, "a text")


def without_case(text: str) -> str:
    """A word as words of a binary target are compared: `Yes` is `yes`, and 2.0 is 2."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text.strip()).casefold()
