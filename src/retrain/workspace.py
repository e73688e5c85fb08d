"""The project on disk: where things lie, how files are written, who holds the lock."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrain.errors import ConfigError, RetrainError
from retrain.lazy import filelock, yaml

PARAMS = Path("params.yaml")
SNAPSHOT = Path("data/snapshot")
SOURCE_INDEX = Path("data/.source_index.json")
MONITORING_CACHE = Path(
    "data/.monitoring.json"
)  # what was measured once; losing it costs time only
REFUSED = Path(
    ".dvc/tmp/retrain_refused.json"
)  # why the last update of the snapshot was, if it was
LEDGER_POINTER = Path("mlruns/ledger.json")  # which ledger the results here belong to
DECISION = Path("reports/decision.json")
CHALLENGER = Path("reports/challenger.json")
PREDICTIONS = Path("reports/predictions.parquet")
COMPARISON = Path("reports/comparison.json")
PROMOTION = Path("reports/promotion.json")
REPORT, REPORT_TEXT = Path("reports/report.html"), Path("reports/report.md")
METRICS, REVIEW_PLOTS = Path("reports/metrics.json"), Path("reports/plots")
BACKTEST, BACKTEST_REPORT = Path("reports/backtest.json"), Path("reports/backtest.html")
BACKTEST_CACHE = Path(
    "data/.backtest"
)  # models and predictions of replays; losing them costs time only
GATE_CHECK = Path("reports/gate_check.json")
CODE = ("src", "pyproject.toml", "constraints.txt")


def find_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` that holds `dvc.yaml` and `conf/`.

    Raises ConfigError outside a project.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "conf").is_dir():
            return folder
    raise ConfigError(
        f"No retraining project at or above {start}: a project holds dvc.yaml and conf/.",
        hint="change into your clone and run the command again",
    )


def store_root() -> Path:
    """Where `mlflow.db` and `mlruns/` lie: the main project, also while DVC runs an experiment in a
    copy of it."""
    return Path(os.environ.get("DVC_ROOT") or find_root()).resolve()


def in_experiment_copy() -> bool:
    """Whether this is a copy of the project in which DVC runs a queued experiment (`dvc exp run
    --queue` or `--temp`)."""
    return store_root() != find_root().resolve()


def running_stage() -> str | None:
    """Name of the DVC stage that runs this process, None when a person does."""
    return os.environ.get("DVC_STAGE") or None


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes
    otherwise."""
    temporary = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unique = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        # Readable for whom the umask says: rows may be personal data. (`mkstemp` would make it
        # readable for nobody else.)
        os.close(os.open(unique, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        temporary = unique
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise RetrainError(
            f"Could not write {path}: {error.strerror or error}. The file that was there is "
            "untouched.",
            hint="make room or mend the permissions, then run the command again",
        ) from error
    finally:
        if temporary != path:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def invalidated(path: Path) -> Iterator[None]:
    """Take a stage's output away during the block: if the process dies in it, the next `dvc repro`
    runs that stage again."""
    aside = path.with_name(f".{path.name}.aside")
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, aside)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            if not path.exists():
                os.replace(aside, path)


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, made_by: str) -> Any:
    """Content of a stage's output. Raises RetrainError naming the stage that makes it when it is
    missing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RetrainError(
            f"{path} is missing.",
            hint=f"run `dvc repro {made_by}` to make it",
        ) from None
    except json.JSONDecodeError as error:
        raise RetrainError(
            f"{path} is damaged ({error}).",
            hint=f"run `dvc repro -f -s {made_by}` to make it again",
        ) from None


@contextlib.contextmanager
def project_lock(verb: str) -> Iterator[None]:
    """Hold the project's lock, so that a stage that outlived its killed `dvc` can't write beside
    the next run.

    Raises RetrainError at once when another process holds it.
    """
    lock_path = store_root() / ".dvc" / "tmp" / "retrain.lock"
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RetrainError(
            f"`retrain {verb}` can't start: another retraining is at work in this project.",
            hint="wait for it to end (or end it), then run the command again",
        ) from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Commit:
    """The code that ran: `sha` is None outside git; `patch` is how the files in CODE differ from
    it, empty when they don't."""

    sha: str | None
    patch: str


@functools.cache
def current_commit() -> Commit:
    """The commit of the work tree. Only code counts: config and data are recorded with each run by
    themselves."""
    try:
        sha = _git("rev-parse", "HEAD")
        patch = code_since(sha) if sha else ""
    except FileNotFoundError:
        return Commit(None, "")
    return Commit(sha, patch or "")


def code_since(base: str) -> str | None:
    """How the files in CODE differ from a commit, empty when they don't; None where git does not
    know it."""
    with tempfile.TemporaryDirectory() as folder:
        # New files count too, and the user's index stays as it is.
        environment = os.environ | {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git("read-tree", "HEAD", environment=environment)
        present = (name for name in CODE if Path(name).exists())
        _git("add", "-A", "--", *present, environment=environment)
        # Of other files, such as conf/, the commit may hold others as well.
        patch = _git("diff", "--cached", "--binary", base, "--", *CODE, environment=environment)
    return f"{patch}\n" if patch else patch


def _git(*arguments: str, environment: Mapping[str, str] | None = None) -> str | None:
    """What git prints, None when it fails."""
    result = subprocess.run(["git", *arguments], capture_output=True, check=False, env=environment)
    # Byte for byte: a patch holds the line ends and the encoding of its files.
    text = result.stdout.decode("utf-8", "surrogateescape")
    return text.strip("\n") if result.returncode == 0 else None


def snapshot_dvc_hash() -> str | None:
    """The hash under which DVC's cache holds the snapshot, from `dvc.lock`; None while no `dvc
    repro` has recorded it."""
    try:
        lock = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
        return str(lock["stages"]["snapshot"]["outs"][0]["md5"])
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError):
        return None
