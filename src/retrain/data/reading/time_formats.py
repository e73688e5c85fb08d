"""The ways in which times are written as text, as far as they are known."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable

EPOCH_UNITS = {"epoch_s": "s", "epoch_ms": "ms", "epoch_us": "us"}


# Beside an empty cell, of times and numbers; of texts, where some of these are words, see
# `casting`.
MISSING_MARKS = (
    "",
    *[
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
    ],
)


MOST_SHAPES = 20


_PATTERNS = {
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%b": "[A-Za-z]{3}",
    "%B": "[A-Za-z]{4,9}",
    "%a": "[A-Za-z]{3}",
    "%A": "[A-Za-z]{6,9}",
    "%p": "[AaPp][Mm]",
    "%.f": r"(\.\d+)?",
    "%,f": r",\d+",
    "%#z": r"(Z|[+-]\d{2}(:?\d{2})?)",
    # From 1973 on, so that 20230131 is a date.
    "epoch_s": r"\d{9,10}(\.\d+)?",
    "epoch_ms": r"\d{12,13}(\.\d+)?",
    "epoch_us": r"\d{15,16}(\.\d+)?",
}


# The ways to write a date; where several fit a text, the day comes first, then the month, the year.
_NUMBERS = "%d-%m-%Y|%m-%d-%Y|%d-%m-%y|%m-%d-%y|%y-%m-%d|%Y-%m-%d"


_WORDS = (
    "%d %b %Y|%d-%b-%Y|%d/%b/%Y|%d.%b.%Y|%d%b%Y|%d. %b %Y|%d. %b. %Y|%d %b, %Y"
    "|%d %b %y|%d-%b-%y|%d/%b/%y|%d.%b.%y|%d%b%y|%b %d, %Y|%b %d %Y|%b. %d, %Y|%b-%d-%Y"
)


_DIGITS = "%Y|%Y%m|%Y-%m|%Y%m%d|%Y%m%d%H%M%S|epoch_s|epoch_ms|epoch_us"


# What may stand before the time of day, such times, and their zones.
_BEFORE = "T|| T|| ||  ||, ||,||:||_"


_CLOCKS = "%H:%M|%H:%M:%S%.f|%H:%M:%S%,f|%I:%M%p|%I:%M %p|%I:%M:%S%p|%I:%M:%S %p|%H%M|%H%M%S"


_ZONES = "|%#z| %#z|UTC| UTC|GMT| GMT"


def formats_like(example: str) -> list[str]:
    """The formats in which a text may be meant: none, one, or day-first and month-first, and with
    the year first where it has two digits."""
    dates, times = _known_formats()
    formats = []
    for date, pattern in dates.items():
        if found := pattern.match(example):
            rest = example[found.end() :]
            formats += [date + time for time, form in times.items() if form.fullmatch(rest)][:1]
    return formats


@functools.cache
def _known_formats() -> tuple[dict[str, re.Pattern[str]], dict[str, re.Pattern[str]]]:
    """Formats of dates, and of what may follow them."""
    numbers = [_NUMBERS.replace("-", sign) for sign in "-/."]
    words = [
        weekday + name
        for weekday in ("", "%a, ", "%a ", "%A, ", "%A ")
        for written in (_WORDS, _WORDS.replace("%b", "%B"))
        for name in written.split("|")
    ]
    dates = [*"|".join([*numbers, _DIGITS]).split("|"), *words]
    times = itertools.product(_BEFORE.split("||"), _CLOCKS.split("|"), _ZONES.split("|"))
    return _compiled(dates), _compiled(["", *map("".join, times)])


def _compiled(formats: Iterable[str]) -> dict[str, re.Pattern[str]]:
    def pattern(found: re.Match[str]) -> str:
        together = found.start() > 1 and found.string[found.start() - 2] == "%"
        return _PATTERNS.get(found[0], r"\d{2}" if together else r"\d{1,2}")

    directives = r"%[#.,]?\w|epoch_\w+"
    return {
        name: re.compile(re.sub(directives, pattern, re.sub(r"\.(?!f)", r"\.", name)))
        for name in formats
    }


def shape_of(example: str) -> str:
    """A pattern of all texts that differ in their digits and letters only."""
    parts = re.findall(r"\d+|[^\W\d_]+|.", example, flags=re.DOTALL)
    kinds = [
        r"\d+" if part.isdigit() else r"[^\W\d_]+" if part.isalpha() else re.escape(part)
        for part in parts
    ]
    return f"(?s)^{''.join(kinds)}$"


def has_zone(name: str) -> bool:
    return "%#z" in name or name.endswith(("UTC", "GMT")) or name in EPOCH_UNITS
