"""The append-only record of every verdict and every move of the champion.

It is one MLflow run for each registered model, shared by everyone who shares the store. Entry n is the param `seq-<n>`:
MLflow lets a param be written once, so of several writers exactly one gets each number, on SQLite, on Postgres and
through a server. The alias `champion` is its cache, since MLflow's aliases are unconditional overwrites.
"""

from __future__ import annotations

import dataclasses
import getpass
import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from retrain.errors import PromotionError, StoreError
from retrain.records import ModelRecord
from retrain.tracking.store import LEDGER, Store, ensure_experiment

_KEY = "seq-{:06d}"
LONGEST_PARAM = 6000


@dataclass(frozen=True)
class Entry:
    """One line of history. `champion` serves from this entry on; it moved if it differs from `previous`."""

    kind: str  # "verdict"
    verdict: str
    reason: str
    champion: int | None
    previous: int | None
    trained_until: str | None  # of the champion
    challenger: int
    challenger_trained_until: str
    incumbent: int | None
    comparison: str  # digest of what was judged
    snapshot: str
    newest_batch: str
    git_commit: str | None
    run_id: str
    who: str = ""
    time: str = ""
    id: str = ""
    seq: int = 0

    @property
    def moved(self) -> bool:
        return self.champion != self.previous


class Ledger:
    """Reads and appends. Nothing is ever changed or taken back."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store, self.run_id = store, run_id

    @classmethod
    def open(cls, store: Store) -> Ledger:
        """The ledger of the store's registered model, created at first use."""
        return cls(store, _ledger_run(store))

    def entries(self) -> list[Entry]:
        """The whole history, oldest first."""
        params = self.store.client.get_run(self.run_id).data.params
        numbered = sorted((key, value) for key, value in params.items() if key.startswith("seq-"))
        return [Entry(**json.loads(value), seq=number) for number, (_, value) in enumerate(numbered)]

    def append(self, entry: Entry, expected_length: int) -> bool:
        """Write entry number `expected_length`. False when another writer already has: read again, then decide again."""
        from mlflow.exceptions import MlflowException

        stamped = dataclasses.replace(
            entry,
            who=_who(),
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            id=uuid.uuid4().hex,  # equal values would both be accepted
        )
        content = dataclasses.asdict(stamped)
        del content["seq"]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        if len(text) > LONGEST_PARAM:  # MLflow would cut it, and half an entry can't be read again
            raise PromotionError(
                f"The ledger entry has {len(text):,} characters, and {LONGEST_PARAM:,} fit. Shorten the names of your checks."
            )
        try:
            self.store.client.log_param(self.run_id, _KEY.format(expected_length), text)
        except MlflowException as error:
            if error.error_code == "INVALID_PARAMETER_VALUE":
                return False
            raise StoreError(f"The ledger could not be written: {str(error).splitlines()[0]}") from error
        return True


def current_champion(entries: Sequence[Entry]) -> Entry | None:
    """The entry that put the serving champion in place, None before the first promotion."""
    return next((entry for entry in reversed(entries) if entry.moved), None)


def find_incumbent(entries: Sequence[Entry], evaluation_start: str) -> ModelRecord | None:
    """The version to compare with on rows from `evaluation_start` on, none of which it was trained on. None before the first.

    It is the champion. When it was refitted on this very window, the challenger that earned its promotion stands in: same
    recipe, without the window. So a changed recipe on an unchanged snapshot has to match what serves.
    Raises PromotionError when both have seen rows of the window: an older version would be too easy to beat.
    """
    champion = current_champion(entries)
    if champion is None:
        return None
    if champion.trained_until is not None and champion.trained_until <= evaluation_start:
        return ModelRecord(champion.champion, "", champion.trained_until)
    if champion.challenger_trained_until <= evaluation_start:
        return ModelRecord(champion.challenger, "", champion.challenger_trained_until)
    raise PromotionError(
        f"The champion, version {champion.champion}, was trained on rows of this evaluation window, which starts at "
        f"{evaluation_start[:16].replace('T', ' ')}: it was promoted on a newer snapshot or a shorter window. Nothing can be compared "
        "with it fairly. Set `data.as_of` and `evaluation` back to theirs, or let a new batch arrive; then `dvc repro`."
    )


def _ledger_run(store: Store) -> str:
    """Id of the run that holds the ledger. Two of them would split the history.

    Experiment names are unique, so exactly one process creates the experiment, and that one makes the run.
    """
    experiment, created = ensure_experiment(store, store.registered_model + LEDGER)
    for attempt in range(50):
        found = _find_ledger_run(store, experiment)
        if found is not None:
            return found
        if created or attempt == 48:  # whoever created the experiment and made no run for ten seconds has died
            store.client.create_run(experiment, run_name=f"ledger of {store.registered_model}")
            created = False
        else:
            time.sleep(0.2)
    raise StoreError(
        f"The ledger of `{store.registered_model}` can't be created. Check what you may write in the tracking store."
    )


def _find_ledger_run(store: Store, experiment: str) -> str | None:
    """Raises StoreError when the ledger was deleted: without it, any model would pass for the first champion."""
    from mlflow.entities import ViewType

    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    runs = store.client.search_runs([experiment], "", ViewType.ALL, max_results=1, order_by=order)
    if not runs:
        return None
    if runs[0].info.lifecycle_stage != "active":
        raise StoreError(
            f"The run that holds the ledger of `{store.registered_model}` was deleted in MLflow. Restore run {runs[0].info.run_id} of "
            f"experiment `{store.registered_model}{LEDGER}` (MLflow UI, state: deleted), then run the command again."
        )
    return runs[0].info.run_id


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown"
