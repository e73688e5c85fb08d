"""Our metrics against scikit-learn's, on all rows and without each block in turn."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retrain.config import Task
from retrain.errors import ConfigError
from retrain.models.block_sums import sum_by_block
from retrain.models.metric import Metric, RowLoss
from retrain.models.metrics import (
    METRICS,
    find_metric,
    find_row_loss,
    fits_task,
    lower_is_better,
    row_loss_for,
)

SIZE, BLOCKS = 60, 4
scores = arrays(np.float64, SIZE, elements=st.sampled_from([0.0, 0.1, 0.25, 0.25, 0.5, 0.9, 1.0]))
targets = arrays(np.float64, SIZE, elements=st.sampled_from([0.0, 1.0])).filter(
    lambda target: 0 < target.sum() < SIZE
)
codes = arrays(np.int64, SIZE - BLOCKS, elements=st.integers(0, BLOCKS - 1)).map(
    lambda rest: np.r_[range(BLOCKS), rest]
)
THEIRS = {
    "log_loss": lambda target, score: sklearn.metrics.log_loss(target, score, labels=[0, 1]),
    "brier": lambda target, score: np.mean((target - score) ** 2),
    "roc_auc": lambda target, score: (
        sklearn.metrics.roc_auc_score(target, score) if 0 < target.sum() < len(target) else np.nan
    ),
    "calibration_error": lambda target, score: expected_calibration_error(target, score),
}


def expected_calibration_error(target: np.ndarray, score: np.ndarray) -> float:
    bins = np.minimum((score * 10).astype(int), 9)
    parts = [bins == number for number in np.unique(bins)]
    return sum(part.mean() * abs(score[part].mean() - target[part].mean()) for part in parts)


@settings(deadline=None)
@given(targets, scores, codes)
def test_without_each_block_in_turn_they_are_what_a_loop_would_compute(
    target: np.ndarray, score: np.ndarray, codes: np.ndarray
) -> None:
    for name, theirs in THEIRS.items():
        expected = [theirs(target, score)] + [
            theirs(target[codes != block], score[codes != block]) for block in range(BLOCKS)
        ]
        assert METRICS[name].replicates(target, score, codes) == pytest.approx(
            expected, nan_ok=True, abs=1e-12
        ), name
        assert METRICS[name].value(target, score) == pytest.approx(expected[0])


def test_calibration_error_by_hand() -> None:
    target, score = np.array([1.0, 0, 1, 1]), np.array([0.15, 0.15, 0.85, 0.85])
    # Bin of .15: observed .5, gap .35; bin of .85: observed 1, gap .15; half of the rows each.
    assert METRICS["calibration_error"].value(target, score) == pytest.approx((0.35 + 0.15) / 2)


def test_one_class_has_no_auc() -> None:
    assert np.isnan(METRICS["roc_auc"].value(np.ones(3), np.array([0.1, 0.2, 0.3])))


def test_any_scorer_of_scikit_learn_is_a_metric() -> None:
    generator = np.random.default_rng(0)
    target, score = (generator.random(90) < 0.4).astype(float), generator.random(90)
    codes = np.repeat([0, 1, 2], 30)
    found = find_metric("average_precision").replicates(target, score, codes)
    assert found[0] == pytest.approx(sklearn.metrics.average_precision_score(target, score))
    assert found[2] == pytest.approx(
        sklearn.metrics.average_precision_score(target[codes != 1], score[codes != 1])
    )
    assert find_metric("f1").value(target, score) == pytest.approx(
        sklearn.metrics.f1_score(target, score >= 0.5)
    )
    with pytest.raises(ConfigError, match="nor a scorer of scikit-learn"):
        find_metric("acuracy")


class ShareOfAlarms(Metric):
    """As a user would write it."""

    lower_is_better = False
    tasks = frozenset({Task.binary})

    def block_sums(self, target: np.ndarray, score: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        return sum_by_block(blocks, score >= 0.5)

    def finish(self, totals: np.ndarray) -> np.ndarray:
        return totals[:, 0] / totals[:, -1]


class MissedCost(RowLoss):
    def __init__(self, cost: float = 3) -> None:
        self.cost = cost

    def rows(self, target: np.ndarray, score: np.ndarray) -> np.ndarray:
        return self.cost * target * (1 - score)


class Misspelt(RowLoss):
    def row(self, target: np.ndarray, score: np.ndarray) -> np.ndarray:
        return target


class ALossAClass(RowLoss):
    def rows(self, target: np.ndarray, score: np.ndarray) -> np.ndarray:
        return np.stack([score, score], axis=1)


COSTLY, NO_METRIC = MissedCost(10), 7


@settings(deadline=None)
@given(targets, scores, codes)
def test_a_metric_of_ones_own_gets_its_interval_from_two_short_methods(
    target: np.ndarray, score: np.ndarray, codes: np.ndarray
) -> None:
    metric = find_metric(f"{__name__}.ShareOfAlarms")
    expected = [np.mean(score >= 0.5)]
    expected += [np.mean(score[codes != block] >= 0.5) for block in range(BLOCKS)]
    assert metric.replicates(target, score, codes) == pytest.approx(expected)


def test_a_metric_of_ones_own_is_named_by_its_dotted_path() -> None:
    own, costly = f"{__name__}.ShareOfAlarms", f"{__name__}.COSTLY"
    assert not lower_is_better(own) and lower_is_better(costly)
    assert fits_task(own, Task.binary) and not fits_task(own, Task.regression)
    assert row_loss_for(own, Task.binary) == "log_loss"
    assert row_loss_for(costly, Task.binary) == costly
    assert find_row_loss(costly)(np.ones(1), np.full(1, 0.5)) == pytest.approx([5.0])
    for wrong, said in (
        (f"{__name__}.Nothing", "can't be imported"),
        ("no_such_module.Thing", "can't be imported"),
        (f"{__name__}.NO_METRIC", "no retrain.Metric"),
        (f"{__name__}.Misspelt", "can't be built.*rows"),
    ):
        with pytest.raises(ConfigError, match=said):
            find_metric(wrong)


def test_a_loss_that_is_not_one_a_row_is_named() -> None:
    with pytest.raises(ConfigError, match=r"ALossAClass gives the shape \(3, 2\)"):
        ALossAClass().block_sums(np.zeros(3), np.zeros(3), np.zeros(3, int))


def test_a_scorer_is_told_from_a_loss_without_loading_scikit_learn() -> None:
    code = (
        "import sys; from retrain.config import Task; from retrain.models import metrics as m; "
        "m.row_loss_for('f1', Task.binary), m.lower_is_better('f1'); assert 'sklearn' not in "
        "sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
