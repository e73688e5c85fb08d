"""What a stored model needs where it is loaded: its columns, packages in the versions of now, and
the code of own classes, which travels beside the model."""

from __future__ import annotations

import importlib.metadata
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain.config import ColumnType, Config, feature_types
from retrain.lazy import mlflow
from retrain.models.storable import dump
from retrain.own_code import imported_packages, modules_to_load

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# MLflow loads and serves with these, whatever is in the model.
ALWAYS = ("mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops")
NAMES = {"sklearn": "scikit-learn"}


def feature_schema(config: Config, numbers: Any = None) -> mlflow.types.Schema:
    """MLflow's schema of the raw feature columns: strings, times, and numbers of the given type, by
    default doubles.

    A column may hold nulls, but not be left out: MLflow calls a column optional only when it may be
    absent.
    """
    types = mlflow.types.DataType
    kinds = {
        ColumnType.categorical: types.string,
        ColumnType.text: types.string,
        ColumnType.sparse: types.string,
        ColumnType.datetime: types.datetime,
    }
    return mlflow.types.Schema(
        [
            mlflow.types.ColSpec(kinds.get(kind, numbers or types.double), name)
            for name, kind in feature_types(config).items()
        ]
    )


@dataclass(frozen=True)
class Needs:
    """`types`: the dotted names of all classes and functions in the model. `modules`: the files
    that define those of our own, and what they import, by module. `requirements`:
    `name==version`."""

    types: frozenset[str]
    modules: Mapping[str, Path]
    requirements: list[str]

    def copy_code(self, folder: Path) -> list[str] | None:
        """Copy the modules into `folder`; paths for MLflow to store, None where there is no own
        code. Files beside them, such as tables, stay: rows never get into the store."""
        for module, path in self.modules.items():
            place = folder.joinpath(*module.split("."))
            place = (
                place / "__init__.py" if path.name == "__init__.py" else place.with_suffix(".py")
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        return [str(path) for path in sorted(folder.iterdir())] or None


def find_needs(pipeline: Pipeline, root: Path) -> Needs:
    """Looks into the model as it is stored. `root`: the project's. Raises ModelError for one that
    can't be stored."""
    types = frozenset(_stored_types(dump(pipeline)))
    modules = modules_to_load(types, root)
    packages = {name.partition(".")[0] for name in types} | imported_packages(modules)
    packages -= sys.stdlib_module_names | {name.partition(".")[0] for name in modules}
    found = {each for name in packages for each in _distributions(name)}
    required = sorted({*found, *ALWAYS}, key=str.lower)
    return Needs(types, modules, [f"{name}=={_version(name)}" for name in required])


def _stored_types(content: bytes) -> set[str]:
    found: set[str] = set()

    def note(node: dict[str, Any]) -> dict[str, Any]:
        if {"__module__", "__class__"} <= node.keys():
            found.add(f"{node['__module__']}.{node['__class__']}")
        return node

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        json.loads(archive.read("schema.json"), object_hook=note)
    return found


def _version(distribution: str) -> str:
    """Without a local part, which no index has (`+cpu`)."""
    return importlib.metadata.version(distribution).partition("+")[0]


def _distributions(package: str) -> list[str]:
    """What to install for a package that is imported."""
    try:
        return [importlib.metadata.metadata(NAMES.get(package, package))["Name"]]
    except importlib.metadata.PackageNotFoundError:  # to read all that is installed takes a second
        return importlib.metadata.packages_distributions().get(package, [])
