"""The ledger's chain of digests: what was written can't be changed without a trace."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from argparse import Namespace
from pathlib import Path

import pytest

from retrain.commands import history
from retrain.config import Config
from retrain.errors import StoreError
from retrain.gate.alpha_spending import Look
from retrain.registry.chain import digest_of
from retrain.registry.entries import Entry
from retrain.registry.ledger import Ledger
from retrain.registry.store import Store
from retrain.types import PromotionRecord
from retrain.workspace import PROMOTION

PLAIN = Entry(
    kind="verdict",
    verdict="promote",
    reason="because",
    champion=1,
    previous=None,
    trained_until=None,
    challenger=1,
    challenger_trained_until="",
    incumbent=None,
    comparison="c",
    snapshot="s",
    newest_batch="2013-01",
    git_commit=None,
    run_id="run",
)


def filled(store: Store, count: int = 4, reason: str = "because") -> Ledger:
    ledger = Ledger.open(store)
    for number in range(count):
        entry = dataclasses.replace(PLAIN, challenger=number + 1, reason=f"{reason} {number}")
        assert ledger.append(entry, number)
    return ledger


def change(store: Store, query: str, *values: str) -> None:
    assert store.local_root is not None
    with contextlib.closing(sqlite3.connect(store.local_root / "mlflow.db")) as database, database:
        assert database.execute(query, values).rowcount


def written_by_an_earlier_version(ledger: Ledger, number: int) -> None:
    content = dataclasses.replace(PLAIN, id=str(number)).content()
    del content["before"]
    ledger.store.client.log_param(ledger.run_id, f"seq-{number:06d}", json.dumps(content))


def said(config: Config, capsys: pytest.CaptureFixture[str]) -> str:
    history.run(config, Namespace(jsonl=False, at=None, verify=True))
    return capsys.readouterr().out


@pytest.fixture
def here(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose folder is the working directory, where `reports/` would lie."""
    monkeypatch.chdir(Path(str(store.local_root)))
    return store


@pytest.mark.parametrize("reason", ["because", "x" * 1400])
def test_each_entry_carries_the_digest_of_all_before_it(here: Store, reason: str) -> None:
    ledger = filled(here, reason=reason)
    texts = ledger.texts()
    assert [entry.before for entry in ledger.entries()] == [digest_of(texts[:n]) for n in range(4)]
    assert len(set(map(len, map(digest_of, (texts, [], texts[1:]))))) == 1
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"]) != digest_of(["abc"])


@pytest.mark.parametrize("changed, found", [(0, 1), (2, 3)])
def test_the_first_entry_that_does_not_fit_is_named(
    here: Store, config: Config, capsys: pytest.CaptureFixture[str], changed: int, found: int
) -> None:
    filled(here)
    assert "4 entries and 0 looks" in said(config, capsys)
    query = "update params set value = replace(value, 'because', 'so what') where key = ?"
    change(here, query, f"seq-{changed:06d}")
    with pytest.raises(StoreError, match=f"Ledger entry {found} does not follow"):
        said(config, capsys)


def test_an_entry_without_a_digest_after_one_with_it_does_not_fit(here: Store) -> None:
    ledger = filled(here, 2)
    written_by_an_earlier_version(ledger, 2)
    with pytest.raises(StoreError, match="Ledger entry 2 does not follow"):
        ledger.entries()


def test_nothing_is_appended_to_a_ledger_that_was_changed(here: Store) -> None:
    ledger = filled(here)
    change(
        here, "update params set value = replace(value, 'because', 'y') where key = 'seq-000001'"
    )
    with pytest.raises(StoreError, match="Ledger entry 2 does not follow"):
        ledger.extend(lambda entries: PLAIN)
    assert len(ledger.texts()) == 4


def test_entries_of_an_earlier_version_are_vouched_for_from_the_first_that_is_chained(
    here: Store, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger.open(here)
    written_by_an_earlier_version(ledger, 0)
    written_by_an_earlier_version(ledger, 1)
    assert "Not chained until entry 2, the next" in said(config, capsys)
    assert ledger.append(PLAIN, 2)
    assert "Not chained until entry 2: those before" in said(config, capsys)
    change(
        here, "update params set value = replace(value, 'because', 'y') where key = 'seq-000000'"
    )
    with pytest.raises(StoreError, match="Ledger entry 2 does not follow"):
        ledger.entries()


def test_a_look_that_was_changed_is_noticed(here: Store) -> None:
    """One of another window would let more through."""
    ledger = Ledger.open(here)
    for gate in "gh":
        ledger.record_look(Look("p", gate, "2013-02-20", "2013-03-02", 1, None, "s", "2013-02"))
    change(
        here, "update params set value = replace(value, '02-20', '01-20') where key = 'look-000000'"
    )
    with pytest.raises(StoreError, match="Look 1 does not follow"):
        ledger.looks()


def results_of(ledger: Ledger, newest: int) -> None:
    digest = digest_of(ledger.texts()[: newest + 1])
    name = ledger.store.registered_model
    PromotionRecord("keep", False, 1, None, newest, None, name, digest).save(PROMOTION)


def test_a_ledger_that_was_rewritten_as_a_whole_differs_from_what_git_holds(
    here: Store, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = filled(here)
    results_of(ledger, 2)
    assert "Entries 0 to 2 are those that reports/promotion.json names" in said(config, capsys)
    change(here, "delete from params where key like 'seq-%'")
    filled(here, reason="another")
    assert len(ledger.entries()) == 4
    with pytest.raises(StoreError, match="another digest of ledger entries 0 to 2"):
        said(config, capsys)


def test_an_end_that_was_cut_off_is_noticed(
    here: Store, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    results_of(filled(here), 3)
    change(here, "delete from params where key = 'seq-000003'")
    with pytest.raises(StoreError, match="is of ledger entry 3, and the ledger has 3"):
        said(config, capsys)
