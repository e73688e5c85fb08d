"""`retrain reproduce VERSION`: the recorded commit, snapshot and config in a temporary worktree,
trained again.

The code that trains is that of the recorded commit, with the changes that were not committed then;
only the Python environment is today's. What the tracking store holds of it is run only if it is
what the ledger recorded.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from retrain.config import Config
from retrain.errors import RetrainError, StoreError
from retrain.masking import without_secrets
from retrain.registry import versions
from retrain.registry.chain import check_results
from retrain.registry.entries import Entry, training_of
from retrain.registry.ledger import Ledger
from retrain.registry.recorded import RecordedCode, read_recorded
from retrain.registry.runs import PATCH, fetch_model_file, read_requirements
from retrain.registry.store import Store, open_store
from retrain.workspace import PARAMS, SNAPSHOT

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("retrain")


def run(config: Config, options: argparse.Namespace) -> None:
    """Raises RetrainError when the predictions differ, or something that was recorded can't be had
    any more."""
    store = open_store(config)
    ledger = Ledger.open(store)
    entries = ledger.entries()
    check_results(store.registered_model, ledger.texts())
    version = versions.require(store, options.version)
    run_id = versions.training_run(store, version)
    code = read_recorded(store, version, run_id, training_of(entries, str(run_id)))
    _show_and_check(version, code, options.trust_store)
    for difference in _other_packages(version):
        log.warning("Installed now is another version than then: %s", difference)
    model = fetch_model_file(str(version.source)).resolve()
    with _worktree(code.git_commit) as folder:
        _restore_code_and_config(code, folder)
        _restore_snapshot(code.snapshot, folder)
        result = _train_again(
            folder,
            version,
            model,
            versions.recorded_digest(version, entries),
            _more(store, version, entries),
        )
    outcome = (
        f"{result['rows']:,} rows of {', '.join(result['batches'])}, {result['metric']} "
        f"{result['value']:.6f}"
    )
    commit = code.git_commit[:8]
    if not result["identical"]:
        raise RetrainError(
            f"Version {version.version} is not reproduced: trained again at commit {commit}, its "
            f"predictions differ on {result['different']:,} of {outcome}, by at most "
            f"{result['largest']:.3g}.",
            hint="compare package versions (above) and the machine with those of its run",
        )
    print(
        f"Version {version.version} is reproduced: trained again at commit {commit}, its "
        f"predictions are identical ({outcome})."
    )


def _show_and_check(version: ModelVersion, code: RecordedCode, trusted: bool) -> None:
    """Show what is about to be run. Raises StoreError unless the ledger vouches for it, or a person
    does who has seen it."""
    log.info("Version %s was trained by:", version.version)
    for line in code.lines(whole=not code.known or bool(code.disagreements)):
        log.info("  %s", line)
    if code.disagreements:
        raise StoreError(
            f"Version {version.version} is not reproduced: the tracking store no longer holds "
            f"what the ledger recorded ({'; '.join(code.disagreements)}). Somebody has changed "
            "it. Nothing was run.",
            hint=f"restore the run {code.run_id} from a backup",
        )
    if not code.known and not trusted:
        raise StoreError(
            f"The ledger has no digest of what trained version {version.version}: it was written "
            "by an earlier version of this project, or the version was never judged. Code and "
            "config above come from the tracking store alone, and would be run on this machine.",
            hint=f"if you trust them: retrain reproduce {version.version} --trust-store",
        )


def _other_packages(version: ModelVersion) -> list[str]:
    """Packages whose installed version is not the recorded one."""
    lines = (
        line.partition("==") for line in read_requirements(str(version.source)) if "==" in line
    )
    then = {name: pinned for name, _, pinned in lines}
    now = {name: importlib.metadata.version(name) for name in then}
    return [
        f"{name} {now[name]} instead of {then[name]}" for name in then if now[name] != then[name]
    ]


@contextlib.contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    """A temporary checkout of a commit. Raises RetrainError when git doesn't have it."""
    with tempfile.TemporaryDirectory(prefix="reproduce-") as parent:
        folder = Path(parent) / "project"
        added = _command("git", "worktree", "add", "--detach", str(folder), commit)
        if added.returncode:
            raise RetrainError(
                f"Commit {commit} can't be checked out: {_last_line(added)}.",
                hint="fetch it, then run the command again",
            )
        try:
            yield folder
        finally:
            _command("git", "worktree", "remove", "--force", str(folder))


def _restore_code_and_config(code: RecordedCode, folder: Path) -> None:
    (folder / PARAMS).write_bytes(code.config)
    if code.patch:
        (folder / PATCH).write_bytes(code.patch)
        applied = _command("git", "apply", PATCH, cwd=folder)
        if applied.returncode:
            raise RetrainError(
                f"The uncommitted code of the run can't be applied: {applied.stderr.strip()}"
            )


def _restore_snapshot(dvc_hash: str, folder: Path) -> None:
    """Check the snapshot out of this project's DVC cache, or pull it. Raises RetrainError when
    neither has it."""
    cache = _command("dvc", "cache", "dir").stdout.strip()
    local = Path(".dvc/config.local")
    if local.is_file():
        shutil.copy(local, folder / local)  # the addresses and keys of remotes
    pipeline = (folder / "dvc.yaml").read_text(encoding="utf-8")
    for name in ("dvc.yaml", "dvc.lock"):  # they name the snapshot as output of a stage
        (folder / name).unlink(missing_ok=True)
    out = {"md5": dvc_hash, "hash": "md5", "path": SNAPSHOT.name}
    pointer = folder / SNAPSHOT.with_suffix(".dvc")
    pointer.write_text(yaml.safe_dump({"outs": [out]}), encoding="utf-8")
    _command("dvc", "cache", "dir", "--local", cache, cwd=folder)
    restored = _command("dvc", "checkout", "--force", str(pointer), cwd=folder)
    if restored.returncode:
        restored = _command("dvc", "pull", "--force", str(pointer), cwd=folder)
    if restored.returncode:
        raise RetrainError(
            f"The snapshot ({dvc_hash}) is neither in this project's DVC cache nor in its remote: "
            f"{_last_line(restored)}.",
            hint="run this where `dvc repro` ran, or `dvc push` from there",
        )
    (folder / "dvc.yaml").write_text(pipeline, encoding="utf-8")


def _more(store: Store, version: ModelVersion, entries: Sequence[Entry]) -> list[str]:
    """What `train_again` has to know beside the usual, as arguments: the base of a continued
    version, the choice of a refit."""
    facts = {}
    record = versions.model_record(version)
    if record.continued_from:
        base = versions.require(store, record.continued_from[0])
        facts = {
            "model": str(fetch_model_file(str(base.source)).resolve()),
            "sha256": versions.recorded_digest(base, entries),
            "trained_until": versions.model_record(base).trained_until,
        }
    if record.role == "refit" and record.strategy_choice:
        facts["choice"] = record.strategy_choice
    return [json.dumps(facts)] if facts else []


# Engines before 0.2.0 read YAML by a name that OmegaConf 2.4 keeps elsewhere.
_AS_THEN = """
import runpy
import omegaconf._utils
if not hasattr(omegaconf._utils, "get_yaml_loader"):
    from omegaconf._yaml import get_yaml_loader
    omegaconf._utils.get_yaml_loader = get_yaml_loader
runpy.run_module("retrain.commands.train_again", run_name="__main__", alter_sys=True)
"""


def _train_again(
    folder: Path, version: ModelVersion, model: Path, sha256: str, more: list[str]
) -> dict[str, Any]:
    """Run the commit's own `train_again` on the commit's own code, without this user's credentials:
    it needs none."""
    record = versions.model_record(version)
    arguments = [record.trained_until, str(model), sha256, record.snapshot]
    code = os.pathsep.join(filter(None, [str(folder / "src"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", _AS_THEN, *arguments, *more]
    done = _command(
        *command, cwd=folder, environment=without_secrets(_inherited()) | {"PYTHONPATH": code}
    )
    if done.returncode:
        raise RetrainError(f"Training again failed: {_last_line(done)}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")


def _command(
    *command: str, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment or _inherited(),
        capture_output=True,
        text=True,
        check=False,
    )


def _inherited() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
