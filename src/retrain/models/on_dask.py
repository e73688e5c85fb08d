"""LightGBM on a Dask cluster: for more rows than the memory of one machine holds."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from retrain.clusters import connect
from retrain.config import Backend, Config, feature_types
from retrain.errors import ConfigError, ModelError, first_line
from retrain.lazy import dask, distributed, lightgbm
from retrain.models import continuing
from retrain.models.fitting import to_features, to_target
from retrain.models.from_scratch import FitResult
from retrain.models.strategy import Strategy
from retrain.models.training_set import TrainingSet
from retrain.ranges import PositiveCount

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

ESTIMATORS = ("LGBMClassifier", "LGBMRegressor")


class OnDask(Strategy):
    """All history, for LightGBM: one batch after the other is read here and dealt out to the
    workers of a Dask cluster, which grow the trees together.

    The model is a plain one, as `strategy=full` gives it. Bins of a number and leaves of few rows
    are found by each worker among its own rows: where these are the same for all, predictions equal
    those of one machine, else they are about as good. The encoding is fitted on the newest
    `encoding_rows` rows.
    """

    streams = True

    def __init__(self, encoding_rows: PositiveCount = 200_000) -> None:
        self.encoding_rows = encoding_rows

    def check(self, config: Config) -> None:
        estimator = continuing.find_class(config)
        if estimator.__name__ not in ESTIMATORS or not estimator.__module__.startswith("lightgbm"):
            raise ConfigError(
                f"`strategy` OnDask grows LightGBM's trees, and `model.estimator` is "
                f"{estimator.__name__}.",
                hint="choose `model=lightgbm`, or `strategy=sample`",
            )
        if config.compute.backend is not Backend.dask:
            raise ConfigError(
                "`strategy` OnDask needs a Dask cluster, and `compute.backend` is "
                f"{config.compute.backend.value}.",
                hint="add `compute=dask compute.address=tcp://HOST:8786`. A backtest fits each "
                "model in one process: `strategy=sample` there",
            )

    def fit(self, training_set: TrainingSet) -> FitResult:
        connect(training_set.config.compute)
        client = distributed.default_client()
        pipeline = continuing.with_encoding(training_set, self.encoding_rows)
        plain = pipeline[-1]
        own = {name: value for name, value in plain.get_params().items() if name != "n_jobs"}
        kind = getattr(lightgbm, f"Dask{type(plain).__name__}")
        try:
            features, target = _deal_out(training_set, pipeline, client)
            fitted = kind(client=client, **own).fit(features, target)
        except ModelError:
            raise
        except Exception as error:  # of Dask, or LightGBM's own
            why = first_line(error).rstrip(".")
            raise ModelError(
                f"LightGBM could not be fitted on the Dask cluster: {why}. Nothing is stored.",
                hint="if a worker died, give the workers more memory in all; then run the command "
                "again",
            ) from error
        pipeline.steps[-1] = (pipeline.steps[-1][0], _as_plain(fitted, plain))
        return FitResult(pipeline, features.shape[0])


def _as_plain(fitted: Any, plain: Any) -> Any:
    """The trees in an estimator with the parameters of the configured one: none of the cluster's
    ports and threads."""
    local = fitted.to_local().set_params(**plain.get_params())
    for name in local.get_params().keys() - plain.get_params().keys():
        local._other_params.pop(name)
        delattr(local, name)
    return local


def _deal_out(training_set: TrainingSet, pipeline: Pipeline, client: Any) -> tuple[Any, Any]:
    """Encoded features and target as Dask's arrays: of each batch every worker has an equal share.

    Raises ModelError where a worker has no row of some class: it would not know it.
    """
    config, types = training_set.config, feature_types(training_set.config)
    workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
    features: list[Any] = []
    target: list[Any] = []
    known = defaultdict(set)
    for part in training_set.parts():
        for rows in part.iter_slices(continuing.STREAMED_ROWS):
            encoded, wanted = (
                pipeline[:-1].transform(to_features(rows, types)),
                to_target(rows, config),
            )
            for place, worker in enumerate(workers[: len(rows)]):
                share = [np.asarray(values)[place :: len(workers)] for values in (encoded, wanted)]
                held = client.scatter(share, workers=[worker], hash=False)
                for found, future, values in zip((features, target), held, share, strict=True):
                    found.append(dask.array.from_delayed(future, values.shape, values.dtype))
                if hasattr(pipeline[-1], "predict_proba"):
                    known[worker].update(np.unique(share[1]).tolist())
    if len({frozenset(classes) for classes in known.values()}) > 1:
        raise ModelError(
            f"Some class has too few rows for {len(workers)} workers.",
            hint="train on one machine: `strategy=full`, or `strategy=sample`",
        )
    return dask.array.concatenate(features), dask.array.concatenate(target)
