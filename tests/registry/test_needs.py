"""A stored model says and holds what it needs: it loads and scores where this project is not."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement
from sklearn.pipeline import Pipeline

from retrain.config import Column, ColumnType, Config, Task, compose, feature_types
from retrain.lazy import mlflow
from retrain.models.continuing import continue_fit, recalibrate
from retrain.models.correcting import add_correction
from retrain.models.fitting import build_pipeline, fit, to_features
from retrain.registry import runs
from retrain.registry.store import open_store

ROWS = 240
FEATURES = {
    "a level, %/ü": ColumnType.categorical,
    "departure_minute": ColumnType.numeric,  # those that a shipped recipe puts on a circle
    "arrival_minute": ColumnType.numeric,
    "weekday": ColumnType.numeric,
    "is new": ColumnType.boolean,
    "since": ColumnType.datetime,
}
TEXTS = {"remark": ColumnType.text, "pack": ColumnType.sparse}
MODELS = sorted(path.stem for path in (REPOSITORY / "conf/model").glob("*.yaml"))
LINEAR = ("logistic_regression", "logistic_regression_periodic")


def corrected(pipeline: Pipeline, later: pl.DataFrame, config: Config) -> Pipeline:
    return add_correction(pipeline, later, config, iterations=2, learning_rate=0.1)


def continued(pipeline: Pipeline, later: pl.DataFrame, config: Config) -> Pipeline:
    return continue_fit(pipeline, later, config, passes=1, trees=2)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A recipe in conf/model/, and what a strategy makes of it on later rows."""

    model: str
    task: Task
    then: Callable[[Pipeline, pl.DataFrame, Config], Pipeline] | None = None
    texts: bool = False

    @property
    def features(self) -> dict[str, ColumnType]:
        return FEATURES | TEXTS if self.texts else FEATURES

    def fit(self) -> tuple[Config, Pipeline]:
        metric = "rmse" if self.task is Task.regression else "log_loss"
        choices = [f"model={self.model}", f"data.task={self.task.name}", f"data.metric={metric}"]
        config = compose(REPOSITORY / "conf", ["data=flights", *choices])
        features = {name: Column(kind, nullable=True) for name, kind in self.features.items()}
        data = dataclasses.replace(config.data, features=features)
        config = dataclasses.replace(config, data=data)
        short = {"max_iter", "n_estimators"} & config.model.estimator.keys()
        config.model.estimator.update(dict.fromkeys(short, 5))
        pipeline = fit(build_pipeline(config), rows(self.task), config)
        return config, self.then(
            pipeline, rows(self.task).tail(100), config
        ) if self.then else pipeline


# One of each set of packages and own classes; tests/benchmarks/loading.py has all.
FEW = [
    Kind("hist_gradient_boosting", Task.multiclass, corrected),
    Kind("hist_gradient_boosting", Task.binary, recalibrate),
    Kind("lightgbm", Task.binary, continued),
    Kind("logistic_regression", Task.binary, texts=True),
    Kind("logistic_regression_periodic", Task.binary),
    Kind("random_forest", Task.regression),
    Kind("sgd", Task.regression),
]


def every_kind() -> Iterator[Kind]:
    for model in MODELS:
        if model != "ridge":
            yield Kind(model, Task.binary, texts=True)
        if model not in LINEAR:
            yield Kind(model, Task.regression)
    for task in Task:
        yield Kind("hist_gradient_boosting", task, corrected)
    yield Kind("logistic_regression", Task.multiclass)
    yield Kind("hist_gradient_boosting", Task.binary, recalibrate)
    for model in ("lightgbm", "mlp", "random_forest", "sgd"):
        yield Kind(model, Task.binary, continued)


def rows(task: Task) -> pl.DataFrame:
    random = np.random.default_rng(0)
    minutes = random.integers(0, 1440, ROWS)
    target: dict[Task, object] = {
        Task.binary: minutes + random.normal(0, 200, ROWS) > 720,
        Task.regression: minutes * 1000.0,
        Task.multiclass: np.where(minutes > 900, "late", np.where(minutes > 500, "noon", "early")),
    }
    days = [datetime(2013, 1, 1 + number % 28) for number in range(ROWS)]
    return pl.DataFrame(
        {
            "a level, %/ü": random.choice(["EWR", "JFK", "ü"], ROWS),
            "departure_minute": minutes,
            "arrival_minute": random.integers(0, 1440, ROWS),
            "weekday": random.integers(1, 8, ROWS),
            "is new": random.random(ROWS) < 0.5,
            "since": days,
            "remark": random.choice(["late again", "sunny", "fog and rain"], ROWS),
            "pack": random.choice(["a:1 b:2", "c:3", "a:2.5"], ROWS),
            "late": target[task],
            "scheduled_departure": days,
        }
    )


def as_found(kind: Kind) -> pl.DataFrame:
    """Rows as other programs have them: whole numbers, flags, and missing values among both."""
    found = rows(kind.task).select(*kind.features).head(20)
    some = pl.col("a level, %/ü", "weekday", "is new", "since")
    return found.with_columns(pl.when(pl.int_range(pl.len()) != 3).then(some))


SCORE = """
import json, sys, warnings
import mlflow, pandas as pd
from mlflow.pyfunc.scoring_server import invocations
warnings.simplefilter("ignore")
found = {}
for name, folder in json.load(sys.stdin).items():
    assert not {"retrain", "project"} & set(sys.modules)
    before, path = set(sys.modules), list(sys.path)
    model = mlflow.pyfunc.load_model(folder)
    body = open(folder + ".json").read()
    answer = invocations(body, "application/json", model, model.metadata.get_input_schema())
    assert answer.status == 200, (name, answer.response)
    frame = pd.read_parquet(folder + ".parquet")
    scores = model.predict(frame)
    found[name] = [scores.tolist(), json.loads(answer.response)["predictions"]]
    sys.path = path
    for module in set(sys.modules) - before:  # the next model brings its own
        if module.partition(".")[0] in ("retrain", "project"):
            del sys.modules[module]
print(json.dumps(found))
"""


def environment(root: Path, requirements: set[str]) -> Path:
    """The interpreter of an environment with these packages, and what they require, alone: links to
    those that are installed here."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root)], check=True)
    site, homes = next((root / "lib").glob("python*/site-packages")), {}
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        asked = waiting.pop()
        if asked.name in found or (asked.marker and not asked.marker.evaluate({"extra": ""})):
            continue
        found[asked.name] = importlib.metadata.distribution(asked.name)
        assert found[asked.name].version in asked.specifier
        waiting += map(Requirement, found[asked.name].requires or [])
    for name, distribution in found.items():
        for file in distribution.files or []:
            if file.parts[0] != "..":
                homes.setdefault(file.parts[0], {})[name] = distribution
    for top, owners in homes.items():
        if len(owners) == 1:
            (site / top).symlink_to(next(iter(owners.values())).locate_file(top))
            continue
        for distribution in owners.values():  # several in one folder
            for file in distribution.files or []:
                if file.parts[0] == top and file.suffix != ".pyc":
                    (site / file).parent.mkdir(parents=True, exist_ok=True)
                    if not (site / file).exists():
                        (site / file).symlink_to(distribution.locate_file(file))
    return root / "bin/python"


@dataclasses.dataclass(frozen=True)
class Logged:
    folder: Path
    requirements: list[str]
    expected: np.ndarray


def log(kinds: Iterable[Kind]) -> dict[str, Logged]:
    """Models of these kinds in the active run's store, by name, with rows to score beside each."""
    logged = {}
    for number, kind in enumerate(kinds):
        config, pipeline = kind.fit()
        stored = runs.log_model(config, pipeline, f"kind-{number}", rows(kind.task))
        place = mlflow.get_logged_model(stored.model_id).artifact_location
        folder = runs.fetch_model_file(place).parent
        found = as_found(kind)
        found.write_parquet(f"{folder}.parquet")
        split = {"columns": found.columns, "data": found.rows()}
        Path(f"{folder}.json").write_text(json.dumps({"dataframe_split": split}, default=str))
        predict = pipeline.predict if kind.task is Task.regression else pipeline.predict_proba
        expected = predict(to_features(found, feature_types(config)))
        name = f"{number} {kind.model} {kind.task.name} {kind.then}"
        logged[name] = Logged(folder, runs.read_requirements(str(folder)), expected)
    return logged


def check_scores(python: Path, logged: Mapping[str, Logged], home: Path) -> None:
    done = subprocess.run(
        [python, "-c", SCORE],
        input=json.dumps({name: str(one.folder) for name, one in logged.items()}),
        capture_output=True,
        text=True,
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, (scores, served) in json.loads(done.stdout.splitlines()[-1]).items():
        np.testing.assert_allclose(scores, logged[name].expected, err_msg=name)
        np.testing.assert_allclose(served, logged[name].expected, err_msg=name)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> dict[str, Logged]:
    root = tmp_path_factory.mktemp("kinds")
    shutil.copy(empty_database, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        open_store(compose(REPOSITORY / "conf", ["data=flights"]))
        with mlflow.start_run():
            return log(FEW)


def test_models_score_in_an_environment_with_nothing_but_their_requirements(
    logged: dict[str, Logged], tmp_path: Path
) -> None:
    needed = {line for one in logged.values() for line in one.requirements}
    check_scores(environment(tmp_path / "fresh", needed), logged, tmp_path)


def test_a_model_asks_for_the_packages_that_are_in_it_and_no_more(
    logged: dict[str, Logged],
) -> None:
    for name, one in logged.items():
        packages = {line.partition("==")[0] for line in one.requirements}
        assert packages >= {"mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops"}
        assert ("lightgbm" in packages) == ("lightgbm" in name)
        assert ("polars" in packages) == ("periodic" in name), "what src/project/features.py needs"


def test_a_model_trusts_and_carries_what_is_in_it_and_no_more(logged: dict[str, Logged]) -> None:
    for name, one in logged.items():
        flavor = yaml.safe_load((one.folder / "MLmodel").read_text())["flavors"]["sklearn"]
        trusted = flavor["skops_trusted_types"]
        assert ("project.features.on_circle" in trusted) == ("periodic" in name)
        assert ("retrain.models.scaled.ScaledSGDRegressor" in trusted) == ("sgd" in name)
        code = {path.relative_to(one.folder / "code") for path in one.folder.rglob("*.py")}
        assert Path("retrain/config.py") not in code
        assert (Path("project/features.py") in code) == ("periodic" in name)
