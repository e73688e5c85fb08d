"""How a sweep gets on, line by line on a terminal, whatever launcher runs its jobs."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from retrain.commands.sweep_runs import ADDED_TAG, Sweep, succeeded
from retrain.lazy import mlflow
from retrain.models.metrics import lower_is_better

log = logging.getLogger("retrain")
EVERY_SECONDS = 2.0  # at most one line in so many


@contextlib.contextmanager
def progress(sweep: Sweep, metric: str, jobs: int | None, trials: int | None) -> Iterator[None]:
    """Tell a person who watches what the store knows of the jobs while the block runs.

    Lines instead of a bar: the processes of a launcher write to the same terminal. Where nobody
    watches (no terminal, or `CI` is set) nothing is said.

    Parameters
    ----------
    jobs
        All of the sweep, None where the sweeper chooses on its way.
    trials
        What such a sweeper adds to those that there are.
    """
    if not sys.stderr.isatty() or os.environ.get("CI"):
        yield
        return
    ended, watch = threading.Event(), _Watch(sweep, metric, jobs, trials)
    watcher = threading.Thread(target=watch.until, args=(ended,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@dataclass
class _Watch:
    sweep: Sweep
    metric: str
    jobs: int | None
    trials: int | None
    began: float = field(default_factory=time.time)
    before: int | None = None  # jobs that were done when it began
    known: int | None = None

    def until(self, ended: threading.Event) -> None:
        while True:
            with contextlib.suppress(mlflow.exceptions.MlflowException, OSError):
                self.look()  # a store that does not answer may the next time
            if ended.wait(EVERY_SECONDS):
                return

    def look(self) -> None:
        """Log a line if more jobs are done than the last time."""
        runs = [run for run in self.sweep.children() if ADDED_TAG not in run.data.tags]
        over = [run for run in runs if succeeded(run) or self._failed(run)]
        if self.before is None:
            self.before = self.known = len(over)
        if len(over) != self.known:
            self.known = len(over)
            log.info("%s", self.line(over))

    def _failed(self, run: mlflow.entities.Run) -> bool:
        """In this very call: what failed before is tried again."""
        status, end = str(run.info.status), run.info.end_time or 0
        return status in ("FAILED", "KILLED") and end >= self.began * 1000

    def line(self, over: Sequence[mlflow.entities.Run]) -> str:
        """Jobs done and failed, the best so far and the time left."""
        added, before = len(over) - (self.before or 0), self.before or 0
        total = self.jobs or (before + self.trials if self.trials else None)
        failed = sum(not succeeded(run) for run in over)
        found = (run.data.metrics.get(f"{self.metric}/validation", math.nan) for run in over)
        values = [value for value in found if math.isfinite(value)]
        parts = [f"{len(over)}{f' of {total}' if total else ''} jobs done"]
        if failed:
            parts.append(f"{failed} failed")
        if values:
            best = min(values) if lower_is_better(self.metric) else max(values)
            parts.append(f"best {self.metric} {best:.4f}")
        if total and added and len(over) < total:
            left = (total - len(over)) * (time.time() - self.began) / added
            parts.append(f"about {f'{left:.0f} s' if left < 100 else f'{left / 60:.0f} min'} left")
        return ", ".join(parts)
