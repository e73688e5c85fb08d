"""Models and runs in the tracking store that nothing needs any more: found, then deleted.

Only through MLflow's public clients, so with any store. Each deletion takes the entry of the
registry away first and the one that `find_leftovers` looks for last: what a killed command leaves
half done is found again by the next.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain.lazy import mlflow
from retrain.registry.entries import VERDICT, Entry, deployment_history
from retrain.registry.store import BACKTESTS, CANDIDATES, Store, is_missing
from retrain.registry.versions import model_record

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

MODEL_PARAM = "tracking.registered_model"  # of every run that the project starts
USER, PARENT = "mlflow.user", "mlflow.parentRunId"


@dataclass(frozen=True)
class Leftover:
    """A stored model, with the number of its version if it has one, or a run."""

    location: str
    size: int  # bytes
    model_id: str = ""
    version: int | None = None
    run_id: str = ""


def kept_versions(
    found: Sequence[ModelVersion], aliases: dict[str, int], entries: Sequence[Entry], served: int
) -> set[int]:
    """The versions that aliases, the newest verdict, or the last `served` that served need.

    With each come those that a comparison or `retrain reproduce` reads beside it: the version that
    it is the refit of, and the one that it was continued from.
    """
    moves = [entry for entry in entries if entry.moved]
    last = list(dict.fromkeys(entry.champion for entry in reversed(moves)))[:served]
    needed = [entry for entry in moves if entry.champion in last]
    verdicts = [entry for entry in entries if entry.kind == VERDICT]
    needed += [*deployment_history(entries)[-served:], *verdicts[-1:]]
    kept = set(aliases.values())
    for entry in needed:
        named = (entry.champion, entry.challenger, entry.incumbent, entry.candidate)
        kept |= {version for version in named if version is not None}
    records = {int(version.version): model_record(version) for version in found}
    for version in sorted(kept & set(records), reverse=True):  # a refit comes after its challenger
        record = records[version]
        kept |= {record.refit_of} if record.refit_of is not None else set()
    for version in kept & set(records):
        kept |= set(records[version].continued_from[:1])
    return kept


def find_versions(store: Store) -> list[ModelVersion]:
    """All versions of the registered model."""
    query = f"name = '{store.registered_model}'"
    return list(_pages(functools.partial(store.client.search_model_versions, query)))


def find_leftovers(
    store: Store, found: Sequence[ModelVersion], kept: set[int], before: int, user: str
) -> list[Leftover]:
    """Stored models of no kept version, and runs of candidates and backtests, from before a time.

    Parameters
    ----------
    kept
        Versions that stay, whatever their age.
    before
        Milliseconds since 1970.
    user
        Whose candidates and backtests may go.
    """
    runs = _old_runs(store, before, user)
    gone = {run.info.run_id for run in runs}
    versions = {_model_id(version): version for version in found}
    leftovers = []
    for model in _models(store, ["", CANDIDATES]):
        version = versions.get(model.model_id)
        number = int(version.version) if version else None
        owner = model.source_run_id
        unneeded = number not in kept and model.creation_timestamp < before
        if unneeded and (number is not None or owner in gone or _is_ours(store, owner)):
            location = model.artifact_location
            leftovers.append(Leftover(location, _size(location), model.model_id, number))
    return leftovers + [
        Leftover(run.info.artifact_uri, _size(run.info.artifact_uri), run_id=run.info.run_id)
        for run in runs
    ]


def delete(store: Store, leftover: Leftover) -> None:
    """Delete one with its files. MLflow keeps the rows of its database until `mlflow gc`."""
    if leftover.version is not None:
        with _unless_missing():
            store.client.delete_model_version(store.registered_model, str(leftover.version))
    repository = mlflow.store.artifact.artifact_repository_registry.get_artifact_repository
    with _unless_missing():
        repository(leftover.location).delete_artifacts()  # type: ignore[no-untyped-call]
    with _unless_missing():
        if leftover.model_id:
            store.client.delete_logged_model(leftover.model_id)
        else:
            store.client.delete_run(leftover.run_id)


def _model_id(version: ModelVersion) -> str:
    """That of a version's stored model. What a search finds has it in its address alone."""
    named = re.search(r"\bm-[0-9a-f]{32}\b", version.source or "")
    return str(version.model_id or (named[0] if named else ""))


@contextlib.contextmanager
def _unless_missing() -> Iterator[None]:
    """Others may have deleted it."""
    try:
        yield
    except mlflow.exceptions.MlflowException as error:
        if not is_missing(error):
            raise


def _old_runs(store: Store, before: int, user: str) -> list[Run]:
    """Candidates and backtests of this project and user that ended long ago, with their parents."""
    query = f"params.`{MODEL_PARAM}` = '{store.registered_model}'"
    experiments = _experiments(store, [CANDIDATES, BACKTESTS])
    search = functools.partial(store.client.search_runs, experiments, query)
    families: dict[str, list[Run]] = {}
    for run in _pages(search) if experiments else []:
        root = run.data.tags.get(PARENT, run.info.run_id)
        families.setdefault(root, []).append(run)

    def is_old(run: Run) -> bool:
        mine = run.data.tags.get(USER) == user and run.info.status != "RUNNING"
        return mine and (run.info.end_time or run.info.start_time) < before

    return [run for family in families.values() if all(map(is_old, family)) for run in family]


def _models(store: Store, suffixes: Sequence[str]) -> Iterator[LoggedModel]:
    experiments = _experiments(store, suffixes)
    if experiments:
        search = store.client.search_logged_models
        yield from _pages(functools.partial(search, experiments))


def _experiments(store: Store, suffixes: Sequence[str]) -> list[str]:
    names = [store.experiment + suffix for suffix in suffixes]
    found = map(store.client.get_experiment_by_name, names)
    return [one.experiment_id for one in found if one is not None]


def _is_ours(store: Store, run_id: str | None) -> bool:
    """Whether a run was started by this project: experiments can be shared."""
    with _unless_missing():
        params = store.client.get_run(run_id).data.params if run_id else {}
        return bool(params.get(MODEL_PARAM) == store.registered_model)
    return False


def _pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _size(location: str, path: str | None = None) -> int:
    """Bytes of all files below an artifact's address; 0 where there is none."""
    here = Path(location.removeprefix("file://"))
    if path is None and (here.is_absolute() or here.exists()):
        return sum(file.stat().st_size for file in here.rglob("*") if file.is_file())
    repository = mlflow.store.artifact.artifact_repository_registry.get_artifact_repository
    files = repository(location).list_artifacts(path)
    return sum(_size(location, one.path) if one.is_dir else one.file_size or 0 for one in files)
