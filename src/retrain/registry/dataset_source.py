"""How MLflow names the snapshot: where it lies in the project, and the commit whose `dvc.lock`
brings it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.data.dataset_source import DatasetSource


class SnapshotSource(DatasetSource):
    """Batches of a DVC-tracked snapshot."""

    def __init__(self, path: str, batches: Sequence[str], git_commit: str | None) -> None:
        self.path, self.batches, self.git_commit = path, list(batches), git_commit

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    def load(self) -> str:
        """The folder as DVC has it checked out: `git checkout <git_commit> && dvc checkout` brings
        back its content."""
        return self.path

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False  # only ever built by this project, never guessed from a string

    @classmethod
    def _resolve(cls, raw_source: Any) -> SnapshotSource:
        raise NotImplementedError("A snapshot source is not resolved from a string.")

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "batches": self.batches, "git_commit": self.git_commit}

    @classmethod
    def from_dict(cls, source_dict: Mapping[str, Any]) -> SnapshotSource:
        return cls(source_dict["path"], source_dict["batches"], source_dict["git_commit"])
