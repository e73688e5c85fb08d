"""Candidates, sweeps, scoring and serving, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import polars as pl
import pytest
from conftest import Project, flights, free_port

from retrain.commands import sweep
from retrain.commands.sweep_runs import FRESH, GIVEN, PARENT


def candidates(project: Project) -> list:
    client = project.client()
    return client.search_runs([client.get_experiment_by_name("slice-candidates").experiment_id])


def test_a_candidate_leaves_champion_and_pipeline_alone(grown: Project) -> None:
    before = (grown.root / "reports/challenger.json").read_bytes()
    result = grown.run("retrain", "train", "model=logistic_regression")
    assert "The champion is untouched" in result.stderr
    (run,) = candidates(grown)
    assert run.info.status == "FINISHED" and run.data.tags["model"] == "LogisticRegression"
    assert 0 < run.data.metrics["log_loss/validation"] < 1
    # Chosen on rows before the evaluation window, which stays unseen.
    assert run.data.tags["validation_window"].endswith("to 2013-03-22 00:00")
    assert {
        int(version.version) for version in grown.client().search_model_versions("name = 'slice'")
    } == {1, 2}
    assert (grown.root / "reports/challenger.json").read_bytes() == before
    assert grown.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."


@pytest.mark.parametrize(
    "launcher",
    [[], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]],
    ids=["serial", "parallel"],
)
def test_a_sweep_on_an_empty_store_loses_no_run(project: Project, launcher: list[str]) -> None:
    project.repro("snapshot")
    assert not (project.root / "mlflow.db").exists()
    swept = [
        "model=hist_gradient_boosting,logistic_regression,dummy",
        "strategy=full,sliding_window",
    ]
    result = project.run("retrain", "train", "-m", *swept, *launcher)
    runs = candidates(project)
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "sweep"]
    children = [
        run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    ]
    assert len(children) == 6 and {run.info.status for run in runs} == {"FINISHED"}
    rows = [line for line in result.stdout.splitlines() if "strategy=" in line and "model=" in line]
    assert len([line for line in rows if line[0].isdigit()]) == 6
    best = min(children, key=lambda run: run.data.metrics["log_loss/validation"])
    (named,) = [run for run in children if run.info.run_id == parent.data.tags["best_run"]]
    assert named.data.metrics["log_loss/validation"] == best.data.metrics["log_loss/validation"]
    assert parent.data.tags["best"] == named.info.run_name
    assert not project.client().search_registered_models()


def test_a_failing_job_does_not_stop_the_sweep_but_its_exit_code(grown: Project) -> None:
    result = grown.run(
        "retrain",
        "train",
        "-m",
        "model.estimator.learning_rate=-1,0.1",
        "data.metric=roc_auc",
        check=False,
    )
    error = " ".join(result.stderr.split())
    assert (
        result.returncode == 1
        and "1 job(s) of the sweep failed" in error
        and "Traceback" not in error
    )
    assert (
        "model.estimator.learning_rate=-1 data.metric=roc_auc: `model.estimator.learning_rate`"
        in error
    )
    runs = candidates(grown)
    assert sorted(run.info.status for run in runs) == ["FAILED", "FAILED", "FINISHED"]
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "sweep"]
    note = parent.data.tags["mlflow.note.content"]
    assert "failed" in note and "must be a float in the range (0.0, inf). Got -1 instead" in note
    assert parent.data.tags["best"] == "model.estimator.learning_rate=0.1 data.metric=roc_auc"
    assert 0.5 < parent.data.metrics["roc_auc/validation"] < 1  # as it is, not as a sweeper is told


def test_the_champions_recipe_is_a_row_of_a_sweep_once_and_is_only_marked_where_a_job_has_it(
    grown: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(grown.root)
    monkeypatch.setattr(sys, "argv", sys.argv)
    for name in (PARENT, GIVEN, FRESH, "HYDRA_FULL_ERROR"):
        monkeypatch.setenv(name, "")
    for _ in range(2):
        sweep.run(["model=dummy"])
        (parent,) = [run for run in candidates(grown) if run.data.tags["kind"] == "sweep"]
        children = [run for run in candidates(grown) if run.data.tags["kind"] == "candidate"]
        assert {run.info.run_name for run in children} == {"model=dummy", "recipe of version 2"}
        assert len(children) == 2 and parent.data.tags["best"] == "model=dummy", "a job's"
        assert "The first is the champion's recipe (version 2)" in capsys.readouterr().out

    sweep.run(["seed=20130101"])  # the seed of conf/
    found = [run for run in candidates(grown) if run.info.run_name == "seed=20130101"]
    assert len(found) == 1 and len(candidates(grown)) == 3 + 2, "a sweep and a job more"
    assert "seed=20130101 (champion)" in capsys.readouterr().out

    version = grown.client().get_model_version("slice", "2")
    trained_in = grown.client().get_run(version.run_id).data.tags["retrained_in"]
    grown.client().log_text(trained_in, "model: {}", "config.yaml")
    sweep.run(["model=dummy", "seed=7"])
    said = capsys.readouterr().out
    assert "config.yaml of version 2 is not known to the ledger" in said and "recipe of" not in said
    assert len(candidates(grown)) == 5 + 2


def test_scores_carry_version_and_time(grown: Project) -> None:
    flights("2013-04").drop("late").write_parquet(grown.root / "in.parquet")
    grown.run("retrain", "predict", "in.parquet", "--output", "out.parquet")
    scored = pl.read_parquet(grown.root / "out.parquet")
    assert len(scored) == len(flights("2013-04")) and scored["prediction"].is_between(0, 1).all()
    assert scored["model_version"].unique().to_list() == [2]
    assert scored["predicted_at"].null_count() == 0


def test_wrong_columns_are_refused_by_name_and_nothing_is_written(grown: Project) -> None:
    wrong = flights("2013-04").drop("carrier").with_columns(pl.col("distance").cast(pl.String))
    wrong.write_parquet(grown.root / "in.parquet")
    result = grown.run("retrain", "predict", "in.parquet", "--output", "out.parquet", check=False)
    error = " ".join(result.stderr.split())
    assert (
        result.returncode == 1
        and "`carrier` is missing" in error
        and "`distance` has type String instead of numeric" in error
    )
    assert not (grown.root / "out.parquet").exists()


def test_there_is_no_champion_to_score_with(project: Project) -> None:
    flights("2013-04").write_parquet(project.root / "in.parquet")
    result = project.run("retrain", "predict", "in.parquet", "--output", "out.parquet", check=False)
    assert result.returncode == 1 and "no champion" in result.stderr
    assert "none yet" in project.run("retrain", "status").stdout
    assert "is empty" in project.run("retrain", "history").stdout


def test_a_served_champion_answers_as_predict_does(grown: Project) -> None:
    rows = flights("2013-04").drop("late").head(20)
    rows.write_parquet(grown.root / "in.parquet")
    grown.run("retrain", "predict", "in.parquet", "--output", "out.parquet")
    expected = pl.read_parquet(grown.root / "out.parquet")["prediction"].to_list()
    port = free_port()
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{grown.root / 'mlflow.db'}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/slice@champion",
        "--env-manager",
        "local",
        "-p",
        str(port),
    ]
    log = (grown.root / "serve.log").open("w")
    server = subprocess.Popen(
        command, cwd=grown.root, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        features = [name for name in rows.columns if name not in ("flight", "scheduled_departure")]
        frame = rows.select(features)
        body = json.dumps(
            {
                "dataframe_split": {
                    "columns": frame.columns,
                    "data": [list(row) for row in frame.rows()],
                }
            }
        ).encode()
        answer = ask(f"http://127.0.0.1:{port}/invocations", body, server, grown.root / "serve.log")
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)
    assert [row[1] for row in answer["predictions"]] == pytest.approx(expected)


def ask(url: str, body: bytes, server: subprocess.Popen, log: Path) -> dict:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    for _ in range(120):
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])
