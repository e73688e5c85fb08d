"""What was measured once about batches that do not change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retrain.workspace import write_json


class Cache:
    """JSON values by key, in a file. Losing it costs time, nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.used: dict[str, list[Any]] = {}
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self.known: dict[str, list[Any]] = known if isinstance(known, dict) else {}

    def get(self, key: str, measure: Callable[[], list[Any]]) -> list[Any]:
        """What is known under a key, or else is measured now."""
        if key not in self.used:
            self.used[key] = self.known[key] if key in self.known else measure()
        return self.used[key]

    def save(self, forget: bool = True) -> None:
        """Write down what was used, or, without `forget`, all that is known."""
        kept = self.used if forget else self.known | self.used
        if kept != self.known:
            write_json(self.path, kept)
