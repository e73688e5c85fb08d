"""Our metrics against scikit-learn's, which the gate must not import."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retrain.modeling.metrics import METRICS, brier, calibration_error, log_loss, roc_auc

SIZE = 60
scores = arrays(np.float64, SIZE, elements=st.sampled_from([0.0, 0.1, 0.25, 0.25, 0.5, 0.9, 1.0]))
weights = arrays(np.float64, SIZE, elements=st.floats(0.5, 3))
targets = arrays(np.int8, SIZE, elements=st.integers(0, 1)).filter(lambda target: 0 < target.sum() < SIZE)


@given(targets, scores, weights)
def test_log_loss_brier_and_auc_are_those_of_scikit_learn(
    target: np.ndarray, score: np.ndarray, weight: np.ndarray
) -> None:
    assert log_loss(target, score, weight) == pytest.approx(
        sklearn.metrics.log_loss(target, score, sample_weight=weight)
    )
    assert brier(target, score, weight) == pytest.approx(
        sklearn.metrics.brier_score_loss(target, score, sample_weight=weight)
    )
    assert roc_auc(target, score, weight) == pytest.approx(
        sklearn.metrics.roc_auc_score(target, score, sample_weight=weight)
    )


def test_calibration_error_by_hand() -> None:
    target, score = np.array([1, 0, 1, 1]), np.array([0.15, 0.15, 0.85, 0.85])
    # Bin of .15: observed .5, gap .35; bin of .85: observed 1, gap .15; half of the rows each.
    assert calibration_error(target, score, np.ones(4)) == pytest.approx((0.35 + 0.15) / 2)


def test_one_class_has_no_auc() -> None:
    assert np.isnan(roc_auc(np.ones(3), np.array([0.1, 0.2, 0.3]), np.ones(3)))


@given(targets, scores)
def test_a_row_counted_twice_is_a_row_of_weight_two(target: np.ndarray, score: np.ndarray) -> None:
    twice = np.r_[np.arange(SIZE), np.arange(10)]
    weight = np.r_[np.full(10, 2.0), np.ones(SIZE - 10)]
    for metric in METRICS.values():
        assert metric(target[twice], score[twice], np.ones(len(twice))) == pytest.approx(
            metric(target, score, weight), nan_ok=True
        )
