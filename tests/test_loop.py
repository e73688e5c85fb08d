"""The main loop, end to end: real DVC, Hydra, MLflow and scikit-learn on a slice of the real
data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
from conftest import TARGET, Project
from omegaconf import OmegaConf

STAGES = ["config", "snapshot", "train", "evaluate", "promote"]


def promotion(project: Project) -> dict:
    return json.loads((project.root / "reports/promotion.json").read_text())


def aliases(project: Project) -> dict[str, int]:
    found = project.client().get_registered_model("slice").aliases
    return {alias: int(version) for alias, version in found.items()}


def test_first_champion_then_nothing_to_do(champion_project: Project) -> None:
    promoted = promotion(champion_project)
    verified = champion_project.run("retrain", "history", "--verify").stdout
    assert f"Digest of all entries: {promoted.pop('ledger_digest')}" in verified
    assert promoted == {
        "verdict": "promote",
        "moved": True,
        "champion": 2,
        "previous": None,
        "ledger_entry": 0,
        "candidate": None,
        "registered_model": "slice",
    }
    assert aliases(champion_project) == {"challenger": 1, "champion": 2}
    page = (champion_project.root / "reports/report.html").read_text()
    assert page.count("<svg") > 4 and "Importance of features" in page
    assert champion_project.stages_run() == []


def test_a_new_month_is_compared_on_rows_that_neither_has_seen_and_a_bad_one_is_rejected(
    grown: Project,
) -> None:
    before = (grown.root / "data/snapshot/batch=2013-01/part.parquet").stat()
    grown.arrive("2013-04")
    grown.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    output = grown.repro()
    assert "1 batch(es) added: 2013-04" in output
    assert (
        grown.root / "data/snapshot/batch=2013-01/part.parquet"
    ).stat().st_mtime_ns == before.st_mtime_ns
    trained = json.loads((grown.root / "reports/challenger.json").read_text())
    assert trained["incumbent"]["version"] == 2
    growth = trained["importance"]["growth"]
    assert set(growth) == {"challenger", "incumbent"}
    assert all(found["departure_minute"] > 0 for found in growth.values())
    assert trained["incumbent"]["trained_until"] == "2013-04-01T00:00:00"
    assert (
        trained["challenger"]["trained_until"]
        == trained["evaluation_start"]
        == "2013-04-21T00:00:00"
    )
    predictions = pl.read_parquet(grown.root / "reports/predictions.parquet")
    judged = predictions.filter(pl.col("__retrain_window") == "evaluation")
    assert judged["scheduled_departure"].dt.date().min().isoformat() == "2013-04-21"
    assert set(predictions["__retrain_window"]) == {
        "evaluation",
        "2013-01",
        "2013-02",
        "2013-03",
    }, "three reference windows"
    assert promotion(grown)["moved"] and aliases(grown) == {
        "challenger": 3,
        "champion": 4,
        "previous": 2,
    }
    assert grown.stages_run() == []

    # May arrives with the labels of its first three weeks turned round: a challenger that learns
    # from them is worse.
    flipped = (
        pl.when(pl.col("scheduled_departure").dt.day() < 21)
        .then(~pl.col(TARGET))
        .otherwise(pl.col(TARGET))
    )
    grown.arrive("2013-05", change=lambda batch: batch.with_columns(flipped.alias(TARGET)))
    grown.edit("conf/data/slice.yaml", "2013-04", "2013-05")
    grown.edit(
        "conf/config.yaml", "hold_anomalies: true ", "hold_anomalies: false"
    )  # or it would not get as far as the gate
    grown.edit("conf/strategy/sliding_window.yaml", "batches: 3", "batches: 1")
    grown.edit("conf/config.yaml", "strategy: full", "strategy: sliding_window")
    output = grown.repro()
    assert "Challenger version 5 was not promoted; version 4 stays champion." in output
    assert promotion(grown)["verdict"] == "keep" and not promotion(grown)["moved"]
    assert aliases(grown) == {"challenger": 5, "champion": 4, "previous": 2}
    assert grown.stages_run() == []

    history = grown.run("retrain", "history").stdout
    assert [line.split()[4] for line in history.splitlines()[1:]] == ["promote", "promote", "keep"]
    status = grown.run("retrain", "status").stdout
    assert "slice version 4" in status and "keep for version 5 on batch 2013-05" in status


def test_an_edit_re_runs_exactly_the_stages_that_use_it(grown: Project) -> None:
    grown.edit("conf/gate/shared/guardrails.yaml", "margin: 0.05", "margin: 0.06")
    assert grown.stages_run() == [
        "config",
        "evaluate",
    ]  # first champion: these figures don't reach its gate
    grown.edit("conf/gate/shared/guardrails.yaml", "minimum_rows: 40", "minimum_rows: 30")
    assert grown.stages_run() == ["config", "evaluate", "promote"]
    assert aliases(grown)["champion"] == 2, (
        "the same challenger passed again, and is champion already"
    )
    grown.edit("conf/model/hist_gradient_boosting.yaml", "max_iter: 20", "max_iter: 21")
    assert grown.stages_run() == ["config", "train", "evaluate", "promote"]
    grown.edit("conf/policy/always.yaml", "# Every", "# Each")
    assert grown.stages_run() == ["config"]
    grown.edit("conf/gate/superiority.yaml", "minimum_gain: 0.0", "minimum_gain: 0.1")
    assert grown.stages_run() == ["config"], "a choice that isn't chosen touches nothing"


def test_a_changed_recipe_on_the_same_snapshot_must_match_what_serves(grown: Project) -> None:
    grown.edit("conf/config.yaml", "model: hist_gradient_boosting ", "model: dummy ")
    grown.repro()
    trained = json.loads((grown.root / "reports/challenger.json").read_text())
    assert trained["incumbent"]["version"] == 1, (
        "the champion's stand-in that has not seen the evaluation rows"
    )
    assert promotion(grown)["verdict"] == "keep"
    assert aliases(grown)["champion"] == 2


def test_the_same_commit_snapshot_and_config_give_the_same_predictions(grown: Project) -> None:
    before = pl.read_parquet(grown.root / "reports/predictions.parquet")
    output = grown.repro("-f", "-s", "train") + grown.repro()
    after = pl.read_parquet(grown.root / "reports/predictions.parquet")
    after = after.filter(
        pl.col("__retrain_window") == "evaluation"
    )  # without an incumbent there were no reference windows
    assert before["__retrain_challenger"].equals(after["__retrain_challenger"])
    assert after["__retrain_incumbent"].equals(after["__retrain_challenger"])
    assert "predicts exactly what the incumbent predicts" in output
    assert promotion(grown)["champion"] == 2


def test_policy_never_keeps_the_first_champion_and_watches_it(grown: Project) -> None:
    grown.arrive("2013-04")
    grown.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    grown.edit("conf/config.yaml", "policy: always", "policy: never")
    output = grown.repro()
    assert "Policy `never` keeps the champion" in output
    decision = json.loads((grown.root / "reports/decision.json").read_text())
    assert decision["champion_version"] == 2 and 0 < decision["scores"][-1]["value"] < 2
    numbers = json.loads((grown.root / "reports/metrics.json").read_text())
    assert numbers["verdict"] == "not_retrained" and 0 < numbers["monitored"]["log_loss"] < 2
    assert "over batches" in (grown.root / "reports/plots/scores.svg").read_text(), (
        "of the last verdict"
    )
    assert aliases(grown) == {"challenger": 1, "champion": 2}
    assert grown.stages_run() == []


def test_an_older_snapshot_comes_back_with_git_and_dvc(grown: Project) -> None:
    def commit() -> None:
        grown.run("git", "add", "-A")
        grown.run(
            "git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "next"
        )

    commit()
    grown.arrive("2013-04")
    grown.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    grown.repro("snapshot")
    commit()
    grown.run("git", "checkout", "-q", "HEAD~1")
    grown.run("dvc", "checkout", "data/snapshot")
    batches = sorted(path.name for path in (grown.root / "data/snapshot").glob("batch=*"))
    assert batches == ["batch=2013-01", "batch=2013-02", "batch=2013-03"]


def test_the_run_in_mlflow_says_what_a_reviewer_asks(champion_project: Project) -> None:
    client = champion_project.client()
    experiment = client.get_experiment_by_name("slice").experiment_id
    (run,) = client.search_runs([experiment], "tags.kind = 'retraining'")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "2013-03: promote v1, refit v2"
    assert run.data.params["model.estimator.max_iter"] == "20"
    assert run.data.params["data.metric"] == "log_loss"
    assert {"log_loss", "roc_auc", "log_loss/minus_baseline"} <= set(run.data.metrics)
    tags = run.data.tags
    assert (
        tags["verdict"] == "promote"
        and tags["incumbent_version"] == "none"
        and tags["strategy"] == "Full"
    )
    assert (
        tags["batches"] == "2013-01 to 2013-03 (3)"
        and tags["git_dirty"] == "false"
        and len(tags["git_commit"]) == 40
    )
    datasets = {found.tags[0].value: found.dataset for found in run.inputs.dataset_inputs}
    assert datasets["training"].digest == tags["snapshot"]
    assert datasets["evaluation"].name == "slice 2013-03"
    assert {found.source_type for found in datasets.values()} == {"dvc"}
    by_metric = {"field_name": "metrics.log_loss", "dataset_name": datasets["evaluation"].name}
    best, *_ = client.search_logged_models([experiment], order_by=[by_metric])
    assert best.name == "challenger 2013-03"
    scores = {score.key: score for score in best.metrics}
    assert scores["log_loss"].value == run.data.metrics["log_loss"]
    assert {score.dataset_digest for score in best.metrics} == {datasets["evaluation"].digest}
    ledger = client.get_experiment_by_name("slice-ledger").experiment_id
    assert [one.info.status for one in client.search_runs([ledger])] == ["FINISHED"]
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "plots", "report.html", "comparison.json"} <= artifacts
    for number, words in (("1", "Challenger of batch 2013-03"), ("2", "Refit of version 1")):
        version = client.get_model_version("slice", number)
        made = client.get_run(version.run_id)
        assert run.info.run_id in (made.info.run_id, made.data.tags.get("retrained_in"))
        assert made.data.params == run.data.params
        text = (Path(made.info.artifact_uri) / "model_card.md").read_text()
        assert "Predicts late (binary) for rows" in text
        assert text.startswith(f"# slice, version {number}\n") and "| Log loss" in text
        shown = {tag for tag in version.tags if not tag.startswith("mlflow.")}
        assert shown <= {"role", "batches", "training_rows", "refit_of", "verdict"}
        assert version.description.startswith(words) and "| Log loss" in version.description


def test_the_model_in_mlflow_has_signature_and_example_and_no_pickle(
    champion_project: Project,
) -> None:
    import mlflow

    client = champion_project.client()
    version = client.get_model_version_by_alias("slice", "champion")
    mlflow.set_tracking_uri(f"sqlite:///{champion_project.root / 'mlflow.db'}")
    info = mlflow.models.get_model_info(f"models:/slice/{version.version}")
    assert info.signature.inputs.input_names()[:3] == ["carrier", "origin", "dest"]
    assert info.saved_input_example_info is not None
    assert info.flavors["sklearn"]["serialization_format"] == "skops"
    files = [
        path.suffix for path in (champion_project.root / "mlruns").rglob("*") if path.is_file()
    ]
    assert ".skops" in files and not {".pkl", ".joblib", ".pickle"} & set(files)


def test_a_retraining_that_was_killed_is_marked_and_the_next_one_works(grown: Project) -> None:
    grown.edit("conf/model/hist_gradient_boosting.yaml", "max_iter: 20", "max_iter: 2000")
    running = subprocess.Popen(
        ["dvc", "repro"],
        cwd=grown.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    client = grown.client()
    experiment = client.get_experiment_by_name("slice").experiment_id
    deadline = time.monotonic() + 60
    while not client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.2)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert aliases(grown) == {"challenger": 1, "champion": 2}
    grown.edit("conf/model/hist_gradient_boosting.yaml", "max_iter: 2000", "max_iter: 25")
    grown.repro()
    runs = client.search_runs([experiment], "tags.kind = 'retraining'")
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED", "KILLED"]


def change_features(project: Project, change: Callable[[dict], object]) -> None:
    file = project.root / "conf/data/slice.yaml"
    data = OmegaConf.load(file)
    change(data.features)
    OmegaConf.save(data, file)


def test_a_challenger_with_a_column_less_or_more_is_compared_on_the_same_raw_rows(
    grown: Project,
) -> None:
    def evaluation_rows() -> pl.DataFrame:
        stored = pl.read_parquet(grown.root / "reports/predictions.parquet")
        return stored.filter(pl.col("__retrain_window") == "evaluation")

    before = evaluation_rows()
    change_features(grown, lambda features: features.pop("visib"))
    assert "Verdict" in grown.repro()
    without = evaluation_rows()
    assert without["__retrain_incumbent"].equals(before["__retrain_challenger"]), (
        "the champion still sees the column that the challenger lacks"
    )
    assert not without["__retrain_challenger"].equals(without["__retrain_incumbent"])
    assert json.loads((grown.root / "reports/challenger.json").read_text())["missing_columns"] == []

    # The column does not arrive any more: the champion meets missing values, as it would in
    # production.
    change_features(grown, lambda features: features.pop("wind_gust"))
    for path in (grown.root / "data/incoming").glob("*.parquet"):
        pl.read_parquet(path).drop("wind_gust").write_parquet(path)
    assert "The incumbent was trained on wind_gust, which the rows lack" in grown.repro()
    assert json.loads((grown.root / "reports/challenger.json").read_text())["missing_columns"] == [
        "wind_gust"
    ]


def test_rows_that_a_model_may_have_seen_are_never_used_to_judge_it(grown: Project) -> None:
    """Somebody changed the tags of the champion's twin; and a pointer file claims an older
    training."""
    client = grown.client()
    tag = "mlflow.retrain.0"
    honest = client.get_model_version("slice", "1").tags[tag]
    changed = json.loads(honest) | {"trained_until": "2013-03-30T00:00:00"}
    client.set_model_version_tag("slice", "1", tag, json.dumps(changed))
    grown.edit("conf/config.yaml", "seed: 20130101", "seed: 2")
    result = grown.run("dvc", "repro", check=False)
    assert result.returncode != 0 and "somebody has changed the tags" in " ".join(
        result.stderr.split()
    )
    changed = json.loads(honest) | {"contents": {}}
    client.set_model_version_tag("slice", "1", tag, json.dumps(changed))
    result = grown.run("dvc", "repro", check=False)
    assert result.returncode != 0 and "no record of the rows" in " ".join(result.stderr.split())
    assert promotion_is_untouched(grown)


def promotion_is_untouched(project: Project) -> bool:
    return aliases(project)["champion"] == 2


def test_a_corrected_batch_names_its_rows_and_the_versions_that_knew_the_old_ones(
    grown: Project,
) -> None:
    def corrected(batch: pl.DataFrame) -> pl.DataFrame:
        return batch.with_columns(
            late=pl.when(pl.int_range(pl.len()) < 7).then(~pl.col("late")).otherwise("late")
        ).tail(-2)

    grown.arrive("2013-01", change=corrected)
    output = grown.repro("snapshot")
    assert "Batch 2013-01 was corrected: 0 rows added, 2 removed, 5 changed." in output
    status = grown.run("retrain", "status").stdout
    assert "batch 2013-01 (revision 2): versions 1, 2 were trained on other rows of it" in status
    grown.repro()
    assert "versions 1, 2 were trained" in grown.run("retrain", "status").stdout


def test_batches_whose_labels_are_still_on_their_way_neither_train_nor_judge(
    grown: Project,
) -> None:
    grown.arrive("2013-04")
    grown.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    with (grown.root / "conf/data/slice.yaml").open("a") as file:
        file.write("label_delay: 20d\n")
    output = grown.repro()
    assert "Labels of 2013-04 may still be on their way" in output
    challenger = json.loads((grown.root / "reports/challenger.json").read_text())
    assert (
        challenger["newest_batch"] == "2013-03"
        and "2013-04" not in challenger["evaluation_batches"]
    )
    assert "labels of 2013-04 may still be on their way" in grown.run("retrain", "status").stdout
