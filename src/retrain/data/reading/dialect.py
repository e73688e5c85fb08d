"""Text files as tables of text: encoding, separator and quotes. What the texts mean is decided
later, column by column."""

from __future__ import annotations

import codecs
import csv
import functools
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import polars as pl

from retrain.errors import ConfigError, DataError

SEPARATORS = (",", ";", "\t", "|")
SEPARATOR_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
FALLBACK_ENCODING = "cp1252"
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 64 * 1024
_LINES = 50


@dataclass(frozen=True)
class Dialect:
    """How text files are written. What is None is found out from the files themselves.

    `decimal` is the sign before the decimals, a point where nothing is said. `day_first` says how
    dates such as 01/02/2023 are meant, `date_formats` how those of single columns beside the time
    column are written.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    day_first: bool | None = None
    date_formats: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def checked(
        cls,
        separator: str | None,
        decimal: str | None,
        encoding: str | None,
        day_first: bool | None,
        date_formats: Mapping[str, str] | None = None,
    ) -> Dialect:
        """Raises ConfigError for a value that can't be."""
        separator = SEPARATOR_NAMES.get(separator, separator) if separator else None
        if separator is not None and (len(separator.encode()) != 1 or separator in '"\r\n'):
            raise ConfigError(
                f"{separator!r} can't separate columns (--separator, `data.source.separator`): it "
                "is one character, such as "
                "`,`, `;`, `|` or the word tab."
            )
        if decimal not in (None, ".", ","):
            raise ConfigError(
                f"{decimal!r} can't be a decimal sign (--decimal, `data.source.decimal`): it is "
                "`.` or `,`."
            )
        if encoding is not None:
            try:
                codecs.lookup(encoding)
            except LookupError:
                raise ConfigError(
                    f"There is no encoding {encoding!r} (--encoding, `data.source.encoding`): say "
                    "utf-8, cp1252, latin-1, "
                    "utf-16 or another one that Python knows."
                ) from None
        return cls(separator, decimal, encoding, day_first, date_formats or {})


@dataclass(frozen=True)
class TextTable:
    """A file as text: all columns are strings, empty cells null. `too_long` are rows with more
    cells than the header, `cut_off` those that end before a column of which every row must have a
    cell."""

    frame: pl.DataFrame
    separator: str
    encoding: str
    sure_encoding: bool
    lines: Callable[[pl.Series], pl.Series]  # of some rows, in the file
    too_long: tuple[int, ...] = ()
    cut_off: tuple[int, ...] = ()


def read_text(
    content: bytes,
    dialect: Dialect,
    place: str,
    needed: Collection[str] = (),
    whole: Collection[str] = (),
) -> TextTable:
    """A CSV file's bytes as a table of text. `needed` columns help to tell the separator. Rows
    without a cell, be it an empty one, for each of the columns `whole` are cut off.

    Raises DataError, naming `place`, when the bytes have another encoding or the header names a
    column twice.
    """
    content, encoding, sure = _to_utf8(content, dialect.encoding, place)
    sample = content[:_SAMPLE].decode("utf-8", errors="ignore")
    first = sample.splitlines()[0] if sample.strip() else ""
    told = re.fullmatch(r'"?sep=(.)"?', first)  # Excel's own way to say it
    if told:
        content, sample = content.split(b"\n", 1)[-1], sample.split("\n", 1)[-1]
    separator = dialect.separator or (told[1] if told else find_separator(sample, needed))
    header = _header(sample, separator)
    twice = sorted(name for name, count in Counter(header).items() if name and count > 1)
    if twice:
        raise DataError(
            f"{place} has more than one column named `{twice[0]}`, so nothing tells which is "
            "meant. Rename one of them at the "
            "source, or leave it out."
        )
    offset = 2 if told else 1
    if not header:
        return TextTable(pl.DataFrame(), separator, encoding, sure, lambda rows: rows + offset)
    _check_separator(header, sample, dialect.separator, needed, place)
    padded = any(name.startswith(" ") for name in header[1:]) and not any(
        name in needed for name in header[1:]
    )
    try:
        if padded:
            raise pl.exceptions.ComputeError
        frame = pl.read_csv(content, separator=separator, infer_schema=False)
        # Polars leaves the quotes in a column's name doubled.
        doubled = zip(frame.columns, header, strict=False)
        frame = frame.rename(
            {read: name for read, name in doubled if read == name.replace('"', '""')}
        )
        if set(whole) & set(header) and frame.to_series(-1).null_count():
            # Polars fills up a row that is cut off as if its cells were empty
            raise pl.exceptions.ComputeError
        too_long: tuple[int, ...] = ()
        cut_off: tuple[int, ...] = ()
        lines = _lines_of(frame, offset + sum(name.count("\n") for name in frame.columns))
    except pl.exceptions.PolarsError:
        frame, lines, too_long, cut_off = _read_slowly(
            content, separator, place, offset - 1, padded, whole
        )
    if b'""' in content:
        empty = frame.select((pl.all() == "").any()).row(0, named=True)
        frame = frame.with_columns(
            frame[name].set(frame[name] == "", None) for name, some in empty.items() if some
        )
    blank = (
        frame.select(pl.all_horizontal(pl.all().is_null())).to_series() if frame.width > 1 else None
    )
    if blank is not None and blank.any():
        kept = (~blank).arg_true()
        places = {int(row): number for number, row in enumerate(kept)}
        too_long, cut_off = (
            tuple(places[row] for row in rows if row in places) for rows in (too_long, cut_off)
        )
        frame, lines = frame.filter(~blank), _through(lines, kept)
    frame = frame.drop(
        [name for name in frame.columns if not name]
    )  # such as the index that pandas writes
    return TextTable(frame, separator, encoding, sure, lines, too_long, cut_off)


def _check_separator(
    header: list[str], sample: str, said: str | None, needed: Collection[str], place: str
) -> None:
    """Raises DataError when the separator that was said gives none of the columns, and another one
    does."""
    if said is None or not needed or set(header) & set(needed):
        return
    found = find_separator(sample, needed)
    if set(_header(sample, found)) & set(needed):
        raise DataError(
            f"{place} separates its columns by {found!r}, not by {said!r} (--separator, "
            "`data.source.separator`). Write it as the "
            "other files are, or take the key away: then each file is looked at."
        )


def find_separator(sample: str, needed: Collection[str] = ()) -> str:
    """The separator of a file's first lines: that under which they have the columns `needed`, and
    as many cells as the header."""
    scores = {}
    for sign in SEPARATORS:
        rows = [row for row in _rows(sample, sign) if row]
        if not rows or len(rows[0]) < 2:
            continue
        alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
        scores[sign] = (len(set(needed) & set(rows[0])), alike > 0.9, len(rows[0]))
    return max(scores, key=scores.__getitem__) if scores else ","


def _rows(sample: str, separator: str) -> list[list[str]]:
    rows = []
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=separator)
    try:
        for row in reader:
            rows.append(row)
            if len(rows) > _LINES:
                break
    except csv.Error:
        pass
    # The last row may be cut off in the middle.
    return (
        rows[:-1] if len(rows) > 2 and len(rows) <= _LINES and len(sample) > _SAMPLE // 2 else rows
    )


def _header(sample: str, separator: str) -> list[str]:
    return next((row for row in _rows(sample, separator) if row), [])


def _to_utf8(content: bytes, encoding: str | None, place: str) -> tuple[bytes, str, bool]:
    """UTF-8 bytes without a byte order mark and with lines that end in a line feed; the encoding
    found, and whether it is sure."""
    sure = True
    mark = next((name for sign, name in _BYTE_ORDER_MARKS if content.startswith(sign)), None)
    if mark is not None:
        encoding = mark
    elif encoding is None and (wide := _wide_characters(content[:1000])):
        encoding = wide
    elif encoding is None:
        try:
            content.decode("utf-8")
            encoding = "utf-8"
        except UnicodeDecodeError:
            encoding, sure = FALLBACK_ENCODING, False
    if mark == "utf-8-sig":
        content = content[len(codecs.BOM_UTF8) :]
    elif encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        content = _decode(content, encoding, place, sure).encode("utf-8")
    elif mark is None:
        _decode(content, encoding, place, sure)
    if b"\r" in content[:_SAMPLE] and b"\n" not in content:
        content = content.replace(b"\r", b"\n")
    return content, "utf-8" if mark == "utf-8-sig" else encoding, sure


def _wide_characters(start: bytes) -> str | None:
    """UTF-16 without a mark shows by its zeros, one in two bytes of Latin letters."""
    for name, first in (("utf-16-be", 0), ("utf-16-le", 1)):
        half = start[first::2]
        if half and half.count(0) > 0.5 * len(half):
            return name
    return None


def _decode(content: bytes, encoding: str, place: str, sure: bool) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if not sure:  # five bytes have no meaning in it
            return content.decode("latin-1")
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{place} is not {encoding}: line {line} has the byte {content[error.start]:#04x}. Say "
            "how it is encoded with "
            "--encoding or `data.source.encoding`, such as cp1252 or utf-16."
        ) from None


def _lines_of(frame: pl.DataFrame, header: int) -> Callable[[pl.Series], pl.Series]:
    """The line of a row, also where cells before it hold line breaks."""

    @functools.cache
    def breaks() -> pl.Series:
        counts = [values.str.count_matches("\n", literal=True).fill_null(0) for values in frame]
        inside = functools.reduce(lambda total, more: total + more, counts).cast(pl.Int64)
        return inside.cum_sum() - inside

    return lambda rows: rows + breaks().gather(rows) + header + 1


def _through(
    lines: Callable[[pl.Series], pl.Series], kept: pl.Series
) -> Callable[[pl.Series], pl.Series]:
    return lambda rows: lines(kept.gather(rows).cast(pl.Int64))


def _read_slowly(
    content: bytes, separator: str, place: str, skipped: int, padded: bool, whole: Collection[str]
) -> tuple[pl.DataFrame, Callable[[pl.Series], pl.Series], tuple[int, ...], tuple[int, ...]]:
    """A file whose rows may have too many cells or too few, odd quotes, or spaces behind the
    separators, and which rows are too long or cut off. Raises DataError for quotes that are never
    closed."""
    reader = csv.reader(
        io.StringIO(content.decode("utf-8"), newline=""),
        delimiter=separator,
        strict=True,
        skipinitialspace=padded,
    )
    header: list[str] = []
    rows: list[list[str | None]] = []
    lines, too_long, cut_off, begins = [], [], [], 1
    try:
        for cells in reader:
            if not header:
                header = cells
            elif cells:
                if any(cells[len(header) :]):
                    too_long.append(len(rows))
                if any(name in whole for name in header[len(cells) :]):
                    cut_off.append(len(rows))
                rows.append(
                    [cell or None for cell in cells[: len(header)]]
                    + [None] * (len(header) - len(cells))
                )
                lines.append(begins + skipped)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{place} can't be read: the row that begins in line {begins + skipped} has quotes "
            f"that don't fit ({error}). Is the file "
            "whole? Mend the row, or replace the file."
        ) from None
    columns = [
        pl.Series(name, values, dtype=pl.String)
        for name, values in zip(header, zip(*rows, strict=True), strict=True)
    ]
    numbers = pl.Series(lines, dtype=pl.Int64)
    return pl.DataFrame(columns), numbers.gather, tuple(too_long), tuple(cut_off)
