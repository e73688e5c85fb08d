"""Text files as tables of text: encoding, separator and quotes. What the texts mean is decided
later, column by column."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import polars as pl

from retrain.columns import refuse_reserved
from retrain.data.reading.parts import PROBLEM, Part, with_places
from retrain.errors import ConfigError, DataError

SEPARATORS = (",", ";", "\t", "|")
SEPARATOR_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
FALLBACK_ENCODING = "cp1252"
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SAMPLE = 64 * 1024
_LINES = 50


@dataclass(frozen=True)
class Dialect:
    """How text files are written. What is None is found out from the files themselves.

    `decimal` is the sign before the decimals, a point where nothing is said. `day_first` says how
    dates such as 01/02/2023 are meant, `date_formats` how those of single columns beside the time
    column are written. Raises ConfigError for a value that can't be.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    day_first: bool | None = None
    date_formats: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.separator or None
        separator = SEPARATOR_NAMES.get(given, given) if given else None
        object.__setattr__(self, "separator", separator)
        object.__setattr__(self, "date_formats", self.date_formats or {})
        if separator is not None and (len(separator.encode()) != 1 or separator in '"\r\n'):
            _refuse("separator", separator, "one character, such as `,`, `;`, `|` or the word tab")
        if self.decimal not in (None, ".", ","):
            _refuse("decimal", self.decimal, "`.` or `,`")
        try:
            codecs.lookup(self.encoding or "utf-8")
        except LookupError:
            _refuse("encoding", self.encoding, "one that Python knows: utf-8, cp1252, utf-16, ...")


def _refuse(key: str, value: str | None, wanted: str) -> None:
    raise ConfigError(
        f"{value!r} can't be the {key} of text files",
        hint=f"give {wanted} (--{key}, `data.source.{key}`)",
    )


def read_text(
    content: bytes,
    dialect: Dialect,
    place: str,
    needed: Collection[str] = (),
    whole: Collection[str] = (),
) -> Part:
    """A CSV file's bytes as a table of text: all columns are strings, empty cells null. `needed`
    columns help to tell the separator. A row is a problem that has more cells than the header, or
    ends before one of the columns `whole`.

    Raises DataError, naming `place`, when the bytes have another encoding or the header names a
    column twice.
    """
    content, encoding, sure = _to_utf8(content, dialect.encoding, place)
    skipped = 0
    marked = re.match(rb'"?sep=(.)"?\r?\n', content)  # Excel's own way to say it
    if marked:
        content, skipped = content[marked.end() :], 1
    sample = content[:_SAMPLE].decode("utf-8", errors="ignore")
    separator = dialect.separator or (marked and marked[1].decode())
    separator = separator or find_separator(sample, needed)
    header = _header(sample, separator)
    _check_header(header, sample, dialect.separator, needed, place)
    frame = pl.DataFrame()
    if any(header):
        frame, lines = _read_cells(content, separator, header, place, needed, whole)
        frame = with_places(_tidied(frame), f"{place}, line", lines + skipped).filter(
            ~_blank(frame)
        )
    return Part(place, frame, True, separator, encoding, sure)


def _check_header(
    header: list[str], sample: str, given: str | None, needed: Collection[str], place: str
) -> None:
    """Raises DataError when the header names a column twice or as one of ours, or when the
    separator that was given yields none of the columns and another one does."""
    twice = sorted(name for name in header if name and header.count(name) > 1)
    if twice:
        raise DataError(
            f"{place} has more than one column named `{twice[0]}`, so nothing tells which is "
            "meant.",
            hint="rename one of them at the source, or leave it out",
        )
    refuse_reserved(header, place)
    if given is None or set(header) & set(needed):
        return
    found = find_separator(sample, needed)
    if set(_header(sample, found)) & set(needed):
        raise DataError(
            f"{place} separates its columns by {found!r}, not by {given!r} (--separator, "
            "`data.source.separator`).",
            hint="write it as the other files are, or take the key away: each file is then looked "
            "at by itself",
        )


def find_separator(sample: str, needed: Collection[str] = ()) -> str:
    """The separator of a file's first lines: that under which they have the columns `needed`, and
    as many cells as the header."""
    scores = {}
    for sign in SEPARATORS:
        rows = _rows(sample, sign)
        if rows and len(rows[0]) > 1:
            alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
            scores[sign] = (len(set(needed) & set(rows[0])), alike > 0.9, len(rows[0]))
    return max(scores, key=scores.__getitem__, default=",")


def _rows(sample: str, separator: str) -> list[list[str]]:
    """The first rows that have cells."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(sample, newline=""), delimiter=separator):
            rows += [row] if row else []
            if len(rows) > _LINES:
                break
    except csv.Error:
        pass
    # The last row may be cut off in the middle.
    cut = 2 < len(rows) <= _LINES and len(sample) > _SAMPLE // 2
    return rows[:-1] if cut else rows


def _header(sample: str, separator: str) -> list[str]:
    return next(iter(_rows(sample, separator)), [])


def _to_utf8(content: bytes, encoding: str | None, place: str) -> tuple[bytes, str, bool]:
    """UTF-8 bytes without a byte order mark and with lines that end in a line feed; the encoding
    found, and whether it is sure."""
    marked = (name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark))
    encoding = next(marked, encoding)
    if encoding is None and b"\0" in content[:100]:  # UTF-16 without a mark: no text holds zeros
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    sure = True
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            line = content[: error.start].count(b"\n") + 1
            raise DataError(
                f"{place} is not {encoding}: line {line} has the byte {content[error.start]:#04x}.",
                hint="say how it is encoded with --encoding or `data.source.encoding`, such as "
                "cp1252 or utf-16",
            ) from None
        encoding, sure = FALLBACK_ENCODING, False
        text = content.decode(encoding, errors="replace")
    if encoding is not None:
        content = text.encode("utf-8")
    if b"\r" in content[:_SAMPLE] and b"\n" not in content:
        content = content.replace(b"\r", b"\n")
    return content, (encoding or "utf-8").removesuffix("-sig"), sure


def _read_cells(
    content: bytes,
    separator: str,
    header: list[str],
    place: str,
    needed: Collection[str],
    whole: Collection[str],
) -> tuple[pl.DataFrame, pl.Series]:
    """Cells as text, and the line in which each row begins."""
    padded = any(name.startswith(" ") for name in header[1:]) and not set(header[1:]) & set(needed)
    if not padded:
        try:
            frame = pl.read_csv(content, separator=separator, infer_schema=False)
        except pl.exceptions.PolarsError:
            return _read_slowly(content, separator, place, padded, whole)
        # Polars fills up a row that is cut off as if its cells were empty.
        checked = not set(whole) & set(header) or not frame.to_series(-1).null_count()
        if checked or _all_whole(content, separator, frame):
            # Polars leaves the quotes in a column's name doubled.
            doubled = {name.replace('"', '""'): name for name in header if '"' in name}
            frame = frame.rename(doubled, strict=False)
            return frame, _lines_of(frame, content)
    return _read_slowly(content, separator, place, padded, whole)


def _all_whole(content: bytes, separator: str, frame: pl.DataFrame) -> bool:
    """Whether no row is cut off, where that can be counted: none has a cell too many."""
    separators = content.count(separator.encode())
    return b'"' not in content and separators == (len(frame) + 1) * (frame.width - 1)


def _lines_of(frame: pl.DataFrame, content: bytes) -> pl.Series:
    """The line of each row, also where cells before it hold line breaks."""
    lines = pl.int_range(len(frame), eager=True) + 2 + "".join(frame.columns).count("\n")
    if content.count(b"\n") <= len(frame) + 1:
        return lines
    breaks = frame.select(pl.sum_horizontal(pl.all().str.count_matches("\n"))).to_series()
    return lines + breaks.cum_sum().shift(1, fill_value=0)


def _read_slowly(
    content: bytes, separator: str, place: str, padded: bool, whole: Collection[str]
) -> tuple[pl.DataFrame, pl.Series]:
    """A file whose rows may have too many cells or too few, odd quotes, or spaces behind the
    separators. Raises DataError for quotes that are never closed."""
    text = io.StringIO(content.decode("utf-8"), newline="")
    reader = csv.reader(text, delimiter=separator, strict=True, skipinitialspace=padded)
    rows: list[list[str | None]] = []
    header, lines, begins = list[str](), list[int](), 1
    try:
        for cells in reader:
            if not header:
                header = cells
            elif cells:
                odd = "more" if any(cells[len(header) :]) else None
                odd = "fewer" if set(header[len(cells) :]) & set(whole) else odd
                problem = odd and f"it has {odd} cells than the header has columns"
                row = [cell or None for cell in cells[: len(header)]]
                rows.append([*row, *[None] * (len(header) - len(row)), problem])
                lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{place} can't be read: the row that begins in line {begins} has quotes that don't "
            f"fit ({error}).",
            hint="mend the row, or replace the file if it is not whole",
        ) from None
    frame = pl.DataFrame(rows, dict.fromkeys([*header, PROBLEM], pl.String), orient="row")
    if not frame[PROBLEM].count():
        frame = frame.drop(PROBLEM)
    return frame, pl.Series(lines, dtype=pl.Int64)


def _tidied(frame: pl.DataFrame) -> pl.DataFrame:
    """Empty texts as null, and no column without a name, such as the index that pandas writes."""
    named = frame.select(name for name in frame.columns if name)
    empty = named.select((pl.all() == "").any()).row(0, named=True)
    return named.with_columns(
        pl.col(name).replace("", None) for name, some in empty.items() if some
    )


def _blank(frame: pl.DataFrame) -> pl.Series:
    """Rows of nothing but separators."""
    if frame.width < 2:
        return pl.Series([False]).new_from_index(0, len(frame))
    return frame.select(pl.all_horizontal(pl.all().is_null() | (pl.all() == ""))).to_series()
