"""Databases that several machines share: prepared once, artifacts for all, and errors that say what is wrong."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from servers import ObjectStore, Postgres

from retrain.config import Config, compose
from retrain.errors import StoreError
from retrain.registry.store import SUBMITTED_FROM, open_store

LOGS = REPOSITORY / "tests/benchmarks/new_store.py"


@pytest.fixture
def config() -> Config:
    return compose(REPOSITORY / "conf", ["data=flights", "tracking=server"])


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_processes_of_two_hosts_lose_nothing_in_a_store_that_does_not_exist_yet(
    store: str, request: pytest.FixtureRequest
) -> None:
    if store == "postgres":
        request.getfixturevalue("postgres")
    command = [
        sys.executable,
        str(LOGS),
        "--processes",
        "4",
        "--repetitions",
        "1",
        "--store",
        store,
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 of 4" in result.stdout


def test_models_on_a_database_without_a_server_lie_where_all_machines_reach_them(
    config: Config, postgres: Postgres, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.create("without a server"))
    for name, text in object_store.environment.items():
        monkeypatch.setenv(name, text)
    config.tracking = dataclasses.replace(config.tracking, artifacts="s3://team/direct/")
    client = (store := open_store(config)).client
    run = client.create_run(client.get_experiment_by_name(store.experiment).experiment_id).info
    assert run.artifact_uri.startswith("s3://team/direct/flights/")
    client.log_text(run.run_id, "seen by all", "note.txt")
    assert [item.path for item in client.list_artifacts(run.run_id)] == ["note.txt"]


@pytest.mark.parametrize(
    "what, said",
    [
        ("password", "password authentication failed"),
        ("database", 'database "nobody made it" does not exist'),
    ],
)
def test_a_database_that_lets_nobody_in_says_why(
    config: Config, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, what: str, said: str
) -> None:
    wrong = "wr0ng-s3cret" if what == "password" else None
    name = "nobody made it" if what == "database" else "postgres"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.address(name, wrong))
    with pytest.raises(StoreError) as error:
        open_store(config)
    assert said in error.value.message and "createdb" in error.value.hint
    assert "s3cret" not in str(error.value) and "Traceback" not in str(error.value)


def test_a_database_that_never_answers_is_given_up_within_fifteen_seconds(
    config: Config, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    address = f"postgresql+psycopg2://ann:s3cret@127.0.0.1:{silent}/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"does not let us in: .*timeout") as error:
        open_store(config)
    assert time.monotonic() - started < 15 and "s3cret" not in str(error.value)


def test_a_job_on_another_machine_does_not_write_into_the_local_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = compose(REPOSITORY / "conf", ["data=flights", "tracking=local"])
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv(SUBMITTED_FROM, "login.cluster")
    with pytest.raises(StoreError, match=r"(?s)started on login\.cluster.*tracking: server"):
        open_store(local)
    assert not os.listdir(tmp_path)
