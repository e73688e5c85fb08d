"""Files of every kind that a table may lie in: where they are, how they are packed, and what is in
them before types are decided."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from retrain.data.reading.dialect import Dialect, TextTable, read_text
from retrain.errors import DataError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zip": "zip"}
PARQUET, TEXT, JSON = (".parquet", ".pq"), (".csv", ".tsv"), (".jsonl", ".ndjson")
FORMATS = (*PARQUET, *TEXT, *JSON)
WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
SUFFIXES = (
    *FORMATS,
    *(kind + packed for kind in (*TEXT, *JSON) for packed in COMPRESSIONS),
    ".zip",
)


@dataclass(frozen=True)
class Part:
    """One file, or one member of a zip: its rows, and where they lie. `text` holds how a CSV was
    read."""

    place: str
    frame: pl.DataFrame
    is_text: bool
    text: TextTable | None = None

    def where(self, rows: pl.Series) -> pl.Series:
        """Places of some rows, for a person who looks for them."""
        lines = self.text.lines(rows) if self.text else rows + 1
        return self.place + (", line " if self.is_text else ", row ") + lines.cast(pl.String)


@dataclass(frozen=True)
class Found:
    """The files that paths name: each with its file system; and what a glob named that is no
    table."""

    files: list[tuple[Any, str]]
    ignored: list[str] = field(default_factory=list)


def readable(name: str) -> bool:
    """Whether a file's name ends as that of a table does, in capitals or not, and it is not
    hidden."""
    return name.lower().endswith(SUFFIXES) and not Path(name).name.startswith(".")


def refuse_other_kinds(path: Path | str) -> None:
    """Raises DataError for what is no file of a kind that is read: a folder, a workbook, another
    ending."""
    name = Path(path).name
    takes = f"{', '.join(FORMATS)}; text also with {', '.join(COMPRESSIONS)} after that"
    if Path(path).is_dir():
        raise DataError(
            f"{path} is a folder. Give one file, or for `retrain init` a glob such as "
            f"'{path}/*.csv', of these endings: {takes}."
        )
    if name.lower().endswith(WORKBOOKS):
        raise DataError(
            f"{name} is a workbook. Save its sheet as CSV, or as one of these: {takes}."
        )
    if not name.lower().endswith(SUFFIXES):
        raise DataError(f"{name} must end in {takes}.")


def find_files(paths: str | Sequence[str]) -> Found:
    """Raises DataError when a path names no file, or its file system is not installed."""
    import fsspec

    found = Found([])
    for path in [paths] if isinstance(paths, str) else paths:
        try:
            filesystem, inner = fsspec.core.url_to_fs(str(path))
            # A name may hold brackets itself.
            pattern = any(sign in inner for sign in "*?[") and not filesystem.exists(inner)
            names = sorted(filesystem.glob(inner)) if pattern else [inner]
            # Not `isfile`: it takes whatever goes wrong, such as a wrong password, for no.
            names = [name for name in names if filesystem.info(name)["type"] == "file"]
        except FileNotFoundError:
            names = []
        except (ImportError, ValueError, OSError) as error:
            raise DataError(f"{path} can't be opened: {error}") from error
        tables = [name for name in names if readable(name)] if names and pattern else names
        others = [Path(name).name for name in names if name not in tables]
        found.ignored.extend(name for name in others if not name.startswith("."))
        if not names and not pattern and filesystem.protocol in ("file", ("file", "local")):
            refuse_other_kinds(path)
        if not tables:
            beside = f" (beside {', '.join(others[:5])})" if others else ""
            raise DataError(
                f"There is no file {path}{beside}. Mend `data.source`, or put the file there."
            )
        found.files.extend((filesystem, name) for name in tables)
    return found


def stamp_files(paths: str | Sequence[str]) -> str:
    """Changes when one of the files does: from names, sizes, and times or tags."""
    marks = []
    for filesystem, path in find_files(paths).files:
        info = filesystem.info(path)
        marks.append(
            [
                path,
                info.get("size"),
                *(str(info.get(key)) for key in ("mtime", "LastModified", "ETag")),
            ]
        )
    return hashlib.sha256(repr(marks).encode()).hexdigest()[:32]


def read_parts(
    path: Path | str,
    filesystem: Any = None,
    dialect: Dialect | None = None,
    needed: Collection[str] = (),
    whole: Collection[str] = (),
) -> list[Part]:
    """The tables of one file: one, or each member of a zip; `needed` and `whole` are those of
    `read_text`. Raises DataError when it is missing or can't be read."""
    name = str(path)
    refuse_other_kinds(name)
    try:
        parts = list(
            _open(
                name,
                filesystem,
                functools.partial(_part, dialect=dialect or Dialect(), needed=needed, whole=whole),
            )
        )
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except (pl.exceptions.PolarsError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} can't be read: {(str(error).splitlines() or [type(error).__name__])[0]}. Is "
            "it whole, and what its name "
            "says? Put it there again."
        ) from error
    if not parts:
        raise DataError(f"{path} holds no table: none of its members ends in {', '.join(FORMATS)}.")
    return parts


def _open(name: str, filesystem: Any, part: Callable[..., Part]) -> Iterator[Part]:
    import fsspec

    lower = name.lower()
    packed = next((kind for suffix, kind in COMPRESSIONS.items() if lower.endswith(suffix)), None)
    if packed == "zip":
        with (
            (filesystem or fsspec.filesystem("file")).open(name, "rb") as file,
            zipfile.ZipFile(file) as archive,
        ):
            for member in _members(archive, lower):
                kind = member if member.lower().endswith(FORMATS) else lower.removesuffix(".zip")
                yield part(
                    f"{_shown(name)}/{member}", lambda member=member: archive.read(member), kind
                )
        return
    if filesystem is None and packed is None:
        yield part(_shown(name), Path(name).read_bytes)
        return
    with (filesystem or fsspec.filesystem("file")).open(name, "rb", compression=packed) as file:
        yield part(_shown(name), file.read, str(Path(lower).with_suffix("")) if packed else lower)


def _shown(name: str) -> str:
    """A file as messages and quarantine name it: from the project's root where it lies inside, the
    same in every clone."""
    path = Path(name)
    return (
        str(path.relative_to(Path.cwd()))
        if path.is_absolute() and path.is_relative_to(Path.cwd())
        else name
    )


def _members(archive: zipfile.ZipFile, name: str) -> list[str]:
    """The tables in a zip, without what operating systems put beside them. One alone may be called
    anything."""
    inner = name.removesuffix(".zip")
    names = [member.filename for member in archive.infolist() if not member.is_dir()]
    names = [
        one
        for one in names
        if not any(part.startswith((".", "__MACOSX")) for part in one.split("/"))
    ]
    tables = sorted(one for one in names if one.lower().endswith(FORMATS))
    return tables or (names if len(names) == 1 and inner.endswith(FORMATS) else [])


def _part(
    place: str,
    read: Callable[[], bytes],
    name: str | None = None,
    *,
    dialect: Dialect,
    needed: Collection[str],
    whole: Collection[str],
) -> Part:
    lower = (name or place).lower()
    if lower.endswith(PARQUET):
        # From a path Polars maps the file into memory rather than copying it.
        frame = (
            pl.read_parquet(place, glob=False)
            if name is None
            else pl.read_parquet(io.BytesIO(read()))
        )
        return Part(place, frame, is_text=False)
    if lower.endswith(JSON):
        content = read()
        frame = (
            pl.read_ndjson(content, infer_schema_length=None) if content.strip() else pl.DataFrame()
        )
        return Part(place, frame, is_text=True)
    text = read_text(read(), dialect, place, needed, whole)
    return Part(place, text.frame, is_text=True, text=text)
