"""Of eight who move the champion at the same time exactly one wins, whatever the store: real processes, real databases."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Project
from servers import Postgres, run_mlflow

from retrain.errors import StoreError
from retrain.gate.alpha_spending import Look, look_number
from retrain.registry import write_once
from retrain.registry.entries import Entry
from retrain.registry.ledger import Ledger
from retrain.registry.store import Store

RACERS, ROUNDS = 8, 5
MEMBER = "slice"


@dataclass(frozen=True)
class Arena:
    """A project with a champion. `address` is where the racers find the store, `database` the same store without a server."""

    project: Project
    database: str
    address: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.address} if self.address else {}

    @property
    def store(self) -> Store:
        from mlflow import MlflowClient

        return Store(MlflowClient(self.database), MEMBER, MEMBER, None)

    def racers(self, folder: Path) -> list[Project]:
        """One clone for each on a shared store; a local store belongs to one project."""
        if self.address is None:
            return [self.project] * RACERS
        return [self.project.copy(folder / f"clone {number}") for number in range(RACERS)]

    def register(self) -> list[int]:
        """As many more versions as there are racers: the first challenger's model again, under a number of its own."""
        client = self.store.client
        first = client.get_model_version(MEMBER, "1")
        again = dict(run_id=first.run_id, tags=dict(first.tags), model_id=first.model_id)
        return [
            int(client.create_model_version(MEMBER, first.source, **again).version)
            for _ in range(RACERS)
        ]

    def history(self) -> list[Entry]:
        """The ledger, after seeing that it is one line without gaps and that the alias `champion` stands at its end.

        Read without a command of the project: that would mend the alias first.
        """
        ledger = Ledger.open(self.store)
        numbers = sorted(
            key
            for key in self.store.client.get_run(ledger.run_id).data.params
            if key.startswith("seq-")
        )
        assert numbers == [f"seq-{number:06d}" for number in range(len(numbers))]
        entries = ledger.entries()
        champion = None
        for entry in entries:
            assert entry.previous == champion, (
                f"entry {entry.seq} does not follow on the one before"
            )
            champion = entry.champion
        assert (
            int(self.store.client.get_model_version_by_alias(MEMBER, "champion").version)
            == champion
        )
        return entries


@pytest.fixture(scope="module")
def local(champion_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Arena:
    project = champion_project.copy(tmp_path_factory.mktemp("local") / "project")
    return Arena(project, f"sqlite:///{project.root / 'mlflow.db'}")


@pytest.fixture(scope="module")
def database(
    champion_project: Project, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Arena:
    """The database addressed directly, with the first champion on it. Artifacts lie in the project that made them."""
    project = champion_project.copy(tmp_path_factory.mktemp("shared") / "project")
    project.edit("conf/config.yaml", "tracking: local ", "tracking: server ")
    address = postgres.create("races")
    project.run("dvc", "repro", MLFLOW_TRACKING_URI=address)
    return Arena(project, address, address)


@pytest.fixture(scope="module")
def server(database: Arena, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """The same store behind a tracking server."""
    folder = tmp_path_factory.mktemp("server")
    with run_mlflow(folder, database.database, workers=2) as address:
        yield Arena(database.project, database.database, address)


@pytest.fixture(params=["local", "database", "server"])
def arena(request: pytest.FixtureRequest) -> Arena:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["database", "server"])
def shared(request: pytest.FixtureRequest) -> Arena:
    return request.getfixturevalue(request.param)


def at_once(
    racers: Sequence[Project], commands: Sequence[Sequence[str]], **environment: str
) -> list[subprocess.CompletedProcess[str]]:
    with ThreadPoolExecutor(len(racers)) as pool:
        return list(
            pool.map(
                lambda racer, command: racer.run("retrain", *command, check=False, **environment),
                racers,
                commands,
            )
        )


def the_winner(
    versions: Sequence[int], results: Sequence[subprocess.CompletedProcess[str]], *reasons: str
) -> int:
    """The only version whose command ended well. The other commands must have failed for one of the reasons, and said so."""
    won = [
        version for version, result in zip(versions, results, strict=True) if result.returncode == 0
    ]
    assert len(won) == 1, [result.stderr for result in results]
    for result in results:
        said = " ".join(result.stderr.split())
        assert result.returncode == 0 or (
            "Traceback" not in said and any(reason in said for reason in reasons)
        ), said
    return won[0]


def test_of_eight_people_who_let_a_version_serve_exactly_one_succeeds(
    arena: Arena, tmp_path: Path
) -> None:
    versions, before = arena.register(), arena.history()
    commands = [
        ("promote", str(version), "--reason", f"I prefer {version}") for version in versions
    ]
    results = at_once(arena.racers(tmp_path), commands, **arena.environment)
    busy = ["another retraining is at work in this project"] if arena.address is None else []
    winner = the_winner(versions, results, "The champion has moved to version", *busy)
    *earlier, newest = arena.history()
    assert earlier == before
    assert (newest.kind, newest.champion, newest.reason) == (
        "override",
        winner,
        f"I prefer {winner}",
    )


def test_of_eight_retrainings_that_were_compared_with_the_same_champion_exactly_one_promotes(
    shared: Arena, tmp_path: Path
) -> None:
    versions, before, racers = shared.register(), shared.history(), shared.racers(tmp_path)
    for racer, version in zip(racers, versions, strict=True):
        claim(racer, version, before, Ledger.open(shared.store).looks())
    unpromoted = (racers[0].root / "reports/promotion.json").read_bytes()
    results = at_once(racers, [("promote",)] * RACERS, **shared.environment)
    winner = the_winner(versions, results, "has moved to version")
    entries = shared.history()
    new = entries[len(before) :]
    assert entries[: len(before)] == before and [
        entry.champion for entry in new if entry.moved
    ] == [winner]
    assert [entry.kind for entry in new] == ["verdict"] + ["refusal"] * (RACERS - 1)
    assert sorted(entry.challenger for entry in new) == versions, "each was written down once"
    for racer, version in zip(racers, versions, strict=True):
        promotion = (racer.root / "reports/promotion.json").read_bytes()
        if version == winner:
            assert json.loads(promotion)["champion"] == winner
        else:
            assert promotion == unpromoted


def test_a_database_or_server_that_refuses_a_length_gets_smaller_pieces_and_a_deleted_ledger_ends_the_attempts(
    shared: Arena, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from mlflow import MlflowClient
    from mlflow.utils import validation

    monkeypatch.setattr(
        validation, "MAX_PARAM_VAL_LENGTH", 10**6
    )  # so that the store itself has to refuse
    monkeypatch.setattr(write_once, "SIZES", (9000, 400))
    name = f"long {request.node.callspec.id}"
    ledger = Ledger.open(Store(MlflowClient(shared.address), name, name, None))
    entry = Entry(
        "verdict",
        "keep",
        "\0\U0001f600" * 4000,
        None,
        None,
        None,
        1,
        "2013",
        None,
        "c",
        "s",
        "b",
        None,
        "r",
    )
    assert ledger.append(entry, 0) and not ledger.append(entry, 0)
    assert [one.reason for one in ledger.entries()] == [entry.reason]
    ledger.store.client.delete_run(ledger.run_id)
    with pytest.raises(StoreError, match=f"restore --run-id {ledger.run_id}"):
        ledger.append(entry, 1)


def claim(racer: Project, version: int, entries: Sequence[Entry], looks: Sequence[Look]) -> None:
    """Let the clone's stages `train` and `evaluate` have ended with this version, promoted, against today's champion."""
    paths = [racer.root / "reports" / name for name in ("challenger.json", "comparison.json")]
    trained, compared = (json.loads(path.read_text()) for path in paths)
    trained["challenger"]["version"] = version
    trained["predictions"] = f"{version:064d}"
    trained["ledger_length"] = len(entries)
    window = trained["evaluation_start"], trained["evaluation_end"]
    compared["predictions"] = trained["predictions"]
    compared["look"] = look_number(
        entries, *window, trained["predictions"][:16], compared["gate"], looks
    )
    racer.edit("params.yaml", "refit: true", "refit: false")
    assert compared["verdict"] == "promote"
    compared["reason"] = f"claim of version {version}"
    for path, content in zip(paths, (trained, compared), strict=True):
        path.write_text(json.dumps(content))


# One process that has loaded everything forks the racers, so that they write within milliseconds of each other.
CLOSE_RACE = """
import json, multiprocessing, os, sys
from datetime import UTC, datetime
from pathlib import Path
from retrain.commands.manual_promotion import carry_out, find_origin
from retrain.config import compose
from retrain.errors import PromotionError
from retrain.registry.entries import OVERRIDE
from retrain.registry.ledger import Ledger
from retrain.registry.transitions import plan_choice
from retrain.registry.store import open_store
import mlflow

def race(version):
    store = open_store(compose(Path("conf")))
    ledger, origin = Ledger.open(store), find_origin(store, version, [])
    results = []
    for _ in range(rounds):
        barrier.wait()
        started = datetime.now(UTC)
        barrier.wait()
        try:
            entry, _ = carry_out(store, ledger, started, lambda seen: plan_choice(seen, OVERRIDE, origin, "close race"))
            results.append(entry.seq)
        except PromotionError as error:
            results.append(str(error))
    os.write(output, (json.dumps([version, results]) + "\\n").encode())

rounds, versions = int(sys.argv[1]), [int(version) for version in sys.argv[2:]]
context = multiprocessing.get_context("fork")
barrier = context.Barrier(len(versions))
output = os.dup(1)
racers = [context.Process(target=race, args=[version]) for version in versions]
for racer in racers:
    racer.start()
for racer in racers:
    racer.join()
sys.exit(max(abs(racer.exitcode) for racer in racers))
"""


def test_in_a_close_race_each_ledger_entry_has_one_writer(arena: Arena) -> None:
    versions, before = arena.register(), arena.history()
    command = [sys.executable, "-c", CLOSE_RACE, str(ROUNDS), *map(str, versions)]
    output = arena.project.run(*command, **arena.environment).stdout
    results = dict(json.loads(line) for line in output.splitlines())
    assert sorted(results) == versions
    entries = arena.history()
    assert entries[: len(before)] == before and len(entries) == len(before) + ROUNDS
    for number in range(ROUNDS):
        entry = entries[len(before) + number]
        outcomes = {version: results[version][number] for version in versions}
        assert outcomes.pop(entry.champion) == entry.seq
        assert all(
            "has moved" in str(said) or "is champion already" in str(said)
            for said in outcomes.values()
        )
