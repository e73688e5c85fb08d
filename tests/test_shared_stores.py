"""A team on several machines: PostgreSQL and S3 behind a tracking server, data and DVC's cache in S3, two clones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

import polars as pl
import pytest
from conftest import Project, flights, make_project
from servers import ObjectStore, Postgres, run_mlflow
from test_second_clone import is_unchanged, publish

TRACKING_PASSWORD = token_hex(8)


@dataclass
class Member(Project):
    """A clone on a machine of its own; keeps what its commands printed."""

    root: Path
    environment: dict[str, str]
    printed: list[str] = field(default_factory=list)

    def run(self, *command: str, check: bool = True, **environment: str):
        result = super().run(*command, check=check, **self.environment | environment)
        self.printed += [result.stdout, result.stderr]
        return result

    def history(self) -> list[dict]:
        return [
            json.loads(line)
            for line in self.run("retrain", "history", "--jsonl").stdout.splitlines()
        ]


@dataclass(frozen=True)
class Team:
    """Two clones, the second up to date with what the first has promoted, and where all is kept."""

    first: Member
    second: Member
    objects: ObjectStore
    log: Path
    database: str
    secrets: tuple[str, ...]


def arrive(store: ObjectStore, *months: str) -> None:
    """Put batches into the bucket, as somebody who delivers them does."""
    for month in months:
        with store.filesystem().open(f"team/incoming/{month}.parquet", "wb") as file:
            flights(month).gather_every(2).write_parquet(file)


@pytest.fixture(scope="module")
def team(
    postgres: Postgres, object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    root, database = tmp_path_factory.mktemp("team"), postgres.create("team")
    arrive(object_store, "2013-01", "2013-02", "2013-03")
    with run_mlflow(root, database, "s3://team/mlflow", **object_store.environment) as address:
        uri = address.replace("//", f"//ann:{TRACKING_PASSWORD}@")
        environment = object_store.environment | {"MLFLOW_TRACKING_URI": uri}
        first = Member(make_project(root / "first").root, environment)
        first.edit("conf/config.yaml", "tracking: local ", "tracking: server ")
        first.edit("conf/data/slice.yaml", "folder: data/incoming", "folder: s3://team/incoming")
        first.edit("dvc.yaml", "deps: [data/incoming]", "deps: [s3://team/incoming]")
        first.run("dvc", "remote", "add", "-d", "team", "s3://team/dvc")
        first.run("dvc", "repro")
        publish(first)
        first.run("git", "clone", "-q", ".", str(root / "second"))
        second = Member(root / "second", environment)
        second.run("dvc", "pull", "-q")
        secrets = (postgres.password, object_store.secret, TRACKING_PASSWORD)
        yield Team(first, second, object_store, root / "mlflow.log", database, secrets)


def stages(member: Member, *arguments: str) -> list[str]:
    lines = member.run("dvc", "repro", *arguments).stdout.splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("Running stage")]


def test_two_clones_share_server_data_and_remote(team: Team) -> None:
    first, second = team.first, team.second
    assert stages(second) == [] and is_unchanged(second), "the second clone has nothing to do"

    arrive(team.objects, "2013-04")
    first.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    assert stages(first) == ["config", "snapshot", "train", "evaluate", "promote"]
    assert json.loads((first.root / "reports/promotion.json").read_text())["champion"] == 4
    publish(first)
    known = first.history()

    second.run("git", "pull", "-q")
    second.run("dvc", "pull", "-q")
    assert stages(second) == [] and is_unchanged(second), "the promotion was seen"
    assert "slice version 4" in second.run("retrain", "status").stdout
    assert second.history() == known, "no look was spent"

    rows = second.root / "new rows.parquet"
    flights("2013-05").head(50).write_parquet(rows)
    second.run("retrain", "predict", str(rows), "--output", "scores.parquet")
    assert pl.read_parquet(second.root / "scores.parquet").height == 50
    assert "identical" in second.run("retrain", "reproduce", "4").stdout
    second.run("retrain", "rollback", "--reason", "complaints")
    assert "slice version 2" in first.run("retrain", "status").stdout
    assert [entry["champion"] for entry in first.history()][-1] == 2

    second.edit("conf/model/hist_gradient_boosting.yaml", "max_iter: 20", "max_iter: 21")
    assert stages(second, "train") == ["config", "train"]
    trained = json.loads((second.root / "reports/challenger.json").read_text())
    assert trained["incumbent"]["version"] == 2, "the champion that the other clone sees too"

    assert_no_secret(team)


def assert_no_secret(team: Team) -> None:
    """None of the passwords stands in anything that was written or shown."""
    import sqlalchemy

    pattern = re.compile("|".join(map(re.escape, team.secrets)).encode())
    for root in (team.first.root, team.second.root, team.objects.folder):
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert not pattern.search(path.read_bytes()), path
    for member in (team.first, team.second):
        member.run("git", "log", "--all", "-p")
        assert not pattern.search("".join(member.printed).encode())
    assert not pattern.search(team.log.read_bytes())
    with sqlalchemy.create_engine(team.database).connect() as connection:
        for table in sqlalchemy.inspect(connection).get_table_names():
            rows = connection.execute(sqlalchemy.text(f'select t::text from "{table}" t'))
            assert not pattern.search("\n".join(row[0] for row in rows).encode()), table


def test_a_local_store_moves_into_a_database_with_ledger_and_models(
    grown: Project, postgres: Postgres, tmp_path: Path
) -> None:
    for command in (["add", "-A"], ["commit", "-qm", "week"]):
        grown.run("git", "-c", "user.name=t", "-c", "user.email=t@example.com", *command)
    history = grown.run("retrain", "history").stdout
    database = postgres.create("moved")
    shared = {"MLFLOW_TRACKING_URI": database}
    # Another team is there already.
    other = make_project(tmp_path / "other").root
    Project(other).edit("conf/config.yaml", "tracking: local ", "tracking: server ")
    named = ["tracking.experiment=other", "tracking.registered_model=other"]
    Project(other).run("retrain", "history", *named, **shared)

    artifacts = str(tmp_path / "shared models")
    moved = grown.run("retrain", "move-store", "--artifacts", artifacts, **shared)
    assert "the ledger with 1 entries" in moved.stdout
    again = grown.run("retrain", "move-store", "--artifacts", artifacts, check=False, **shared)
    assert again.returncode == 1 and "of the same name already" in again.stderr
    assert postgres.password not in again.stderr + again.stdout

    grown.edit("conf/config.yaml", "tracking: local ", "tracking: server ")
    (grown.root / "mlflow.db").rename(tmp_path / "away.db")
    (grown.root / "mlruns/slice").rename(tmp_path / "away")
    grown.run("retrain", "config", **shared)
    grown.run("dvc", "commit", "-f", **shared)
    assert "didn't change, skipping" in grown.run("dvc", "repro", **shared).stdout
    assert grown.run("retrain", "history", **shared).stdout == history
    assert "as it was written" in grown.run("retrain", "history", "--verify", **shared).stdout
    assert "identical" in grown.run("retrain", "reproduce", "1", **shared).stdout
    override = ["promote", "1", "--reason", "it counts on"]
    assert "is champion now" in grown.run("retrain", *override, **shared).stdout
    grown.run("retrain", "rollback", "--reason", "as before", **shared)
    assert "1 -> 2" in grown.run("retrain", "history", **shared).stdout
    grown.run("retrain", "train", "model=dummy", **shared)
