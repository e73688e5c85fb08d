"""A model file is refused unless it is the registered one and holds nothing that the project
doesn't trust."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from retrain.errors import ModelError
from retrain.models.model_files import file_digest, load_model

X, Y = np.arange(20.0).reshape(-1, 1), np.arange(20) % 2


def stored(path: Path, estimator: object) -> Path:
    skops.io.dump(Pipeline([("estimator", estimator)]).fit(X, Y), path)
    return path


def test_a_type_that_is_not_on_the_list_is_refused_by_name(tmp_path: Path) -> None:
    path = stored(tmp_path / "model.skops", DecisionTreeClassifier())
    with pytest.raises(ModelError, match=r"sklearn\.tree\._tree\.Tree"):
        load_model(path, [], None)
    assert load_model(path, ["sklearn.tree._tree.Tree"], file_digest(path)).predict(X).shape == (
        20,
    )


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path / "model.skops", LogisticRegression())
    digest = file_digest(path)
    stored(path, LogisticRegression(C=0.001))
    with pytest.raises(ModelError, match="not the one that was registered"):
        load_model(path, [], digest)


def test_a_pickle_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (witness,)

    path = tmp_path / "model.skops"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match="Pickled models are refused"):
        load_model(path, [], file_digest(path))
    assert not witness.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is gone"):
        load_model(tmp_path / "model.skops", [], None)
