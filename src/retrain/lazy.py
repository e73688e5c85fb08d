"""Libraries that load when they are first used: `from retrain.lazy import mlflow` costs nothing.

A command that needs no MLflow and no scikit-learn then starts without them, and no function has
imports of its own: `mlflow.entities.Metric(...)`, `except mlflow.exceptions.MlflowException` and
annotations read as usual, submodules included. Type checkers see the true modules.
(`importlib.util.LazyLoader` and the library lazy_loader put an unloaded module into `sys.modules`,
where other libraries stumble over it, load a package for each of its submodules, and have no
types.)
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = [
    "dask",
    "distributed",
    "filelock",
    "fsspec",
    "hydra",
    "jinja2",
    "lightgbm",
    "matplotlib",
    "mlflow",
    "numpy",
    "omegaconf",
    "optuna",
    "pandas",
    "polars",
    "psutil",
    "pydantic",
    "ray",
    "rich",
    "river",
    "ruamel",
    "scipy",
    "sklearn",
    "skops",
    "sqlalchemy",
    "threadpoolctl",
    "yaml",
]

# skops looks for each function of scipy.special in all modules, in the order in which they were
# imported. MLflow brings more than a thousand; after it that takes a second for each process.
BEFORE = {"mlflow": "scipy.special"}


class Library(ModuleType):
    """Stands for a module until one of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        if first := BEFORE.get(self.__name__):
            import_module(first)
        module = import_module(self.__name__)
        try:
            return getattr(module, name)
        except AttributeError:  # a submodule that nobody has imported yet
            return import_module(f"{self.__name__}.{name}")


if TYPE_CHECKING:
    import dask
    import dask.array
    import distributed
    import filelock
    import fsspec
    import hydra
    import hydra.core.global_hydra
    import hydra.core.hydra_config
    import hydra.core.override_parser.overrides_parser
    import hydra.core.override_parser.types
    import hydra.errors
    import hydra.types
    import hydra.utils
    import jinja2
    import lightgbm
    import matplotlib
    import matplotlib.figure
    import matplotlib.ticker
    import mlflow
    import mlflow.data.meta_dataset
    import mlflow.entities
    import mlflow.exceptions
    import mlflow.models
    import mlflow.pyfunc
    import mlflow.sklearn
    import mlflow.store.artifact.artifact_repository_registry
    import mlflow.tracking.context.registry
    import mlflow.types
    import numpy
    import omegaconf
    import omegaconf.errors
    import optuna
    import pandas
    import polars
    import psutil
    import pydantic
    import ray
    import rich
    import rich.console
    import rich.progress
    import rich.table
    import river
    import river.drift
    import ruamel
    import ruamel.yaml
    import ruamel.yaml.error
    import ruamel.yaml.nodes
    import ruamel.yaml.scalarstring
    import scipy
    import scipy.optimize
    import scipy.sparse
    import scipy.special
    import scipy.stats
    import sklearn
    import sklearn.ensemble
    import skops
    import skops.io
    import sqlalchemy
    import sqlalchemy.engine
    import sqlalchemy.exc
    import threadpoolctl
    import yaml
else:
    globals().update({name: Library(name) for name in __all__})
