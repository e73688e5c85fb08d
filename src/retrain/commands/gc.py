"""`retrain gc`: what a year leaves behind and nothing needs any more. Shown, and with `--yes`
deleted."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrain.config import Config
from retrain.errors import RetrainError, StoreError
from retrain.lazy import mlflow, yaml
from retrain.registry.ledger import Ledger
from retrain.registry.leftovers import (
    Leftover,
    delete,
    find_leftovers,
    find_versions,
    kept_versions,
)
from retrain.registry.store import Store, open_store, store_exists
from retrain.registry.versions import follow_ledger
from retrain.report.terminal import print_table
from retrain.workspace import BACKTEST_CACHE

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

DAY_SECONDS = 24 * 3600
SNAPSHOT_TAG = "snapshot_dvc"
log = logging.getLogger("retrain")


@dataclass(frozen=True)
class Found:
    """One kind of what may go."""

    what: str
    count: int
    size: int  # bytes


def run(config: Config, options: argparse.Namespace) -> None:
    """Raises StoreError when the champion moves meanwhile."""
    before = time.time() - options.days * DAY_SECONDS
    found, snapshots = [], []
    if store_exists(config.tracking):
        store = open_store(config)
        ledger = Ledger.open(store)
        follow_ledger(store, ledger)
        entries, versions = ledger.entries(), find_versions(store)
        aliases = _aliases(store) if versions else {}
        kept = kept_versions(versions, aliases, entries, options.keep)
        user = mlflow.tracking.context.registry.resolve_tags()["mlflow.user"]
        leftovers = find_leftovers(store, versions, kept, int(before * 1000), user)
        found = list(_counted(leftovers))
        left = {one.version for one in leftovers}
        snapshots = _snapshots(store, [one for one in versions if int(one.version) not in left])
        if options.yes:
            _delete(store, ledger, leftovers, len(entries))
    found += [_backtests(before, options.yes), _dvc(snapshots, options.commits, options.yes)]
    rows = [(one.what, f"{one.count:,}", f"{one.size / 1e6:,.1f} MB") for one in found]
    print_table(["what", "count", "size"], rows, width=60)
    total = sum(one.size for one in found)
    if options.yes:
        print(f"Deleted {total / 1e6:,.1f} MB. The ledger has everything that served.")
    else:
        print(f"Nothing was deleted. `retrain gc --yes` deletes these {total / 1e6:,.1f} MB.")


def _aliases(store: Store) -> dict[str, int]:
    model = store.client.get_registered_model(store.registered_model)
    return {alias: int(version) for alias, version in model.aliases.items()}


def _counted(leftovers: Sequence[Leftover]) -> Iterator[Found]:
    kinds = {
        "models of versions": [one for one in leftovers if one.version is not None],
        "other models": [one for one in leftovers if one.model_id and one.version is None],
        "runs of candidates and backtests": [one for one in leftovers if one.run_id],
    }
    for what, ones in kinds.items():
        yield Found(what, len(ones), sum(one.size for one in ones))


def _delete(store: Store, ledger: Ledger, leftovers: Iterable[Leftover], length: int) -> None:
    for leftover in leftovers:
        if leftover.version is not None and len(ledger.texts()) != length:
            raise StoreError(
                "The ledger has got a new entry meanwhile: what is needed may be something else "
                "now. Not everything was deleted.",
                hint="Run the command again.",
            )
        delete(store, leftover)


def _snapshots(store: Store, versions: Iterable[ModelVersion]) -> list[str]:
    """DVC's hashes of the snapshots that these versions were trained on: to reproduce them."""
    runs = {version.run_id for version in versions if version.run_id}
    tags = [store.client.get_run(run).data.tags for run in runs]
    return sorted({one[SNAPSHOT_TAG] for one in tags if SNAPSHOT_TAG in one})


def _backtests(before: float, carry_out: bool) -> Found:
    """Fits that replays have cached. Losing one costs the time to train it again."""
    entries = list(BACKTEST_CACHE.iterdir()) if BACKTEST_CACHE.is_dir() else []
    old = [entry for entry in entries if entry.stat().st_mtime < before]
    size = sum(_size(entry) for entry in old)
    for entry in old if carry_out else []:
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    return Found(f"cached fits of backtests, {BACKTEST_CACHE}/", len(old), size)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _dvc(snapshots: Sequence[str], commits: int | None, carry_out: bool) -> Found:
    """What DVC's cache holds for no commit, work tree, experiment or kept version."""
    what = "files in DVC's cache that no kept commit names"
    cache = Path(_dvc_command("cache", "dir").strip())
    if not cache.resolve().is_relative_to(Path.cwd()):
        log.warning("DVC's cache, %s, may serve other projects: it was left as it is.", cache)
        return Found(what, 0, 0)
    kept = ["-A"] if commits is None else ["-a", "-n", str(commits)]
    with tempfile.TemporaryDirectory(prefix="gc-") as parent:
        also = _project_of(snapshots, cache, Path(parent) / "kept")
        command = ["gc", "-f", "-w", *kept, "--all-experiments", "-p", str(also)]
        text = _dvc_command(*command, "--dry")
        paths = [Path(line) for line in re.findall(r"^Removing (/.*)$", text, re.MULTILINE)]
        size = sum(path.stat().st_size for path in paths if path.is_file())
        if carry_out and paths:
            _dvc_command(*command)
    return Found(what, len(paths), size)


def _project_of(snapshots: Sequence[str], cache: Path, folder: Path) -> Path:
    """A project of DVC that names these snapshots: they may be in no commit."""
    folder.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    _dvc_command("init", "-q", cwd=folder)
    _dvc_command("cache", "dir", "--local", str(cache.resolve()), cwd=folder)
    for number, md5 in enumerate(snapshots):
        if (cache / "files" / "md5" / md5[:2] / md5[2:]).exists():
            out = {"md5": md5, "hash": "md5", "path": f"snapshot{number}"}
            text = yaml.safe_dump({"outs": [out]})
            (folder / f"snapshot{number}.dvc").write_text(text, encoding="utf-8")
    return folder


def _dvc_command(*arguments: str, cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    done = subprocess.run(
        ["dvc", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RetrainError(f"`dvc {' '.join(arguments[:2])}` failed: {last}")
    return done.stdout
