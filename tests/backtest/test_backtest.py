"""`retrain backtest` on six months of every sixth flight, and its parts on numbers that are easy to
check."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Project

from retrain.backtest.corruptions import Corruption
from retrain.backtest.fault_injection import inject_faults
from retrain.backtest.grid import build_plans, read_grid
from retrain.backtest.history_view import HistoryView
from retrain.backtest.model_cache import train_and_store
from retrain.backtest.regret import best_sequence, forecast_in_hindsight
from retrain.backtest.replay import Replay
from retrain.commands.backtest import CONF, read_history
from retrain.config import compose
from retrain.data.snapshot import SnapshotStore
from retrain.gate.decision import decide
from retrain.gate.guardrails import Forgetting, ResourceLimit
from retrain.workspace import SNAPSHOT

MEASURED_LIVE = (
    ResourceLimit,
    Forgetting,
)  # on stored models, and on windows of the past: no part of a replay


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Shared: copy it before changing it."""
    from conftest import make_project

    project = make_project(tmp_path_factory.mktemp("backtest") / "my project")
    project.arrive(*(f"2013-0{number}" for number in range(1, 7)))
    project.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: null")
    project.edit(
        "conf/config.yaml",
        "strategies: [full, sliding_window, recency]",
        "strategies: [full, residual]",
    )
    project.repro("snapshot")
    project.run("retrain", "backtest")
    return project


def figures(project: Project) -> dict:
    return json.loads((project.root / "reports/backtest.json").read_text())


def names_of(line: dict) -> tuple[str, str, str]:
    return line["policy"], line["strategy"], line["gate"]


def test_every_combination_is_ranked_beside_what_it_has_to_be_worth(replayed: Project) -> None:
    found = figures(replayed)["outcomes"]
    names = {(line["policy"], line["strategy"], line["gate"]) for line in found}
    for policy, strategy in itertools.product(
        ("always", "every", "on_drift", "on_decay", "cost_aware"), ("full", "residual")
    ):
        assert {(policy, strategy, "non_inferiority"), (policy, strategy, "superiority")} <= names
    assert ("always", "full", "always promote") in names and (
        "never",
        "full",
        "never asked",
    ) in names
    costs = [line["cost"] for line in found]
    assert costs == sorted(costs)
    by_name = {(line["policy"], line["strategy"], line["gate"]): line for line in found}
    never, freshest = (
        by_name["never", "full", "never asked"],
        by_name["always", "full", "always promote"],
    )
    assert never["retrainings"] == 0 and freshest["retrainings"] == freshest["promotions"] == 4
    assert list(never["served"]) == ["2013-02", "2013-03", "2013-04", "2013-05", "2013-06"]
    assert never["loss"] == pytest.approx(np.mean(list(never["served"].values())))
    assert never["served"]["2013-02"] == freshest["served"]["2013-02"], (
        "both begin with the same champion"
    )
    assert never["loss_low"] < never["loss"] < never["loss_high"]
    for value, (low, high) in zip(never["served"].values(), never["served_intervals"], strict=True):
        assert low < value < high
    assert all(event["reason"] for line in found for event in line["events"])


def test_what_was_served_stands_in_the_matrix_and_nothing_cost_less_than_the_best_sequence(
    replayed: Project,
) -> None:
    found = figures(replayed)
    matrix = np.array(found["matrices"]["full"], dtype=float)
    freshest = next(
        line
        for line in found["outcomes"]
        if (line["strategy"], line["gate"]) == ("full", "always promote")
    )
    assert list(freshest["served"].values()) == pytest.approx(
        [matrix[n - 1, n] for n in range(1, 6)]
    )
    assert np.isnan(matrix[np.tril_indices(6)]).all(), "no model is scored on what it has learnt"
    assert all(
        line["cost"] >= found["best_cost"] - 1e-12
        for line in found["outcomes"]
        if line["strategy"] == "full"
    )


@pytest.fixture(scope="module")
def live(replayed: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same history in the pipeline: a champion of January to March looks at June, and a
    challenger is compared with it."""
    project = replayed.copy(tmp_path_factory.mktemp("live") / "project")
    project.edit("conf/data/slice.yaml", "as_of: null", "as_of: 2013-03")
    project.repro()
    project.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: null")
    project.repro()
    return project


def replay_of(project: Project, monkeypatch: pytest.MonkeyPatch) -> tuple[HistoryView, Replay]:
    monkeypatch.chdir(project.root)
    config, grid = read_grid(CONF, ["policy=always", "strategy=full", "gate=non_inferiority"])
    plans = build_plans(CONF, grid)
    history = read_history(config, SnapshotStore(SNAPSHOT), plans)
    return history, Replay(history, plans[0])


def test_a_replayed_policy_sees_the_drift_that_the_pipeline_sees(
    live: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live, and in a replay, which trains the same champion once more."""
    seen = json.loads((live.root / "reports/decision.json").read_text())
    assert (seen["watched_batch"], seen["reference_batch"]) == ("2013-06", "2013-03")
    history, replay = replay_of(live, monkeypatch)
    drift = history.drift(5, 2, history.models.get(replay.job(2, refit=True)))
    assert set(drift) == {"features", "target", "predictions", "whole rows"}
    assert drift == pytest.approx(
        {name: change["p_value"] for name, change in seen["families"].items()}, rel=1e-3
    )


def test_a_replayed_gate_decides_as_the_pipeline_does_check_by_check(
    live: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = json.loads((live.root / "reports/comparison.json").read_text())
    history, replay = replay_of(live, monkeypatch)
    models, job = history.models, replay.job(5, refit=False)
    # A replay ends before it, since nobody would be served.
    train_and_store(job, models.cache, models.snapshot)
    champion, challenger = models.get(replay.job(2, refit=True)), models.get(job)
    decision = decide(history.compare(challenger, champion, 5), replay.specs)
    assert (decision.verdict.value, set(decision.checks)) == (seen["verdict"], set(seen["checks"]))
    for name, result in decision.checks.items():
        check = replay.specs[name].check
        if isinstance(check, MEASURED_LIVE):
            continue
        assert (result.outcome.value, result.reason) == (
            seen["checks"][name]["outcome"],
            seen["checks"][name]["reason"],
        )
        assert dict(result.figures) == pytest.approx(
            seen["checks"][name]["figures"], rel=1e-9, abs=1e-9
        )
    assert decision.checks["slices"].figures["slices"] > 5, "it was asked about some"


def test_models_of_the_same_rows_are_one_and_other_questions_another(
    replayed: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(replayed.root)
    _, grid = read_grid(
        CONF, ["policy=always", "strategy=full,sliding_window", "gate=non_inferiority"]
    )
    config, plans = compose(CONF, []), build_plans(CONF, grid)
    store = SnapshotStore(SNAPSHOT)
    history = read_history(config, store, plans)
    broken = inject_faults(history, "all labels flipped", monitored=False)
    by_strategy = {plan.names[1]: plan for plan in plans}

    def key(history: HistoryView, strategy: str, number: int) -> str:
        return Replay(history, by_strategy[strategy]).job(number, refit=True).model

    assert key(history, "full", 2) == key(history, "sliding_window", 2), (
        "three batches are all that there are"
    )
    assert key(history, "full", 4) != key(history, "sliding_window", 4)
    first = next(iter(broken.corruptions))
    assert [batch.period for batch in history.batches].index(first) == 4
    assert key(history, "full", 3) == key(broken, "full", 3) and key(history, "full", 4) != key(
        broken, "full", 4
    )
    late = read_history(config, store, plans)
    late.first = 4
    assert not inject_faults(late, "all labels flipped", monitored=True).corruptions, (
        "not the first champion's own"
    )
    # A window that has left the broken batch behind gives the same model, which is asked about
    # other rows.
    earlier = Replay(broken, by_strategy["sliding_window"]).job(4, refit=True)
    other = dataclasses.replace(
        earlier, corruptions={history.batches[0].period: Corruption("rows repeated", 0)}
    )
    clean = dataclasses.replace(earlier, corruptions={})
    assert other.model == clean.model and other.folder != clean.folder


def test_a_second_backtest_trains_nothing_and_finds_the_same_and_a_lost_model_is_trained_again(
    replayed: Project, tmp_path: Path
) -> None:
    replayed = replayed.copy(tmp_path / "again")
    asked = ("-m", "strategy=full", "policy=always,on_drift", "gate=non_inferiority")
    everything = figures(replayed)["outcomes"]
    assert " 0 trained" in replayed.run("retrain", "backtest", *asked).stderr
    before = figures(replayed)["outcomes"]
    served = {names_of(line): line["served"] for line in everything}
    known = [line for line in before if names_of(line) in served]
    assert len(known) == 4 and all(line["served"] == served[names_of(line)] for line in known)
    for path in list((replayed.root / "data/.backtest").glob("*/*")):
        if len(list(path.glob("2013-*.npy"))) > 2:
            shutil.rmtree(path)
    assert " 0 trained" not in replayed.run("retrain", "backtest", *asked).stderr
    after = figures(replayed)["outcomes"]
    assert [line["loss"] for line in after] == [line["loss"] for line in before]


def test_an_axis_on_the_command_line_takes_the_place_of_the_configured_one(
    replayed: Project, tmp_path: Path
) -> None:
    replayed = replayed.copy(tmp_path / "project")
    replayed.run(
        "retrain", "backtest", "-m", "strategy=full", "policy=every,on_decay", "gate=superiority"
    )
    names = {
        (line["policy"], line["strategy"], line["gate"]) for line in figures(replayed)["outcomes"]
    }
    assert {("every", "full", "superiority"), ("on_decay", "full", "superiority")} < names
    assert {strategy for _, strategy, _ in names} == {"full"}
    refused = replayed.run("retrain", "backtest", "-m", "seed=1,2", check=False)
    assert refused.returncode == 1 and "sweeps over policy, strategy and gate" in " ".join(
        refused.stderr.split()
    )


def test_a_metric_that_only_the_second_gate_asks_for_is_measured_too(
    replayed: Project, tmp_path: Path
) -> None:
    replayed = replayed.copy(tmp_path / "project")
    gate = (replayed.root / "conf/gate/superiority.yaml").read_text()
    own = (
        "  accuracy: {_target_: retrain.gate.checks.MetricLimit, metric: balanced_accuracy, limit: "
        "0.1}\n"
    )
    (replayed.root / "conf/gate/own.yaml").write_text(gate + own)
    replayed.run(
        "retrain", "backtest", "-m", "strategy=full", "policy=every", "gate=superiority,own"
    )
    found = {
        line["gate"]: line for line in figures(replayed)["outcomes"] if line["policy"] == "every"
    }
    assert found["own"]["loss"] == found["superiority"]["loss"]


def test_labels_that_come_late_are_known_late(replayed: Project, tmp_path: Path) -> None:
    late = replayed.copy(tmp_path / "late")
    late.edit("conf/data/slice.yaml", "block_hours: 24", "block_hours: 24\nlabel_delay: 20d")
    late.run(
        "retrain", "backtest", "-m", "strategy=full", "policy=always,never", "gate=superiority"
    )
    found = figures(late)
    freshest = next(
        line
        for line in found["outcomes"]
        if line["gate"] == "always promote" and line["policy"] == "always"
    )
    matrix = np.array(found["matrices"]["full"], dtype=float)
    assert list(freshest["served"]) == ["2013-03", "2013-04", "2013-05", "2013-06"], (
        "January's labels are there in February"
    )
    assert list(freshest["served"].values()) == pytest.approx(
        [matrix[n - 2, n] for n in range(2, 6)]
    )
    assert [event["period"] for event in freshest["events"]] == ["2013-02", "2013-03", "2013-04"]
    assert all(line["cost"] >= found["best_cost"] - 1e-12 for line in found["outcomes"])


def test_the_report_stands_alone_and_is_in_mlflow(replayed: Project) -> None:
    html = (replayed.root / "reports/backtest.html").read_text()
    assert (
        html.count("<svg") >= 3
        and "<script" not in html
        and "http"
        not in html.replace("http://www.w3.org", "")
        .replace("http://purl.org", "")
        .replace("http://creativecommons.org", "")
        .replace("https://matplotlib.org", "")
    )
    client = replayed.client()
    experiment = client.get_experiment_by_name("slice-backtests")
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'backtest'")
    assert "backtest.html" in [file.path for file in client.list_artifacts(runs[0].info.run_id)]
    children = client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{runs[0].info.run_id}'"
    )
    assert len(children) == len(figures(replayed)["outcomes"])


def test_drills_show_who_notices_and_adopting_writes_the_recommendation(
    replayed: Project, tmp_path: Path
) -> None:
    replayed = replayed.copy(tmp_path / "project")
    asked = ("strategy=full", "policy=every", "gate=superiority")
    output = replayed.run("retrain", "backtest", "--inject-faults", "--adopt", "-m", *asked)
    drills = figures(replayed)["drills"]
    turned = [line for line in drills if line["kind"] == "all labels flipped"]
    assert all(line["broken"] == 1 for line in turned)
    held = next(line for line in turned if line["monitored"])
    open_door = next(line for line in turned if line["gate"] == "always promote")
    assert (held["held_back"], open_door["held_back"], open_door["promoted"]) == (1, 0, 1)
    assert open_door["loss"] > open_door["clean"] * 1.05, "who takes every model takes that one"
    assert held["loss"] < held["clean"] * 1.03
    assert "With one broken batch in six" in output.stdout
    config = (replayed.root / "conf/config.yaml").read_text()
    assert "policy: every " in config and "gate: superiority " in config
    assert (
        "prior_value_of_data: null"
        not in (replayed.root / "conf/policy/cost_aware.yaml").read_text()
    )
    replayed.run("retrain", "config")


def test_blocks_that_do_not_end_with_a_batch_are_replayed(
    replayed: Project, tmp_path: Path
) -> None:
    replayed = replayed.copy(tmp_path / "project")
    project_wide = [
        "policy=on_drift",
        "strategy=full",
        "gate=non_inferiority",
        "evaluation.block_hours=168",
    ]
    assert "Recommended" in replayed.run("retrain", "backtest", *project_wide).stdout


def test_the_best_sequence_is_that_of_trying_all() -> None:
    random = np.random.default_rng(0)
    for cost in (0.0, 0.02, 0.1, 1.0):
        count = 7
        matrix = np.full((count, count), np.nan)
        matrix[np.triu_indices(count, 1)] = random.random(count * (count - 1) // 2)
        totals = []
        for retrained in itertools.product((False, True), repeat=count - 2):
            model, total = 0, 0.0
            for served in range(1, count):
                if served > 1 and retrained[served - 2]:
                    model, total = served - 1, total + cost
                total += matrix[model, served]
            totals.append(total / (count - 1))
        best, sequence = best_sequence(
            [matrix], {served: served - 1 for served in range(1, count)}, cost
        )
        assert best == pytest.approx(min(totals))
        model, total = 0, cost * len(sequence)
        for served in range(1, count):
            model = served - 1 if served - 1 in sequence else model
            total += matrix[model, served]
        assert total / (count - 1) == pytest.approx(best), (
            "the sequence costs what it is said to cost"
        )


def test_ageing_and_learning_are_read_off_the_matrix() -> None:
    matrix = np.full((6, 6), np.nan)
    for trained, served in itertools.combinations(range(6), 2):
        matrix[trained, served] = 0.5 + 0.03 * (served - trained - 1) + 0.2 / (trained + 1)
    found = forecast_in_hindsight(matrix)
    assert (found.staleness_rate, found.value_of_data) == (
        pytest.approx(0.03, rel=1e-3),
        pytest.approx(0.2, rel=1e-3),
    )
    assert forecast_in_hindsight(matrix[:0]) is None
