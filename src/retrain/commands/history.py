"""`retrain history`: the ledger, oldest entry first."""

from __future__ import annotations

import argparse

from retrain.commands.status import read_ledger
from retrain.config import Config


def run(config: Config, options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    entries = read_ledger(config)
    if not entries:
        print(f"The ledger of `{config.tracking.registered_model}` is empty. `dvc repro` writes its first entry.")
        return
    header = ["#", "time (UTC)", "batch", "verdict", "challenger", "against", "champion", "commit", "who"]
    table = Table(*header, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for entry in entries:
        champion = f"{entry.previous or 'none'} -> {entry.champion}" if entry.moved else f"{entry.champion or 'none'}"
        table.add_row(
            str(entry.seq),
            entry.time[:16].replace("T", " "),
            entry.newest_batch,
            entry.verdict,
            str(entry.challenger),
            str(entry.incumbent or "baseline"),
            champion,
            (entry.git_commit or "none")[:8],
            entry.who,
        )
    console = Console(highlight=False)
    Console(highlight=False, width=max(console.width, 110)).print(table)
