from __future__ import annotations

from datetime import datetime

import pytest

from retrain.data.manifest import Batch
from retrain.errors import ConfigError
from retrain.modeling.strategies import Full, SlidingWindow

BATCHES = [
    Batch(f"2013-{m:02}", 1, 1, 0, 0, 0, datetime(2013, m, 1), datetime(2013, m, 28), "", {}) for m in range(1, 6)
]


def test_full_takes_all_history() -> None:
    assert Full().select(BATCHES) == BATCHES


def test_a_sliding_window_takes_the_newest_and_no_more_than_there_are() -> None:
    assert [batch.period for batch in SlidingWindow(2).select(BATCHES)] == ["2013-04", "2013-05"]
    assert SlidingWindow(9).select(BATCHES) == BATCHES


@pytest.mark.parametrize("batches", [0, -1, 1.5, "three"])
def test_a_window_must_be_a_positive_whole_number(batches: object) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.batches"):
        SlidingWindow(batches)
