"""A backtest on a Dask or a Ray cluster is the local one to the last digit, LightGBM grown on Dask a
plain model; what a cluster lacks is said in a paragraph."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import REPOSITORY, Project, flights, free_port, make_project
from remote_jobs import dies_once, own_number

from retrain.backtest.compute import run_jobs
from retrain.backtest.worker import Place, libraries, run_apart
from retrain.config import Backend, ComputeConfig, Config, compose, feature_types
from retrain.data.manifest import Batch
from retrain.data.windows import Window
from retrain.errors import ConfigError, RetrainError
from retrain.models.fitting import predict
from retrain.models.storable import why_not_stored
from retrain.models.training import fit
from retrain.own_code import all_code

BACKTEST = ("retrain", "backtest", "-m", "policy=always", "strategy=warm_start", "model=sgd")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a snapshot of four months, and what the local backtest says."""
    made = make_project(tmp_path_factory.mktemp("history") / "my project")
    made.arrive("2013-01", "2013-02", "2013-03", "2013-04")
    made.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: 2013-04")
    made.run("retrain", "snapshot")
    made.run(*BACKTEST, "gate=non_inferiority")
    return made


@contextmanager
def started(command: list[str], folder: Path, ready: str, **more: str) -> Iterator[None]:
    """A program in a folder of its own, with this environment's engine, that says it is ready."""
    folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "DASK", "RAY"))}
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment | more, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while ready not in (text := (folder / "log").read_text()):
            if "timed out during startup" in text or time.monotonic() > deadline:
                pytest.skip(f"this machine is too busy to start it: {text[-200:]}")
            assert process.poll() is None, text
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def dask_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers, one of them with two threads, each in a folder of its own."""
    pytest.importorskip("distributed", reason="needs pip install -e '.[dask]'")
    root, port = tmp_path_factory.mktemp("dask"), free_port()
    dask, address = [sys.executable, "-m", "dask"], f"tcp://127.0.0.1:{port}"
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    with ExitStack() as stack:
        stack.enter_context(started([*dask, *scheduler], root / "scheduler", "Scheduler at"))
        for threads in ("1", "2"):
            command = [*dask, "worker", address, "--nthreads", threads, "--no-dashboard"]
            stack.enter_context(started(command, root / f"worker {threads}", "Registered to"))
        yield address


@pytest.fixture(scope="module")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Ray head with two cores, started elsewhere."""
    pytest.importorskip("ray", reason="needs pip install -e '.[ray]'")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else clusters share a token in ~/.ray
    port, options = free_port(), ["--num-cpus=2", "--include-dashboard=false", "--block"]
    folder = tmp_path_factory.mktemp("ray")
    link = folder / "env"  # one of Ray's servers can't start from a path with a space
    link.symlink_to(sys.prefix)
    start = [str(link / "bin/python"), str(link / "bin/ray"), "start", "--head", f"--port={port}"]
    paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    environment = {"PYTHONPATH": paths.replace(sys.prefix, str(link)), "RAY_AUTH_MODE": "disabled"}
    with started([*start, *options], folder / "head", "runtime started", **environment):
        yield f"127.0.0.1:{port}"
        sys.modules["ray"].shutdown()
        monkeypatch.undo()


def found(project: Project) -> dict[str, Any]:
    """What the backtest wrote, without what took time."""

    def timeless(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: timeless(value) for key, value in node.items() if "seconds" not in key}
        return [timeless(value) for value in node] if isinstance(node, list) else node

    return timeless(json.loads((project.root / "reports/backtest.json").read_text()))


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_backtest_on_a_cluster_is_the_local_one_to_the_last_digit(
    backend: str, history: Project, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(f"{backend}_address")
    copy = history.copy(tmp_path / "a copy")
    shutil.rmtree(copy.root / "data/.backtest")
    (copy.root / "reports/backtest.json").unlink()
    where = (f"compute={backend}", f"compute.address={address}")
    result = copy.run(*BACKTEST, "gate=non_inferiority", *where)
    assert " 0 trained" not in result.stderr and found(copy) == found(history)
    assert not list((copy.root / "data/.backtest").glob(".seen-*"))


def test_the_gate_is_checked_on_a_cluster_as_locally(history: Project, dask_address: str) -> None:
    command = ("retrain", "gate-check", "--quick", "model=logistic_regression")
    results = []
    for where in ((), ("compute=dask", f"compute.address={dask_address}")):
        history.run(*command, *where, check=False)
        results.append(json.loads((history.root / "reports/gate_check.json").read_text()))
        (history.root / "reports/gate_check.json").unlink()
    assert results[0] == results[1] and len(results[0]) > 20


def address_of(backend: Backend, request: pytest.FixtureRequest) -> str | None:
    if backend is Backend.local:
        return None
    address: str = request.getfixturevalue(f"{backend.value}_address")
    return address


@pytest.mark.parametrize("backend", Backend)
def test_the_jobs_of_a_process_that_dies_are_repeated_in_the_projects_folder(
    backend: Backend, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: Any
) -> None:
    compute = ComputeConfig(backend=backend, address=address_of(backend, request), workers=2)
    monkeypatch.chdir(tmp_path)
    results = dict(run_jobs(functools.partial(dies_once, folder=tmp_path), range(8), compute))
    assert (tmp_path / "died").exists()
    assert results == {n: (n * n, str(tmp_path)) for n in range(8)}


def test_the_jobs_of_a_worker_that_dies_are_repeated(
    dask_address: str, tmp_path: Path, monkeypatch: Any
) -> None:
    compute = ComputeConfig(backend=Backend.dask, address=dask_address)
    monkeypatch.chdir(tmp_path)
    work = functools.partial(dies_once, folder=tmp_path, with_worker=True)
    assert sorted(dict(run_jobs(work, range(8), compute))) == list(range(8))
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("backend", [Backend.local, Backend.dask])
def test_edited_code_and_another_project_run_on_the_same_workers(
    backend: Backend, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: Any
) -> None:
    compute = ComputeConfig(backend=backend, address=address_of(backend, request))
    for number, name in enumerate(("one", "other", "one")):
        (tmp_path / name / "src").mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        (tmp_path / name / "src/features.py").write_text(f"NUMBER = {number}\n")
        all_code.cache_clear()  # each is a command of its own
        assert dict(run_jobs(own_number, ["features"], compute)) == {0: number}


@pytest.mark.parametrize("backend", [Backend.dask, Backend.ray])
def test_a_cluster_that_does_not_answer_is_named(
    backend: Backend, tmp_path: Path, monkeypatch: Any
) -> None:
    pytest.importorskip("distributed" if backend is Backend.dask else "ray")
    monkeypatch.chdir(tmp_path)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        listening = [silent.getsockname()[1]] if backend is Backend.dask else []
        for port in (free_port(), *listening):
            compute = ComputeConfig(backend=backend, address=f"127.0.0.1:{port}")
            with pytest.raises(RetrainError, match=str(port)) as caught:
                list(run_jobs(abs, [1], compute))
            assert "compute.address" in caught.value.hint


def test_a_worker_that_would_give_other_models_refuses(tmp_path: Path) -> None:
    proof, job = tmp_path / "proof", pickle.dumps((abs, -1))
    place = Place(tmp_path, proof, all_code(tmp_path), libraries())

    def refusal(place: Place) -> Any:
        return pickle.loads(run_apart(place, job))

    good, error = refusal(place)
    assert not good and "does not see the project's folder" in error.message
    proof.touch()
    assert refusal(place) == (True, 1)
    good, error = refusal(dataclasses.replace(place, versions=libraries() | {"polars": "0.1"}))
    assert not good and re.search(r"polars .* and not 0\.1", error.message)
    good, error = refusal(dataclasses.replace(place, code="of another engine"))
    assert not good and "other code" in error.message and "workers' environment" in error.hint


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RetrainError, match="not installed") as caught:
        list(run_jobs(abs, [1], ComputeConfig(backend=Backend.dask)))
    assert "'.[dask]'" in caught.value.hint


def test_lightgbm_grown_on_dask_is_the_plain_model_of_one_machine(dask_address: str) -> None:
    pytest.importorskip("lightgbm", reason="needs pip install -e '.[lightgbm]'")

    def coarse(month: str) -> pl.DataFrame:
        """No column has many values, so that every worker finds the same bins."""
        rows = flights(month).filter(pl.col("late").is_not_null())
        several = [name for name in types if rows[name].n_unique() > 8]
        return rows.with_columns(
            pl.col(name).rank("dense").mod(8).cast(rows[name].dtype) for name in several
        )

    def composed(*more: str) -> Config:
        few = "model.estimator.n_estimators=20", "+model.estimator.num_leaves=8"
        small = (*few, "model.estimator.min_child_samples=1")
        return compose(REPOSITORY / "conf", ["model=lightgbm", *small, *more])

    on_dask = ("strategy=on_dask", "compute=dask", f"compute.address={dask_address}")
    types = feature_types(composed())
    months = {month: coarse(month) for month in ("2013-01", "2013-02")}
    batches = []
    for month, rows in months.items():
        times, counts = rows["scheduled_departure"], rows["late"].value_counts().iter_rows()
        classes = {str(name): count for name, count in counts}
        span = times.min(), times.max()
        batches.append(Batch(month, 1, len(rows), 0, 0, None, *span, month, {}, classes))
    window = Window(datetime.min, datetime.max)
    plain, grown = (
        fit(composed(*more), batches, window, lambda one: months[one.period], None).pipeline
        for more in ((), on_dask)
    )
    scores = [predict(pipeline, months["2013-02"], types) for pipeline in (plain, grown)]
    np.testing.assert_allclose(*scores, atol=1e-6)
    assert np.std(scores[0]) > 0.05
    assert type(grown[-1]) is type(plain[-1]) and grown[-1].get_params() == plain[-1].get_params()
    assert why_not_stored(grown, composed().trusted_types) is None
    with pytest.raises(ConfigError, match="needs a Dask cluster"):
        fit(composed("strategy=on_dask"), batches, window, lambda one: months[one.period], None)
    with pytest.raises(ConfigError, match="LightGBM's trees"):
        other = compose(REPOSITORY / "conf", ["model=sgd", *on_dask])
        fit(other, batches, window, lambda one: months[one.period], None)
