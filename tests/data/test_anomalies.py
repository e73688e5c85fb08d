"""What is held back on real flights: broken batches, and no sound one; and the way of such a batch
through the snapshot."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import json
import re
import shutil
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from conftest import REPOSITORY, Project

from project.source import NycFlights
from retrain.backtest.corruptions import flip_labels, shuffle_column
from retrain.config import Column, ColumnType, Config, compose
from retrain.data.anomalies import RULES, detect_anomalies
from retrain.data.periods import parse_period
from retrain.data.profiles import BatchProfile, from_json, profile_batch
from retrain.data.schema import Schema
from retrain.data.shift import measure_shift

MONTHS = [f"2013-{number:02}" for number in range(1, 11)]


@pytest.fixture(scope="module")
def config() -> Config:
    return compose(REPOSITORY / "conf")


@pytest.fixture(scope="module")
def months(config: Config) -> list[pl.DataFrame]:
    source, schema = NycFlights(weather_lag_hours=3), Schema(config.data)
    return [
        schema.check(source.read(key), parse_period(key, config.data.period)).labelled
        for key in MONTHS
    ]


def look(rows: pl.DataFrame, earlier: list[BatchProfile], config: Config) -> BatchProfile:
    profile = profile_batch(rows, rows.clear(), config.data)
    return dataclasses.replace(profile, shift=measure_shift(profile, earlier))


@pytest.fixture(scope="module")
def earlier(months: list[pl.DataFrame], config: Config) -> list[BatchProfile]:
    profiles: list[BatchProfile] = []
    for rows in months[:-1]:
        profile = look(rows, profiles, config)
        assert detect_anomalies(profile, profiles) == []
        profiles.append(profile)
    return profiles


def shuffle_half(rows: pl.DataFrame) -> pl.DataFrame:
    names = ["carrier", "dest", "arrival_minute", "departure_minute", "plane_year", "plane_model"]
    return functools.reduce(lambda frame, name: shuffle_column(frame, name, seed=1), names, rows)


BROKEN: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "labels turned around": (lambda rows: flip_labels(rows, "late", 1.0, seed=1), "turned around"),
    "two labels in five wrong": (
        lambda rows: flip_labels(rows, "late", 0.4, seed=1),
        "relation between features and",
    ),
    "labels of other rows": (lambda rows: shuffle_column(rows, "late", seed=1), "all but gone"),
    "columns of other rows": (shuffle_half, "no longer go with the target"),
    "Celsius": (lambda rows: rows.with_columns((pl.col("temp") - 32) / 1.8), "another unit"),
    "kilometres": (lambda rows: rows.with_columns(pl.col("plane_seats") * 1.609), "1.61 times"),
    "other codes": (
        lambda rows: rows.with_columns(pl.col("carrier").str.to_lowercase()),
        "other codes",
    ),
    "a column that was not joined": (
        lambda rows: rows.with_columns(plane_year=pl.lit(None, pl.Float64)),
        "missing in 100%",
    ),
    "rows twice": (lambda rows: pl.concat([rows, rows.head(len(rows) // 3)]), "repeat another row"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_batch_is_suspected_and_the_reason_named(
    name: str, months: list[pl.DataFrame], earlier: list[BatchProfile], config: Config
) -> None:
    breaks, words = BROKEN[name]
    assert detect_anomalies(look(months[-1], earlier, config), earlier) == []
    suspicions = detect_anomalies(look(breaks(months[-1]), earlier, config), earlier)
    assert any(words in suspicion for suspicion in suspicions)


def test_after_four_batches_flipped_labels_show_by_two_signs_together(
    months: list[pl.DataFrame], earlier: list[BatchProfile], config: Config
) -> None:
    """The relation is far weaker than ever, and the target has moved: neither alone would be enough
    so early."""
    flipped = look(flip_labels(months[4], "late", 0.4, seed=1), earlier[:4], config)
    assert any(
        "relation between features and" in reason
        for reason in detect_anomalies(flipped, earlier[:4])
    )
    still = dataclasses.replace(flipped, shift=dataclasses.replace(flipped.shift, target_step=0.05))
    assert detect_anomalies(still, earlier[:4]) == []


@pytest.mark.parametrize(
    ("times", "words"), [(1.3, []), (1.609, ["times what it was"]), (0.3048, ["times what it was"])]
)
@pytest.mark.parametrize("season", [0.0, 1.0])
def test_a_unit_shows_in_numbers_around_zero_and_a_restless_batch_does_not(
    times: float, words: list[str], season: float, config: Config
) -> None:
    """Half of the earlier batches lie elsewhere: it is enough that the others are a multiple."""
    random = np.random.default_rng(0)
    features = {"score": Column(ColumnType.numeric)}
    data = dataclasses.replace(config.data, features=features, key_columns=[])
    config = dataclasses.replace(config, data=data)

    def batch(number: int, factor: float = 1.0) -> pl.DataFrame:
        drawn = random.normal(0.3, 1, 3000)
        late = random.random(3000) < 1 / (1 + np.exp(1 - drawn))
        start = pl.datetime(2013, 1, 1) + pl.duration(days=30 * number)
        values = (drawn + season * (number % 2)) * factor
        return pl.DataFrame({"score": values, "late": late}).with_columns(
            start.alias(data.time_column)
        )

    profiles: list[BatchProfile] = []
    for number in range(8):
        profiles.append(look(batch(number), profiles, config))
        assert detect_anomalies(profiles[-1], profiles[:-1]) == []
    found = detect_anomalies(look(batch(8, times), profiles, config), profiles)
    assert [reason for reason in found if not any(word in reason for word in words)] == []
    assert len(found) == len(words)


def test_a_part_of_a_batch_is_not_suspected(
    months: list[pl.DataFrame], earlier: list[BatchProfile], config: Config
) -> None:
    for rows in (600, 3000, 9000):
        assert detect_anomalies(look(months[-1].head(rows), earlier, config), earlier) == []


def test_a_summary_survives_its_file(earlier: list[BatchProfile]) -> None:
    assert from_json(earlier[-1].to_json()) == earlier[-1]


def test_what_is_held_back_does_not_depend_on_what_was_released_before(project: Project) -> None:
    project.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: null")
    project.arrive("2013-04", "2013-05", "2013-06")
    for month in ("2013-07", "2013-08"):
        project.arrive(month, change=lambda rows: flip_labels(rows, "late", 1.0, seed=1))

    def state(accept: str) -> dict[str, str]:
        conf = project.root / "conf/config.yaml"
        conf.write_text(re.sub(r"accept: \[.*?\]", f"accept: [{accept}]", conf.read_text()))
        said.append(project.repro("snapshot"))
        folder = project.root / "data/snapshot"
        return {
            str(path.relative_to(folder)): path.read_text()
            for path in sorted(folder.rglob("*.json"))
        }

    said: list[str] = []
    held = state("")
    assert (
        "Batch 2013-07 looks broken and is on hold" in said[-1]
        and "Batch 2013-08 as well" in said[-1]
    )
    released = state("2013-07")
    assert "on hold" not in said[-1], "the second one is like the first"
    assert state("") == held
    shutil.rmtree(project.root / "data/snapshot")
    assert state("2013-07") == released and state("") == held


def test_a_broken_batch_neither_trains_nor_judges_until_it_is_released(project: Project) -> None:
    project.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: null")
    project.arrive(*(f"2013-0{number}" for number in range(4, 7)))
    project.arrive("2013-07", change=lambda rows: flip_labels(rows, "late", 1.0, seed=1))
    output = project.repro()
    assert "Batch 2013-07 looks broken and is on hold" in output and "turned around" in output
    assert "batches 2013-01 to 2013-06" in output
    project.arrive("2013-08")
    assert (
        "2013-07"
        not in json.loads((project.root / "reports/challenger.json").read_text())["challenger"][
            "batches"
        ]
    )
    status = project.run("retrain", "status").stdout
    assert "On hold" in status and "2013-07" in status
    project.edit("conf/config.yaml", "accept: []", "accept: [2013-07]")
    project.repro()
    assert (
        "2013-07"
        in json.loads((project.root / "reports/challenger.json").read_text())["challenger"][
            "batches"
        ]
    )


def test_a_batch_that_is_held_back_after_the_champion_learnt_from_it_stops_no_pipeline(
    project: Project,
) -> None:
    project.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: null")
    project.edit("conf/config.yaml", "hold_anomalies: true ", "hold_anomalies: false")
    project.arrive("2013-04", "2013-05", "2013-06")
    project.repro()
    project.arrive("2013-07", change=lambda rows: flip_labels(rows, "late", 1.0, seed=1))
    project.repro()
    version = json.loads((project.root / "reports/challenger.json").read_text())["challenger"][
        "version"
    ]
    project.run("retrain", "promote", str(version), "--reason", "a person means well")
    served = project.run("retrain", "history").stdout
    project.edit("conf/config.yaml", "hold_anomalies: false", "hold_anomalies: true ")
    output = project.repro()
    assert (
        f"No retraining: Batch 2013-07 is on hold, and champion version {version} was trained "
        "on it" in output
    )
    assert project.run("retrain", "history").stdout == served and project.stages_run() == []


def test_without_a_champion_a_batch_on_hold_trains_no_challenger_a_second_time(
    project: Project,
) -> None:
    gate = project.root / "conf/gate/shared/guardrails.yaml"
    never = (
        "first_champion:\n  never: {_target_: retrain.gate.checks.MetricLimit, metric: log_loss, "
        "limit: 0.001}\n"
    )
    gate.write_text(gate.read_text().replace("first_champion:\n", never))
    project.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: null")
    project.arrive("2013-04", "2013-05")
    assert "Challenger version 1" in project.repro()
    project.arrive("2013-06", change=lambda rows: flip_labels(rows, "late", 1.0, seed=1))
    output = project.repro()
    assert (
        "Batch 2013-06 is on hold" in output
        and "got the verdict keep" in output
        and "Challenger version" not in output
    )
    assert len(project.client().search_model_versions()) == 1
    project.edit("conf/model/hist_gradient_boosting.yaml", "max_iter: 20", "max_iter: 10")
    assert "Challenger version 2" in project.repro(), "another recipe is another try"


def test_a_profile_of_version_0_1_is_read(earlier: list[BatchProfile]) -> None:
    profile = earlier[-1]
    content = json.loads(profile.to_json())
    content["jumps"] = content.pop("shift")
    for column in (content["target"], *content["features"].values()):
        column["atoms"] = column.pop("quantiles")
    assert from_json(json.dumps(content)) == profile


def test_another_threshold_of_a_rule_comes_with_another_text_of_rules() -> None:
    """Batches are compared again only when `RULES` is another text. Where this fails, and a rule
    has changed, write another one into retrain/data/anomalies.py; then the digest below."""
    found = []
    for name in ("anomalies", "shift", "distances", "profiles"):
        text = (REPOSITORY / f"src/retrain/data/{name}.py").read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and type(node.value) in (int, float):
                found.append(repr(node.value))
            elif isinstance(node, ast.Compare | ast.BinOp):
                operators = node.ops if isinstance(node, ast.Compare) else [node.op]
                found += [type(operator).__name__ for operator in operators]
    digest = hashlib.sha256(" ".join(found).encode()).hexdigest()[:16]
    assert (digest, RULES[:16]) == ("373935fc80fa5298", "62afd40e6296e60d")
