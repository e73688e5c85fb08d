"""Text files that no schema describes yet: how they are written, and what each column is, from all
values of all files.

Each decision comes with the reason, and with a doubt where the values alone don't settle it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl

from retrain.data.inference.dialect import Guess, decide_decimal, note_files, note_marks
from retrain.data.inference.excel import refuse_serial_dates
from retrain.data.reading.casting import (
    LEADING_ZERO,
    Cast,
    as_text,
    cast_flags,
    cast_numbers,
    cast_times,
    cast_words,
    plain_numbers,
    without_case,
)
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.parts import PLACE, Part, find_places, split_problems
from retrain.data.reading.table import join, load_parts, text_columns, with_problems
from retrain.data.reading.time_formats import MISSING_MARKS
from retrain.data.reading.times import ReadTimes
from retrain.data.scalars import as_float
from retrain.errors import DataError

# of the values: such a column is still one of numbers or dates, and those rows go to quarantine
_MOST_UNREAD = 0.01
_FEW = 20  # values: too few for one odd one among them to be an exception
_SAMPLE = 5000
_MOST_CODES = 10  # whole numbers, as far as they may be classes
_DECORATED = r"[$€£¥₹%()]|\b(USD|EUR|GBP|CHF|JPY)\b"
_CLOSED_WORDS = ("NA", "None", "?", "-", ".")


def read_and_guess(
    paths: str | Sequence[str], dialect: Dialect, target: str, time: str, time_format: str | None
) -> Guess:
    """Raises DataError when the files can't be read, or the time column can't be what it is said to
    be."""
    parts = load_parts(paths, dialect, (target, time))
    guess = Guess(pl.DataFrame())
    note_files(guess, parts, dialect)
    texts = [part for part in parts.filled if part.is_text]
    frames: list[Part | pl.DataFrame] = [part for part in parts.filled if not part.is_text]
    if texts:
        frame = join(texts)
        # Of most columns nothing is open, and there may be thousands.
        decided = {time, target, *dialect.date_formats}
        names = [name for name in text_columns(frame) if name not in decided]
        plain = plain_numbers(frame, names) if dialect.decimal != "," else {}
        dialect = decide_decimal(guess, frame, dialect, texts, plain)
        frame = frame.with_columns(plain.values()) if dialect.decimal == "." else frame
        casts = guess_texts(guess, frame, text_columns(frame), dialect, time, time_format)
        if target in casts:
            casts[target] = _guess_target(guess, frame[target], casts[target])
        for name, cast in casts.items():
            _note_unread(guess, frame, name, cast)
        note_marks(guess, frame, casts, target)
        typed, problems = split_problems(with_problems(frame, casts))
        # What goes to quarantine says nothing about its columns.
        frames.insert(0, typed.filter(problems.is_null()))
    guess.table = join(frames).drop(PLACE, strict=False)
    return guess


def guess_texts(
    guess: Guess,
    frame: pl.DataFrame,
    names: Sequence[str],
    dialect: Dialect,
    time: str,
    time_format: str | None,
) -> dict[str, Cast]:
    """Some columns of text by what their values are, the time column before the others."""
    casts: dict[str, Cast] = {}
    for name in sorted(names, key=lambda name: name != time):
        text = frame[name]
        if name == time:
            casts[name] = _guess_time(guess, text, time_format, dialect.day_first)
            if dialect.day_first is None and (read := casts[name].times) is not None:
                dialect = replace(dialect, day_first=read.day_first)
        elif name in dialect.date_formats:
            casts[name] = _given_dates(guess, text, dialect.date_formats[name])
        else:
            casts[name] = _guess_column(guess, text, dialect)
    return {name: casts[name] for name in names}


def _guess_time(
    guess: Guess, text: pl.Series, time_format: str | None, day_first: bool | None
) -> Cast:
    cast = cast_times(text, time_format, day_first)
    read = cast.times
    if read is None or not read.values.count():
        refuse_serial_dates(text.cast(pl.Float64, strict=False))
        by = f" by `--time-format {time_format}`" if time_format else ""
        raise DataError(
            f"`--time {text.name}` holds no times that can be recognized{by}, such as "
            f"{text.drop_nulls().head(1).to_list()}",
            hint="say how they are written with --time-format: as strptime does "
            "(%d.%m.%Y %H:%M), or epoch_s, epoch_ms, epoch_us",
        )
    iso = all(name.startswith("%Y-%m-%d") for name in read.formats)
    formats = " or ".join(read.formats)
    guess.time_format = time_format
    if time_format:
        guess.found.append(f"`{text.name}` is {formats}, as you said")
    elif not iso:
        clear = read.order and not read.doubt
        why = f"since {read.order.why}" if read.order and clear else "by its form"
        guess.found.append(f"`{text.name}` is {formats}, {why}")
        if len(read.formats) == 1:
            guess.time_format = formats.replace("%#z", "%z")
    if len(read.formats) > 1 and read.day_first is not None:
        guess.settings["day_first"] = read.day_first
    _doubt_times(guess, text.name, read)
    # Whoever reads on may ask whether there was a zone.
    return replace(cast, values=read.values.dt.replace_time_zone("UTC" if read.zoned else None))


def _doubt_times(guess: Guess, name: str, read: ReadTimes) -> None:
    if read.doubt and read.order is not None:
        other = [read.order.other or _swapped(one) for one in read.formats if "%d" in one]
        way_out = "".join(f" If that is wrong: --time-format '{one}'." for one in other[:1])
        guess.unsure.append(read.doubt + way_out)
    known = read.values.drop_nulls()
    ahead = known.filter(known > datetime.now(UTC).replace(tzinfo=None))
    if len(ahead) > 0.01 * len(known):  # mostly a wrong format
        guess.unsure.append(
            f"{len(ahead) / len(known):.0%} of the times in `{name}` lie in the future, up to "
            f"{ahead.dt.max():%Y-%m-%d}: is {' or '.join(read.formats)} how they are written? If "
            "not, say it with --time-format."
        )
    if read.mixed_zones:
        guess.unsure.append(
            f"`{name}` holds times with a zone beside others without one: the latter are taken for "
            "UTC."
        )


def _swapped(name: str) -> str:
    """The other order of day and month."""
    return name.translate(str.maketrans("dm", "md"))


def _guess_column(guess: Guess, text: pl.Series, dialect: Dialect) -> Cast:
    """Numbers, flags or times where all values are, save for a few; else texts."""
    known = text.filter(~text.str.strip_chars().is_in(MISSING_MARKS)).drop_nulls()
    if known.is_empty():
        return as_text(text.set(text == "", None))
    few, decimal = known.gather_every(max(1, len(known) // _SAMPLE)), dialect.decimal or "."
    cast = None
    if as_float(cast_numbers(few, decimal).unread.mean()) < 0.1:
        cast = None if _leading_zeros(guess, known) else cast_numbers(text, decimal)
    elif as_float(few.str.to_lowercase().is_in(("true", "false")).mean()) > 0.9:
        cast = cast_flags(text)
    elif as_float(few.str.contains(r"\d{4}|\d[/.-]\d+[/.-]\d").mean()) > 0.9:
        cast = cast_times(text, None, dialect.day_first)
    unread = 0 if cast is None else int(cast.unread.sum())
    exceptions = max(1, _MOST_UNREAD * len(known)) if len(known) >= _FEW else 0
    if cast is None or unread > exceptions:
        return as_text(text)
    if cast.times is not None:
        _note_dates(guess, text.name, cast.times)
    elif cast.values.dtype.is_numeric():
        _note_amounts(guess, known)
    return cast


def _given_dates(guess: Guess, text: pl.Series, date_format: str) -> Cast:
    cast = cast_times(text, date_format, None)
    if not cast.values.count():
        raise DataError(
            f"`{text.name}` holds no dates as `--time-format {text.name}={date_format}` says, such "
            f"as {text.drop_nulls().head(1).to_list()}."
        )
    guess.found.append(f"`{text.name}` is {date_format}, as you said")
    guess.date_formats[text.name] = date_format
    return cast


def _note_dates(guess: Guess, name: str, read: ReadTimes) -> None:
    if read.order is None:
        return
    way_out = f"`day_first: {str(not read.day_first).lower()}` in its `source`"
    if len(read.formats) == 1 and "%y" in read.formats[0]:
        guess.date_formats[name] = read.formats[0]
        other = read.order.other or _swapped(read.formats[0])
        way_out = f"--time-format '{name}={other}', or `date_formats` in its `source`"
    elif read.doubt:
        guess.settings["day_first"] = bool(read.day_first)
    if read.doubt:
        guess.unsure.append(f"{read.doubt} If that is wrong: {way_out}.")
    else:
        guess.found.append(f"`{name}` is {' or '.join(read.formats)}, since {read.order.why}")


def _leading_zeros(guess: Guess, known: pl.Series) -> bool:
    zeros = known.filter(known.str.contains(LEADING_ZERO))
    if len(zeros):
        guess.unsure.append(
            f"`{known.name}` holds digits with leading zeros such as {zeros[0]}: read as texts, "
            "which keeps them. If they are amounts: type numeric."
        )
    return bool(len(zeros))


def _note_amounts(guess: Guess, known: pl.Series) -> None:
    decorated = known.filter(known.str.contains(_DECORATED))
    if len(decorated):
        share = as_float(known.str.contains("%", literal=True).mean())
        mixed = f"; {share:.0%} of them have a %, the others none: are they of one unit?"
        guess.unsure.append(
            f"`{known.name}` holds amounts such as {decorated[0].strip()}, read as numbers without "
            "their signs" + (mixed if 0 < share < 1 else ".")
        )


def _guess_target(guess: Guess, text: pl.Series, cast: Cast) -> Cast:
    """A target of words: without the marks of missing labels, and two classes whatever their
    capitals."""
    if cast.values.dtype.is_float():
        finite = cast.without_infinite("a finite number")
        known = finite.values.drop_nulls()
        if known.n_unique() > _MOST_CODES or not (known == known.floor()).all():
            return cast
        return replace(finite, values=finite.values.cast(pl.Int64))  # 2.0 is 2
    words = cast_words(text)
    if cast.values.dtype != pl.String:
        return cast
    if words.values.dtype != pl.String:
        return words
    first: dict[str, str] = {}
    common = words.values.drop_nulls().value_counts(sort=True)[text.name].to_list()
    same = {word: first.setdefault(without_case(word), word) for word in common}
    guess.unsure += [
        f"`{text.name}` has a class `{word}`: a class, or a missing label? Leave those cells empty "
        "if so."
        for word in common
        if word in _CLOSED_WORDS
    ]
    alike = [word for word, other in same.items() if word != other]
    if not alike or len(first) < 2:
        return words
    what = (
        ": taken for one."
        if len(first) == 2
        else ", and are classes of their own: mend the data if not."
    )
    guess.unsure.append(
        f"`{same[alike[0]]}` and `{alike[0]}` of `{text.name}` differ in their capitals only{what}"
    )
    return replace(words, values=words.values.replace(same)) if len(first) == 2 else words


def _note_unread(guess: Guess, frame: pl.DataFrame, name: str, cast: Cast) -> None:
    rows = cast.unread.arg_true().to_list()
    if rows:
        guess.unsure.append(
            f"{len(rows):,} of {len(frame):,} values of `{name}` are not {cast.kind}, such as "
            f"'{frame[name][rows[0]][:40]}' ({find_places(frame, rows[:1])[0]}): those rows go to "
            "quarantine."
        )
