"""A model that goes on from its predecessor's weights, through the whole pipeline."""

from __future__ import annotations

import json

import pytest
from conftest import Project, make_project
from test_loop import aliases

from retrain.registry.version_tags import read_tags


@pytest.fixture(scope="module")
def continued(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A first champion, then April continued from it."""
    project = make_project(tmp_path_factory.mktemp("continued") / "my project")
    project.arrive("2013-01", "2013-02", "2013-03")
    project.edit("conf/config.yaml", "- model: hist_gradient_boosting", "- model: sgd")
    project.edit("conf/config.yaml", "- strategy: full", "- strategy: warm_start")
    # A sixth of the flights is too little for this model to beat the share of late ones in April;
    # here it may serve all the same.
    project.edit(
        "conf/gate/shared/guardrails.yaml",
        "guardrails.BaselineFloor\n",
        "guardrails.BaselineFloor\n    on_failure: warn\n",
    )
    project.edit("conf/gate/shared/guardrails.yaml", "margin: 0.05", "margin: 0.5")
    for command in (["add", "-A"], ["commit", "-qm", "warm start"]):
        project.run("git", "-c", "user.name=test", "-c", "user.email=test@example.com", *command)
    output = project.repro()
    assert "there is no version to continue from" in output and aliases(project)["champion"] == 2
    project.arrive("2013-04")
    project.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    assert "Continued from version 2." in project.repro()
    return project


def challenger(project: Project) -> dict:
    return json.loads((project.root / "reports/challenger.json").read_text())


def test_the_challenger_is_trained_on_the_new_rows_and_says_what_it_was_continued_from(
    continued: Project,
) -> None:
    record = challenger(continued)
    assert record["note"] == "Continued from version 2." and record["rows"] < 4000
    # What its base was trained on counts as seen, too.
    assert list(record["challenger"]["contents"]) == ["2013-01", "2013-02", "2013-03", "2013-04"]
    version = continued.client().get_model_version("slice", str(record["challenger"]["version"]))
    assert read_tags(0, version.tags).continued_from == [2]
    assert version.tags["training_rows"] == f"{record['rows']:,}"
    run = continued.client().get_run(record["run_id"])
    assert (
        run.data.tags["continued_from"] == "2"
        and run.data.metrics["training/rows"] == record["rows"]
    )
    assert "Continued from version 2." in (continued.root / "reports/report.html").read_text()
    assert continued.stages_run() == []


@pytest.mark.parametrize("version", [3, 4])
def test_a_continued_version_is_reproduced_from_its_base(continued: Project, version: int) -> None:
    assert aliases(continued)["champion"] == 4, "the refit of version 3"
    assert "predictions are identical" in continued.run("retrain", "reproduce", str(version)).stdout


def test_another_recipe_is_not_continued(continued: Project, tmp_path) -> None:
    project = continued.copy(tmp_path / "project")
    project.edit("conf/model/sgd.yaml", "alpha: 0.0001", "alpha: 0.001")
    output = project.repro()
    assert "features, encoding or estimator are not those of version" in output
    assert challenger(project)["rows"] > 10_000


def test_a_model_that_can_not_be_continued_stops_before_any_work(
    continued: Project, tmp_path
) -> None:
    project = continued.copy(tmp_path / "project")
    project.edit("conf/config.yaml", "- model: sgd", "- model: hist_gradient_boosting")
    result = project.run("dvc", "repro", check=False)
    said = " ".join(result.stderr.split())
    assert (
        result.returncode != 0 and "can't honestly be continued" in said and "Traceback" not in said
    )
    assert "Running stage 'snapshot'" not in result.stdout


def test_a_sweep_compares_continuing_with_training_anew(continued: Project, tmp_path) -> None:
    project = continued.copy(tmp_path / "project")
    output = project.run(
        "retrain", "train", "-m", "strategy=full,warm_start,replay,residual"
    ).stdout
    assert all(f"strategy={name}" in output for name in ("full", "replay", "residual"))
    assert "failed" not in output


def test_a_refit_carries_out_the_strategy_that_won_and_is_reproduced(project: Project) -> None:
    project.edit("conf/config.yaml", "- strategy: full", "- strategy: best_of")
    project.run(
        "git",
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@example.com",
        "commit",
        "-qam",
        "best of",
    )
    assert "did best on" in project.repro() and aliases(project)["champion"] == 2
    challenger, refit = (
        read_tags(0, project.client().get_model_version("slice", number).tags)
        for number in ("1", "2")
    )
    assert challenger.strategy_choice == refit.strategy_choice != ""
    if refit.strategy_choice == "sliding_window":
        assert refit.batches == ["2013-01", "2013-02", "2013-03"]
    for version in ("1", "2"):
        assert "predictions are identical" in project.run("retrain", "reproduce", version).stdout
