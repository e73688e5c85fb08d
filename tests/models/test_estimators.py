"""Our own estimators against scikit-learn's rules for estimators, and models that earlier versions
have stored."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.estimator_checks import check_estimator

from retrain.models.corrected import CorrectedClassifier, CorrectedRegressor
from retrain.models.scaled import ScaledMLPRegressor, ScaledSGDRegressor
from retrain.models.transformers import DateParts, SparsePairs

SPARSE = "the check compares sparse output as if it were dense"
EXPECTED: list[tuple[Any, dict[str, str]]] = [
    (CorrectedClassifier(LogisticRegression(), []), {}),
    (CorrectedRegressor(Ridge(), []), {}),
    (ScaledSGDRegressor(), {}),
    (ScaledMLPRegressor(max_iter=20), {}),
    (
        DateParts(),
        {
            "check_dtype_object": (
                "the check passes dictionaries, which pandas takes for no dates by another error"
            )
        },
    ),
    (
        SparsePairs(16),
        {
            "check_transformer_general": SPARSE,
            "check_transformer_data_not_an_array": SPARSE,
            "check_methods_sample_order_invariance": SPARSE,
        },
    ),
]


@pytest.mark.parametrize(
    ("estimator", "failures"), EXPECTED, ids=lambda value: type(value).__name__
)
@pytest.mark.filterwarnings("ignore")
def test_own_estimators_keep_the_rules_of_scikit_learn(
    estimator: Any, failures: dict[str, str]
) -> None:
    results = check_estimator(
        estimator, expected_failed_checks=failures, on_fail=None, on_skip=None
    )
    assert [found["check_name"] for found in results if found["status"] == "failed"] == []
    failing = {found["check_name"] for found in results if found["status"] == "xfail"}
    assert failing == set(failures), "a check that passes by now is no longer expected to fail"


def test_models_of_earlier_versions_predict_what_they_did() -> None:
    """They hold fewer attributes: neither names of columns nor what `fit` leaves behind today."""
    random = np.random.default_rng(0)
    features, target = random.normal(size=(300, 3)), random.integers(0, 2, 300)
    correction = HistGradientBoostingRegressor(max_iter=3).fit(features, target - 0.5)
    for kind, model in ((CorrectedClassifier, LogisticRegression()), (CorrectedRegressor, Ridge())):
        stored = kind.__new__(kind)
        stored.__dict__ = {"estimator": model.fit(features, target), "corrections": [[correction]]}
        new = kind(model, [[correction]])
        assert (
            np.array_equal(stored.predict(features), new.predict(features))
            and stored.n_features_in_ == 3
        )
    value = stored.predict(features) - model.predict(features)
    assert np.allclose(value, correction.predict(features))
    frame = pd.DataFrame({"pack": ["a:1 b:2", None, "c:3"]})
    stored = SparsePairs(16)
    stored.n_features_in_ = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = stored.transform(frame)
    assert np.array_equal(found.toarray(), SparsePairs(16).fit_transform(frame).toarray())
