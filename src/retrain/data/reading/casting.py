"""Columns of text as what the schema says they are, or, before there is one, as what all their
values can be.

Numbers, flags and dates keep the narrowest type that holds them, so that the same rows make the
same snapshot however they are written. A value that can't be what its column is becomes null and is
marked: its row goes to quarantine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import polars as pl

from retrain.data.reading.time_formats import MISSING_MARKS
from retrain.data.reading.times import ReadTimes, read_times
from retrain.data.scalars import as_float

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
    """A column after its type was decided. `unread` marks values that are there and don't fit."""

    values: pl.Series
    unread: pl.Series
    kind: str  # in words, for the message about a value that doesn't fit
    times: ReadTimes | None = None

    @property
    def fits(self) -> bool:
        """Whether every value could be read."""
        return not self.unread.any()

    def without_infinite(self, kind: str) -> Cast:
        """The cast with infinite numbers among the unread values."""
        if not self.values.dtype.is_float() or not self.values.is_infinite().any():
            return self
        infinite = self.values.is_infinite().fill_null(False)
        return replace(
            self, values=self.values.set(infinite, None), unread=self.unread | infinite, kind=kind
        )


Caster = Callable[[pl.Series], Cast]


def none_of(text: pl.Series) -> pl.Series:
    """A mark for no value of a column."""
    return pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(text))


def as_text(text: pl.Series) -> Cast:
    return Cast(text, none_of(text), "a text")


def cast_numbers(text: pl.Series, decimal: str | None = None) -> Cast:
    """Numbers, whole ones as such. Signs of a currency or per cent, groups of thousands and
    brackets for a minus are understood.

    Without a `decimal` sign it is a point; but then 1,234 may be a thousand or one and a bit, and
    is not read.
    """
    if decimal == ",":
        values = text.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
        # A point is a sign of thousands here, or wrong: see `_written_out`.
        values = values.set(text.str.contains(".", literal=True).fill_null(False), None)
    else:
        values = text.cast(pl.Float64, strict=False)
    rest = values.is_null() & text.is_not_null()
    if rest.any():
        rest &= ~text.str.strip_chars().is_in(MISSING_MARKS)
        places = rest.arg_true()
        values = values.scatter(places, _written_out(text.gather(places), decimal))
        rest &= values.is_null()
    kind = "a number"
    if decimal is None and text.filter(rest).str.contains(r"\d,\d").any():
        kind += ' (if its comma is meant as one: `decimal: ","` under `data.source`, or ".")'
    return Cast(_whole(values.fill_nan(None), text), rest, kind)


def cast_amounts(text: pl.Series, decimal: str | None = None) -> Cast:
    """The numbers of a target, of which an infinite one is as bad as a word."""
    cast = cast_numbers(text, decimal).without_infinite("a finite number")
    return replace(cast, values=_whole(cast.values, text))


def _written_out(text: pl.Series, given: str | None) -> pl.Series:
    """Numbers as people write them; null for what is none."""
    bare = text.str.strip_chars()
    for pattern, value in (
        (r"^\((.*)\)$", "-$1"),
        ("\u2212", "-"),
        (_CURRENCY, ""),
        (r"\s*%$", ""),
        (r"^([+-])\s+", "$1"),
    ):
        bare = bare.str.replace(pattern, value)
    bare = bare.str.strip_chars()
    decimal = given or "."
    sign, grouping = (r"\.", ",") if decimal == "." else (",", r"\.")
    grouped = bare.str.contains(_GROUPED.format(sign, grouping))
    if given is None:
        grouped &= ~bare.str.contains(r"^[^.]*,[^.]*$")
    plain = bare.str.contains(_PLAIN.format(sign))
    bare = bare.zip_with(~grouped, bare.str.replace_all(f"[{grouping}' \u00a0\u202f]", ""))
    numbers = bare.str.replace(decimal, ".", literal=True).set(~(grouped | plain), None)
    return numbers.cast(pl.Float64, strict=False)


def _whole(values: pl.Series, text: pl.Series) -> pl.Series:
    """Whole numbers as such, where no text writes a fraction."""
    known = values.drop_nulls()
    if known.is_empty() or not all(
        (part == part.floor()).all() for part in (known.head(1000), known)
    ):
        return values
    if as_float(known.abs().max()) >= _LARGEST_EXACT:
        written = text.drop_nulls().str.contains(INTEGER).all()
        return text.cast(pl.Int64, strict=False) if written else values
    return values if text.str.contains(r"[.,eE%]").any() else values.cast(pl.Int64)


def cast_flags(text: pl.Series, decimal: str | None = None) -> Cast:
    """True and false, or the numbers 1 and 0."""
    words = text.str.strip_chars()
    missing = words.is_null() | words.is_in(MISSING_MARKS)
    words = words.str.to_lowercase()
    unread = ~missing & ~words.is_in((*TRUE, *FALSE))
    if words.filter(~missing & ~unread).is_in(("0", "1", "0.0", "1.0")).all():
        flags = cast_numbers(text.set(unread, None), decimal).values
    else:
        flags = words.is_in(TRUE).set(missing | unread, None).alias(text.name)
    return Cast(flags, unread, "true/false or 1/0")


def cast_times(
    text: pl.Series, time_format: str | None = None, day_first: bool | None = None
) -> Cast:
    """Times without a zone, and dates alone as dates."""
    read = read_times(text, time_format, day_first)
    values = read.values.cast(pl.Date) if read.dates_only and not time_format else read.values
    return Cast(values, read.unread, "a time", read)


def cast_key(text: pl.Series) -> Cast:
    """Whole numbers where every key is one, without leading zeros; else the texts as they are."""
    return Cast(_integers(text), none_of(text), "a key")


def cast_levels(text: pl.Series) -> Cast:
    """Texts; whole numbers, also written as 2.0, where all levels are such."""
    return Cast(_whole_levels(text), none_of(text), "a level")


def cast_words(text: pl.Series) -> Cast:
    """The words of a target by their value (2.0 is 2), without what stands for a missing label."""
    stripped = text.str.strip_chars()
    stripped = stripped.set(stripped.is_in(MISSING_LABELS), None)
    infinite = stripped.str.contains(_INFINITE).fill_null(False)
    finite = stripped.set(infinite, None)
    numeric = finite.cast(pl.Float64, strict=False).null_count() == finite.null_count()
    if infinite.any() and numeric and finite.count():
        return Cast(_whole_levels(finite), infinite, "a class")
    return Cast(_whole_levels(stripped), none_of(text), "a class")  # among words `inf` is a word


def _whole_levels(text: pl.Series) -> pl.Series:
    """2.0 as 2, where all are numbers: a column of whole numbers with gaps is written so by
    pandas."""
    if _all_match(text, r"^-?(0|[1-9]\d*)(\.0+)?$"):
        text = text.str.replace(r"\.0+$", "")
    return _integers(text)


def _integers(text: pl.Series) -> pl.Series:
    return text.cast(pl.Int64) if _all_match(text, r"^(0|-?[1-9]\d{0,17})$") else text


def _all_match(text: pl.Series, pattern: str) -> bool:
    known = text.drop_nulls()
    return bool(len(known)) and all(
        part.str.contains(pattern).all() for part in (known.head(1), known)
    )


def plain_numbers(frame: pl.DataFrame, names: Collection[str]) -> dict[str, pl.Series]:
    """The text columns whose every value is a number and written as one, of thousands of columns at
    once."""
    texts, every = frame.select(names), pl.all()
    numbers = texts.select(every.cast(pl.Float64, strict=False))
    lost = zip(names, texts.null_count().row(0), numbers.null_count().row(0), strict=True)
    kept = [name for name, before, after in lost if before == after < len(frame)] if names else []
    exact = every.is_not_nan().all() & (every.abs().max() < _LARGEST_EXACT)
    kept = _where(numbers.select(kept), exact)
    kept = _where(texts.select(kept), ~every.str.contains(LEADING_ZERO).any())
    whole = _where(numbers.select(kept), (every == every.floor()).all())
    whole = _where(texts.select(whole), ~every.str.contains("[.eE]").any())
    return numbers.select(kept).cast(dict.fromkeys(whole, pl.Int64)).to_dict()


def _where(frame: pl.DataFrame, condition: pl.Expr) -> list[str]:
    """Names of the columns for which a condition over all columns holds."""
    if not frame.width:
        return []
    return [name for name, holds in frame.select(condition).row(0, named=True).items() if holds]


def cast_as_found(text: pl.Series) -> Cast:
    """A column that no schema describes, strictly: numbers, flags and times only where every value
    is one."""
    known = text.filter(~text.is_in(MISSING_MARKS)).drop_nulls()
    if known.is_empty():
        return as_text(text.set(text == "", None))
    first = known.head(100)
    caster: Caster = as_text
    if first.cast(pl.Float64, strict=False).null_count() == 0:
        caster = as_text if known.str.contains(LEADING_ZERO).any() else cast_numbers
    elif first.str.contains("(?i)^(true|false)$").all():
        caster = cast_flags
    elif first.str.contains(r"^\d{4}-\d{2}-\d{2}([T ]|$)").all():
        caster = cast_times
    cast = caster(text)
    return cast if cast.fits else as_text(text)


def without_case(text: str) -> str:
    """A word as words of a binary target are compared: `Yes` is `yes`, and 2.0 is 2."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text.strip()).casefold()
