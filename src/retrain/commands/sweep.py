"""`retrain train -m ...`: Hydra multirun. One parent run in MLflow, one child for each job."""

from __future__ import annotations

import itertools
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrain import config as configuration
from retrain.commands import candidate, search
from retrain.commands.champion_recipe import CHAMPION, ChampionRecipe, find_recipe, read_recipe
from retrain.commands.launchers import as_engine_error, check_launcher, launcher_settings
from retrain.commands.sweep_progress import progress
from retrain.commands.sweep_runs import (
    ADDED_TAG,
    GIVEN,
    JOB_TAG,
    PARENT,
    Sweep,
    digest_of,
    job_name,
    job_tag,
    open_sweep,
    succeeded,
)
from retrain.commands.sweep_summary import Failure, summarize
from retrain.config import Config
from retrain.errors import ConfigError, RetrainError, StoreError
from retrain.lazy import hydra, mlflow, omegaconf
from retrain.models.metrics import lower_is_better
from retrain.origins import OVERLAYS, list_groups, refuse_missing, without_null
from retrain.registry.names import fit_text
from retrain.registry.processes import end_abandoned
from retrain.registry.store import CANDIDATES, ensure_experiment, open_store
from retrain.targets import LOGGING, named_code

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

log = logging.getLogger("retrain")
CONF = Path("conf")
STOPPED = "Stopped. What is finished stays, and the same command goes on from there:"
AGAIN = "the same command runs them again, and only them"
# Of Hydra's own messages, which show overrides and the address of a study, those that warn.
FORMATTER = "retrain.masking.MaskingFormatter"
LOGS = (
    f"++hydra.hydra_logging.formatters.simple.class={FORMATTER}",
    "++hydra.hydra_logging.root.level=WARNING",
)
MOST_SHOWN = 5  # failures in the message; the summary in MLflow has all


def run(overrides: Sequence[str], fresh: bool = False) -> None:
    """Run every job that isn't done, even when some fail, and print all of them ranked. Raises
    RetrainError that names those that failed."""
    overrides = without_null(overrides, CONF)
    parsed = configuration.parse_overrides(overrides)
    fixed_overrides = [str(one.input_line) for one in parsed if not one.is_sweep_override()]
    raw = configuration.compose_raw(CONF, fixed_overrides)
    choices = dict(raw.hydra.runtime.choices)
    fixed = configuration.check(raw, CONF, choices, fixed_overrides)
    sweeper = raw.hydra.sweeper
    searching = search.is_search(sweeper)
    _check_sweep(parsed, sweeper)
    check_launcher(raw.hydra.launcher, fixed)
    if searching:
        search.check_space(sweeper, overrides, CONF)
        search.open_studies(sweeper, fixed)
    store = open_store(fixed)
    experiment, _ = ensure_experiment(store, store.experiment + CANDIDATES)
    end_abandoned(store)
    space = searched(parsed, sweeper)
    sweep = open_sweep(store, experiment, fixed, overrides, fresh, space, searching)
    sweep.to_environment()
    status, began, stopped = "KILLED", time.time(), None
    champion, seen = find_recipe(store, fixed), sweep.children()
    try:
        jobs, trials = list_jobs(parsed, sweeper), sweeper.get("n_trials")
        if not _all_done(sweep, jobs, seen):
            seen = []  # not those any more
            more = search.settings(sweep, sweeper, fixed.seed) if searching else []
            with progress(sweep, fixed.data.metric, len(jobs) if jobs else None, trials):
                stopped = _multirun([*more, *overrides], raw.hydra)
        refused = isinstance(stopped, hydra.errors.HydraException)
        now = seen or sweep.children()
        tried = any(succeeded(run) and champion.is_of(run) for run in now) if champion else True
        if champion and not tried and not refused:
            seen = []
            _add_champion(champion, parsed, raw.hydra)
        status = "FAILED" if stopped else "FINISHED"
    except KeyboardInterrupt:
        log.warning("%s retrain train -m %s", STOPPED, shlex.join(overrides))
        raise
    finally:
        # Hydra's own callback for the end of a multirun is not called when a job fails.
        end_abandoned(store)  # a launcher may have ended its workers
        failures = summarize(sweep, fixed.data, champion, seen)
        failures = search.that_matter(failures, sweeper, began) if searching else failures
        ended = "FAILED" if failures and status == "FINISHED" else status
        store.client.set_terminated(sweep.parent, ended)
    _raise(failures, stopped, sweep, search.NARROW if searching else AGAIN)


def job(composed: omegaconf.DictConfig) -> float:
    """One candidate; returns its primary metric, negated where more of it is better, since sweepers
    that search look for less.

    Raises RetrainError when it fails: launchers carry on with the other jobs, and sweepers that
    search count a failed trial.
    """
    logging.raiseExceptions = False  # Hydra's log file may lie on a disk that is full
    overrides = list(hydra.core.hydra_config.HydraConfig.get().overrides.task)
    name = os.environ.get(CHAMPION) or job_name(overrides)
    # skops asks all modules for a name, and this one of Ray's raises what is no AttributeError.
    sys.modules.pop("colorful", None)
    try:
        config = _checked(composed, name)
        value = _value(config, name, overrides)
        return value if lower_is_better(config.data.metric) else -value
    except Exception as error:  # whatever a recipe raises; its run is marked as failed
        said = candidate.one_line(error)
    log.error("%s failed: %s", name, said)
    # One that every launcher can hand from process to process: without the recipe's as its context.
    raise RetrainError(f"{name}: {said}")


def _value(config: Config, name: str, overrides: Sequence[str]) -> float:
    """The primary metric of a candidate: as an equal one's run holds it, else from a new run."""
    metric, sweep = config.data.metric, Sweep.of_environment(open_store(config))
    tags = {JOB_TAG: sweep.job_tag(name)}
    if os.environ.get(CHAMPION):
        champion = read_recipe(sweep.store, config)
        if champion is None or champion.name != name:
            raise StoreError("The champion has changed meanwhile.")
        config, tags[ADDED_TAG] = champion.config, str(champion.version)
    digest = digest_of(config)
    known = sweep.known(digest, name, overrides, tags) if digest else None
    if known is not None:
        value = float(known.data.metrics[f"{metric}/validation"])
        log.info("%s: %s %.4f, known from before", name, metric, value)
        return value
    trained = candidate.train(config, overrides, sweep.parent, name, tags)
    value = trained.metrics[metric]
    log.info("%s: %s %.4f, %.1f s to fit", name, metric, value, trained.fit_seconds)
    return value


def _add_champion(
    champion: ChampionRecipe, parsed: Sequence[Override], settings: omegaconf.DictConfig
) -> None:
    """One more job, where the others run: the champion's recipe."""
    kept = [
        str(one.input_line)
        for one in parsed
        if not one.is_sweep_override()
        and not one.key_or_group.startswith(("hydra.sweeper", "hydra/sweeper", "sweep"))
    ]
    one_job = ["hydra/sweeper=basic", "hydra.sweeper.params=null"]
    told = f"+hydra.job.env_set.{CHAMPION}='{champion.name}'"
    stopped = _multirun([*kept, *one_job, told], settings)
    if isinstance(stopped, hydra.errors.HydraException):
        log.warning("%s was not tried: %s", champion.name, configuration.first_lines(stopped))


def _all_done(
    sweep: Sweep, listed: Sequence[Sequence[str]] | None, children: Sequence[mlflow.entities.Run]
) -> bool:
    """Whether every job of a plain sweep has a finished run, so that none needs to be composed."""
    if listed is None:
        return False
    done = {run.data.tags.get(JOB_TAG) for run in children if succeeded(run)}
    return {sweep.job_tag(job_name(overrides)) for overrides in listed} <= done


def list_jobs(parsed: Sequence[Override], sweeper: omegaconf.DictConfig) -> list[list[str]] | None:
    """The overrides of each job of a plain sweep; None where the sweeper chooses on its way."""
    if not _is_plain(sweeper):
        return None
    choices = [
        [f"{one.get_key_element()}={value}" for value in _values(one)]
        for one in _of_jobs(parsed, sweeper)
    ]
    return [list(job) for job in itertools.product(*choices)]


def searched(parsed: Sequence[Override], sweeper: omegaconf.DictConfig) -> dict[str, str]:
    """The search space: what was asked for each key that varies, as it was written."""
    found = (one for one in _of_jobs(parsed, sweeper) if one.is_sweep_override())
    return {one.key_or_group: str(one.input_line).partition("=")[2] for one in found}


def _of_jobs(parsed: Sequence[Override], sweeper: omegaconf.DictConfig) -> list[Override]:
    """What shapes a job, from the sweeper's own settings and from the command line."""
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    return [
        one
        for one in [*configuration.parse_overrides(params), *parsed]
        if not one.key_or_group.startswith(("hydra.", "hydra/"))
    ]


def _values(override: Override) -> list[str]:
    if override.is_sweep_override():
        return configuration.swept_values(override)
    return [override.get_value_element_as_str()]


def _is_plain(sweeper: omegaconf.DictConfig) -> bool:
    return str(sweeper.get("_target_", "")).endswith("BasicSweeper")


def _raise(
    failures: Sequence[Failure], stopped: Exception | None, sweep: Sweep, again: str
) -> None:
    """Raises RetrainError for a sweep that did not end well."""
    if failures:
        shown = [f"{failed.job}: {failed.error.rstrip('.')}" for failed in failures[:MOST_SHOWN]]
        more = f"; and {len(failures) - MOST_SHOWN} more" if len(failures) > MOST_SHOWN else ""
        raise RetrainError(
            f"{len(failures)} job(s) of the sweep failed, the others are ranked above. "
            f"{'; '.join(shown)}{more}. Their runs in MLflow (child runs of {sweep.parent}) hold "
            "their configuration and the whole error.",
            hint=again,
        )
    if isinstance(stopped, hydra.errors.HydraException):
        why = configuration.first_lines(stopped)
        raise ConfigError(f"Hydra can't run this sweep: {why}") from stopped
    if stopped is not None:
        raise as_engine_error(stopped) or stopped


def _multirun(overrides: Sequence[str], settings: omegaconf.DictConfig) -> Exception | None:
    """Let Hydra, which has these settings, run the sweep; returns what stopped it, also the error
    of a job, after all jobs of its batch have run."""
    # Hydra reads its arguments from the command line only, and without this ends the process
    # itself, with a traceback.
    own = [*LOGS, *launcher_settings(settings.launcher)]
    sys.argv = ["retrain train", "--multirun", *own, *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    logs = omegaconf.OmegaConf.to_container(settings.job_logging)
    try:
        hydra.main(
            config_path=str(CONF.resolve()),
            config_name="config",
            execution_whitelist=[FORMATTER, *named_code(logs, LOGGING)],
        )(job)()
    except Exception as error:
        return error
    return None


def _check_sweep(parsed: Sequence[Override], sweeper: omegaconf.DictConfig) -> None:
    """Raises ConfigError before any job for a choice without a file, and for a range that the
    sweeper can't search."""
    groups = set(list_groups(CONF)) | set(OVERLAYS)
    for override in parsed:
        if override.is_interval_sweep() and _is_plain(sweeper):
            raise ConfigError(
                f"`{override.input_line}`: the plain sweeper tries every value there is, and an "
                "interval has no end of them.",
                hint=f"list values (`{override.key_or_group}=0.01,0.1` or `choice(...)`, "
                f"`range(...)`), or choose a sweeper that searches: `{search.EXTRA}`, then "
                "`hydra/sweeper=optuna`",
            )
        if override.is_choice_sweep() and override.key_or_group in groups:
            for value in configuration.swept_values(override):
                if value == "null":
                    raise ConfigError(
                        f"`{override.input_line}`: Hydra can't choose null in a sweep.",
                        hint="make a file without content, "
                        f"conf/{override.key_or_group}/none.yaml, and write none for null",
                    )
                refuse_missing(override.key_or_group, [value], [CONF])


def _checked(composed: omegaconf.DictConfig, name: str) -> Config:
    """The job's typed config. One that does not fit leaves a failed run in the store that the
    parent lies in."""
    settings = hydra.core.hydra_config.HydraConfig.get()
    choices, overrides = dict(settings.runtime.choices), list(settings.overrides.task)
    try:
        return configuration.check(composed, CONF, choices, overrides)
    except Exception as error:
        client, parent = mlflow.MlflowClient(), os.environ[PARENT]
        experiment = client.get_run(parent).info.experiment_id
        tags = {
            "kind": "candidate",
            "mlflow.parentRunId": parent,
            JOB_TAG: job_tag(os.environ.get(GIVEN, ""), name),
            candidate.ERROR_TAG: candidate.one_line(error),
        }
        failed = client.create_run(experiment, run_name=fit_text(name), tags=tags)
        client.set_terminated(failed.info.run_id, "FAILED")
        raise
