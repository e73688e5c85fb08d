"""Searches: every shipped space runs, bad ones are refused before any fit, and a study is gone on with."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from conftest import REPOSITORY, Project
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from servers import Postgres

from retrain.commands import adopt, search, sweep
from retrain.commands.sweep_runs import FRESH, GIVEN, PARENT
from retrain.config import compose, compose_raw
from retrain.errors import ConfigError
from retrain.registry.shared_stores import prepare_studies

SPACES = sorted(path.stem for path in (REPOSITORY / "conf/sweep").glob("*.yaml"))
QUICK = {
    "hist_gradient_boosting": ["model.estimator.max_iter=3"],
    "lightgbm": ["model.estimator.n_estimators=3"],
    "mlp": ["model.estimator.max_iter=2"],
    "random_forest": ["model.estimator.n_estimators=3", "model.estimator.n_jobs=1"],
}


@pytest.fixture
def here(two_months: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """This process works in that project."""
    monkeypatch.chdir(two_months.root)
    monkeypatch.setattr(sys, "argv", sys.argv)
    for name in (PARENT, GIVEN, FRESH, "HYDRA_FULL_ERROR", search.STORAGE):
        monkeypatch.setenv(name, "")  # so that what the sweep sets ends with the test
    return two_months


def newest_parent(project: Project):
    client = project.client()
    experiment = client.get_experiment_by_name("slice-candidates").experiment_id
    newest = ["attributes.start_time DESC"]
    return client.search_runs([experiment], "tags.kind = 'sweep'", order_by=newest)[0]


def children_of(project: Project, parent: str) -> list:
    client = project.client()
    experiment = client.get_experiment_by_name("slice-candidates").experiment_id
    return client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'")


def study_of(project: Project, parent: str) -> optuna.Study:
    storage = f"sqlite:///{project.root / 'optuna.db'}"
    return optuna.load_study(study_name=f"sweep-{parent}", storage=storage)


def test_every_model_but_the_constant_one_has_a_space() -> None:
    models = {path.stem for path in (REPOSITORY / "conf/model").glob("*.yaml")}
    assert set(SPACES) == models - {"dummy"}


@pytest.mark.parametrize("space", [name for name in SPACES if name != "ridge"])
def test_a_trial_of_every_space_is_a_candidate_that_can_be_adopted(
    space: str, here: Project
) -> None:
    if space == "lightgbm":
        pytest.importorskip("lightgbm")
    sweep.run([f"sweep={space}", "hydra.sweeper.n_trials=1", *QUICK.get(space, [])])
    parent = newest_parent(here)
    (child,) = children_of(here, parent.info.run_id)
    assert child.info.status == "FINISHED" and f"model={space} " in child.info.run_name
    (trial,) = study_of(here, parent.info.run_id).trials
    assert trial.value == child.data.metrics["log_loss/validation"]

    before = {path: path.read_text() for path in Path("conf").rglob("*.yaml")}
    try:
        adopt.run(compose(Path("conf")), Namespace(run=child.info.run_id))
        adopted = compose(Path("conf"))
    finally:
        for path, text in before.items():
            path.write_text(text)
    for key, value in trial.params.items():
        section, name = key.lstrip("+").removeprefix("model.").split(".")
        assert str(getattr(adopted.model, section)[name]) == str(value)


def test_the_space_of_a_model_for_numbers_fits_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    overrides = ["sweep=ridge", "data=flights", "data.task=regression", "data.metric=mae"]
    search.check_space(compose_raw(Path("conf"), overrides).hydra.sweeper, overrides, Path("conf"))


def test_a_failed_trial_ends_nothing_and_the_same_command_adds_trials(
    two_months: Project, here: Project
) -> None:
    command = ["retrain", "train", "-m", "sweep=logistic_regression"]
    command += ["model.estimator.C=choice(0.1,-1,1)", "model.preprocessing.minimum_frequency=50"]
    first = two_months.run(*command, "hydra.sweeper.n_trials=5", "hydra.sweeper.sampler.seed=1")
    assert "A new study begins" in first.stderr and "'C' parameter" in first.stdout
    parent = newest_parent(two_months)
    assert parent.info.status == "FINISHED", "a trial that fails is a finding"
    trials = study_of(two_months, parent.info.run_id).trials
    states = [trial.state.name for trial in trials]
    assert len(states) == 5 and 0 < states.count("FAIL") < 5
    children = children_of(two_months, parent.info.run_id)
    finished = [child for child in children if child.info.status == "FINISHED"]
    assert len(finished) == len({str(t.params) for t in trials if t.state.name == "COMPLETE"}), (
        "a point that is proposed again is not fitted again"
    )
    failed = next(child for child in children if child.info.status == "FAILED")
    assert "'C' parameter" in failed.data.tags["error"]

    again = two_months.run(*command, "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler.seed=1")
    assert "The study goes on after 5 trials" in again.stderr
    assert len(study_of(two_months, parent.info.run_id).trials) == 7

    sweep.run([*command[3:], "hydra.sweeper.n_trials=1"], fresh=True)
    begun = newest_parent(two_months).info.run_id
    assert begun != parent.info.run_id and len(study_of(two_months, begun).trials) == 1


def test_workers_of_two_clones_share_a_study_in_the_tracking_database(
    two_months: Project, postgres: Postgres, tmp_path: Path
) -> None:
    database = postgres.create("search")
    command = ["retrain", "train", "-m", "sweep=logistic_regression", "tracking=server"]
    clones = [two_months.copy(tmp_path / name) for name in ("one", "other")]
    for clone in clones:
        (clone.root / "optuna.db").unlink(missing_ok=True)  # of another test
    with ThreadPoolExecutor(2) as pool:
        work = [
            pool.submit(
                clone.run, *command, "hydra.sweeper.n_trials=2", MLFLOW_TRACKING_URI=database
            )
            for clone in clones
        ]
    results = [one.result() for one in work]
    storage = prepare_studies(database)
    (study,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert len({str(trial.params) for trial in trials}) == 4, "each worker draws others"
    assert any("best of 4 on the rows" in result.stdout for result in results)
    for result, clone in zip(results, clones, strict=True):
        texts = [result.stdout, result.stderr]
        texts += [file.read_text() for file in (clone.root / "multirun").rglob("*.yaml")]
        assert postgres.password not in "".join(texts)
        assert not (clone.root / "optuna.db").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["sweep=lightgbn"], ["sweep=lightgbn", "names no file", "lightgbm"]),
        (["hydra/sweeper=optuna"], ["search space is empty"]),
        (["hydra/sweeper=optuna", "model.estimator.max_itre=range(1,5)"], ["max_itre"]),
        (["hydra/sweeper=optuna", "+model.estimator.leafs=choice(3,4)"], ["leafs"]),
        (["hydra/sweeper=optuna", "seed=interval(3,1)"], ["holds no value"]),
        (["hydra/sweeper=optuna", "seed=tag(log,interval(0,1))"], ["holds no value"]),
        (["hydra/sweeper=optuna", "seed=span(0,1)"], ["span"]),
        (["hydra/sweeper=optuna", "model=dummy,rigde"], ["model=rigde"]),
        (["sweep=sgd", "hydra.sweeper.direction=maximize"], ["worst"]),
        (["sweep=sgd", "hydra.sweeper.study_name=theirs"], ["study_name", "--fresh"]),
        (["sweep=ridge", "data=flights"], ["predict_proba", "No job was run"]),
    ],
)
def test_a_space_that_can_not_be_searched_is_refused_before_any_job(
    overrides: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sweep, "open_store", lambda _: pytest.fail("the store was opened"))
    with pytest.raises(ConfigError) as error:
        sweep.run(overrides)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("group", "name", "overrides", "extra"),
    [
        ("sweeper", "optuna", ["sweep=sgd"], "search"),
        ("sweeper", "optuna", ["hydra/sweeper=optuna", "seed=interval(0,1)"], "search"),
        ("launcher", "joblib", ["hydra/launcher=joblib", "seed=1,2"], "parallel"),
        ("launcher", "submitit_slurm", ["hydra/launcher=submitit_slurm", "seed=1,2"], "slurm"),
    ],
)
def test_what_an_extra_brings_is_named_with_the_command_that_installs_it(
    group: str,
    name: str,
    overrides: list[str],
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    Plugins.instance()  # they enter the store when they are looked for
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"][group], f"{name}.yaml")
    with pytest.raises(ConfigError, match=rf"hydra/{group}={name}. is not installed") as error:
        sweep.run(overrides)
    assert f".[{extra}]" in str(error.value)


def test_one_candidate_is_not_trained_where_a_space_is_named(here: Project) -> None:
    result = here.run("retrain", "train", "sweep=sgd", check=False)
    assert result.returncode == 1 and "retrain train -m sweep=sgd" in result.stderr
