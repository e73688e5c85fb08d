"""`retrain gate-check`: how often the configured gate promotes challengers whose worth is known, on
the snapshot's history."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import time
from collections.abc import Sequence

from retrain.backtest.compute import run_jobs
from retrain.backtest.gate_check import find_points, try_point
from retrain.backtest.gate_check_summary import (
    BETTER,
    Line,
    Trial,
    failures,
    share_interval,
    summarize,
)
from retrain.clusters import connect
from retrain.config import Config
from retrain.data.snapshot import SnapshotStore
from retrain.errors import PromotionError
from retrain.report.terminal import print_table
from retrain.workspace import GATE_CHECK, SNAPSHOT, write_json

log = logging.getLogger("retrain")
QUICK_BATCHES, QUICK_ROWS = 3, 30_000
HEADER = (
    "challenger is", "how", "promoted", "95 % interval", "wrongly", "on its rows", "afterwards", "",
)  # fmt: skip


def run(config: Config, options: argparse.Namespace) -> None:
    """Raises PromotionError when equal or worse challengers were promoted wrongly too often."""
    connect(config.compute)  # what doesn't answer is said first
    batches, rows = (QUICK_BATCHES, QUICK_ROWS) if options.quick else (options.batches, None)
    points = find_points(config, SnapshotStore(SNAPSHOT), batches, rows)
    found: dict[int, list[Trial]] = {}
    started = time.perf_counter()
    work = functools.partial(try_point, snapshot=SNAPSHOT.resolve())
    for number, one in run_jobs(work, points, config.compute):
        found[number] = one
        seconds = time.perf_counter() - started
        log.info(
            "Batch %s: tried, %d of %d, %.0f s", one[0].batch, len(found), len(points), seconds
        )
    trials = [trial for number in range(len(points)) for trial in found[number]]
    lines = summarize(trials)
    _show(lines)
    write_json(GATE_CHECK, [dataclasses.asdict(trial) for trial in trials])
    if failed := failures(lines):
        raise PromotionError(
            f"The gate promoted wrongly too often: {'; '.join(failed)}. Every comparison is in "
            f"{GATE_CHECK}.",
            hint="narrow the margin of the primary check, raise its confidence or lengthen the "
            "evaluation window (`evaluation`), then run the command again",
        )


def _show(lines: Sequence[Line]) -> None:
    rows = []
    for line in lines:
        low, high = share_interval(line.promoted, line.count)
        cells = (
            line.kind,
            line.scenario,
            f"{line.promoted} of {line.count}",
            f"{low:.0%} to {high:.0%}",
            "" if line.kind == BETTER else str(line.wrong),
            f"{line.judged_difference:+.4f}",
            f"{line.later_difference:+.4f}",
            "FAILED" if line.failed else "",
        )
        rows.append(cells)
    print_table(HEADER, rows, width=140)
    print(
        "Differences are the challenger's loss less the champion's: on the evaluation rows, and on "
        "the batch that came next.\nA promotion is wrong if the challenger was worse afterwards "
        "than the gate allows (of equals: any, if a gain is demanded)."
    )
