"""The base class of sources: where batches come from."""

from __future__ import annotations

from abc import ABC, abstractmethod

import polars as pl

from retrain.config import DataConfig


class Source(ABC):
    """Where batches come from. Subclass it, write `periods`, `fingerprint` and `read`, and name the
    class under `source:` in a file of conf/data/.

    A batch holds the rows of one period as they arrived: labelled where the label is known, null
    where it isn't. The arguments of `__init__` are keys in the YAML.

    Examples
    --------
    >>> import polars as pl
    >>> class Dice(Source):
    ...     def periods(self) -> list[str]:
    ...         return ["2013-01", "2013-02"]
    ...
    ...     def fingerprint(self, period: str) -> str:
    ...         return "1"  # a batch never changes once it is there
    ...
    ...     def read(self, period: str) -> pl.DataFrame:
    ...         return pl.DataFrame({"time": [f"{period}-01"] * 6, "eyes": range(1, 7)})
    >>> Dice().read("2013-02").height
    6
    """

    def bind(self, data: DataConfig) -> None:  # noqa: B027 - most sources need not know
        """Called once, before anything else, with what `data:` in the config says of times,
        periods, keys and target."""

    @abstractmethod
    def periods(self) -> list[str]:
        """The keys of the batches that have arrived.

        Returns
        -------
        list of str
            Such as `2013-01` for a month, in any order.

        Raises
        ------
        DataError
            If the source can't be reached.
        """

    @abstractmethod
    def fingerprint(self, period: str) -> str:
        """A cheap stamp of a batch, such as size and time of change of a file: while it stays the
        same, the batch is not read again."""

    @abstractmethod
    def read(self, period: str) -> pl.DataFrame:
        """The rows of a batch: one for each thing to predict.

        Returns
        -------
        polars.DataFrame
            The keys, the time, the features and the target of the schema, by name. Others are
            ignored; types are cast by the schema.

        Raises
        ------
        DataError
            If the batch can't be read.
        """
