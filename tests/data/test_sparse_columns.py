"""Thousands of columns, mostly zero, as one feature: what the pack holds, what `init` makes of it,
and a model on top."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import make_project

from retrain.config import Task, compose
from retrain.data.inference.wide_tables import find_target_copies
from retrain.data.schema import PAIRS
from retrain.data.sparse_columns import pair_names, to_sparse
from retrain.models.transformers import SparsePairs

WIDE = 1500


def test_a_pack_holds_what_is_neither_zero_nor_missing() -> None:
    rows = pl.DataFrame(
        {"id": [1, 2, 3], "a b": [0, 2, 0], "c:d": [None, -1.5, 0.0], "flag": [True, False, False]}
    )
    packed = to_sparse(rows, ["a b", "c:d", "flag"], "columns")
    assert packed.columns == ["id", "columns"]
    assert packed["columns"].to_list() == ["flag:1.0", "a_b:2.0 c:d:-1.5", ""]
    assert packed["columns"].str.contains(PAIRS).all()


@pytest.mark.parametrize("into", ["columns", "row", "pairs"])
def test_columns_stay_apart_in_a_pack_whatever_they_are_called(into: str) -> None:
    names = [
        "a b",
        "a_b",
        "a\tb",
        "a\nb",
        "a\u00a0b",
        "a%20b",
        "100 %",
        "",
        " ",
        "row",
        "x:1",
        "pairs_",
        "count",
    ]
    assert len(set(pair_names(names))) == len(names)
    rows = pl.DataFrame(
        {name: [float(number + 1)] for number, name in enumerate(names)} | {"kept": ["k"]}
    )
    packed = to_sparse(rows, names, into)
    assert packed.columns == ["kept", into] and packed[into].str.contains(PAIRS).all()
    values = [pair.rpartition(":")[2] for pair in packed[into][0].split()]
    assert values == [f"{number + 1}.0" for number in range(len(names))]


@pytest.mark.parametrize("text", ["gene", "gene:", "gene:one", "gene:1 gene", ":1"])
def test_what_is_no_pack_breaks_the_contract(text: str) -> None:
    assert not pl.Series([text]).str.contains(PAIRS)[0]


def test_packs_become_the_matrix_that_they_were() -> None:
    random = np.random.default_rng(0)
    cells = (random.random((40, 300)) < 0.1) * random.normal(size=(40, 300))
    packed = to_sparse(
        pl.DataFrame(cells, schema=[f"c{number}" for number in range(300)]),
        [f"c{n}" for n in range(300)],
        "x",
    )
    matrix = SparsePairs().fit(packed.to_pandas()).transform(packed.to_pandas())
    assert matrix.shape == (40, 2**18)
    # Hashing may flip signs, but inner products of rows without collisions stay what they were.
    np.testing.assert_allclose((matrix @ matrix.T).toarray(), cells @ cells.T, atol=1e-9)
    assert (
        SparsePairs().fit(packed.to_pandas()).transform(pl.DataFrame({"x": [None]}).to_pandas()).nnz
        == 0
    )


@pytest.mark.parametrize("kind", ["numbers", "flags", "words"])
def test_a_column_that_tells_the_target_is_found_among_thousands(kind: str) -> None:
    random = np.random.default_rng(0)
    told = random.integers(0, 2, 500)
    target = {"numbers": told * 2.5, "flags": told == 1, "words": np.where(told == 1, "yes", "no")}[
        kind
    ]
    rows = pl.DataFrame(
        {f"c{number}": random.normal(size=500) for number in range(50)}
    ).with_columns(told=pl.Series(told))
    task = Task.regression if kind == "numbers" else Task.binary
    assert find_target_copies(rows, rows.columns, pl.Series("y", target), task) == ["told"]


@pytest.mark.parametrize("task", [Task.binary, Task.regression])
def test_limits_and_skewed_copies_are_found_among_thousands_and_honest_columns_are_not(
    task: Task,
) -> None:
    random = np.random.default_rng(1)
    amount = random.lognormal(sigma=1.5, size=2000)
    target = amount if task is Task.regression else amount > np.quantile(amount, 0.9)
    honest = np.log(amount) + 0.3 * random.normal(size=2000)
    sparse = {f"c{number}": random.poisson(0.1, 2000) for number in range(50)}
    rows = pl.DataFrame({**sparse, "told": np.log(amount).round(3), "honest": honest})
    assert find_target_copies(rows, rows.columns, pl.Series("y", target), task) == ["told"]


@pytest.mark.filterwarnings("error")
def test_rows_with_an_infinite_target_tell_nothing_about_thousands_of_columns() -> None:
    amount = np.random.default_rng(1).lognormal(size=500)
    rows = pl.DataFrame({"told": np.log(amount), "zero": np.zeros(500)})
    amount[7] = np.inf
    assert find_target_copies(rows, rows.columns, pl.Series("y", amount), Task.regression) == [
        "told"
    ]


def test_a_wide_table_runs_with_nothing_but_init(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    count = 3000
    cells = (random.random((count, WIDE)) < 0.02) * random.integers(1, 4, (count, WIDE))
    target = cells[:, :100] @ random.normal(size=100) + random.logistic(size=count) > 0
    table = pl.DataFrame(cells, schema=[f"gene_{number}" for number in range(WIDE)]).with_columns(
        id=pl.Series(range(count)),
        day=pl.Series([datetime(2024, 1, 1) + timedelta(hours=row) for row in range(count)]),
        ill=pl.Series(target),
        told=pl.Series(target.astype(int) * 7),
    )
    table.write_parquet(tmp_path / "genes.parquet")
    project = make_project(tmp_path / "my project")
    output = project.run(
        "retrain", "init", str(tmp_path / "genes.parquet"), "--target", "ill", "--time", "day"
    ).stdout
    assert "1 sparse" in output and "`told`: it alone predicts the target" in output
    config = compose(project.root / "conf")
    assert list(config.data.features) == ["columns"] and config.data.source["leave_out"] == ["told"]
    # Trees see thousands of sparse columns through a few components only: `init` has chosen what
    # copes.
    assert (
        "LogisticRegression" in config.model.estimator["_target_"]
        and "Model        logistic_regression" in output
    )
    assert "Challenger version 1, refitted as version 2, is champion now" in project.repro()
    scored = tmp_path / "scored.parquet"
    newest = sorted((project.root / "data/snapshot").glob("batch=*/part.parquet"))[-1]
    project.run("retrain", "predict", str(newest), "--output", str(scored))
    probabilities = pl.read_parquet(scored)
    assert probabilities.columns[-1] != "columns" and len(probabilities) == len(
        pl.read_parquet(newest)
    )
