"""The append-only record of every verdict and every move of the champion.

It is one MLflow run for each registered model, shared by everyone who shares the store. Entry n is
the param `seq-<n>`: MLflow lets a param be written once, so of several writers exactly one gets
each number, on SQLite, on Postgres and through a server (see `write_once`). The alias `champion` is
its cache, since MLflow's aliases are unconditional overwrites.

Each entry carries the digest of all entries before it, so that none of them can be changed, put in
or taken out without a trace. Who rewrote all of them is found by the digest that the pipeline
leaves in `reports/promotion.json`, in git.
"""

from __future__ import annotations

import dataclasses
import getpass
import json
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from retrain.errors import StoreError
from retrain.gate.alpha_spending import Look, find_look, plan_look
from retrain.masking import mask
from retrain.registry.chain import digest_of, first_break
from retrain.registry.entries import Entry
from retrain.registry.ledger_run import find_ledger_run
from retrain.registry.store import Store
from retrain.registry.write_once import deleted_run, whole_text, write_once

_KEY = "seq-{:06d}"
_LOOK_KEY = "look-{:06d}"
_NAMES = {_KEY: "Ledger entry", _LOOK_KEY: "Look"}
_MOST_ATTEMPTS = 100  # each lost to another writer, who has then written an entry


Written = TypeVar("Written", Entry, Look)


class Ledger:
    """Reads and appends. Nothing is ever changed or taken back."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store, self.run_id = store, run_id

    @classmethod
    def open(cls, store: Store) -> Ledger:
        """The ledger of the store's registered model, created at first use."""
        return cls(store, find_ledger_run(store))

    def entries(self) -> list[Entry]:
        """The whole history, oldest first.

        Raises StoreError when it was deleted, or an entry is missing or unreadable.
        """
        found = _read(self._params(), _KEY, Entry, self.run_id)
        return [dataclasses.replace(entry, seq=seq) for seq, entry in enumerate(found)]

    def texts(self) -> list[str]:
        """The entries as they are stored, oldest first: what digests are made of."""
        return _texts(self._params(), _KEY, self.run_id)

    def looks(self) -> list[Look]:
        """Every verdict that anybody was about to see, oldest first. Raises as `entries` does."""
        return _read(self._params(), _LOOK_KEY, Look, self.run_id)

    def record_look(self, wanted: Look, verdict: Callable[[Look], str] = lambda look: "") -> Look:
        """The look of these predictions under this gate, recorded unless it is there already.

        It is written before anybody sees a verdict, which may depend on its number. Two who look at
        the same time get one number each, since each place in the list has one writer.
        """
        for _ in _attempts():
            looks = self.looks()
            found = find_look(looks, wanted)
            if found is not None:
                return found
            planned = plan_look(self.entries(), looks, wanted)
            stamped = dataclasses.replace(planned, verdict=verdict(planned), **_stamp())
            if self._write(_LOOK_KEY, len(looks), stamped):
                return self.looks()[len(looks)]
        raise AssertionError

    def _params(self) -> Mapping[str, str]:
        run = self.store.client.get_run(self.run_id)
        if run.info.lifecycle_stage != "active":
            raise deleted_run(self.run_id)
        return run.data.params

    def append(self, entry: Entry, expected_length: int) -> bool:
        """Write entry number `expected_length`. False when another writer already has.

        Raises StoreError for all else that can go wrong, so that trying again after False ends.
        """
        figures = {name: float(f"{value:.6g}") for name, value in entry.figures.items()}
        stamped = dataclasses.replace(entry, reason=mask(entry.reason), figures=figures, **_stamp())
        return self._write(_KEY, expected_length, stamped)

    def _write(self, key: str, number: int, record: Entry | Look) -> bool:
        texts = _texts(self._params(), key, self.run_id)
        if len(texts) != number:
            return False
        chained = dataclasses.replace(record, before=digest_of(texts))
        # In ASCII a character is a byte, and one that every database takes.
        text = json.dumps(chained.content(), sort_keys=True)
        return write_once(self.store.client, self.run_id, key.format(number), text)

    def extend(self, plan: Callable[[list[Entry]], Entry]) -> Entry:
        """Append what `plan` makes of the history, planned again when another writer came first.

        Returns the entry as written.
        """
        for _ in _attempts():
            entries = self.entries()
            if self.append(plan(entries), len(entries)):
                return self.entries()[len(entries)]
        raise AssertionError


def _attempts() -> Iterator[int]:
    """Waits between attempts to write. Raises StoreError after the last."""
    for attempt in range(_MOST_ATTEMPTS):
        yield attempt
        time.sleep(random.uniform(0, 0.02 * min(attempt, 10)))
    raise StoreError(
        f"Others wrote to the ledger {_MOST_ATTEMPTS} times while this command tried to. "
        "Nothing was changed; run it again."
    )


def _read(params: Mapping[str, str], key: str, kind: type[Written], run_id: str) -> list[Written]:
    """The records under the keys of one kind, in order.

    Raises StoreError when one is missing, does not follow from those before it, or can't be read by
    this version of the project.
    """
    records: list[Written] = []
    texts = _texts(params, key, run_id)
    for number, text in enumerate(texts):
        try:
            records.append(kind.read(json.loads(text)))
        except ValueError as error:
            raise StoreError(
                f"{_NAMES[key]} {number} can't be read ({' '.join(str(error).split())[:200]}): "
                "it was written by a newer version of this project, or by hand.",
                hint="Update the project, then run the command again.",
            ) from error
    broken = first_break(records, texts)
    if broken is not None:
        raise StoreError(
            f"{_NAMES[key]} {broken} does not follow from those before it: one of them was changed "
            f"by hand in run {run_id}. Nothing was changed now.",
            hint="Restore the store from a backup.",
        )
    return records


def _texts(params: Mapping[str, str], key: str, run_id: str) -> list[str]:
    """The records under the keys of one kind as they are stored, in order.

    Raises StoreError when one is missing.
    """
    pattern = re.compile(key.partition("{")[0] + r"(\d{6,})")
    numbers = sorted(int(found[1]) for found in map(pattern.fullmatch, params) if found)
    if numbers != list(range(len(numbers))):
        missing = min(set(range(len(numbers))) - set(numbers))
        raise StoreError(
            f"{_NAMES[key]} {missing} is missing, though there are {len(numbers)} and the last is "
            f"{numbers[-1]}: run {run_id} was changed by hand. Nothing was changed.",
            hint="Restore the store from a backup.",
        )
    return [whole_text(params, key.format(number)) for number in numbers]


def _stamp() -> dict[str, Any]:
    """Who writes, when, and what sets this text apart: equal values would both be accepted."""
    return {
        "who": _who(),
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "id": uuid.uuid4().hex,
    }


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown"
