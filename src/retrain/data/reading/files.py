"""Files of every kind that a table may lie in: where they are, how they are packed, and what is in
them before types are decided."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from retrain.data.reading.dialect import Dialect, read_text
from retrain.data.reading.parts import Part, with_places
from retrain.errors import DataError, RetrainError
from retrain.knock import knock_at_web
from retrain.lazy import fsspec

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
            f"{path} is a folder.",
            hint=f"give one file, or for `retrain init` a glob such as '{path}/*.csv', of these "
            f"endings: {takes}",
        )
    if name.lower().endswith(WORKBOOKS):
        raise DataError(
            f"{name} is a workbook.",
            hint=f"save its sheet as CSV, or as one of these: {takes}",
        )
    if not name.lower().endswith(SUFFIXES):
        raise DataError(f"{name} must end in {takes}.")


def find_files(paths: str | Sequence[str]) -> Found:
    """Raises DataError when a path names no file, or its file system is not installed."""
    found = Found([])
    for path in [paths] if isinstance(paths, str) else paths:
        filesystem, names, pattern = _match(str(path))
        tables = [name for name in names if readable(name)] if names and pattern else names
        others = [Path(name).name for name in names if name not in tables]
        found.ignored.extend(name for name in others if not name.startswith("."))
        if not names and not pattern and filesystem.protocol in ("file", ("file", "local")):
            refuse_other_kinds(path)
        if not tables:
            beside = f" (beside {', '.join(others[:5])})" if others else ""
            raise DataError(
                f"There is no file {path}{beside}.",
                hint="mend `data.source`, or put the file there",
            )
        found.files.extend((filesystem, name) for name in tables)
    return found


def _match(path: str) -> tuple[Any, list[str], bool]:
    """The file system and the files that a path or glob names, and whether it is a glob."""
    with _opening(path):
        filesystem, inner = _find_filesystem(path)
        # A name may hold brackets itself.
        pattern = any(sign in inner for sign in "*?[") and not filesystem.exists(inner)
        names = sorted(filesystem.glob(inner)) if pattern else [inner]
        try:
            # Not `isfile`: it takes whatever goes wrong, such as a wrong password, for no.
            return filesystem, [n for n in names if filesystem.info(n)["type"] == "file"], pattern
        except FileNotFoundError:
            return filesystem, [], pattern


def list_folder(folder: str) -> Found:
    """The tables that lie in a folder, local or at an address that fsspec knows; none are found in
    subfolders. Raises DataError when it is missing or can't be reached."""
    try:
        if not is_address(folder):
            local = fsspec.filesystem("file")
            names = sorted(str(path) for path in Path(folder).iterdir())
            return Found([(local, name) for name in names if readable(name)])
        with _opening(folder):
            filesystem, inner = _find_filesystem(folder)
            entries = filesystem.ls(inner, detail=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        why = f": {error}" if is_address(folder) else ""
        raise DataError(
            f"The source folder {folder} is missing (`data.source.folder`){why}.",
            hint="make it, and put one file a batch into it",
        ) from error
    names = sorted(entry["name"] for entry in entries if entry["type"] == "file")
    return Found([(filesystem, name) for name in names if readable(name)])


def is_address(path: str) -> bool:
    """Whether a file lies elsewhere, such as `s3://bucket/table.csv`."""
    return "://" in path


def _find_filesystem(path: str) -> tuple[Any, str]:
    """The file system that a path or address names, and the path in it."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and path.startswith(("s3://", "s3a://")):
        _knock_once(endpoint)
    filesystem, inner = fsspec.core.url_to_fs(path)
    return filesystem, inner


@functools.lru_cache(maxsize=4)
def _knock_once(endpoint: str) -> None:
    try:
        knock_at_web(endpoint)
    except OSError as error:
        raise OSError(f"the server {endpoint} does not answer ({error})") from error


@contextlib.contextmanager
def _opening(path: str) -> Iterator[None]:
    """What goes wrong in a file system, but for a file that is missing, as a DataError."""
    try:
        with _foreign_as_oserror():
            yield
    except FileNotFoundError:
        raise
    except (ImportError, ValueError, OSError) as error:
        hint = (
            "check the address, and in the environment the credentials and, for S3 that is not "
            "Amazon's, AWS_ENDPOINT_URL"
        )
        raise DataError(
            f"{path} can't be opened: {error}", hint=hint if is_address(path) else ""
        ) from error


@contextlib.contextmanager
def _foreign_as_oserror() -> Iterator[None]:
    """The errors of a file system's own library, such as botocore's, as the operating system's."""
    try:
        yield
    except (ImportError, ValueError, OSError, EOFError, zipfile.BadZipFile, RetrainError):
        raise
    except Exception as error:
        raise OSError(str(error)) from error


def stamp_files(paths: str | Sequence[str]) -> str:
    """Changes when one of the files does: from names, sizes, and times or tags."""
    marks = []
    for filesystem, path in find_files(paths).files:
        info = filesystem.info(path)
        times = (str(info.get(key)) for key in ("mtime", "LastModified", "ETag"))
        marks.append([path, info.get("size"), *times])
    return hashlib.sha256(repr(marks).encode()).hexdigest()[:32]


def read_parts(
    path: str,
    dialect: Dialect,
    needed: Collection[str] = (),
    filesystem: Any = None,
    whole: Collection[str] = (),
    shown: str | None = None,
) -> list[Part]:
    """The tables of one file: one, or each member of a zip; `needed` and `whole` are those of
    `read_text`. Raises DataError when it is missing or can't be read."""
    refuse_other_kinds(path)
    parts = []
    try:
        for place, name, content in _contents(path, filesystem or fsspec.filesystem("file")):
            place = f"{shown or _shown(path)}{place}"
            if name.endswith((*PARQUET, *JSON)):
                parts.append(_typed_part(place, name, content))
            else:
                parts.append(read_text(content, dialect, place, needed, whole))
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except (pl.exceptions.PolarsError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} can't be read: {(str(error).splitlines() or [type(error).__name__])[0]}.",
            hint="put it there again, whole, with the ending of what it is",
        ) from error
    if not parts:
        raise DataError(f"{path} holds no table: none of its members ends in {', '.join(FORMATS)}.")
    return parts


def _contents(path: str, filesystem: Any) -> Iterator[tuple[str, str, bytes]]:
    """For each table in a file its name in there, in small letters its name for its kind, and its
    bytes."""
    name = path.lower()
    packed = next((kind for suffix, kind in COMPRESSIONS.items() if name.endswith(suffix)), None)
    inner = str(Path(name).with_suffix("")) if packed else name
    if packed != "zip":
        with _foreign_as_oserror(), filesystem.open(path, "rb", compression=packed) as file:
            yield "", inner, file.read()
        return
    with (
        _foreign_as_oserror(),
        filesystem.open(path, "rb") as file,
        zipfile.ZipFile(file) as archive,
    ):
        for member in _members(archive, inner):
            kind = member.lower() if member.lower().endswith(FORMATS) else inner
            yield f"/{member}", kind, archive.read(member)


def _members(archive: zipfile.ZipFile, inner: str) -> list[str]:
    """The tables in a zip, without what operating systems put beside them. One alone may be called
    anything."""
    names = [
        member.filename
        for member in archive.infolist()
        if not member.is_dir()
        and not any(part.startswith((".", "__MACOSX")) for part in member.filename.split("/"))
    ]
    tables = sorted(name for name in names if name.lower().endswith(FORMATS))
    return tables or (names if len(names) == 1 and inner.endswith(FORMATS) else [])


def _shown(path: str) -> str:
    """A file as messages and quarantine name it: from the project's root where it lies inside, the
    same in every clone."""
    root = Path.cwd()
    return str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path


def _typed_part(place: str, name: str, content: bytes) -> Part:
    text, frame = name.endswith(JSON), pl.DataFrame()
    if not text:
        frame = pl.read_parquet(io.BytesIO(content))
    elif content.strip():
        frame = pl.read_ndjson(content, infer_schema_length=None)
    if frame.width:
        numbers = pl.int_range(1, len(frame) + 1, eager=True)
        frame = with_places(frame, f"{place}, {'line' if text else 'row'}", numbers)
    return Part(place, frame, text)
