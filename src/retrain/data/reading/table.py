"""Files as one table: read as text where they are text, and cast column by column over all of them.

A cell that doesn't fit its column is null in the table, and its row has a problem: it goes to
quarantine.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from retrain.data.reading.casting import Cast, Caster, cast_as_found, plain_numbers
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.files import find_files, read_parts
from retrain.data.reading.parts import PROBLEM, Part
from retrain.data.reading.times import ReadTimes
from retrain.errors import DataError

log = logging.getLogger("retrain")
_SHOWN = 40  # characters of a value


@dataclass(frozen=True)
class Parts:
    """The parts of a table that have rows, in order, and those that have none yet."""

    filled: list[Part]
    empty: list[str]
    ignored: list[str]


def load_parts(paths: str | Sequence[str], dialect: Dialect, needed: Collection[str] = ()) -> Parts:
    """Raises DataError when a path names no file, a file can't be read, or none of them has a
    row."""
    found = find_files(paths)
    parts = [
        part for system, path in found.files for part in read_parts(path, dialect, needed, system)
    ]
    filled = [part for part in parts if len(part.frame)]
    if not filled:
        names = ", ".join(part.place for part in parts[:3])
        raise DataError(f"{names}: there are no rows in it, so nothing can be read.")
    return Parts(filled, [part.place for part in parts if not len(part.frame)], found.ignored)


def read_table(
    paths: str | Sequence[str],
    dialect: Dialect,
    casters: Mapping[str, Caster],
    strict: Collection[str] = (),
) -> pl.DataFrame:
    """One table from all files that the paths, globs or URLs name, with the place of each row.
    Columns that some of them lack are null there.

    Raises DataError also for dates among the columns `strict` that may be day-first or month-first.
    """
    parts = load_parts(paths, dialect, casters)
    for place in parts.empty:
        log.info("%s has no rows: it is left out until it has.", place)
    return _cast_parts(parts.filled, casters, strict)


def read_one(
    path: Path | str,
    dialect: Dialect,
    casters: Mapping[str, Caster],
    strict: Collection[str] = (),
    whole: Collection[str] = (),
    shown: str | None = None,
    filesystem: Any = None,
) -> pl.DataFrame:
    """The table of one file, which may have no rows, under a name to be shown. A line of text
    that ends before one of the columns `whole` is a problem of its row; elsewhere cells at the end
    may be left out, as some programs do with empty ones."""
    parts = read_parts(str(path), dialect, casters, filesystem, whole, shown)
    return _cast_parts(parts, casters, strict)


def _cast_parts(
    parts: list[Part], casters: Mapping[str, Caster], strict: Collection[str]
) -> pl.DataFrame:
    """Text parts cast together, typed ones as they are."""
    texts = [part for part in parts if part.is_text]
    frames = [_cast(join(texts), casters, strict)] if texts else []
    return join([*frames, *(part for part in parts if not part.is_text)])


def join(parts: Sequence[Part | pl.DataFrame]) -> pl.DataFrame:
    """Raises DataError when the parts give a column types that can't be one."""
    frames = [part.frame if isinstance(part, Part) else part for part in parts]
    try:
        return pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        places = [part.place for part in parts if isinstance(part, Part)]
        raise DataError(
            f"The files {', '.join(places[:5])} do not fit together: {str(error).splitlines()[0]}.",
            hint="give a column one type in all of them",
        ) from error


def _cast(
    frame: pl.DataFrame, casters: Mapping[str, Caster], strict: Collection[str]
) -> pl.DataFrame:
    texts = text_columns(frame)
    others = plain_numbers(frame, [name for name in texts if name not in casters])
    casts = {
        name: casters.get(name, cast_as_found)(frame[name]) for name in texts if name not in others
    }
    for name in strict:
        read = casts[name].times if name in casts else None
        if read is not None and read.undecided:
            refuse_undecided(read)
    frame = frame.with_columns(others.values())
    return with_problems(frame, casts, next(iter(strict), None))


def refuse_undecided(read: ReadTimes) -> None:
    """Raises DataError for dates of which nothing tells whether the day or the month comes
    first."""
    raise DataError(
        f"{(read.doubt or '').split(': read')[0]}.",
        hint="say it under `data.source` in conf/data/: `day_first: true` or `false`, or how it is "
        "written: `time_format` for the time column, `date_formats: {column: ...}` for "
        "another; then `dvc repro`",
    )


def text_columns(frame: pl.DataFrame) -> list[str]:
    """Columns of text, or of nothing at all, whose type is still open."""
    return [name for name, dtype in frame.schema.items() if dtype == pl.String and name != PROBLEM]


def with_problems(
    frame: pl.DataFrame, casts: Mapping[str, Cast], required: str | None = None
) -> pl.DataFrame:
    """The frame with its cast columns, and beside them what didn't fit, or is missing in the column
    `required`."""
    problems = list(_problems(frame, casts, required))
    typed = frame.with_columns(cast.values.alias(name) for name, cast in casts.items())
    if not problems:
        return typed
    reason = pl.concat_str(map(pl.lit, problems), separator="; ", ignore_nulls=True)
    return typed.with_columns(reason.replace("", None).alias(PROBLEM))


def _problems(
    frame: pl.DataFrame, casts: Mapping[str, Cast], required: str | None
) -> Iterator[pl.Series]:
    """By column, and as they were found before, what is wrong with rows, null where nothing is."""
    for name, cast in casts.items():
        if not cast.fits:
            text = frame[name].set(~cast.unread, None)
            shown = text.str.head(_SHOWN) + text.str.slice(_SHOWN).str.replace(r"(?s).+", "…")
            yield f"{name}: '" + shown + f"' is not {cast.kind}"
        if name == required and (missing := cast.values.is_null() & ~cast.unread).any():
            why = pl.Series([f"{name}: missing"]).new_from_index(0, len(frame))
            yield why.set(~missing, None)
    if PROBLEM in frame.columns:
        yield frame[PROBLEM]
