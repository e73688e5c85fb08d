"""How text files are written, as `retrain init` finds it out, says it and writes it into the
source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from retrain.data.reading.casting import Cast
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.parts import PLACE, Part
from retrain.data.reading.table import Parts, text_columns

_SAMPLE = 5000  # values of a column
_MANY_MISSING = 0.2  # of the values of a column
_MARKS, _NAMED = 3, 5  # marks of a column, and columns, that are named
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
# What can only be decimals: not three of them, after a bare 0 or four digits and more, or after a
# group of thousands.
_DECIMALS = (
    r"^[^.,]*{0}(\d{{1,2}}|\d{{4,}})[^\d]*$|^[^\d.,]*(0|\d{{4,}}){0}\d|{1}\d{{3}}{0}\d|^[^\d]*{0}\d"
)
_ONE_COMMA = r"\d,\d"


@dataclass
class Guess:
    """A table with its types. `settings` and `date_formats` belong into the source's YAML, so that
    later files are read the same way."""

    table: pl.DataFrame
    settings: dict[str, str | bool] = field(default_factory=dict)
    date_formats: dict[str, str] = field(default_factory=dict)
    time_format: str | None = None
    found: list[str] = field(default_factory=list)  # how the files are read
    unsure: list[str] = field(default_factory=list)

    def source(self, columns: Collection[str]) -> dict[str, Any]:
        """What the source's YAML needs for some features."""
        dates = {name: one for name, one in self.date_formats.items() if name in columns}
        return self.settings | ({"date_formats": dates} if dates else {})


def note_files(guess: Guess, parts: Parts, dialect: Dialect) -> None:
    texts = [part for part in parts.filled if part.separator]
    unsure = [part for part in texts if not part.sure_encoding]
    by_bytes = "since it is not UTF-8" if unsure else "by its first bytes"
    for key, usual, what, why in (
        ("separator", ",", "columns are separated by", "as in the header"),
        ("encoding", "utf-8", "text is", by_bytes),
    ):
        given, values = getattr(dialect, key), sorted({getattr(part, key) for part in texts})
        if values in ([], [usual]) and not given:
            continue
        for value in values:
            named = _NAMES.get(value, value)
            guess.found.append(f"{what} {named}, {'as you said' if given else why}")
        if len(values) == 1:
            guess.settings[key] = values[0]
    if unsure:
        guess.unsure.append(
            f"{unsure[0].place} is not UTF-8 and was read as {unsure[0].encoding}: if accents "
            "and umlauts look "
            f"wrong{_odd_word(unsure[0])}, say --encoding."
        )
    if parts.empty:
        guess.unsure.append(
            f"{', '.join(parts.empty[:3])}: no rows in it, left out until there are."
        )
    if parts.ignored:
        guess.found.append(f"{', '.join(parts.ignored[:5])} not read: no table by the name")


def _odd_word(part: Part) -> str:
    """A word of the file that another encoding would change."""
    for values in part.frame.drop(PLACE):
        odd = values.filter(values.str.contains(r"[^\x00-\x7f]"))
        if len(odd):
            return f" (such as `{odd[0][:30]}` in `{values.name}`)"
    return ""


def decide_decimal(
    guess: Guess,
    frame: pl.DataFrame,
    dialect: Dialect,
    parts: Sequence[Part],
    plain: Collection[str],
) -> Dialect:
    """A point or a comma before the decimals, from all columns that look like numbers."""
    if dialect.decimal is not None:
        sign = "a comma" if dialect.decimal == "," else "a point"
        guess.found.append(f"decimals follow {sign}, as you said")
        guess.settings["decimal"] = dialect.decimal
        return dialect
    # Plain numbers have points: of interest only where something speaks for a comma.
    names = [name for name in text_columns(frame) if name not in plain]
    commas = _columns_with(frame, names, _DECIMALS.format(",", r"\."))
    either = _columns_with(frame, names, r"^\D*\d{1,3}(,\d{3})+\D*$")
    if not commas and not either:
        return replace(dialect, decimal=".")
    points = _columns_with(frame, [*names, *plain], _DECIMALS.format(r"\.", ","))
    name = (commas or either)[0]
    example = frame[name].filter(frame[name].str.contains(_ONE_COMMA)).drop_nulls()[0].strip()
    by_comma = any(part.separator == "," for part in parts)
    decimal = ","
    if len(commas) > len(points):
        guess.found.append(f"decimals follow a comma, such as {example} in `{name}`")
        if points:
            guess.unsure.append(
                f"`{points[0]}` writes decimals with a point, `{name}` with a comma: is one of "
                "them wrong?"
            )
    elif either and not points and not commas and not by_comma:
        guess.unsure.append(
            f"{example} in `{name}` may be a number with three decimals or one of thousands: read "
            "with decimals, since "
            "the columns aren't separated by commas. If that is wrong: --decimal ."
        )
    elif either:
        decimal = "."
        guess.found.append(f"the comma in {example} of `{name}` is one of thousands")
    else:
        return replace(dialect, decimal=".")
    guess.settings["decimal"] = decimal
    return replace(dialect, decimal=decimal)


def _columns_with(frame: pl.DataFrame, names: Collection[str], pattern: str) -> list[str]:
    """The columns of which some values that look like amounts match a pattern."""
    return [name for name in names if _amounts(frame[name]).str.contains(pattern).any()]


def _amounts(text: pl.Series) -> pl.Series:
    """Some of the values that look like numbers with a sign between or before their digits."""
    known = text.drop_nulls()
    few = known.gather_every(max(1, len(known) // _SAMPLE)).str.strip_chars()
    return few.filter(
        few.str.contains(r"^\(?[-+$€£¥\s\d.,']+( ?[%€$])?\)?$")
        & few.str.contains(r"\d[.,]\d|^[.,]\d")
    )


def note_marks(guess: Guess, frame: pl.DataFrame, casts: Mapping[str, Cast], target: str) -> None:
    """What stands for a missing value: rows without a label are not trained on. A doubt where it is
    much of a column."""
    others = []
    for name, cast in casts.items():
        text = frame[name]
        marks = text.filter(cast.values.is_null() & ~cast.unread).drop_nulls().str.strip_chars()
        marks = marks.filter(marks != "")
        if marks.is_empty():
            continue
        common = [
            f"`{one}`" for one in marks.value_counts(sort=True, name="rows")[name].head(_MARKS)
        ]
        where = f"where it says {', '.join(common)} ({len(marks):,} of {len(text):,} values)"
        if name == target:
            guess.found.append(f"`{name}` is missing {where}")
        else:
            others.append(f"`{name}` {where}")
        if len(marks) > _MANY_MISSING * len(text):
            guess.unsure.append(
                f"{len(marks) / len(text):.0%} of the values of `{name}` are missing, since they "
                "say "
                f"{' or '.join(common)}: does that stand for a missing value?"
            )
    if others:
        more = f", and {len(others) - _NAMED:,} more columns" if len(others) > _NAMED else ""
        guess.found.append(f"missing: {', '.join(others[:_NAMED])}{more}")
