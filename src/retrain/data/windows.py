"""Who trains and who evaluates on what: spans of time, never random rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from retrain.config import EvaluationConfig
from retrain.data.manifest import MOST_MARKS, Batch
from retrain.errors import DataError

# so that candidates can be chosen on as long a window before it, and still have rows to train on
LARGEST_SHARE = 0.4
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
    """`training` and `evaluation` meet without overlap and hold every labelled row of the snapshot
    between them."""

    training: Window
    evaluation: Window


def plan_windows(batches: Sequence[Batch], evaluation: EvaluationConfig) -> Windows:
    """Evaluate on the last part, in time, of the newest batch, but on no fewer blocks than asked
    for; train on all before.

    Where that holds fewer blocks with rows, rows, or rows of the rarer classes than asked for, the
    window reaches back further, but over no more than LARGEST_SHARE of the time and of the rows.
    What lies where is read off the manifest.

    `batches` have labelled rows and are ordered by time. The border lies between two blocks, so
    that rows that move together stay on one side. Raises DataError when one side would be empty.
    """
    if not batches:
        raise DataError(
            "The snapshot has no labelled row.",
            hint="set `data.as_of` to a period whose labels are known; then `dvc repro`",
        )
    block = block_of(evaluation)
    newest = batches[-1]
    end = _ceil(newest.span[1], block)
    begin = _floor(newest.span[0], block)
    blocks = round((end - begin) / block)
    border = (
        end
        - max(evaluation.minimum_blocks, round(blocks * evaluation.share_of_newest_batch)) * block
    )
    start = _floor(batches[0].span[0], block)
    if border <= start:
        raise DataError(
            f"The snapshot spans {round((end - start) / block)} block(s) of "
            f"{evaluation.block_hours} hours, too few to train on some and evaluate on the rest.",
            hint="let more batches arrive, or lower `evaluation.block_hours` or "
            "`evaluation.minimum_blocks`",
        )
    border = _reach_back(batches, evaluation, border, start, end)
    return Windows(Window(start, border), Window(border, end))


def _reach_back(
    batches: Sequence[Batch],
    evaluation: EvaluationConfig,
    border: datetime,
    start: datetime,
    end: datetime,
) -> datetime:
    """The border moved back, block by block, until the window holds what is asked for or may reach
    no further."""
    block = block_of(evaluation)
    earliest = end - (end - start) * LARGEST_SHARE
    most_rows = LARGEST_SHARE * sum(batch.rows for batch in batches)
    seen: set[datetime] = set()
    rows = rare = 0.0
    for time, stands_for, rarer in _marks_backwards(batches):
        if time < border:
            enough = len(seen) >= evaluation.minimum_blocks and rows >= evaluation.minimum_rows
            earlier = _floor(time, block)
            if (
                (enough and rare >= evaluation.minimum_rare_rows)
                or earlier < earliest
                or rows >= most_rows
            ):
                break
            border = earlier
        seen.add(_floor(time, block))
        rows, rare = rows + stands_for, rare + rarer
    return border


def _marks_backwards(batches: Sequence[Batch]) -> Iterator[tuple[datetime, float, float]]:
    """Times at which there are rows, newest first; how many rows each stands for, and how many of
    the rarer classes."""
    common: Counter[str] = Counter()
    for batch in batches:
        common.update(batch.classes)
    commonest = max(common, key=lambda name: common[name], default="")
    for batch in sorted(batches, key=lambda batch: batch.span[1], reverse=True):
        marks = batch.marks or _even_marks(batch)
        # Where classes were not counted (numbers have none) every row is as good as one of a rarer
        # class.
        rare = batch.rows - batch.classes.get(commonest, 0) if batch.classes else batch.rows
        for mark in reversed(marks):
            yield mark, batch.rows / len(marks), rare / len(marks)


def _even_marks(batch: Batch) -> list[datetime]:
    """Where an older manifest says nothing of the times between: as if its rows came evenly."""
    count = min(max(batch.rows, 1), MOST_MARKS)
    first, last = batch.span
    step = (last - first) / max(1, count - 1)
    return [first + number * step for number in range(count)]


def plan_validation(windows: Windows) -> Windows:
    """The same split one step earlier, inside the training window: for choosing between candidates.

    The evaluation window stays unseen, since a recipe can't be evaluated on rows that chose it.
    Raises DataError when the training window is not longer than the evaluation window.
    """
    border = windows.training.end - (windows.evaluation.end - windows.evaluation.start)
    if border <= windows.training.start:
        raise DataError(
            "The training window is not longer than the evaluation window, so no rows are left "
            "to choose a candidate on.",
            hint="let more batches arrive, or lower `evaluation.share_of_newest_batch`",
        )
    return Windows(Window(windows.training.start, border), Window(border, windows.training.end))


def plan_references(batches: Sequence[Batch], evaluation: EvaluationConfig) -> dict[str, Window]:
    """The evaluation windows that the batches before the newest one had, by period, oldest first.

    As many as `evaluation.reference_windows` asks for, and as there are; none of them shares rows
    with the evaluation window of today.
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
    assert evaluation.block_hours is not None  # `check` has filled it in
    return timedelta(hours=evaluation.block_hours)


def block_index(time_column: str, block: timedelta) -> pl.Expr:
    """Number of the block that each row lies in, int64."""
    return (pl.col(time_column) - pl.lit(_EPOCH)).dt.total_microseconds() // int(
        block / timedelta(microseconds=1)
    )


def batches_in(batches: Sequence[Batch], window: Window) -> list[Batch]:
    """The batches with at least one labelled row that may lie in the window."""
    return [
        batch for batch in batches if batch.span[0] < window.end and batch.span[1] >= window.start
    ]


def _floor(moment: datetime, block: timedelta) -> datetime:
    return _EPOCH + math.floor((moment - _EPOCH) / block) * block


def _ceil(moment: datetime, block: timedelta) -> datetime:
    """The first border after `moment`: the window's end is not part of it."""
    return _floor(moment, block) + block
