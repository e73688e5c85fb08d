"""What the pipeline sees and writes down about a new batch, on real flights: labelled, and with its
labels still on the way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Project

from retrain.errors import DataError
from retrain.models.metrics import find_row_loss
from retrain.monitoring.cache import Cache
from retrain.monitoring.drift import Change, Drift
from retrain.monitoring.observation import Observation, _measured
from retrain.monitoring.performance import expected_loss
from retrain.types import DecisionRecord

row_log_loss, row_brier = map(find_row_loss, ("log_loss", "brier"))


def decision(project: Project) -> dict:
    return json.loads((project.root / "reports/decision.json").read_text())


def arrive(project: Project, *months: str, **options: object) -> str:
    project.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: null")
    project.arrive(*months, **options)
    return project.repro()


def test_a_labelled_batch_is_scored_compared_and_ranked(grown: Project) -> None:
    output = arrive(grown, "2013-04", "2013-05", "2013-06")
    seen = decision(grown)
    assert [score["period"] for score in seen["scores"]] == ["2013-04", "2013-05", "2013-06"]
    assert all(score["low"] < score["value"] < score["high"] for score in seen["scores"])
    assert "Champion version 2 has log_loss" in output and "on batch 2013-06" in output
    assert (seen["watched_batch"], seen["reference_batch"]) == ("2013-06", "2013-03")
    assert set(seen["families"]) == {"features", "target", "predictions", "whole rows"}
    importances = {name: line["importance"] for name, line in seen["features"].items()}
    assert max(importances, key=importances.get) == "departure_minute", (
        "late in the day, delays have piled up"
    )
    report = (grown.root / "reports/report.html").read_text()
    assert "<td>champion 2</td>" in report and f"{seen['scores'][-1]['value']:.4f} [" in report
    assert "Drift of batch 2013-06 against 2013-03" in report and "<td>whole rows</td>" in report
    run = grown.client().search_runs(
        [grown.client().get_experiment_by_name("slice-monitoring").experiment_id], max_results=2
    )
    assert len(run) == 1 and run[0].data.metrics["champion/log_loss"] == pytest.approx(
        seen["scores"][-1]["value"]
    )
    retraining = grown.client().get_run(
        json.loads((grown.root / "reports/challenger.json").read_text())["run_id"]
    )
    assert (
        retraining.data.tags["policy"] == "Always" and "2013-06" in retraining.data.tags["decision"]
    )
    entry = json.loads(grown.run("retrain", "history", "--jsonl").stdout.splitlines()[-1])
    assert entry["figures"]["decay"] == pytest.approx(seen["decay"], rel=1e-5), (
        "for what retrainings bring after a decay"
    )


def test_the_score_of_the_champion_is_that_of_scikit_learn_on_what_it_predicts(
    grown: Project,
) -> None:
    from sklearn.metrics import log_loss

    grown.edit("conf/config.yaml", "policy: always", "policy: on_decay")
    arrive(grown, "2013-04")
    april, scored = (
        grown.root / "data/snapshot/batch=2013-04/part.parquet",
        grown.root / "scored.parquet",
    )
    grown.run("retrain", "predict", str(april), "--output", str(scored))
    late, seen = pl.read_parquet(april)["late"], decision(grown)
    assert seen["scores"][-1]["value"] == pytest.approx(
        log_loss(late, pl.read_parquet(scored)["prediction"])
    )
    # What it may lose: its loss at promotion, 22 to 31 March, adjusted to how hard the rows are for
    # a constant.
    march = pl.read_parquet(grown.root / "data/snapshot/batch=2013-03/part.parquet")
    judged = march.filter(pl.col("scheduled_departure") >= pl.datetime(2013, 3, 22))["late"]
    april_to_march = log_loss(late, np.full(len(late), late.mean())) / log_loss(
        judged, np.full(len(judged), judged.mean())
    )
    assert seen["figures"]["limit"] == pytest.approx(
        1.05 * seen["figures"]["expected"] * april_to_march
    )
    assert seen["decay"] == pytest.approx(
        max(0, seen["scores"][-1]["value"] - seen["figures"]["limit"] / 1.05)
    )


def test_while_labels_are_late_nothing_is_trained_and_the_loss_is_expected(grown: Project) -> None:
    grown.edit("conf/data/slice.yaml", "block_hours: 24", "block_hours: 24\nlabel_delay: 20d")
    grown.repro("snapshot")
    output = arrive(grown, "2013-04")
    seen = decision(grown)
    assert not seen["retrain"] and "The labels of batch 2013-04 are not there yet" in seen["reason"]
    assert seen["watched_batch"] == "2013-04" and [line["period"] for line in seen["expected"]] == [
        "2013-04"
    ]
    assert set(seen["families"]) == {"features", "predictions", "whole rows"}, (
        "of the target nothing is known yet"
    )
    assert "is expected to have log_loss" in output and 0.2 < seen["expected"][0]["value"] < 0.9
    grown.arrive("2013-05")  # now April's labels have had their time
    assert "Challenger version" in grown.repro()
    real = next(score for score in decision(grown)["scores"] if score["period"] == "2013-04")
    assert seen["expected"][0]["value"] == pytest.approx(real["value"], rel=0.35)


def test_policy_on_drift_retrains_on_a_changed_column_and_not_on_a_quiet_month(
    grown: Project,
) -> None:
    grown.edit("conf/config.yaml", "policy: always", "policy: on_drift")
    grown.edit("conf/config.yaml", "hold_anomalies: true ", "hold_anomalies: false")
    grown.edit("conf/policy/on_drift.yaml", "families: null ", "families: [features]")
    arrive(grown, "2013-04", "2013-05", "2013-06", "2013-07")
    quiet = decision(grown)
    late = grown.copy(grown.root.parent / "changed")
    late.arrive("2013-08", change=lambda rows: rows.with_columns(pl.col("distance") * 3 + 500))
    late.repro()
    changed = decision(late)
    assert changed["retrain"] and "features" in changed["alarms"]
    assert (
        next(iter(changed["features"])) == "distance"
        or changed["features"]["distance"]["p_value"] < 1e-3
    )
    assert changed["families"]["features"]["p_value"] < quiet["families"]["features"]["p_value"]


def test_the_loss_that_probabilities_expect_of_themselves_is_the_loss_if_they_are_right() -> None:
    random = np.random.default_rng(0)
    positive = random.beta(1, 3, 200_000)
    probabilities, target = (
        np.column_stack([1 - positive, positive]),
        (random.random(200_000) < positive).astype(float),
    )
    assert expected_loss(probabilities, "log_loss").mean() == pytest.approx(
        row_log_loss(target, positive).mean(), abs=0.005
    )
    assert expected_loss(probabilities, "brier").mean() == pytest.approx(
        row_brier(target, positive).mean(), abs=0.003
    )
    several = random.dirichlet([1, 2, 3], 200_000)
    drawn = (several.cumsum(axis=1) < random.random((200_000, 1))).sum(axis=1).astype(float)
    for loss, rows in (("log_loss", row_log_loss), ("brier", row_brier)):
        assert expected_loss(several, loss).mean() == pytest.approx(
            rows(drawn, several).mean(), abs=0.006
        )


def test_features_are_ranked_by_drift_and_importance_together() -> None:
    features = {
        "drifted": Change(0.5, 0.1, 1e-6),
        "used": Change(0.1, 0.1, 0.5),
        "both": Change(0.4, 0.1, 1e-4),
    }
    seen = Observation(
        Drift("new", "old", features), importance={"drifted": 0.0, "used": 0.2, "both": 0.1}
    )
    assert seen.ranked()[0] == "both"
    assert Observation(Drift("new", "old", features)).ranked() == ["drifted", "both", "used"]


def test_what_is_remembered_is_measured_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def measure() -> list[float]:
        asked.append("")
        return [0.5]

    cache = Cache(tmp_path / "cache.json")
    assert cache.get("pair", measure) == cache.get("pair", measure) == [0.5] and len(asked) == 1
    cache.save()
    assert Cache(tmp_path / "cache.json").get("pair", measure) == [0.5] and len(asked) == 1


def test_a_cache_that_holds_anything_else_is_empty(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text("[1, 2]")
    assert Cache(tmp_path / "cache.json").get("pair", lambda: [0.5]) == [0.5]


def test_what_the_monitor_can_not_measure_stops_nothing_and_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def breaks() -> float:
        raise ValueError("window shape cannot be\nlarger")

    def refuses() -> float:
        raise DataError("part.parquet is damaged. Restore it.")

    assert _measured("drift of whole rows", breaks, 0.5) == 0.5
    assert (
        "could not measure drift of whole rows (ValueError: window shape cannot be larger)"
        in caplog.text
    )
    with pytest.raises(DataError, match="Restore it"):  # an error with a way out is no surprise
        _measured("drift of whole rows", refuses, 0.5)


def test_a_column_without_a_value_stops_no_pipeline(grown: Project) -> None:
    """Empty in the batch that the champion knows, and in the new one."""
    grown.edit("conf/config.yaml", "hold_anomalies: true ", "hold_anomalies: false")
    empty = {"change": lambda rows: rows.with_columns(plane_year=pl.lit(None, pl.Float64))}
    arrive(grown, "2013-04", "2013-05", **empty)
    grown.arrive("2013-06", **empty)
    output = grown.repro()
    assert "could not measure" not in output
    assert set(decision(grown)["families"]) == {"features", "target", "predictions", "whole rows"}


def test_a_record_keeps_whatever_names_the_data_have(tmp_path: Path) -> None:
    written = DecisionRecord(
        retrain=True,
        reason="why",
        policy="Always",
        snapshot="digest",
        newest_batch="2013-01",
        new_rows=7,
        news=["`${price}` is new", "`${oc.env:HOME}`"],
    )
    written.save(tmp_path / "decision.json")
    assert DecisionRecord.load(tmp_path / "decision.json", "train") == written


def test_what_is_remembered_of_a_batch_names_its_metric(grown: Project) -> None:
    """The same champion on the same batch: another metric is another figure, whatever the cache
    holds."""
    seen = [
        grown.run("retrain", "monitor", f"data.metric={metric}").stderr
        for metric in ("log_loss", "brier", "log_loss")
    ]
    figures = [re.search(r"has (\w+) ([\d.]+)", text).groups() for text in seen]
    assert [name for name, _ in figures] == ["log_loss", "brier", "log_loss"]
    assert figures[0] == figures[2] and float(figures[1][1]) < 0.6 * float(figures[0][1])
