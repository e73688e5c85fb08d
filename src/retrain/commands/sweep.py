"""`retrain train -m ...`: Hydra multirun over candidates. One parent run in MLflow, one child for
each job."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrain import config as configuration
from retrain.commands import candidate
from retrain.config import Config, DataConfig
from retrain.errors import ConfigError, RetrainError
from retrain.lazy import hydra, mlflow, omegaconf
from retrain.models.metrics import lower_is_better, shown_metrics
from retrain.origins import OVERLAYS, list_groups, refuse_missing, without_null
from retrain.registry.names import fit_text
from retrain.registry.store import CANDIDATES, Store, ensure_experiment, open_store
from retrain.report.formatting import TITLES, escape_markdown, markdown_table
from retrain.report.terminal import print_table

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

log = logging.getLogger("retrain")
CONF = Path("conf")
MOST_SHOWN = 5  # failures in the message; the summary in MLflow has all
LONGEST_NOTE = 5000
PARENT = "RETRAIN_SWEEP_RUN"  # reaches the jobs of every launcher through the environment


@dataclass(frozen=True)
class Failure:
    """A job that came to no result, and why."""

    job: str
    error: str


def run(overrides: Sequence[str]) -> None:
    """Run every job, even when some fail, and print them ranked. Raises RetrainError that names
    those that failed."""
    overrides = without_null(overrides, CONF)
    parsed = configuration.parse_overrides(overrides)
    fixed_overrides = [str(one.input_line) for one in parsed if not one.is_sweep_override()]
    raw = configuration.compose_raw(CONF, fixed_overrides)
    choices = dict(raw.hydra.runtime.choices)
    fixed = configuration.check(raw, CONF, choices, fixed_overrides)
    _check_sweep(parsed, raw.hydra.sweeper)
    store = open_store(fixed)
    experiment, _ = ensure_experiment(store, store.experiment + CANDIDATES)
    tags = {"kind": "sweep", "overrides": " ".join(overrides)}
    parent = store.client.create_run(experiment, run_name="sweep", tags=tags).info.run_id
    os.environ[PARENT] = parent
    finished, failures = False, []
    try:
        stopped = _multirun(overrides)
        finished = stopped is None
    finally:
        # Hydra's own callback for the end of a multirun is not called when a job fails.
        failures = _summarize(store, fixed.data, experiment, parent)
        store.client.set_terminated(parent, "FINISHED" if finished and not failures else "FAILED")
    if failures:
        shown = [f"{failed.job}: {failed.error.rstrip('.')}" for failed in failures[:MOST_SHOWN]]
        more = f"; and {len(failures) - MOST_SHOWN} more" if len(failures) > MOST_SHOWN else ""
        raise RetrainError(
            f"{len(failures)} job(s) of the sweep failed, the others are ranked above. "
            f"{'; '.join(shown)}{more}. Their runs in MLflow (child runs of {parent}) hold their "
            "configuration and the whole error."
        )
    if isinstance(stopped, hydra.errors.HydraException):
        why = configuration.first_lines(stopped)
        raise ConfigError(f"Hydra can't run this sweep: {why}") from stopped
    if stopped is not None:
        raise stopped


def job(composed: omegaconf.DictConfig) -> float:
    """One candidate; returns its primary metric, negated where more of it is better, since sweepers
    that search look for less.

    Raises RetrainError when it fails: launchers carry on with the other jobs, and sweepers that
    search count a failed trial.
    """
    name = " ".join(hydra.core.hydra_config.HydraConfig.get().overrides.task) or "candidate"
    try:
        config = _checked(composed, name)
        trained = candidate.train(config, os.environ[PARENT], name)
    except Exception as error:  # whatever a recipe raises; its run is marked as failed
        log.error("%s failed: %s", name, error)
        # One that every launcher can hand from process to process.
        raise RetrainError(f"{name}: {candidate.one_line(error)}") from None
    metric = config.data.metric
    value = trained.metrics[metric]
    log.info("%s: %s %.4f, %.1f s to fit", name, metric, value, trained.fit_seconds)
    return value if lower_is_better(metric) else -value


def _multirun(overrides: Sequence[str]) -> Exception | None:
    """Let Hydra run the sweep; returns what stopped it, also the error of a job, after all jobs of
    its batch have run."""
    # Hydra reads its arguments from the command line only, and without this ends the process
    # itself, with a traceback.
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = ["retrain train", "--multirun", *overrides], "1"
    try:
        hydra.main(version_base="1.3", config_path=str(CONF.resolve()), config_name="config")(job)()
    except Exception as error:
        return error
    return None


def _check_sweep(parsed: Sequence[Override], sweeper: omegaconf.DictConfig) -> None:
    """Raises ConfigError before any job for a choice without a file, and for a range that the
    sweeper can't search."""
    plain = str(sweeper.get("_target_", "")).endswith("BasicSweeper")
    groups = set(list_groups(CONF)) | set(OVERLAYS)
    for override in parsed:
        if override.is_interval_sweep() and plain:
            raise ConfigError(
                f"`{override.input_line}`: the plain sweeper tries every value there is, and an "
                "interval has no end of them.",
                hint=f"list values (`{override.key_or_group}=0.01,0.1` or `choice(...)`, "
                "`range(...)`), or choose a sweeper that searches: pip install "
                "hydra-optuna-sweeper, then `hydra/sweeper=optuna`",
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
    except RetrainError as error:
        client, parent = mlflow.MlflowClient(), os.environ[PARENT]
        experiment = client.get_run(parent).info.experiment_id
        tags = {
            "kind": "candidate",
            "mlflow.parentRunId": parent,
            candidate.ERROR_TAG: candidate.one_line(error),
        }
        failed = client.create_run(experiment, run_name=fit_text(name), tags=tags)
        client.set_terminated(failed.info.run_id, "FAILED")
        raise


def _summarize(store: Store, data: DataConfig, experiment: str, parent: str) -> list[Failure]:
    """Rank the children on the terminal and in the parent run; returns those that failed."""
    children = store.client.search_runs(
        [experiment], f"tags.mlflow.parentRunId = '{parent}'", max_results=5000
    )
    sign = 1 if lower_is_better(data.metric) else -1

    def score(child: mlflow.entities.Run) -> float:
        value = child.data.metrics.get(f"{data.metric}/validation", math.nan)
        return sign * value if _succeeded(child) and math.isfinite(value) else math.inf

    children.sort(key=score)
    header, rows = _table(children, data)
    print()
    print_table(header, rows, width=120, title="Candidates on the validation window", gap=3)
    print()
    failures = [
        Failure(child.info.run_name, child.data.tags.get(candidate.ERROR_TAG, "it was stopped"))
        for child in children
        if not _succeeded(child)
    ]
    lines = markdown_table(header, rows)
    failed = [f"{failure.job} failed: {failure.error}" for failure in failures]
    lines += ["", *(f"- {escape_markdown(line)}" for line in failed)] if failed else []
    store.client.log_text(parent, "\n".join(lines) + "\n", "summary.md")
    store.client.set_tag(parent, "mlflow.note.content", "\n".join(lines)[:LONGEST_NOTE])
    if children and math.isfinite(score(children[0])):
        store.client.log_metric(parent, f"{data.metric}/validation", sign * score(children[0]))
        store.client.set_tag(parent, "best", children[0].info.run_name)
    return failures


def _succeeded(child: mlflow.entities.Run) -> bool:
    return str(child.info.status) == "FINISHED"


def _table(
    children: Sequence[mlflow.entities.Run], data: DataConfig
) -> tuple[list[str], list[list[str]]]:
    """Header and rows, the metrics as they are, whichever way they run."""
    shown = shown_metrics(data.task, [data.metric])
    shown = [data.metric, *(name for name in shown if name != data.metric)][:2]
    names = [*(f"{name}/validation" for name in shown), "training/fit_seconds"]
    rows = []
    for rank, child in enumerate(children, 1):
        metrics = child.data.metrics if _succeeded(child) else {}
        figures = [f"{metrics[name]:.4f}" if name in metrics else "failed" for name in names]
        rows.append([str(rank), child.info.run_name, *figures, child.info.run_id[:8]])
    return ["rank", "job", *(TITLES.get(name, name) for name in shown), "fit s", "run"], rows
