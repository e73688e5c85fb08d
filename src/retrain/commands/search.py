"""A sweep that searches: Optuna proposes each next trial, in a study that is kept beside the
tracking store, so that several processes work on it and a later command adds trials."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain import config as configuration
from retrain.commands.sweep_runs import Sweep
from retrain.commands.sweep_summary import Failure
from retrain.config import Config
from retrain.errors import ConfigError, RetrainError
from retrain.lazy import omegaconf, optuna
from retrain.masking import mask
from retrain.models.fitting import build_pipeline
from retrain.registry.processes import this_process
from retrain.registry.shared_stores import is_web, prepare_studies
from retrain.registry.store import tracking_uri
from retrain.registry.write_once import write_once
from retrain.workspace import store_root

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

log = logging.getLogger("retrain")
OWN_STORAGE = "OPTUNA_STORAGE"  # Optuna's own name for a study's address, which a user may set
STORAGE = "RETRAIN_STUDIES"  # hands it to Hydra, whose files and messages must not hold a password
CALL = "search-call-"  # params of the parent run, one for each command that worked on the study
NARROW = "narrow the space in conf/sweep/ or on the command line to where models can be fitted"
EXTRA = "pip install -c constraints.txt -e '.[search]'"


def is_search(sweeper: omegaconf.DictConfig) -> bool:
    """Whether Optuna chooses the jobs."""
    return str(sweeper.get("_target_", "")).endswith(".OptunaSweeper")


def check_space(sweeper: omegaconf.DictConfig, overrides: Sequence[str], conf: Path) -> None:
    """Raises ConfigError, before any fit, for a search that can't find anything."""
    if str(getattr(sweeper.direction, "name", sweeper.direction)) != "minimize":
        raise ConfigError(
            "`hydra.sweeper.direction`: a job's value is lower where the model is better, whatever "
            "the metric, so anything but `minimize` would look for the worst.",
            hint="take that key away",
        )
    if sweeper.study_name is not None:
        raise ConfigError(
            "`hydra.sweeper.study_name` is set, but a study belongs to one space, snapshot and "
            "code, and is found by them: of another name's nobody knows what its trials are worth.",
            hint="take that key away; `--fresh` begins a new study",
        )
    given = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    given += [one for one in overrides if not one.startswith(("hydra.", "hydra/"))]
    parsed = configuration.parse_overrides(given)
    if not any(one.is_sweep_override() for one in parsed):
        raise ConfigError(
            "The search space is empty: no key has several values.",
            hint="choose one with `sweep=...` (conf/sweep/), or give a range: "
            "`model.estimator.learning_rate=interval(0.01,0.3)`",
        )
    try:
        config = configuration.compose(conf, [_example(one) for one in parsed])
        build_pipeline(config)
    except RetrainError as error:
        raise ConfigError(
            f"The search space does not fit. {error.message.rstrip('.')}. No job was run.",
            hint=error.hint or "mend the key in conf/sweep/ or on the command line",
        ) from error


def _example(one: Override) -> str:
    """The override with one value of its range. Raises ConfigError where there is none."""
    if not one.is_sweep_override():
        return str(one.input_line)
    values: list[str] = []
    if one.is_interval_sweep():
        interval: Any = one.value()
        low, high, positive = interval.start, interval.end, "log" in interval.tags
        if low <= high and (low > 0 or not positive):
            values = [str(low)]
    else:
        values = configuration.swept_values(one)
    if not values:
        raise ConfigError(
            f"`{one.input_line}` holds no value: the lower end comes first, and stands above 0 "
            "where `log` is asked for.",
            hint="mend it in conf/sweep/ or on the command line",
        )
    return f"{one.get_key_element()}={values[0]}"


def open_studies(sweeper: omegaconf.DictConfig, config: Config) -> None:
    """Prepare the database that holds studies, and let `settings` find it. Raises StoreError
    where it does not answer."""
    os.environ[STORAGE] = prepare_studies(_address(sweeper, config))


def settings(sweep: Sweep, sweeper: omegaconf.DictConfig, seed: int) -> list[str]:
    """Find or begin the sweep's study; returns what Hydra's sweeper needs to know of it."""
    address = os.environ[STORAGE]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage, name = optuna.storages.get_storage(address), f"sweep-{sweep.parent}"
    study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    trials = study.get_trials(deepcopy=False)
    if trials:
        log.info("The study goes on after %d trials (%s)", len(trials), mask(address))
    else:
        log.info(
            "A new study begins: none has this command, conf/, code and snapshot (%s)",
            mask(address),
        )
    found = [
        "hydra.sweeper.max_failure_rate=1.0",  # a failed trial does not end the others
        f"hydra.sweeper.study_name={name}",
        f"hydra.sweeper.storage=${{oc.env:{STORAGE}}}",
    ]
    if "seed" in sweeper.sampler and sweeper.sampler.seed is None:
        # Two workers with one seed would both begin with the same random trials.
        found.append(f"hydra.sweeper.sampler.seed={(seed + _count_call(sweep)) % 2**32}")
    return found


def that_matter(
    failures: Sequence[Failure], sweeper: omegaconf.DictConfig, began: float
) -> list[Failure]:
    """The failures of this command where all its trials failed, else none: a corner of the space
    where no model can be fitted is a finding, and not tried again."""
    new = [failed for failed in failures if failed.started >= began]
    return new if len(new) >= sweeper.n_trials else []


def _address(sweeper: omegaconf.DictConfig, config: Config) -> str:
    """Where the study is kept: where the user says so, else beside MLflow's database."""
    chosen = sweeper.storage or os.environ.get(OWN_STORAGE)
    if chosen:
        return str(chosen)
    tracked = tracking_uri(config.tracking)
    if tracked.startswith("postgresql"):
        return tracked
    if is_web(tracked):
        log.info(
            "MLflow's server keeps no studies: this one stays in this folder's optuna.db. To share "
            "it, set %s to the address of a database.",
            OWN_STORAGE,
        )
    folder = Path(tracked.removeprefix("sqlite:///")).parent if "sqlite" in tracked else None
    return f"sqlite:///{(folder or store_root()) / 'optuna.db'}"


def _count_call(sweep: Sweep) -> int:
    """How many commands have worked on the study before this one: a number that no other gets."""
    params = sweep.store.client.get_run(sweep.parent).data.params
    number = sum(key.startswith(CALL) for key in params)
    while not write_once(sweep.store.client, sweep.parent, f"{CALL}{number}", this_process()):
        number += 1
    return number
