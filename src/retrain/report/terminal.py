"""Text on a terminal as it is: nothing in it is markup, an emoji's name or a control sequence,
whatever the data are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from retrain.lazy import rich


def printable(text: str) -> str:
    """The text with control characters, which could move the cursor or end a line, as Python writes
    them."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def plain_console(**options: Any) -> rich.console.Console:
    """A console that prints names as they are. It serves for tables, too: their cells are rendered
    by it."""
    return rich.console.Console(highlight=False, markup=False, emoji=False, **options)


def print_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    width: int,
    title: str | None = None,
    gap: int = 2,
) -> None:
    """A table without lines, on no less than `width` columns; `gap` lie between two cells."""
    table = rich.table.Table(
        # A name that is too long, such as the dotted path of a metric, goes on in the next line.
        *(rich.table.Column(printable(name), overflow="fold") for name in header),
        box=None,
        pad_edge=False,
        padding=(0, gap, 0, 0),
        title=title,
        title_justify="left",
    )
    for row in rows:
        table.add_row(*map(printable, row))
    plain_console(width=max(plain_console().width, width)).print(table)
