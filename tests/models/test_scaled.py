"""Gradient steps on numbers end near the target, whatever its unit and however far out some rows
lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skops.io
from conftest import REPOSITORY
from scipy import sparse
from sklearn.neural_network import MLPRegressor

from retrain.config import compose, instantiate
from retrain.models.model_files import load_model
from retrain.models.scaled import ScaledMLPRegressor, ScaledSGDRegressor


def table(unit: float = 1.0, zero: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Five features, one of them skewed so that a few rows lie fifty standard deviations out."""
    random = np.random.default_rng(0)
    features = random.normal(size=(3000, 5))
    features[:, 0] = random.pareto(1.2, 3000)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    assert features.max() > 30
    return features, zero + unit * (features @ [1, 2, -1, 0.5, 0] + random.normal(0, 0.3, 3000))


def configured(model: str):
    return instantiate(
        compose(
            REPOSITORY / "conf", [f"model={model}", "data.task=regression", "data.metric=rmse"]
        ).model.estimator,
        "model",
    )


@pytest.mark.parametrize("model", ["sgd", "mlp"])
@pytest.mark.parametrize(("unit", "zero"), [(1.0, 0.0), (1e6, 5e6), (1e-3, 7.0)])
def test_shipped_models_for_numbers_learn_whatever_the_unit(
    model: str, unit: float, zero: float
) -> None:
    features, target = table(unit, zero)
    fitted = configured(model).set_params(random_state=0).fit(features, target)
    error = np.sqrt(np.mean((fitted.predict(features) - target) ** 2))
    assert error < 0.4 * target.std()


def test_steps_of_a_stream_stay_safe_when_rows_far_out_come_later() -> None:
    features, target = table(1e3)
    order = np.argsort(np.abs(features[:, 0]))
    model = ScaledSGDRegressor(learning_rate="constant", eta0=0.01, average=True, random_state=0)
    for part in np.array_split(order, 30):
        model.partial_fit(sparse.csr_matrix(features[part]), target[part])
    assert model.eta0 == 0.01
    error = np.sqrt(np.mean((model.predict(features) - target) ** 2))
    assert error < target.std()


def test_going_on_keeps_the_scale_and_a_stored_model_predicts_the_same(tmp_path: Path) -> None:
    features, target = table(1e6)
    for model in (
        ScaledSGDRegressor(random_state=0),
        ScaledMLPRegressor(random_state=0, max_iter=5),
    ):
        model.partial_fit(features[:1000], target[:1000])
        scale = model.target_scale_
        model.partial_fit(features[1000:], 10 * target[1000:])
        assert model.target_scale_ == scale
        skops.io.dump(model, tmp_path / "model.skops")
        trusted = compose(REPOSITORY / "conf").trusted_types
        loaded = load_model(tmp_path / "model.skops", trusted, None)
        assert np.array_equal(loaded.predict(features), model.predict(features))


def test_of_counts_only_the_unit_is_changed() -> None:
    features, target = table(100, 600)
    counts = np.maximum(target, 0)
    ours = ScaledMLPRegressor(loss="poisson", random_state=0, max_iter=5).fit(features, counts)
    plain = MLPRegressor(loss="poisson", random_state=0, max_iter=5).fit(
        features, counts / counts.mean()
    )
    assert np.allclose(ours.predict(features), plain.predict(features) * counts.mean())
