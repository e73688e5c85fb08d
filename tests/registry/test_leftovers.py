"""`retrain gc`: after a year, everything that is promised is there, and the rest is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrain.registry import leftovers
from retrain.registry.entries import Entry, deployment_history
from retrain.registry.ledger import Ledger
from retrain.registry.leftovers import (
    MODEL_PARAM,
    USER,
    Leftover,
    delete,
    find_leftovers,
    find_versions,
    kept_versions,
)
from retrain.registry.store import BACKTESTS, CANDIDATES, Store, ensure_experiment
from retrain.registry.transitions import rollback_target
from retrain.registry.versions import follow_ledger

NEVER = 1 << 60  # later than every model: nothing is too young
SERVED = 5
ENTRY = Entry(
    kind="verdict",
    verdict="promote",
    reason="",
    champion=None,
    previous=None,
    trained_until="2013-02-01T00:00:00",
    challenger=1,
    challenger_trained_until="2013-01-20T00:00:00",
    incumbent=None,
    comparison="",
    snapshot="",
    newest_batch="",
    git_commit=None,
    run_id=None,
)


def add_run(store: Store, suffix: str = "", model: str = "flights", user: str = "me") -> str:
    experiment, _ = ensure_experiment(store, store.experiment + suffix)
    run = store.client.create_run(experiment, tags={USER: user})
    store.client.log_param(run.info.run_id, MODEL_PARAM, model)
    (Path(run.info.artifact_uri) / "report.html").parent.mkdir(parents=True)
    (Path(run.info.artifact_uri) / "report.html").write_text("report")
    store.client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def add_model(store: Store, run: str, suffix: str = "", **tags: str) -> int | str:
    """A stored model of a run; with tags, a version of the registered model."""
    experiment, _ = ensure_experiment(store, store.experiment + suffix)
    model = store.client.create_logged_model(experiment, source_run_id=run)
    Path(model.artifact_location).mkdir(parents=True)
    (Path(model.artifact_location) / "model.skops").write_bytes(b"x" * 1000)
    if not tags:
        return str(model.model_id)
    name, location = store.registered_model, model.artifact_location
    created = store.client.create_model_version(
        name, location, run_id=run, tags=tags, model_id=model.model_id
    )
    return int(created.version)


def retrain(store: Store, ledger: Ledger, promote: bool, parent: int | None = None) -> Entry:
    """A challenger and, where it is promoted, its refit; the ledger's entry about them."""
    run, entries = add_run(store), ledger.entries()
    serving = entries[-1].champion if entries else None
    more = {"continued_from": str(parent)} if parent else {}
    challenger = champion = int(add_model(store, run, role="challenger", **more))
    if promote:
        champion = int(add_model(store, run, role="refit", refit_of=str(challenger)))
    return append(ledger, challenger, champion if promote else serving)


def append(ledger: Ledger, challenger: int, champion: int | None, kind: str = "verdict") -> Entry:
    def plan(entries: list[Entry]) -> Entry:
        serving = entries[-1].champion if entries else None
        facts = {"kind": kind, "champion": champion, "previous": serving, "incumbent": serving}
        return dataclasses.replace(ENTRY, challenger=challenger, **facts)

    return ledger.extend(plan)


def files(store: Store) -> set[int]:
    """The versions whose model is there."""
    found = find_versions(store)
    assert all((Path(one.source) / "model.skops").is_file() for one in found)
    return {int(one.version) for one in found}


def planned(store: Store, ledger: Ledger, before: int = NEVER, served: int = SERVED):
    found, entries = find_versions(store), ledger.entries()
    aliases = store.client.get_registered_model(store.registered_model).aliases
    numbers = {alias: int(version) for alias, version in aliases.items()}
    kept = kept_versions(found, numbers, entries, served)
    return find_leftovers(store, found, kept, before, "me")


def collect(store: Store, ledger: Ledger, **more: int) -> list[Leftover]:
    done = planned(store, ledger, **more)
    for leftover in done:
        delete(store, leftover)
    return done


@pytest.fixture
def ledger(store: Store) -> Ledger:
    store.client.create_registered_model(store.registered_model)
    return Ledger.open(store)


def test_after_sixty_retrainings_all_that_rollback_and_comparisons_need_is_there(
    store: Store, ledger: Ledger
) -> None:
    parent = None
    for week in range(60):
        entry = retrain(store, ledger, promote=week % 3 == 0, parent=parent)
        parent = entry.champion
        if week == 40:
            back = deployment_history(ledger.entries())[-3]
            append(ledger, back.challenger, back.champion, "rollback")
    follow_ledger(store, ledger)
    entries, before = ledger.entries(), files(store)
    removed = collect(store, ledger)
    assert {one.version for one in removed} == before - files(store)
    assert sum(one.size for one in removed) == 1000 * len(removed) and len(removed) > 50
    assert not any(Path(one.location).exists() for one in removed)
    assert not any(one.run_id for one in removed), "the reports of retrainings stay"
    assert ledger.entries() == entries and len(ledger.entries()) == 61
    newest = entries[-1]
    assert {newest.champion, newest.challenger, newest.incumbent} <= files(store)
    for _ in range(SERVED - 1):
        entry = append(ledger, 1, rollback_target(ledger.entries()), "rollback")
        assert entry.champion in files(store), "it served among the last"
        assert follow_ledger(store, ledger) == entry.champion
    assert planned(store, ledger) == []


def test_what_served_comes_with_its_challenger_and_the_version_that_it_continued(
    store: Store, ledger: Ledger
) -> None:
    first = retrain(store, ledger, promote=True)
    for _ in range(2):
        retrain(store, ledger, promote=False)
    last = retrain(store, ledger, promote=True, parent=first.challenger)
    collect(store, ledger, served=1)
    assert files(store) == {first.challenger, first.champion, last.challenger, last.champion}


def test_what_waits_for_approval_or_is_young_stays(store: Store, ledger: Ledger) -> None:
    retrain(store, ledger, promote=True)
    waits = retrain(store, ledger, promote=False)
    for _ in range(3):
        retrain(store, ledger, promote=False)
    store.client.set_registered_model_alias("flights", "candidate", str(waits.challenger))
    assert planned(store, ledger, before=0) == []
    collect(store, ledger)
    assert waits.challenger in files(store) and waits.challenger + 1 not in files(store)


@pytest.mark.parametrize("suffix", [CANDIDATES, BACKTESTS])
def test_candidates_and_backtests_go_with_their_models_if_they_are_this_users(
    store: Store, ledger: Ledger, suffix: str
) -> None:
    mine, theirs = add_run(store, suffix), add_run(store, suffix, user="you")
    others = add_run(store, suffix, model="another model")
    parent = add_run(store, suffix)
    child = add_run(store, suffix, user="you")
    store.client.set_tag(child, "mlflow.parentRunId", parent)
    model = add_model(store, mine, CANDIDATES)
    assert {one.run_id or one.model_id for one in collect(store, ledger)} == {mine, model}
    stages = {run: store.client.get_run(run).info.lifecycle_stage for run in (mine, theirs, others)}
    assert stages == {mine: "deleted", theirs: "active", others: "active"}
    assert not Path(store.client.get_run(mine).info.artifact_uri).exists()


def test_a_model_that_another_project_keeps_in_the_same_experiment_stays(
    store: Store, ledger: Ledger
) -> None:
    retrain(store, ledger, promote=True)
    add_model(store, add_run(store, model="another model"))
    add_model(store, "")
    assert planned(store, ledger) == []


@pytest.fixture(params=["delete_model_version", "delete_artifacts", "delete_logged_model"])
def killed_before(
    request: pytest.FixtureRequest, store: Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """A store in which a deletion ends before this step of it."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    at_files = request.param == "delete_artifacts"
    with monkeypatch.context() as patch:
        patch.setattr(LocalArtifactRepository if at_files else store.client, request.param, die)
        yield patch


def test_what_a_killed_command_left_half_done_is_finished_by_the_next(
    store: Store, ledger: Ledger, killed_before: pytest.MonkeyPatch
) -> None:
    loser = retrain(store, ledger, promote=False).challenger
    winner = retrain(store, ledger, promote=True)
    with pytest.raises(KeyboardInterrupt):
        collect(store, ledger)
    killed_before.undo()
    assert len(collect(store, ledger)) == 1 and planned(store, ledger) == []
    assert files(store) == {winner.challenger, winner.champion} and loser not in files(store)
    experiment = store.client.get_experiment_by_name("flights").experiment_id
    left = store.client.search_logged_models([experiment])
    assert len(left) == 2


def test_sizes_of_remote_artifacts_are_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(b"x" * 10)
    (tmp_path / "a/b/two").write_bytes(b"x" * 5)
    monkeypatch.chdir(tmp_path)
    assert leftovers._size("a") == 15 == leftovers._size("a", "")
    assert leftovers._size(str(tmp_path / "missing")) == 0
