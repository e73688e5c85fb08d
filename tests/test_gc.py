"""`retrain gc` in a project that ran: what is kept can still be rolled back to and reproduced."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess

from conftest import Project

LONG_AGO = 1_500_000_000_000  # milliseconds


def commit(project: Project) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for command in (["add", "-A"], [*identity, "commit", "-qm", "week"]):
        subprocess.run(["git", *command], cwd=project.root, check=True)


def make_old(project: Project) -> None:
    """As if everything had happened years ago."""
    with (
        contextlib.closing(sqlite3.connect(project.root / "mlflow.db")) as database,
        database,
    ):
        database.execute("update logged_models set creation_timestamp_ms = ?", [LONG_AGO])
        database.execute("update runs set start_time = ?, end_time = ?", [LONG_AGO, LONG_AGO])
    for path in (project.root / "data/.backtest").glob("*"):
        os.utime(path, (0, 0))


def size(project: Project, folder: str) -> int:
    files = (project.root / folder).rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def test_what_is_deleted_is_shown_first_and_what_is_kept_works(grown: Project) -> None:
    commit(grown)
    grown.run("retrain", "train", "model=dummy")
    # Trained on a snapshot that no commit names: the next one overwrites dvc.lock.
    grown.arrive("2013-04", "2013-05")
    grown.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: 2013-04")
    grown.repro()
    grown.edit("conf/data/slice.yaml", "as_of: 2013-04", "as_of: 2013-05")
    grown.repro()
    champion = grown.client().get_registered_model("slice").aliases["champion"]
    history = grown.run("retrain", "history").stdout
    (grown.root / "data/.backtest/fit").mkdir(parents=True)
    (grown.root / "data/.backtest/fit/model.skops").write_bytes(b"x" * 100_000)

    assert "deletes these 0." in grown.run("retrain", "gc", "--days", "36500").stdout
    make_old(grown)
    before = {folder: size(grown, folder) for folder in ("mlruns", ".dvc/cache", "data/.backtest")}
    shown = grown.run("retrain", "gc").stdout
    assert before == {folder: size(grown, folder) for folder in before}, "a dry run"
    assert "cached fits of backtests, data/.backtest/       1      0.1 MB" in shown
    deleted = grown.run("retrain", "gc", "--yes", "--keep", "2").stdout
    after = {folder: size(grown, folder) for folder in before}
    assert after["data/.backtest"] == 0 and after["mlruns"] < before["mlruns"], deleted
    assert "Nothing was deleted. `retrain gc --yes` deletes these 0.0 MB" in (
        grown.run("retrain", "gc", "--keep", "2").stdout
    )

    assert grown.stages_run() == []
    assert grown.run("retrain", "history").stdout == history
    assert "as it was written" in grown.run("retrain", "history", "--verify").stdout
    assert "identical" in grown.run("retrain", "reproduce", str(champion)).stdout
    grown.run("retrain", "rollback", "--reason", "complaints")
    back = grown.client().get_registered_model("slice").aliases["champion"]
    assert back != champion
    assert "identical" in grown.run("retrain", "reproduce", str(back)).stdout
