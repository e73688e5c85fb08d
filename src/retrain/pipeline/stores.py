"""What the loop works on, in two kinds each: MLflow's, and a backtest's in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol, TypeVar

from retrain.gate.alpha_spending import Look, find_look, plan_look
from retrain.registry.entries import Entry
from retrain.types import ModelRecord

M_co = TypeVar("M_co", covariant=True)


class Ledger(Protocol):
    """The append-only record of every verdict, every look and every move of the champion."""

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""

    def looks(self) -> list[Look]:
        """All looks, oldest first."""

    def record_look(self, wanted: Look, verdict: Callable[[Look], str] = ...) -> Look:
        """Record a look unless it is there already; returns it with its number."""

    def append(self, entry: Entry, expected_length: int) -> bool:
        """Append an entry; False when the ledger has grown beyond the expected length."""


class ModelStore(Protocol[M_co]):
    """Versions of models: MLflow's registry, or the cached fits of a backtest."""

    def record(self, version: int) -> ModelRecord:
        """What a version was trained on."""

    def load(self, version: int) -> M_co:
        """The model of a version."""


class MemoryLedger:
    """A ledger for one replay."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._looks: list[Look] = []

    def entries(self) -> list[Entry]:
        return self._entries

    def looks(self) -> list[Look]:
        return self._looks

    def record_look(self, wanted: Look, verdict: Callable[[Look], str] = lambda _: "") -> Look:
        look = find_look(self._looks, wanted)
        if look is None:
            look = plan_look(self._entries, self._looks, wanted)
            self._looks.append(look)
        return look

    def append(self, entry: Entry, expected_length: int) -> bool:
        if expected_length != len(self._entries):
            return False
        self._entries.append(dataclasses.replace(entry, seq=expected_length))
        return True
