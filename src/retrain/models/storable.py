"""Whether a recipe's model will be one that can be stored and loaded again: asked before the fit,
of a model of a few rows."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from retrain.config import Config, Task, to_container
from retrain.errors import ModelError, RetrainError
from retrain.lazy import skops
from retrain.models.fitting import build_pipeline, fit
from retrain.renamed import all_names

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# How long a fit takes, by the names that estimators give it; which types a model holds does not
# depend on it.
LENGTHS = ("n_estimators", "max_iter", "iterations", "num_boost_round")
ROWS_OF_A_CLASS, ROWS, MOST_ROWS, STEPS = 20, 100, 2000, 2
_passed: set[tuple[str, tuple[str, ...]]] = set()  # in this process, which may fit many


def check_storable(config: Config, rows: pl.DataFrame) -> None:
    """Raises ModelError before hours of fitting would end in a model that nobody could load."""
    content = to_container(config)
    shaping = [content["model"], content["data"]["features"], content["data"]["task"]]
    key = (json.dumps(_kind(shaping)), tuple(config.trusted_types))
    if key in _passed or rows.is_empty():
        return
    if problem := why_not_stored(_fit_a_few(config, rows), config.trusted_types):
        raise ModelError(f"{problem} Nothing has been fitted yet.")
    _passed.add(key)


def _kind(value: Any) -> Any:
    """The value with every number as 0: how much of something changes no type in the model."""
    if isinstance(value, dict):
        return {key: _kind(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_kind(each) for each in value]
    return 0 if isinstance(value, int | float) and not isinstance(value, bool) else value


def why_not_stored(pipeline: Pipeline, trusted: Sequence[str]) -> str | None:
    """What keeps a model from being stored so that it can be loaded again, None if nothing does."""
    try:
        types = skops.io.get_untrusted_types(data=dump(pipeline))
    except ModelError as error:
        return str(error)
    unlisted = ", ".join(sorted(set(types) - set(all_names(trusted))))
    if not unlisted:
        return None
    return (
        f"The model holds types that are not on the list of those to load: {unlisted}. If you "
        f"trust their code, add `trusted_types: [{unlisted}]` to the model's file in conf/model/, "
        "or the types to `trusted_types` in conf/config.yaml; then run the command again."
    )


def dump(pipeline: Pipeline) -> bytes:
    """The model as it is stored. Raises ModelError for one that can't be without pickle."""
    try:
        content: bytes = skops.io.dumps(pipeline)
    except Exception as error:  # whatever an object raises that can't be taken apart
        raise ModelError(
            f"`model` can't be stored without pickle: {type(error).__name__}: {error}. Use "
            "functions and classes that can be imported by name, instead of lambdas and those of a "
            "notebook."
        ) from error
    return content


def _fit_a_few(config: Config, rows: pl.DataFrame) -> Pipeline:
    """The recipe, fitted in two steps on some rows of each class; unfitted where those are too few
    for it."""
    pipeline = build_pipeline(config)
    lengths = {
        name: STEPS
        for name, value in pipeline.get_params().items()
        if name.rpartition("__")[2] in LENGTHS and isinstance(value, int) and value > STEPS
    }
    pipeline.set_params(**lengths)
    sample = rows.head(ROWS)
    if config.data.task is not Task.regression:
        by_class = rows.group_by(config.data.target_column, maintain_order=True)
        sample = by_class.head(ROWS_OF_A_CLASS).head(MOST_ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return fit(pipeline, sample, config)
        except (
            RetrainError,
            MemoryError,
        ):  # of too few rows: the fit itself will say what is wrong
            return build_pipeline(config)
