"""Where batches come from. A source of your own is a subclass of `Source` and a YAML that names it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import polars as pl

from retrain.errors import DataError


class Source(ABC):
    """Batches by period key, as they arrived: labelled where the label is known, null where it isn't."""

    @abstractmethod
    def periods(self) -> list[str]:
        """Keys of the batches that have arrived, in any order. Raises DataError if the source can't be reached."""

    @abstractmethod
    def fingerprint(self, period: str) -> str:
        """A cheap stamp of a batch: while it stays the same, the batch is not read again."""

    @abstractmethod
    def read(self, period: str) -> pl.DataFrame:
        """One row for each thing to predict: keys, time, features and target of the contract."""


class BatchFiles(Source):
    """One CSV or Parquet file a batch, its name the period key."""

    readers: ClassVar[dict[str, Callable[[Path], pl.DataFrame]]] = {
        ".parquet": pl.read_parquet,
        ".csv": lambda path: pl.read_csv(path, try_parse_dates=True, infer_schema_length=None),
    }

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def periods(self) -> list[str]:
        if not self.folder.is_dir():
            raise DataError(
                f"The source folder {self.folder} is missing (`data.source.folder`). Make it, and put one file a batch into it."
            )
        found = [path.stem for path in self.folder.iterdir() if path.suffix in self.readers]
        twice = {key for key in found if found.count(key) > 1}
        if twice:
            raise DataError(f"{self.folder} holds more than one file for {', '.join(sorted(twice))}. Keep one of each.")
        return found

    def fingerprint(self, period: str) -> str:
        status = self._path(period).stat()
        return f"{status.st_size}-{status.st_mtime_ns}"

    def read(self, period: str) -> pl.DataFrame:
        path = self._path(period)
        try:
            return self.readers[path.suffix](path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"{path} can't be read: {str(error).splitlines()[0]}. Replace the file by a whole one."
            ) from error

    def _path(self, period: str) -> Path:
        for suffix in self.readers:
            path = self.folder / f"{period}{suffix}"
            if path.is_file():
                return path
        raise DataError(f"{self.folder} has no file for {period}.")
