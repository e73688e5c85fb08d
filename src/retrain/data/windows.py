"""Who trains and who evaluates on what: spans of time, never random rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from retrain.config import EvaluationConfig
from retrain.data.manifest import Batch
from retrain.errors import DataError

LARGEST_SHARE = 0.4  # so that candidates can be chosen on as long a window before it, and still have rows to learn from
_EPOCH = datetime(1970, 1, 5)  # a Monday, so that blocks of a week start with the week


@dataclass(frozen=True)
class Window:
    """The half-open span of time [start, end)."""

    start: datetime
    end: datetime

    def rows(self, frame: pl.DataFrame, time_column: str) -> pl.DataFrame:
        """The rows of a frame that lie in the window."""
        time = pl.col(time_column)
        return frame.filter((time >= self.start) & (time < self.end))

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M}"


@dataclass(frozen=True)
class Windows:
    """`training` and `evaluation` meet without overlap and hold every labelled row of the snapshot between them."""

    training: Window
    evaluation: Window


def plan_windows(batches: Sequence[Batch], evaluation: EvaluationConfig) -> Windows:
    """Evaluate on the last part, in time, of the newest batch, but on no fewer blocks than asked for; train on all before.

    Where that holds fewer rows than asked for, as far as the manifest can tell, the window reaches back further, but over
    no more than LARGEST_SHARE of the time.

    `batches` have labelled rows and are ordered by time. The border lies between two blocks, so that rows that move
    together stay on one side. Raises DataError when one side would be empty.
    """
    if not batches:
        raise DataError(
            "The snapshot has no labelled row. Set `data.as_of` to a period whose labels are known; then `dvc repro`."
        )
    block = block_of(evaluation)
    newest = batches[-1]
    end = _ceil(newest.last_time, block)
    begin = _floor(newest.first_time, block)
    blocks = round((end - begin) / block)
    border = end - max(evaluation.minimum_blocks, round(blocks * evaluation.share_of_newest_batch)) * block
    start = _floor(batches[0].first_time, block)
    if border <= start:
        raise DataError(
            f"The snapshot spans {round((end - start) / block)} block(s) of {evaluation.block_hours} hours, too few to train on some and "
            "evaluate on the rest. Let more batches arrive, or lower `evaluation.block_hours` or `evaluation.minimum_blocks`."
        )
    while (
        border - block >= end - (end - start) * LARGEST_SHARE and _rows_since(batches, border) < evaluation.minimum_rows
    ):
        border -= block
    return Windows(Window(start, border), Window(border, end))


def _rows_since(batches: Sequence[Batch], border: datetime) -> float:
    """About how many labelled rows lie at or after a time, as if those of a batch were spread evenly."""
    rows = 0.0
    for batch in batches:
        span = (batch.last_time - batch.first_time).total_seconds()
        left = (batch.last_time - border).total_seconds()
        share = 1.0 if batch.first_time >= border else max(0.0, left / span) if span else 0.0
        rows += share * batch.rows
    return rows


def plan_validation(windows: Windows) -> Windows:
    """The same split one step earlier, inside the training window: for choosing between candidates.

    The evaluation window stays unseen, since rows that chose a recipe can't judge it.
    Raises DataError when the training window is not longer than the evaluation window.
    """
    border = windows.training.end - (windows.evaluation.end - windows.evaluation.start)
    if border <= windows.training.start:
        raise DataError(
            "The training window is not longer than the evaluation window, so no rows are left to choose a candidate on. "
            "Let more batches arrive, or lower `evaluation.share_of_newest_batch`."
        )
    return Windows(Window(windows.training.start, border), Window(border, windows.training.end))


def plan_references(batches: Sequence[Batch], evaluation: EvaluationConfig) -> dict[str, Window]:
    """The evaluation windows that the batches before the newest one had, by period, oldest first.

    As many as `evaluation.reference_windows` asks for, and as there are; none of them shares rows with the evaluation
    window of today.
    """
    today = plan_windows(batches, evaluation).evaluation
    windows: dict[str, Window] = {}
    for count in range(len(batches) - 1, 0, -1):
        if len(windows) == evaluation.reference_windows:
            break
        try:
            window = plan_windows(batches[:count], evaluation).evaluation
        except DataError:  # the first batches are too short to be split
            break
        if window.end <= today.start:
            windows[batches[count - 1].period] = window
    return dict(reversed(windows.items()))


def block_of(evaluation: EvaluationConfig) -> timedelta:
    """Length of the blocks of time whose rows move together."""
    return timedelta(hours=evaluation.block_hours)


def block_index(time_column: str, block: timedelta) -> pl.Expr:
    """Number of the block that each row lies in, int64."""
    return (pl.col(time_column) - pl.lit(_EPOCH)).dt.total_microseconds() // int(block / timedelta(microseconds=1))


def batches_in(batches: Sequence[Batch], window: Window) -> list[Batch]:
    """The batches with at least one labelled row that may lie in the window."""
    return [batch for batch in batches if batch.first_time < window.end and batch.last_time >= window.start]


def _floor(moment: datetime, block: timedelta) -> datetime:
    return _EPOCH + math.floor((moment - _EPOCH) / block) * block


def _ceil(moment: datetime, block: timedelta) -> datetime:
    """The first border after `moment`: the window's end is not part of it."""
    return _floor(moment, block) + block
