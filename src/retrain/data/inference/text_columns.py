"""Text files that no schema describes yet: how they are written, and what each column is, from all values of all files.

Each decision comes with the reason, and with a doubt where the values alone don't settle it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl

from retrain.columns import refuse_reserved
from retrain.data.inference.dialect import Guess, decide_decimal, tell_files, tell_marks
from retrain.data.inference.excel import refuse_serial_dates
from retrain.data.reading.casting import (
    INTEGER,
    LEADING_ZERO,
    Cast,
    cast_as_found,
    cast_flags,
    cast_numbers,
    cast_times,
    cast_words,
    plain_numbers,
    without_case,
)
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.files import Part
from retrain.data.reading.table import (
    join,
    load_parts,
    places,
    split_problems,
    text_columns,
    with_problems,
)
from retrain.data.reading.times import MISSING_MARKS, ReadTimes
from retrain.errors import DataError

_MOST_UNREAD = 0.01  # of the values: such a column is still one of numbers or dates, and those rows go to quarantine
_FEW = 20  # values: too few for one odd one among them to be an exception
_SAMPLE = 5000
_MOST_CODES = 10  # whole numbers, as far as they may be classes
_DECORATED = r"[$€£¥₹%()]|\b(USD|EUR|GBP|CHF|JPY)\b"
_CLOSED_WORDS = ("NA", "None", "?", "-", ".")


def read_and_guess(
    paths: str | Sequence[str], dialect: Dialect, target: str, time: str, time_format: str | None
) -> Guess:
    """Raises DataError when the files can't be read, or the time column can't be what it is said to be."""
    parts = load_parts(paths, dialect, (target, time))
    guess = Guess(pl.DataFrame())
    tell_files(guess, parts, dialect)
    for part in parts.filled:
        refuse_reserved(part.frame.columns, part.place)
    text_parts = [part for part in parts.filled if part.is_text]
    frame = join([part.frame for part in text_parts], text_parts) if text_parts else None
    if frame is not None:
        # Of most columns nothing is open, and there may be thousands.
        numbers = set(frame.columns) - {time, target, *dialect.date_formats}
        plain = plain_numbers(frame, numbers) if dialect.decimal != "," else {}
        dialect = decide_decimal(guess, frame, dialect, text_parts, plain)
        frame = frame.with_columns(plain.values()) if dialect.decimal == "." else frame
        frame = _guess_columns(guess, frame, text_parts, dialect, target, time, time_format)
    typed = [part.frame for part in parts.filled if not part.is_text]
    guess.table = (
        join([*([frame] if frame is not None else []), *typed], parts.filled) if typed else frame
    )
    return guess


def guess_time(guess: Guess, time: str, time_format: str | None) -> None:
    """The time column of a typed table that keeps it as text, such as one of a database."""
    if guess.table.schema.get(time) == pl.String:
        cast = _time_column(guess, guess.table[time], time_format, None)
        guess.table = guess.table.with_columns(cast.values.alias(time))


def guess_dates(guess: Guess, date_formats: Mapping[str, str]) -> None:
    """Columns of a typed table that keep dates as text, and how they are written."""
    for name, written in date_formats.items():
        if guess.table.schema.get(name) == pl.String:
            cast = _said_dates(guess, guess.table[name], written)
            guess.table = guess.table.with_columns(cast.values.alias(name))


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
    tell_marks(guess, frame, casts, target)
    typed, problems = split_problems(with_problems(frame, casts, parts))
    # What goes to quarantine says nothing about its columns.
    return typed.filter(problems.is_null())


def _time_column(
    guess: Guess, text: pl.Series, time_format: str | None, day_first: bool | None
) -> Cast:
    cast = cast_times(text, time_format, day_first)
    read = cast.times
    known = len(text) - text.null_count()
    if (
        read is None
        or not known
        or read.unread.sum() == known
        or read.values.null_count() == len(text)
    ):
        refuse_serial_dates(text.cast(pl.Float64, strict=False))
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
            "as you said"
            if time_format
            else f"since {read.order}"
            if read.order and not read.doubt
            else "by its form"
        )
        guess.told.append(f"`{name}` is {' or '.join(read.formats)}, {why}")
    if read.doubt:
        other = [one for one in read.formats if "%d" in one and "%m" in one][:1]
        way_out = (
            f" If that is wrong: --time-format '{read.other or _swap(other[0])}'." if other else ""
        )
        guess.unsure.append(f"{read.doubt}{way_out}")
    _tell_future(guess, name, read)
    if read.mixed_zones:
        guess.unsure.append(
            f"`{name}` holds times with a zone beside others without one: the latter are taken for UTC."
        )


def _tell_future(guess: Guess, name: str, read: ReadTimes) -> None:
    """Times that are yet to come are mostly ones in a wrong format."""
    known = read.values.drop_nulls()
    ahead = known.filter(known > datetime.now(UTC).replace(tzinfo=None))
    if len(ahead) > 0.01 * len(known):
        guess.unsure.append(
            f"{len(ahead) / len(known):.0%} of the times in `{name}` lie in the future, up to {ahead.max():%Y-%m-%d}: "
            f"is {' or '.join(read.formats)} how they are written? If not, say it with --time-format."
        )


def _swap(name: str) -> str:
    """The other order of day and month."""
    return name.replace("%d", "\0").replace("%m", "%d").replace("\0", "%m")


def _guess_column(guess: Guess, text: pl.Series, dialect: Dialect) -> Cast:
    """Numbers, flags or times where all values are, save for a few; else texts."""
    if text.name in dialect.date_formats:
        return _said_dates(guess, text, dialect.date_formats[text.name])
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
    if (
        few.str.contains(r"\d{4}|\d[/.-]\d+[/.-]\d").mean() > 0.9
        and not few.str.contains(INTEGER).all()
    ):
        cast = cast_times(text, None, dialect.day_first)
        if _nearly_all(cast, known) and cast.times is not None:
            _tell_dates(guess, text.name, cast.times)
            return cast
    return cast_as_found(text)


def _said_dates(guess: Guess, text: pl.Series, date_format: str) -> Cast:
    cast = cast_times(text, date_format, None)
    if cast.values.null_count() == len(text):
        raise DataError(
            f"`{text.name}` holds no dates as `--time-format {text.name}={date_format}` says, such as {text.drop_nulls().head(1).to_list()}."
        )
    guess.told.append(f"`{text.name}` is {date_format}, as you said")
    _pin_format(guess, text.name, date_format)
    return cast


def _pin_format(guess: Guess, name: str, date_format: str) -> None:
    """So that every later file is read the same way."""
    guess.settings["date_formats"] = {**guess.settings.get("date_formats", {}), name: date_format}


def _tell_dates(guess: Guess, name: str, read: ReadTimes) -> None:
    pinned = len(read.formats) == 1 and read.order is not None and "%y" in read.formats[0]
    if pinned:
        _pin_format(guess, name, read.formats[0])
    if read.doubt and pinned:
        way_out = f"--time-format '{name}={read.other or _swap(read.formats[0])}', or `date_formats` in its `source`"
        guess.unsure.append(f"{read.doubt} If that is wrong: {way_out}.")
    elif read.doubt:
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
        infinite = values.is_infinite().fill_null(False)
        known = values.filter(~infinite).drop_nulls()
        if known.n_unique() > _MOST_CODES or not (known == known.floor()).all():
            return cast
        unread = (
            (infinite if cast.unread is None else cast.unread | infinite)
            if infinite.any()
            else cast.unread
        )
        kind = "a finite number" if infinite.any() else cast.kind
        return replace(
            cast, values=values.set(infinite, None).cast(pl.Int64), unread=unread, kind=kind
        )  # 2.0 is 2
    if values.dtype != pl.String:
        return cast
    words = cast_words(text)
    values = words.values
    if values.dtype != pl.String:
        return words
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
        guess.unsure.append(
            f"{alike} of `{text.name}` differ in their capitals only: taken for one."
        )
        same = {word: words[0] for words in groups.values() for word in words}
        return Cast(
            values.replace_strict(same, default=None, return_dtype=pl.String), None, "a class"
        )
    return Cast(values, None, "a class")


def _tell_unread(guess: Guess, text: pl.Series, cast: Cast, parts: Sequence[Part]) -> None:
    rows = cast.unread.arg_true().cast(pl.Int64)
    where = f" ({places(rows.head(1), parts)[0]})" if parts else ""
    guess.unsure.append(
        f"{len(rows):,} of {len(text):,} values of `{text.name}` are not {cast.kind}, such as '{text[int(rows[0])][:40]}'{where}: those rows go "
        "to quarantine."
    )
