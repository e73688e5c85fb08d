"""The gate's self-test: corruptions are what they say, and a gate that lets them through is found
out."""

from __future__ import annotations

import json

import polars as pl
import pytest
from conftest import REPOSITORY, Project

from retrain.backtest.corruptions import flip_labels, leak_target, resample, shuffle_column
from retrain.backtest.gate_check import best_constant
from retrain.backtest.gate_check_summary import EQUAL, WORSE, Trial, share_interval, summarize
from retrain.config import Config, compose

ROWS = pl.DataFrame(
    {"x": range(1000), "kind": ["a", "b"] * 500, "late": [True, False, False, False] * 250}
)


def test_flipped_labels_are_as_many_as_asked_for_and_only_where_asked() -> None:
    flipped = flip_labels(ROWS, "late", 0.2, seed=1)
    assert (flipped["late"] != ROWS["late"]).mean() == pytest.approx(0.2, abs=0.04)
    assert flipped.equals(flip_labels(ROWS, "late", 0.2, seed=1))
    part = flip_labels(ROWS, "late", 1.0, seed=1, where=ROWS["kind"] == "a")
    changed = part.filter(part["late"] != ROWS["late"])
    assert set(changed["kind"]) == {"a"} and len(changed) == 500


def test_a_shuffled_column_keeps_its_values_and_a_leak_tells_the_target() -> None:
    shuffled = shuffle_column(ROWS, "x", seed=1)
    assert shuffled["x"].sort().equals(ROWS["x"]) and not shuffled["x"].equals(ROWS["x"])
    assert shuffled["late"].equals(ROWS["late"])
    assert (
        leak_target(ROWS, "late", "leak")["leak"].to_list()
        == ROWS["late"].cast(pl.Float64).to_list()
    )
    assert len(resample(ROWS, 1)) == 1000 and resample(ROWS, 1)["x"].n_unique() < 700


def test_a_scenario_fails_when_its_wrong_promotions_are_more_than_chance() -> None:
    def trials(kind: str, wrong: int, count: int = 10) -> list[Trial]:
        return [
            Trial("flipped (x)", kind, "2013-01", True, "", number < wrong, 0.0, 0.0)
            for number in range(count)
        ]

    assert not summarize(trials(WORSE, 0))[0].failed
    assert not summarize(trials(WORSE, 2))[0].failed, "two of ten may be chance"
    assert summarize(trials(WORSE, 4))[0].failed and summarize(trials(EQUAL, 4))[0].failed
    assert summarize(trials(WORSE, 4))[0].scenario == "flipped"
    assert share_interval(0, 10) == pytest.approx((0, 0.3085), abs=1e-4)


def test_the_shipped_gate_passes_on_the_flights_and_a_wide_one_does_not(
    champion_project: Project, tmp_path
) -> None:
    project = champion_project.copy(tmp_path / "project")
    result = project.run("retrain", "gate-check", "--quick")
    trials = json.loads((project.root / "reports/gate_check.json").read_text())
    assert len({trial["scenario"].split(" (")[0] for trial in trials}) == 13
    itself = [trial for trial in trials if trial["scenario"] == "champion against itself"]
    assert itself and not any(trial["promoted"] for trial in itself)
    ruined = [
        trial
        for trial in trials
        if trial["scenario"].startswith(("one slice", "feature that leaks"))
    ]
    assert ruined and not any(trial["promoted"] for trial in ruined)
    assert "FAILED" not in result.stdout

    # A margin so wide that everything passes.
    wide = [
        "gate.checks.primary.margin=100",
        "gate.checks.primary.margin_is=absolute",
        "gate.checks.ranking.margin=100",
    ]
    off = [
        f"+gate.checks.{name}.on_failure=warn"
        for name in ("slices", "floor", "calibration", "classes")
    ]
    result = project.run("retrain", "gate-check", "--quick", *wide, *off, check=False)
    trials = json.loads((project.root / "reports/gate_check.json").read_text())
    assert sum(trial["promoted"] for trial in trials) > len(trials) / 2
    assert result.returncode == 1 and "promoted wrongly too often" in " ".join(
        result.stderr.split()
    )


def test_the_baseline_of_the_check_knows_no_row_that_judges(config: Config) -> None:
    known = pl.DataFrame({"late": [True, False, False, False]})
    assert best_constant(config, known, ["0", "1"]) == 0.25
    several = compose(REPOSITORY / "conf", ["data.task=multiclass"])
    known = pl.DataFrame({"late": ["a", "a", "b", "gone"]})
    assert best_constant(several, known, ["a", "b", "new"]) == pytest.approx([2 / 3, 1 / 3, 0])
