"""`retrain adopt RUN_ID`: the choices and overrides of a candidate become those of `conf/`.

The tracking store is not trusted: what its run says is read as overrides, must name code that
`conf/` names already, is composed and checked like any other configuration, and is shown.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retrain import config as configuration
from retrain.commands.candidate import DIGEST_TAG, CandidateRecord
from retrain.commands.conf_files import CONF, read, show_and_write
from retrain.commands.sweep_runs import digest_of, read_record, succeeded
from retrain.config import Config
from retrain.errors import ConfigError, RetrainError
from retrain.lazy import hydra, mlflow, omegaconf
from retrain.models.fitting import build_pipeline
from retrain.origins import OVERLAYS, list_groups
from retrain.registry.store import CANDIDATES, Store, is_missing, open_store
from retrain.targets import named_code
from retrain.yaml_text import add, change, inline, load

# What shapes a candidate. All else that its command line held (a launcher, the gate) stays.
SHAPING = ("data", "model", "strategy", "seed", "evaluation", *OVERLAYS)


def run(config: Config, options: argparse.Namespace) -> None:
    """Raises RetrainError, with nothing written, for a run that can't be adopted."""
    store = open_store(config)
    found = _find(store, options.run)
    overrides = [one for one in _record(found).overrides if _key(one).split(".")[0] in SHAPING]
    wanted = _composed(CONF, overrides)
    _refuse_foreign_code(wanted, found.info.run_id)
    checked = configuration.compose(CONF, overrides)
    build_pipeline(checked)  # a parameter that nothing knows would stop the next `dvc repro`
    files = _changed(configuration.parse_overrides(overrides))
    _refuse_other_effect(files, wanted)
    if not files:
        print("conf/ says so already: nothing to write.")
        return
    show_and_write(files)
    print(f"\nWritten: {', '.join(map(str, files))}. `dvc repro` trains it, and the gate decides.")
    if found.data.tags.get(DIGEST_TAG) != digest_of(checked):
        print(
            "What will be trained is not exactly what that run was: since then conf/, the code or "
            "the snapshot has changed."
        )


def _find(store: Store, run_id: str) -> mlflow.entities.Run:
    """A finished candidate of this project. Raises RetrainError for any other run."""
    try:
        found = store.client.get_run(run_id)
    except mlflow.exceptions.MlflowException as error:
        if not is_missing(error) and "Invalid run id" not in str(error):
            raise
        raise RetrainError(
            f"There is no run {run_id} in this project's tracking store. Nothing was written.",
            hint="the whole id stands in MLflow; of a sweep's first, in the tag `best_run` of its "
            "parent",
        ) from error
    experiment = store.client.get_experiment_by_name(store.experiment + CANDIDATES)
    why, way = "", "adopt one of a sweep's child runs"
    if experiment is None or found.info.experiment_id != experiment.experiment_id:
        why = f"belongs to another experiment than `{store.experiment}{CANDIDATES}`"
    elif found.data.tags.get("kind") != "candidate":
        why = "is no candidate but a whole sweep"
        way = f"adopt its best: retrain adopt {found.data.tags.get('best_run', 'RUN_ID')}"
    elif not succeeded(found):
        why = f"did not finish well (it is {found.info.status})"
    if why:
        raise RetrainError(
            f"Run {run_id} can't be adopted: it {why}. Nothing was written.", hint=way
        )
    return found


def _record(found: mlflow.entities.Run) -> CandidateRecord:
    try:
        return read_record(found)
    except (mlflow.exceptions.MlflowException, OSError, ValueError) as error:
        raise RetrainError(
            f"Run {found.info.run_id} can't be adopted: it doesn't keep what made it, or its file "
            "was changed. Nothing was written.",
            hint="run it again: retrain train " + str(found.info.run_name or ""),
        ) from error


def _composed(conf: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """What `conf/` and overrides say, before any check. Raises ConfigError where a key is gone."""
    for override in overrides:
        if "${" in override:
            raise ConfigError(
                f"`{override}` refers to another value, which isn't taken from a tracking store. "
                "Nothing was written.",
                hint="write it into conf/ yourself",
            )
    try:
        raw = configuration.compose_raw(conf, overrides)
    except ConfigError as error:
        raise ConfigError(f"{error.message} Nothing was written.", hint=error.hint) from error
    kept = omegaconf.OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"])
    content: dict[str, Any] = omegaconf.OmegaConf.to_container(kept, resolve=True)  # type: ignore[assignment]
    return content


def _refuse_foreign_code(content: dict[str, Any], run_id: str) -> None:
    """Raises ConfigError for a class or function that no file of `conf/` names."""
    known = set(named_code(_composed(CONF, [])))
    for path in CONF.rglob("*.yaml"):
        known |= set(named_code(load(path.read_text(encoding="utf-8"))))
    foreign = sorted(set(named_code(content)) - known)
    if foreign:
        raise ConfigError(
            f"Run {run_id} names {', '.join(foreign)}, which no file under conf/ does, and code "
            "isn't taken from a tracking store. Nothing was written.",
            hint="if you know it, name it in a file under conf/ first",
        )


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _changed(parsed: Sequence[hydra.core.override_parser.types.Override]) -> dict[Path, str]:
    """The files with the choices, then the values, in place."""
    files: dict[Path, str] = {}
    main, groups = CONF / "config.yaml", {*list_groups(CONF), *OVERLAYS}
    for one in [one for one in parsed if one.key_or_group in groups]:
        group = one.key_or_group
        key = f"optional {group}" if group in OVERLAYS else group
        chosen = None if one.is_delete() else one.value()
        _set(files, main, ["defaults", key], chosen)
    choices = {
        group: name
        for entry in load(read(files, main))["defaults"]
        for group, name in (entry.items() if isinstance(entry, dict) else ())
    }
    for one in [one for one in parsed if one.key_or_group not in groups]:
        if one.is_delete():
            raise ConfigError(
                f"`{one.input_line}` takes away a key, which isn't written by itself. "
                "Nothing was written.",
                hint="write it into conf/ yourself, then run the command again",
            )
        first, *rest = one.key_or_group.split(".")
        own = CONF / first / f"{choices.get(first)}.yaml"
        path, keys = (own, rest) if own.is_file() and rest else (main, [first, *rest])
        _set(files, path, keys, one.value(), add if one.is_add() or one.is_force_add() else change)
    return {path: text for path, text in files.items() if text != path.read_text(encoding="utf-8")}


def _set(
    files: dict[Path, str],
    path: Path,
    keys: Sequence[str],
    value: Any,
    write: Callable[[str, str, Sequence[str], str], str] = change,
) -> None:
    files[path] = write(read(files, path), str(path), keys, inline(value))


def _refuse_other_effect(files: dict[Path, str], wanted: dict[str, Any]) -> None:
    """Raises ConfigError where the changed files would not say what the overrides did."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / CONF.name
        shutil.copytree(CONF, copy)
        for path, text in files.items():
            (copy / path.relative_to(CONF)).write_text(text, encoding="utf-8")
        if _composed(copy, []) != wanted:
            raise ConfigError(
                f"Written into {', '.join(map(str, files))}, the run's choices would not have the "
                "same effect: another file has the last word. Nothing was written.",
                hint="look for an overlay or a `defaults` entry that sets the same key",
            )
