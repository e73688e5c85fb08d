"""The options of the command line's verbs, as data."""

from __future__ import annotations

from typing import Any, NamedTuple


class Option(NamedTuple):
    """An argument, as argparse takes it."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


def option(*flags: str, **settings: Any) -> Option:
    return Option(flags, settings)


def at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


DEBUG = option("--debug", action="store_true", help="show the traceback of an error")
OVERRIDES = "Hydra overrides, as in conf/"
VERSION = "VERSION key=value"  # the first argument may be the number of a registered version
# What Hydra's own command line offers for looking at a configuration.
SHOWN = (
    option(
        "--cfg",
        "-c",
        choices=("job", "hydra", "all"),
        help="print the configuration that would be used, and stop",
    ),
    option("--resolve", action="store_true", help="with --cfg: without ${...}"),
    option("--package", "-p", metavar="KEY", help="with --cfg: this part of it"),
    option(
        "--info",
        "-i",
        nargs="?",
        const="all",
        metavar="WHAT",
        help="print where it comes from, and stop: all, defaults, defaults-tree, config, plugins, "
        "searchpath",
    ),
)
SWEEP = option(
    "-m",
    "--multirun",
    action="store_true",
    help="sweep: values separated by commas, one job each",
)
FRESH = option(
    "--fresh",
    action="store_true",
    help="with -m: run every job, also those that this or another sweep has done",
)
REASON = option("--reason", help="goes into the ledger")
INIT = (
    option(
        "files",
        nargs="+",
        metavar="FILE",
        help="CSV, Parquet or JSON Lines: a path, a glob in quotes, or a URL; with --query, a "
        "database",
    ),
    option("--target", required=True, metavar="COLUMN", help="what to predict"),
    option("--time", required=True, metavar="COLUMN", help="when each row happened"),
    option(
        "--period",
        choices=("hour", "day", "week", "month", "quarter", "rows"),
        help="length of a batch (default: guessed)",
    ),
    option("--rows-per-batch", type=int, metavar="N", help="with --period rows (default: guessed)"),
    option(
        "--time-format",
        metavar="FORMAT",
        action="append",
        help="a strptime format, epoch_s, epoch_ms or epoch_us; COLUMN=FORMAT for another column "
        "of dates, as often as needed",
    ),
    option(
        "--separator",
        metavar="SIGN",
        help="of the columns in text files: `;`, `|`, tab, ... (default: found out)",
    ),
    option("--decimal", choices=(".", ","), help="sign before the decimals (default: found out)"),
    option("--encoding", help="of text files: utf-8, cp1252, utf-16, ... (default: found out)"),
    option("--name", help="of the data set (default: from the file)"),
    option("--query", metavar="SQL", help="read what this query returns, from the database FILE"),
    option("--force", action="store_true", help="overwrite conf/data/<name>.yaml"),
)
