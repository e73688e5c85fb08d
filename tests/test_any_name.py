"""Any name is a name: the whole pipeline gives the same verdicts and predictions, whatever the data
are called.

`RETRAIN_NAMES=300 pytest tests/test_any_name.py` draws more of them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import REPOSITORY
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from names import LOOK_ALIKES, OWN_WORDS, any_name

from retrain import cli
from retrain.commands.project_files import check_name
from retrain.config import load_params
from retrain.errors import DataError
from retrain.report import html
from retrain.yaml_text import inline

DRAWN = int(os.environ.get("RETRAIN_NAMES", "2"))
MONTHS, ROWS = 3, 400
STAGES = ("config", "snapshot", "train", "evaluate", "promote")


@dataclass(frozen=True)
class Names:
    """What a table, its columns, the levels of one of them, and the classes of the target are
    called."""

    columns: tuple[str, ...] = ("moment", "number", "kind", "size", "outcome", "seen")
    levels: tuple[str, ...] = ("red", "green", "blue")
    classes: tuple[str, ...] = ("good", "bad", "ugly")
    file: str = "table"
    data: str = "plain"
    several: bool = False


PLAIN = {several: Names(several=several) for several in (False, True)}


@st.composite
def names(draw: st.DrawFn) -> Names:
    columns = draw(st.lists(any_name(), min_size=6, max_size=6, unique=True))
    levels = draw(st.lists(any_name(), min_size=3, max_size=3, unique=True))
    classes = draw(st.lists(any_name(), min_size=3, max_size=3, unique=True))
    file = draw(any_name()).replace("/", "_").encode()[:100].decode(errors="ignore")
    return Names(
        tuple(columns), tuple(levels), tuple(classes), file, draw(any_name()), draw(st.booleans())
    )


def table(called: Names, months: int) -> pl.DataFrame:
    """So many months of rows whose target follows one category and one number."""
    generator = np.random.default_rng(0)
    count = MONTHS * ROWS
    kind, size = generator.integers(0, 3, count), generator.normal(size=count)
    score = 2.5 * size + 1.5 * kind + generator.logistic(size=count) * 0.7
    borders = (1.0, 3.5) if called.several else (3.0,)
    outcome = np.digitize(score, borders)
    moments = [
        datetime(2023, 1 + number // ROWS, 1) + timedelta(hours=(number % ROWS) * 1.6)
        for number in range(count)
    ]
    moment, number, kinds, sizes, target, seen = called.columns
    frame = pl.DataFrame(
        {
            moment: moments,
            number: [f"row {row}" for row in range(count)],
            kinds: np.array(called.levels, dtype=object)[kind],
            sizes: size,
            target: np.array(called.classes, dtype=object)[outcome],
            seen: [
                moment - timedelta(hours=int(hours))
                for moment, hours in zip(moments, kind, strict=True)
            ],
        },
        schema_overrides={kinds: pl.String, target: pl.String},
    )
    return frame.head(months * ROWS)


@contextlib.contextmanager
def project(root: Path, database: Path) -> Iterator[None]:
    """A project in an empty folder, with fast models, that this process works in."""
    for name in ("conf", "dvc.yaml"):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, root / name)
    shutil.copy(database, root / "mlflow.db")
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        patch.setenv("DVC_STAGE", "test")
        patch.chdir(root)
        try:
            yield
        finally:
            os.chdir(before)


def retrain(*arguments: str) -> None:
    cli.run(cli.parse(list(arguments)))


def live(called: Names, root: Path) -> list[tuple[str, pl.DataFrame]]:
    """Verdict and predictions of three retrainings, the first by `init` and the others as months
    arrive."""
    moment, _, _, _, target, _ = called.columns
    path = Path(f"./{called.file}.parquet")
    found = []
    for months in range(1, MONTHS + 1):
        table(called, months).write_parquet(path)
        if months == 1:
            options = [f"--target={target}", f"--time={moment}", "--period=month"]
            retrain("init", str(path), *options, f"--name={allowed(called.data)}")
            offered(Path(f"conf/data/{allowed(called.data)}.yaml"), moment)
            config = Path("conf/config.yaml")
            config.write_text(
                config.read_text().replace(
                    "- model: hist_gradient_boosting", "- model: logistic_regression"
                )
            )
        for stage in STAGES:
            retrain(stage)
        compared = json.loads(Path("reports/comparison.json").read_text())
        predictions = pl.read_parquet("reports/predictions.parquet")
        found.append((compared["verdict"], predictions))
        page = Path("reports/report.html").read_text()
        assert page != html.FAILED and page.count("<svg") >= 4
        assert Path("reports/report.md").read_text().startswith("### Retraining on batch")
    for verb in ("status", "history"):
        retrain(verb)
    retrain("monitor")
    scored = root / "scored.parquet"
    retrain("predict", str(path), "--output", str(scored))
    assert set(called.columns) <= set(pl.read_parquet(scored).columns)
    return found


def offered(data: Path, moment: str) -> None:
    """Take the time itself as a feature, by the line that `init` offers for that."""
    text = data.read_text(encoding="utf-8")
    line = f"{inline(moment)}: {{type: datetime}}"
    assert text.count(f"\n#  {line}") == 1
    data.write_text(text.replace(f"\n#  {line}", f"\n  {line}"), encoding="utf-8")


def allowed(name: str) -> str:
    """The name of a data set, if it may be one."""
    try:
        return check_name(name)
    except DataError:
        return "allowed"


def scores(predictions: pl.DataFrame, called: Names) -> np.ndarray:
    """The challenger's, whose classes are in alphabetical order where there are several."""
    found = predictions["__retrain_challenger"].to_numpy()
    if not called.several:
        return found
    return found[:, [sorted(called.classes).index(name) for name in called.classes]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> dict[bool, list]:
    """What comes out when everything has a plain name."""
    outcomes = {}
    for several, called in PLAIN.items():
        root = tmp_path_factory.mktemp("plain")
        with project(root, empty_database):
            outcomes[several] = live(called, root)
        assert [verdict for verdict, _ in outcomes[several]] == ["promote"] * MONTHS
    return outcomes


@settings(
    deadline=None,
    derandomize=DRAWN < 10,
    max_examples=DRAWN,
    phases=[
        Phase.explicit,
        Phase.generate,
    ],  # a failing example is told at once: shrinking would take minutes
    suppress_health_check=list(HealthCheck),
)
@given(names())
@example(
    Names(
        ("window", "block", "Price ($)", "C/A+", "target", "count"),
        ("[/b]", "a\nb", "${x}"),
        ("C/A+", "???", "x" * 300),
        "sales, eu [v2]",
        "../z",
        several=True,
    )
)
@example(
    Names(
        ("date, local", "row_number", "two\nlines", "slice", "[a: b]", "on"),
        ("NO", "null", "'"),
        ("yes", "1e3", ""),
        "UPPER 'n' low",
        "null",
    )
)
def test_what_the_data_are_called_changes_nothing(
    plain: dict[bool, list],
    tmp_path_factory: pytest.TempPathFactory,
    empty_database: Path,
    caplog: pytest.LogCaptureFixture,
    called: Names,
) -> None:
    caplog.clear()
    root = tmp_path_factory.mktemp("named")
    with project(root, empty_database), caplog.at_level(logging.INFO, "retrain"):
        outcome = live(called, root)
        assert_mlflow_shows(called)
    assert "could not be shown" not in caplog.text
    for (verdict, predictions), (expected, others) in zip(
        outcome, plain[called.several], strict=True
    ):
        assert verdict == expected
        np.testing.assert_allclose(
            scores(predictions, called), scores(others, PLAIN[called.several]), atol=2e-3
        )
    shutil.rmtree(root)


def assert_mlflow_shows(called: Names) -> None:
    """The monitoring run has a distance for each feature, under a name that is its own."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    experiment = client.get_experiment_by_name(f"{allowed(called.data)}-monitoring")
    (run,) = client.search_runs([experiment.experiment_id])
    assert len([name for name in run.data.metrics if name.startswith("distance/")]) == 4


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_init_and_snapshot_keep_every_column_of_a_table_full_of_such_names(
    kind: str, tmp_path: Path, empty_database: Path
) -> None:
    columns = list(dict.fromkeys([*LOOK_ALIKES, *OWN_WORDS]))
    generator = np.random.default_rng(0)
    plain = Names(
        columns=("the moment", "the number", "the kind", "the size", "the outcome", "the seen")
    )
    levels = {name: generator.choice(["a", "b", "c"], ROWS) for name in columns}
    made = table(plain, 1).hstack(pl.DataFrame(levels))
    with project(tmp_path, empty_database):
        made.write_csv("t.csv") if kind == "csv" else made.write_parquet("t.parquet")
        retrain(
            "init",
            f"t.{kind}",
            "--target=the outcome",
            "--time=the moment",
            "--period=month",
            "--name=many",
        )
        retrain("config")
        retrain("snapshot")
        assert set(columns) <= set(load_params().data.features)
        stored = pl.read_parquet("data/snapshot/batch=2023-01/part.parquet").sort("the number")
        for name in columns:
            assert stored[name].to_list() == made.sort("the number")[name].to_list()
