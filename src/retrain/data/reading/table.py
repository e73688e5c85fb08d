"""Files as one table: read as text where they are text, and cast column by column over all of them.

A cell that doesn't fit its column is null in the table. What was there, and where, stands in two
columns of our own, which the schema takes out again: its row goes to quarantine. Tables in which
everything fits don't have them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from retrain.columns import own_column, refuse_reserved
from retrain.data.reading.casting import Cast, Caster, cast_as_found, plain_numbers
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.files import Part, find_files, read_parts
from retrain.data.reading.times import ReadTimes
from retrain.errors import DataError

log = logging.getLogger("retrain")
PROBLEM, PLACE = own_column("problem"), own_column("place")
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
        part for system, path in found.files for part in read_parts(path, system, dialect, needed)
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
    """One table from all files that the paths, globs or URLs name. Columns that some of them lack
    are null there.

    Raises DataError also for dates among the columns `strict` that may be day-first or month-first.
    """
    parts = load_parts(paths, dialect, casters)
    for place in parts.empty:
        log.info("%s has no rows: it is left out until it has.", place)
    return cast_parts(parts.filled, casters, strict)


def read_one(
    path: Path,
    dialect: Dialect,
    casters: Mapping[str, Caster],
    strict: Collection[str] = (),
    whole: Collection[str] = (),
) -> pl.DataFrame:
    """The table of one local file, which may have no rows. A line of text that ends before one of
    the columns `whole` is a problem of its row; elsewhere cells at the end may be left out, as some
    programs do with empty ones."""
    return cast_parts(read_parts(path, None, dialect, casters, whole), casters, strict)


def cast_parts(
    parts: list[Part], casters: Mapping[str, Caster], strict: Collection[str] = ()
) -> pl.DataFrame:
    """Text parts cast together, typed ones as they are."""
    if all(part.is_text for part in parts):
        return _cast(parts, casters, strict)
    return join(
        [_cast([part], casters, strict) if part.is_text else part.frame for part in parts], parts
    )


def join(frames: list[pl.DataFrame], parts: Sequence[Part]) -> pl.DataFrame:
    """Raises DataError when the parts give a column types that can't be one."""
    try:
        return pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"The files {', '.join(part.place for part in parts[:5])} do not fit together: "
            f"{str(error).splitlines()[0]}. Give a "
            "column one type in all of them."
        ) from error


def _cast(
    parts: list[Part], casters: Mapping[str, Caster], strict: Collection[str]
) -> pl.DataFrame:
    for part in parts:
        refuse_reserved(part.frame.columns, part.place)
    frame = join([part.frame for part in parts], parts)
    texts = text_columns(frame)
    others = plain_numbers(frame, [name for name in texts if name not in casters])
    frame = frame.with_columns(others.values())
    casts = {
        name: casters.get(name, cast_as_found)(frame[name]) for name in texts if name not in others
    }
    for name in strict:
        read = casts[name].times if name in casts else None
        if read is not None and read.undecided:
            refuse_undecided(read)
    return with_problems(frame, casts, parts, next(iter(strict), None))


def refuse_undecided(read: ReadTimes) -> None:
    """Raises DataError for dates of which nothing tells whether the day or the month comes
    first."""
    raise DataError(
        f"{(read.doubt or '').split(': read')[0]}. Say it under `data.source` in conf/data/: "
        "`day_first: true` or `false`, or how "
        "it is written: `time_format` for the time column, `date_formats: {column: ...}` for "
        "another; then `dvc repro`."
    )


def cast_texts(frame: pl.DataFrame, casters: Mapping[str, Caster]) -> pl.DataFrame:
    """A typed table, of whose text columns some are something else by the schema."""
    return with_problems(frame, {name: caster(frame[name]) for name, caster in casters.items()})


def text_columns(frame: pl.DataFrame) -> list[str]:
    """Columns of text, or of nothing at all, whose type is still open."""
    return [name for name, dtype in frame.schema.items() if dtype == pl.String]


def with_problems(
    frame: pl.DataFrame,
    casts: Mapping[str, Cast],
    parts: Sequence[Part] = (),
    required: str | None = None,
) -> pl.DataFrame:
    """The frame with its cast columns, and beside them what didn't fit, or is missing in the column
    `required`."""
    found = [
        pl.DataFrame({"row": rows.cast(pl.Int64)}).with_columns(why=pl.lit(why))
        for rows, why in _wrong_rows(frame, casts, parts, required)
        if len(rows)
    ]
    typed = frame.with_columns(cast.values.alias(name) for name, cast in casts.items())
    if not found:
        return typed
    problems = pl.concat(found).group_by("row", maintain_order=True)
    problems = problems.agg(pl.col("why").str.join("; ")).sort("row")
    empty = pl.Series([None], dtype=pl.String).new_from_index(0, len(frame))
    return typed.with_columns(
        empty.scatter(problems["row"], problems["why"]).alias(PROBLEM),
        empty.scatter(problems["row"], places(problems["row"], parts)).alias(PLACE),
    )


def _wrong_rows(
    frame: pl.DataFrame, casts: Mapping[str, Cast], parts: Sequence[Part], required: str | None
) -> Iterator[tuple[pl.Series, pl.Series | str]]:
    """Numbers of rows, and what is wrong with them: one reason for each, or for all."""
    for name, cast in casts.items():
        rows = cast.unread.arg_true()
        shown = frame[name].gather(rows)
        shown = shown.str.head(_SHOWN) + shown.str.slice(_SHOWN).str.replace(r"(?s).+", "…")
        yield rows, f"{name}: '" + shown + f"' is not {cast.kind}"
    if required in casts:
        cast = casts[required]
        yield (cast.values.is_null() & ~cast.unread).arg_true(), f"{required}: missing"
    for start, part in zip(_starts(parts), parts, strict=True):
        if part.text is not None:
            for which, odd in (("more", part.text.too_long), ("fewer", part.text.cut_off)):
                rows = pl.Series(odd, dtype=pl.Int64) + start
                yield rows, f"it has {which} cells than the header has columns"


def places(rows: pl.Series, parts: Sequence[Part]) -> pl.Series:
    """File and line of some rows of the joined parts, in ascending order."""
    found = [pl.Series(dtype=pl.String)]
    for start, part in zip(_starts(parts), parts, strict=True):
        inside = rows.filter((rows >= start) & (rows < start + len(part.frame)))
        if len(inside):
            found.append(part.where(inside - start))
    return (
        pl.concat(found)
        if parts
        else pl.Series([None], dtype=pl.String).new_from_index(0, len(rows))
    )


def locate_rows(rows: Sequence[int], parts: Sequence[Part]) -> list[str]:
    """File and line of some rows of the joined parts, in any order."""
    ascending = pl.Series(sorted(set(rows)), dtype=pl.Int64)
    known = dict(zip(ascending, places(ascending, parts), strict=True))
    return [known[row] for row in rows]


def _starts(parts: Sequence[Part]) -> list[int]:
    sizes = [len(part.frame) for part in parts]
    return [sum(sizes[:number]) for number in range(len(sizes))]


def add_problem(frame: pl.DataFrame, wrong: pl.Series, why: pl.Series) -> pl.DataFrame:
    """Mark more rows as ones for the quarantine. A row that has a reason already keeps it alone."""
    if not wrong.any():
        return frame
    missing = [name for name in (PROBLEM, PLACE) if name not in frame.columns]
    frame = frame.with_columns(pl.lit(None, pl.String).alias(name) for name in missing)
    return frame.with_columns(pl.coalesce(PROBLEM, why.set(~wrong, None)).alias(PROBLEM))


def split_problems(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """The frame without our columns, and the reason why each row goes to quarantine, null for sound
    rows."""
    if PROBLEM not in frame.columns:
        return frame, pl.Series([None], dtype=pl.String).new_from_index(0, len(frame))
    return frame.drop(PROBLEM, PLACE), frame[PROBLEM] + (" (" + frame[PLACE] + ")").fill_null("")
