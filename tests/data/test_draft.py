"""Where the default model can't cope with a table, `retrain init` begins with one that does."""

from __future__ import annotations

import pytest

from retrain.config import ColumnType, Task
from retrain.data.inference.draft import choose_model


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (Task.binary, "logistic_regression"),
        (Task.multiclass, "logistic_regression"),
        (Task.regression, "ridge"),
    ],
)
def test_sparse_columns_are_for_linear_models(task: Task, name: str) -> None:
    choice = choose_model({"genes": ColumnType.sparse, "age": ColumnType.numeric}, task)
    assert choice is not None and choice.name == name


def test_ordinary_columns_are_for_the_default() -> None:
    assert (
        choose_model({"age": ColumnType.numeric, "city": ColumnType.categorical}, Task.binary)
        is None
    )
