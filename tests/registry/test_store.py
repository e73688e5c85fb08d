"""The tracking store: prepared once, portable, and honest when it does not answer."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

from retrain.config import Config, compose
from retrain.errors import StoreError
from retrain.registry.store import open_store, store_exists, tracking_uri


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "first place"
    folder.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(folder))
    return folder


def test_the_database_is_made_once_in_wal_mode(root: Path, config: Config) -> None:
    assert not store_exists(config.tracking)
    store = open_store(config)
    assert store_exists(config.tracking)
    assert sqlite3.connect(root / "mlflow.db").execute("pragma journal_mode").fetchone() == ("wal",)
    assert {e.name for e in store.client.search_experiments()} == {"Default", "flights"}
    assert {e.name for e in open_store(config).client.search_experiments()} == {
        "Default",
        "flights",
    }


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_a_moved_or_copied_project_finds_its_files(
    root: Path, config: Config, monkeypatch: pytest.MonkeyPatch, move
) -> None:
    store = open_store(config)
    experiment = store.client.get_experiment_by_name("flights").experiment_id
    run = store.client.create_run(experiment).info.run_id
    store.client.log_text(run, "still here", "note.txt")
    elsewhere = root.with_name("second place")
    move(root, elsewhere)
    monkeypatch.setenv("DVC_ROOT", str(elsewhere))
    moved = open_store(config)
    assert [item.path for item in moved.client.list_artifacts(run)] == ["note.txt"]
    location = moved.client.get_run(run).info.artifact_uri
    assert location.startswith(str(elsewhere / "mlruns"))


def test_a_folder_that_can_not_be_written_is_named(root: Path, config: Config) -> None:
    (root / ".dvc").write_text("no folder: the tests may run as root, whom no permission stops")
    with pytest.raises(
        StoreError, match=r"(?s)mlflow\.lock can't be written .*Mend the permissions"
    ):
        open_store(config)


def test_a_damaged_database_is_named(root: Path, config: Config) -> None:
    (root / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"mlflow\.db is damaged"):
        open_store(config)


@pytest.fixture
def server_config() -> Config:
    return compose(REPOSITORY / "conf", ["tracking=server"])


def test_a_server_without_address_names_the_variable(
    server_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(StoreError, match="MLFLOW_TRACKING_URI is empty"):
        tracking_uri(server_config.tracking)


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_server_that_does_not_answer_is_given_up_within_fifteen_seconds(
    server_config: Config, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if how == "hangs":
            listener.listen()  # takes the connection and never says a word
        address = f"http://user:s3cret@127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        started = time.monotonic()
        with pytest.raises(StoreError, match="does not answer") as error:
            open_store(server_config)
    assert time.monotonic() - started < 15
    assert "s3cret" not in str(error.value)
