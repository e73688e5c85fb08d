"""Names of the columns that this project adds to frames and stored files beside those of the data.

All begin with one prefix, which no column of the data may have: whatever a table calls its columns,
none of them is taken for one of ours, or overwritten by it.
"""

from __future__ import annotations

from collections.abc import Iterable

from retrain.errors import DataError

PREFIX = "__retrain_"


def own_column(name: str) -> str:
    """The column in which this project keeps something of its own."""
    return f"{PREFIX}{name}"


def why_reserved(name: str) -> str | None:
    """Why a column of the data can't have this name, None if it can."""
    if name.startswith(PREFIX):
        return f"names that begin with `{PREFIX}` are kept for this project's own columns"
    if name == "*" or (name.startswith("^") and name.endswith("$")):
        return "Polars takes it for a pattern that stands for several columns"
    return None


def refuse_reserved(names: Iterable[str], where: str) -> None:
    """Raises DataError for the first column that can't be told from our own. `where` begins the
    message: "The table"."""
    for name in names:
        why = why_reserved(name)
        if why:
            raise DataError(
                f"{where} has a column {name!r}, but {why}.",
                hint="rename it at the source, or in a query",
            )
