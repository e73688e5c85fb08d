"""Text files that no schema describes yet: how they are written, and what each column is, from all values of all files.

Each decision comes with the reason, and with a doubt where the values alone don't settle it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from retrain.columns import refuse_reserved
from retrain.data.casting import (
    INTEGER,
    LEADING_ZERO,
    MISSING_LABELS,
    Cast,
    cast_as_found,
    cast_flags,
    cast_numbers,
    cast_times,
    cast_words,
    plain_numbers,
    without_case,
)
from retrain.data.dialect import Dialect
from retrain.data.files import Part
from retrain.data.reading import Parts, join, load_parts, places, split_problems, text_columns, with_problems
from retrain.data.times import MISSING_MARKS, ReadTimes
from retrain.errors import DataError

_MOST_UNREAD = 0.01  # of the values: such a column is still one of numbers or dates, and those rows go to quarantine
_FEW = 20  # values: too few for one odd one among them to be an exception
_SAMPLE = 5000
_MOST_CODES = 10  # whole numbers, as far as they may be classes
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_DECORATED = r"[$€£¥₹%()]|\b(USD|EUR|GBP|CHF|JPY)\b"
# What can only be decimals: not three of them, after a bare 0 or four digits and more, or after a group of thousands.
_DECIMALS = r"^[^.,]*{0}(\d{{1,2}}|\d{{4,}})[^\d]*$|^[^\d.,]*(0|\d{{4,}}){0}\d|{1}\d{{3}}{0}\d|^[^\d]*{0}\d"
_CLOSED_WORDS = ("NA", "None", "?", "-", ".")


@dataclass
class Guess:
    """A table with its types. `settings` belong into the source's YAML, so that later files are read the same way."""

    table: pl.DataFrame
    settings: dict[str, str | bool] = field(default_factory=dict)
    time_format: str | None = None
    told: list[str] = field(default_factory=list)  # how the files are read
    unsure: list[str] = field(default_factory=list)


def read_and_guess(
    paths: str | Sequence[str], dialect: Dialect, target: str, time: str, time_format: str | None
) -> Guess:
    """Raises DataError when the files can't be read, or the time column can't be what it is said to be."""
    parts = load_parts(paths, dialect, (target, time))
    guess = Guess(pl.DataFrame())
    _tell_files(guess, parts, dialect)
    for part in parts.filled:
        refuse_reserved(part.frame.columns, part.place)
    text_parts = [part for part in parts.filled if part.is_text]
    frame = join([part.frame for part in text_parts], text_parts) if text_parts else None
    if frame is not None:
        # Of most columns nothing is open, and there may be thousands.
        plain = plain_numbers(frame, set(frame.columns) - {time, target}) if dialect.decimal != "," else {}
        dialect = _decide_decimal(guess, frame, dialect, text_parts, plain)
        frame = frame.with_columns(plain.values()) if dialect.decimal == "." else frame
        frame = _guess_columns(guess, frame, text_parts, dialect, target, time, time_format)
    typed = [part.frame for part in parts.filled if not part.is_text]
    guess.table = join([*([frame] if frame is not None else []), *typed], parts.filled) if typed else frame
    return guess


def guess_time(guess: Guess, time: str, time_format: str | None) -> None:
    """The time column of a typed table that keeps it as text, such as one of a database."""
    if guess.table.schema.get(time) == pl.String:
        cast = _time_column(guess, guess.table[time], time_format, None)
        guess.table = guess.table.with_columns(cast.values.alias(time))


def _tell_files(guess: Guess, parts: Parts, dialect: Dialect) -> None:
    texts = [part.text for part in parts.filled if part.text is not None]
    separators, encodings = {text.separator for text in texts}, {text.encoding for text in texts}
    for sign in separators if len(separators) > 1 or separators - {","} or dialect.separator else ():
        guess.told.append(
            f"columns are separated by {_NAMES.get(sign, repr(sign))}, " + _why(dialect.separator, "as in the header")
        )
    if len(separators) == 1 and (separators != {","} or dialect.separator):
        guess.settings["separator"] = separators.pop()
    unsure = [part for part in parts.filled if part.text is not None and not part.text.sure_encoding]
    for name in encodings - {"utf-8"}:
        guess.told.append(
            f"text is {name}, " + _why(dialect.encoding, "since it is not UTF-8" if unsure else "by its first bytes")
        )
    if len(encodings) == 1 and (encodings != {"utf-8"} or dialect.encoding):
        guess.settings["encoding"] = encodings.pop()
    if unsure:
        guess.unsure.append(
            f"{unsure[0].place} is not UTF-8 and was read as {unsure[0].text.encoding}: if accents and umlauts look wrong{_odd_word(unsure[0])}, "
            "say --encoding."
        )
    if parts.empty:
        guess.unsure.append(f"{', '.join(parts.empty[:3])}: no rows in it, left out until there are.")
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


def _decide_decimal(
    guess: Guess, frame: pl.DataFrame, dialect: Dialect, parts: Sequence[Part], plain: Collection[str]
) -> Dialect:
    """A point or a comma before the decimals, from all columns that look like numbers."""
    if dialect.decimal is not None:
        guess.told.append(f"decimals follow {'a comma' if dialect.decimal == ',' else 'a point'}, as you said")
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
    return few.filter(few.str.contains(r"^\(?[-+$€£¥\s\d.,']+( ?[%€$])?\)?$") & few.str.contains(r"\d[.,]\d|^[.,]\d"))


def _matching(values: pl.Series, pattern: str) -> str:
    return str(values.filter(values.str.contains(pattern).fill_null(False)).head(1).to_list()[0]).strip()


def _guess_columns(
    guess: Guess,
    frame: pl.DataFrame,
    parts: Sequence[Part],
    dialect: Dialect,
    target: str,
    time: str,
    time_format: str | None,
) -> pl.DataFrame:
    casts: dict[str, Cast] = {}
    names = text_columns(frame)
    if time in names:
        casts[time] = _time_column(guess, frame[time], time_format, dialect.day_first)
        read = casts[time].times
        if read is not None and dialect.day_first is None:
            dialect = replace(dialect, day_first=read.day_first)
    for name in names:
        if name != time:
            cast = _guess_column(guess, frame[name], dialect)
            casts[name] = _guess_target(guess, frame[name], cast) if name == target else cast
    for name, cast in casts.items():
        if cast.unread is not None:
            _tell_unread(guess, frame[name], cast, parts)
    typed, problems = split_problems(with_problems(frame, casts, parts))
    # What goes to quarantine says nothing about its columns.
    return typed if problems is None else typed.filter(problems.is_null())


def _time_column(guess: Guess, text: pl.Series, time_format: str | None, day_first: bool | None) -> Cast:
    cast = cast_times(text, time_format, day_first)
    read = cast.times
    known = len(text) - text.null_count()
    if read is None or not known or read.unread.sum() == known or read.values.null_count() == len(text):
        example = text.drop_nulls().head(1).to_list()
        by = f" by `--time-format {time_format}`" if time_format else ""
        raise DataError(
            f"`--time {text.name}` holds no times that can be recognized{by}, such as {example}. Say how they are written with "
            "--time-format: as strptime does (%d.%m.%Y %H:%M), or epoch_s, epoch_ms, epoch_us."
        )
    if time_format is not None or all(name.startswith("%Y-%m-%d") for name in read.formats):
        guess.time_format = time_format
    elif len(read.formats) == 1:
        guess.time_format = read.formats[0].replace("%#z", "%z")
    if len(read.formats) > 1 and read.day_first is not None:
        guess.settings["day_first"] = read.day_first
    _tell_times(guess, text.name, read, time_format)
    # Whoever reads on may ask whether there was a zone.
    values = read.values.dt.replace_time_zone("UTC") if read.zoned else read.values
    return Cast(values, cast.unread, cast.kind, read)


def _tell_times(guess: Guess, name: str, read: ReadTimes, time_format: str | None) -> None:
    plain = all(one.startswith("%Y-%m-%d") for one in read.formats)
    if time_format is not None or not plain:
        why = (
            "as you said" if time_format else f"since {read.order}" if read.order and not read.doubt else "by its form"
        )
        guess.told.append(f"`{name}` is {' or '.join(read.formats)}, {why}")
    if read.doubt:
        other = [one for one in read.formats if "%d" in one and "%m" in one][:1]
        way_out = f" If that is wrong: --time-format '{_swap(other[0])}'." if other else ""
        guess.unsure.append(f"{read.doubt}{way_out}")
    if read.mixed_zones:
        guess.unsure.append(
            f"`{name}` holds times with a zone beside others without one: the latter are taken for UTC."
        )


def _swap(name: str) -> str:
    """The other order of day and month."""
    return name.replace("%d", "\0").replace("%m", "%d").replace("\0", "%m")


def _guess_column(guess: Guess, text: pl.Series, dialect: Dialect) -> Cast:
    """Numbers, flags or times where all values are, save for a few; else texts."""
    known = text.filter(~text.str.strip_chars().is_in(MISSING_MARKS)).drop_nulls()
    if known.is_empty():
        return Cast(text.set(text == "", None), None, "a text")
    few = known.gather_every(max(1, len(known) // _SAMPLE))
    numbers = cast_numbers(few, dialect.decimal or ".").values.is_not_null().mean()
    if numbers > 0.9 and not _leading_zeros(guess, known):
        cast = cast_numbers(text, dialect.decimal or ".")
        if _nearly_all(cast, known):
            _tell_numbers(guess, known)
            return cast
    if few.str.to_lowercase().is_in(("true", "false")).mean() > 0.9:
        cast = cast_flags(text)
        if _nearly_all(cast, known):
            return cast
    if few.str.contains(r"\d{4}|\d[/.-]\d+[/.-]\d").mean() > 0.9 and not few.str.contains(INTEGER).all():
        cast = cast_times(text, None, dialect.day_first)
        if _nearly_all(cast, known) and cast.times is not None:
            _tell_dates(guess, text.name, cast.times)
            return cast
    return cast_as_found(text)


def _tell_dates(guess: Guess, name: str, read: ReadTimes) -> None:
    if read.doubt:
        guess.settings["day_first"] = bool(read.day_first)
        guess.unsure.append(
            f"{read.doubt} If that is wrong: `day_first: {str(not read.day_first).lower()}` in its `source`."
        )
    elif read.order and not all(one.startswith("%Y") for one in read.formats):
        guess.told.append(f"`{name}` is {' or '.join(read.formats)}, since {read.order}")


def _leading_zeros(guess: Guess, known: pl.Series) -> bool:
    zeros = known.filter(known.str.contains(LEADING_ZERO))
    if zeros.is_empty():
        return False
    guess.unsure.append(
        f"`{known.name}` holds digits with leading zeros such as {zeros[0]}: read as texts, which keeps them. If they are amounts: "
        "type numeric."
    )
    return True


def _nearly_all(cast: Cast, known: pl.Series) -> bool:
    if cast.unread is None:
        return True
    unread = int(cast.unread.sum())
    return len(known) >= _FEW and unread <= max(1, _MOST_UNREAD * len(known))


def _tell_numbers(guess: Guess, known: pl.Series) -> None:
    decorated = known.filter(known.str.contains(_DECORATED))
    if decorated.is_empty():
        return
    said = f"`{known.name}` holds amounts such as {decorated[0].strip()}, read as numbers without their signs"
    share = known.str.contains("%", literal=True).mean()
    if 0 < share < 1:
        said += f"; {share:.0%} of them have a %, the others none: are they of one unit?"
    guess.unsure.append(said if said.endswith("?") else said + ".")


def _guess_target(guess: Guess, text: pl.Series, cast: Cast) -> Cast:
    """A target of words: without the marks of missing labels, and two classes whatever their capitals."""
    values = cast.values
    if values.dtype.is_float():
        known = values.drop_nulls()
        codes = known.n_unique() <= _MOST_CODES and (known == known.floor()).all() and not known.is_infinite().any()
        return replace(cast, values=values.cast(pl.Int64)) if codes else cast  # 2.0 is the class 2
    if values.dtype != pl.String:
        return cast
    words = cast_words(text)
    values = words.values
    if values.dtype != pl.String:
        return words
    missing = text.str.strip_chars().is_in([mark for mark in MISSING_LABELS if mark])
    if missing.any():
        guess.told.append(f"`{text.name}` is missing where it says {text.filter(missing.fill_null(False))[0]}")
    found = values.drop_nulls().unique()
    for word in found.filter(found.is_in(_CLOSED_WORDS)):
        guess.unsure.append(
            f"`{text.name}` has a class `{word}`: a class, or a missing label? Leave those cells empty if so."
        )
    groups: dict[str, list[str]] = {}
    for word in values.value_counts(sort=True, name="count")[values.name].drop_nulls():
        groups.setdefault(without_case(word), []).append(word)
    several = [words for words in groups.values() if len(words) > 1]
    if not several:
        return Cast(values, None, "a class")
    alike = " and ".join(f"`{word}`" for word in several[0][:3])
    if len(groups) > 2:
        guess.unsure.append(
            f"{alike} of `{text.name}` differ in their capitals only, and are classes of their own: mend the data if not."
        )
        return Cast(values, None, "a class")
    if len(groups) == 2:
        guess.unsure.append(f"{alike} of `{text.name}` differ in their capitals only: taken for one.")
        same = {word: words[0] for words in groups.values() for word in words}
        return Cast(values.replace_strict(same, default=None, return_dtype=pl.String), None, "a class")
    return Cast(values, None, "a class")


def _tell_unread(guess: Guess, text: pl.Series, cast: Cast, parts: Sequence[Part]) -> None:
    rows = cast.unread.arg_true().cast(pl.Int64)
    where = f" ({places(rows.head(1), parts)[0]})" if parts else ""
    guess.unsure.append(
        f"{len(rows):,} of {len(text):,} values of `{text.name}` are not {cast.kind}, such as '{text[int(rows[0])][:40]}'{where}: those rows go "
        "to quarantine."
    )
