"""Launchers: real ones run a sweep, and one that can't is refused before any job."""

from __future__ import annotations

import pytest
from conftest import REPOSITORY, Project, free_port

from retrain.commands import launchers, sweep
from retrain.errors import ConfigError
from retrain.registry.processes import PROCESS

SERVER = {"MLFLOW_TRACKING_URI": "http://localhost:1"}


@pytest.mark.parametrize(
    ("name", "plugin", "settings"),
    [
        ("submitit_local", "hydra_submitit_launcher", []),
        ("ray", "hydra_ray_launcher", ["+hydra.launcher.ray.init.num_cpus=2"]),
    ],
)
def test_jobs_run_in_processes_of_a_launcher_and_one_that_fails_stops_no_other(
    name: str, plugin: str, settings: list[str], two_months: Project
) -> None:
    pytest.importorskip(f"hydra_plugins.{plugin}", reason=f"no launcher {name}")
    strategies = f"model.estimator.strategy=prior,{name}"  # the second is none
    command = ["retrain", "train", "-m", f"hydra/launcher={name}", *settings, "model=dummy"]
    result = two_months.run(*command, strategies, check=False)
    assert result.returncode == 1 and "1 job(s) of the sweep failed" in result.stderr, result
    client = two_months.client()
    experiment = client.get_experiment_by_name("slice-candidates").experiment_id
    newest = ["attributes.start_time DESC"]
    parent, *_ = client.search_runs([experiment], "tags.kind = 'sweep'", order_by=newest)
    query = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    children = {child.info.status: child for child in client.search_runs([experiment], query)}
    assert set(children) == {"FINISHED", "FAILED"} and parent.info.status == "FAILED"
    assert "strategy" in children["FAILED"].data.tags["error"]
    assert children["FAILED"].data.tags[PROCESS] != parent.data.tags[PROCESS]


@pytest.mark.parametrize(
    ("overrides", "environment", "words"),
    [
        (["hydra/launcher=submitit_slurm"], {}, ["SlurmLauncher", "tracking: server"]),
        (["hydra/launcher=submitit_slurm", "tracking=server"], SERVER, ["srun", "submitit_local"]),
        (
            ["hydra/launcher=submitit_slurm", "tracking=server"],
            {"MLFLOW_TRACKING_URI": "sqlite:////shared/mlflow.db"},
            ["tracking store is a file"],
        ),
        (["hydra/launcher=ray", "hydra.launcher.ray.init.address=auto"], {}, ["a file"]),
        (["hydra/launcher=ray"], {"RAY_ADDRESS": "127.0.0.1:1"}, ["tracking: server"]),
        (
            ["hydra/launcher=ray", "tracking=server"],
            SERVER | {"RAY_ADDRESS": "127.0.0.1:{port}"},
            ["127.0.0.1:{port} does not answer", "ray start"],
        ),
        (
            [
                "hydra/launcher=ray",
                "hydra.launcher.ray.init.address='ray://localhost:{port}'",
                "tracking=server",
            ],
            SERVER,
            ["ray://localhost:{port} does not answer"],
        ),
    ],
)
def test_an_engine_that_is_not_there_or_a_store_that_does_not_reach_it_is_refused_at_once(
    overrides: list[str],
    environment: dict[str, str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "ray" in overrides[0]:
        pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="no Ray")
    port = str(free_port())
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(launchers.shutil, "which", lambda _: None)
    monkeypatch.setattr(sweep, "open_store", lambda _: pytest.fail("the store was opened"))
    for key, value in environment.items():
        monkeypatch.setenv(key, value.replace("{port}", port))
    with pytest.raises(ConfigError) as error:
        sweep.run([*(one.replace("{port}", port) for one in overrides), "seed=1,2"])
    for word in words:
        assert word.replace("{port}", port) in str(error.value)


def test_workers_of_a_cluster_that_runs_already_are_told_which_sweep_it_is() -> None:
    from omegaconf import OmegaConf

    ray = "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"
    own = OmegaConf.create({"_target_": ray, "ray": {"init": {"address": None}}})
    assert "++hydra.launcher.ray.init.address=local" in launchers.launcher_settings(own)
    own.ray.init.address = "head:6379"
    told = launchers.launcher_settings(own)
    assert len(told) == len(launchers.TOLD) and "RETRAIN_SWEEP_RUN=${oc.env:" in told[0]
