"""The code and config that a run was trained by, and whether the ledger agrees.

Who can write to the tracking store can change the tags and files of a run. The ledger's entries
can't be changed, so their commit, config and uncommitted code are what counts.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrain.errors import StoreError
from retrain.registry.runs import CONFIG, PATCH, read_artifact
from retrain.registry.version_tags import read_tags

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from retrain.registry.entries import Entry
    from retrain.registry.store import Store

_FORMS = {
    "git_commit": re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}"),
    "snapshot_dvc": re.compile(r"[0-9a-f]{32}(\.dir)?"),
}
MOST_LINES = 400


@dataclass(frozen=True)
class RecordedCode:
    """What is needed to train a version again. `disagreements` with the ledger: empty if none."""

    run_id: str
    git_commit: str
    snapshot: str  # DVC's hash
    config: bytes
    patch: bytes
    known: bool  # to the ledger
    disagreements: tuple[str, ...]

    def lines(self, whole: bool) -> list[str]:
        """What is about to be run, for a person: as `whole`, or only how much it is."""
        changed = self.patch.count(b"\ndiff --git ") + self.patch.startswith(b"diff --git ")
        patch = f"sha256 {_sha256(self.patch)}, {changed} file(s) changed" if self.patch else "none"
        lines = [
            f"commit   {self.git_commit}",
            f"config   sha256 {_sha256(self.config)}",
            f"patch    {patch}",
        ]
        if not whole:
            return lines
        for name, content in ((CONFIG, self.config), (PATCH, self.patch)):
            text = content.decode("utf-8", "backslashreplace").splitlines()
            lines += [f"--- {name}", *map(_visible, text[:MOST_LINES])]
            if len(text) > MOST_LINES:
                lines.append(f"... and {len(text) - MOST_LINES} more lines")
        return lines


def read_recorded(
    store: Store, version: ModelVersion, run_id: str | None, entry: Entry | None
) -> RecordedCode:
    """The code and config of a version by the run that trained it, compared with the ledger's
    `entry` about that run.

    Raises StoreError when the run lacks what is needed, or holds what can't be a commit or a hash.
    """
    if not run_id:
        raise StoreError(f"Version {version.version} can't be reproduced: it has no run.")
    run = store.client.get_run(run_id)
    commit = _tag(run, version, "git_commit", "commit the project to git before `dvc repro`")
    snapshot = _tag(
        run, version, "snapshot_dvc", "train with `dvc repro`, which versions the snapshot"
    )
    patched = entry.run_patch if entry else run.data.tags.get("git_dirty") == "true"
    config = read_artifact(run.info.artifact_uri, CONFIG)
    patch = read_artifact(run.info.artifact_uri, PATCH) if patched else b""
    compared = []
    if entry is not None:
        compared = [
            ("commit", entry.trained_commit, commit),
            ("config", entry.run_config, _sha256(config)),
            ("uncommitted code", entry.run_patch, _sha256(patch) if patch else ""),
            ("snapshot", entry.snapshot, read_tags(0, version.tags).snapshot),
        ]
    disagreements = tuple(
        f"{what} {now} instead of {then or 'none'}" for what, then, now in compared if then != now
    )
    return RecordedCode(run_id, commit, snapshot, config, patch, entry is not None, disagreements)


def _tag(run: Run, version: ModelVersion, tag: str, way_out: str) -> str:
    value = str(run.data.tags.get(tag, "none"))
    if value == "none":
        raise StoreError(
            f"Version {version.version} can't be reproduced: its run has no `{tag}`.",
            hint=f"For the next one, {way_out}.",
        )
    if not _FORMS[tag].fullmatch(value):
        raise StoreError(
            f"Version {version.version} can't be reproduced: the tag `{tag}` of its run is "
            f"{value[:100]!r}, which is none. Somebody has changed it in the tracking store. "
            "Nothing was run."
        )
    return value


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _visible(line: str) -> str:
    """Without the control characters that could make a terminal hide a line."""
    return "".join(
        sign if sign.isprintable() or sign == "\t" else repr(sign)[1:-1] for sign in line
    )
