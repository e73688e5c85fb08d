"""How text files are written, as `retrain init` finds it out, says it and writes it into the source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from retrain.data.reading.casting import Cast
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.files import Part
from retrain.data.reading.table import Parts, text_columns

_SAMPLE = 5000  # values of a column
_MANY_MISSING = 0.2  # of the values of a column
_MARKS, _NAMED = 3, 5  # marks of a column, and columns, that are named
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
# What can only be decimals: not three of them, after a bare 0 or four digits and more, or after a group of thousands.
_DECIMALS = (
    r"^[^.,]*{0}(\d{{1,2}}|\d{{4,}})[^\d]*$|^[^\d.,]*(0|\d{{4,}}){0}\d|{1}\d{{3}}{0}\d|^[^\d]*{0}\d"
)


@dataclass
class Guess:
    """A table with its types. `settings` belong into the source's YAML, so that later files are read the same way."""

    table: pl.DataFrame
    settings: dict[str, str | bool | dict[str, str]] = field(default_factory=dict)
    time_format: str | None = None
    told: list[str] = field(default_factory=list)  # how the files are read
    unsure: list[str] = field(default_factory=list)


def tell_files(guess: Guess, parts: Parts, dialect: Dialect) -> None:
    texts = [part.text for part in parts.filled if part.text is not None]
    separators, encodings = {text.separator for text in texts}, {text.encoding for text in texts}
    for sign in (
        separators if len(separators) > 1 or separators - {","} or dialect.separator else ()
    ):
        guess.told.append(
            f"columns are separated by {_NAMES.get(sign, repr(sign))}, "
            + _why(dialect.separator, "as in the header")
        )
    if len(separators) == 1 and (separators != {","} or dialect.separator):
        guess.settings["separator"] = separators.pop()
    unsure = [
        part for part in parts.filled if part.text is not None and not part.text.sure_encoding
    ]
    for name in encodings - {"utf-8"}:
        guess.told.append(
            f"text is {name}, "
            + _why(dialect.encoding, "since it is not UTF-8" if unsure else "by its first bytes")
        )
    if len(encodings) == 1 and (encodings != {"utf-8"} or dialect.encoding):
        guess.settings["encoding"] = encodings.pop()
    if unsure:
        guess.unsure.append(
            f"{unsure[0].place} is not UTF-8 and was read as {unsure[0].text.encoding}: if accents and umlauts look wrong{_odd_word(unsure[0])}, "
            "say --encoding."
        )
    if parts.empty:
        guess.unsure.append(
            f"{', '.join(parts.empty[:3])}: no rows in it, left out until there are."
        )
    if parts.ignored:
        guess.told.append(f"{', '.join(parts.ignored[:5])} not read: no table by the name")


def _why(given: str | None, found: str) -> str:
    return "as you said" if given else found


def _odd_word(part: Part) -> str:
    """A word of the file that another encoding would change."""
    for values in part.frame:
        odd = values.filter(values.str.contains(r"[^\x00-\x7f]").fill_null(False))
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
        guess.told.append(
            f"decimals follow {'a comma' if dialect.decimal == ',' else 'a point'}, as you said"
        )
        guess.settings["decimal"] = dialect.decimal
        return dialect
    commas, points, open_question = [], [], []
    for name in sorted(text_columns(frame), key=lambda name: name in plain):
        if name in plain and not commas and not open_question:
            break  # nothing speaks for a comma
        few = _amounts(frame[name])
        if few.str.contains(_DECIMALS.format(",", r"\.")).any():
            commas.append(name)
        if few.str.contains(_DECIMALS.format(r"\.", ",")).any():
            points.append(name)
        if few.str.contains(r"^\D*\d{1,3}(,\d{3})+\D*$").any():
            open_question.append(name)
    separators = {part.text.separator for part in parts if part.text is not None}
    if commas and len(commas) > len(points):
        example = _matching(frame[commas[0]], r"\d,\d")
        guess.told.append(f"decimals follow a comma, such as {example} in `{commas[0]}`")
        if points:
            guess.unsure.append(
                f"`{points[0]}` writes decimals with a point, `{commas[0]}` with a comma: is one of them wrong?"
            )
    elif open_question and not points and not commas and separators != {","}:
        example = _matching(frame[open_question[0]], r"\d,\d")
        guess.unsure.append(
            f"{example} in `{open_question[0]}` may be a number with three decimals or one of thousands: read with decimals, since "
            "the columns aren't separated by commas. If that is wrong: --decimal ."
        )
    else:
        if open_question:
            example = _matching(frame[open_question[0]], r"\d,\d")
            guess.told.append(f"the comma in {example} of `{open_question[0]}` is one of thousands")
            guess.settings["decimal"] = "."
        return replace(dialect, decimal=".")
    guess.settings["decimal"] = ","
    return replace(dialect, decimal=",")


def _amounts(text: pl.Series) -> pl.Series:
    """Some of the values that look like numbers with a sign between or before their digits."""
    known = text.drop_nulls()
    few = known.gather_every(max(1, len(known) // _SAMPLE)).str.strip_chars()
    return few.filter(
        few.str.contains(r"^\(?[-+$€£¥\s\d.,']+( ?[%€$])?\)?$")
        & few.str.contains(r"\d[.,]\d|^[.,]\d")
    )


def _matching(values: pl.Series, pattern: str) -> str:
    return str(
        values.filter(values.str.contains(pattern).fill_null(False)).head(1).to_list()[0]
    ).strip()


def tell_marks(guess: Guess, frame: pl.DataFrame, casts: Mapping[str, Cast], target: str) -> None:
    """What stands for a missing value, of which a target's are not learnt from; a doubt where it is much of a column."""
    others = []
    for name, cast in casts.items():
        text = frame[name]
        unread = int(cast.unread.sum()) if cast.unread is not None else 0
        if cast.values.null_count() - unread <= text.null_count():
            continue
        lost = cast.values.is_null() & text.is_not_null()
        marks = text.filter(lost if cast.unread is None else lost & ~cast.unread).str.strip_chars()
        marks = marks.filter(marks != "")
        if marks.is_empty():
            continue
        common = marks.value_counts(sort=True, name="rows")[name].head(_MARKS).to_list()
        said = (
            f"{', '.join(f'`{mark}`' for mark in common)} ({len(marks):,} of {len(text):,} values)"
        )
        if name == target:
            guess.told.append(f"`{name}` is missing where it says {said}")
        else:
            others.append(f"`{name}` where it says {said}")
        if len(marks) > _MANY_MISSING * len(text):
            guess.unsure.append(
                f"{len(marks) / len(text):.0%} of the values of `{name}` are missing, since they say "
                f"{' or '.join(f'`{mark}`' for mark in common)}: does that stand for a missing value?"
            )
    if others:
        more = f", and {len(others) - _NAMED:,} more columns" if len(others) > _NAMED else ""
        guess.told.append(f"missing: {', '.join(others[:_NAMED])}{more}")
