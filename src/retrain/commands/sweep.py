"""`retrain train -m ...`: Hydra multirun over candidates. One parent run in MLflow, one child for each job."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from retrain import config as configuration
from retrain.commands import candidate
from retrain.config import Config, DataConfig
from retrain.errors import ConfigError, RetrainError
from retrain.modeling.metrics import shown_metrics
from retrain.promotion.figures import lower_is_better
from retrain.reporting.words import TITLES
from retrain.tracking.store import CANDIDATES, Store, ensure_experiment, open_store

log = logging.getLogger("retrain")
CONF = Path("conf")
PARENT = "RETRAIN_SWEEP_RUN"  # reaches the jobs of every launcher through the environment


def run(overrides: Sequence[str]) -> None:
    """Run every job, even when some fail, and print them ranked. Raises RetrainError when any failed."""
    fixed = configuration.compose(CONF, _fixed(overrides))
    store = open_store(fixed)
    experiment, _ = ensure_experiment(store, store.experiment + CANDIDATES)
    tags = {"kind": "sweep", "overrides": " ".join(overrides)}
    parent = store.client.create_run(experiment, run_name="sweep", tags=tags).info.run_id
    os.environ[PARENT] = parent
    failed, finished = 0, False
    try:
        # Hydra reads its arguments from the command line only.
        sys.argv = ["retrain train", "--multirun", *overrides]
        hydra.main(version_base="1.3", config_path=str(CONF.resolve()), config_name="config")(job)()
        finished = True
    finally:
        # Hydra's own callback for the end of a multirun is not called when a job fails.
        failed = _summarize(store, fixed.data, experiment, parent)
        store.client.set_terminated(parent, "FINISHED" if finished and not failed else "FAILED")
    if failed:
        raise RetrainError(
            f"{failed} job(s) of the sweep failed; their runs in MLflow (child runs of {parent}) say why."
        )


def job(composed: DictConfig) -> float:
    """One candidate; returns its primary metric, for sweepers that search. A job that fails ends itself, not the sweep."""
    name = " ".join(HydraConfig.get().overrides.task) or "candidate"
    try:
        config = _checked(composed, name)
        trained = candidate.train(config, os.environ[PARENT], name)
    except Exception as error:  # whatever a recipe raises; its run is marked as failed
        log.error("%s failed: %s", name, error)
        return math.nan
    metric = config.data.metric
    log.info("%s: %s %.4f, %.1f s to fit", name, metric, trained.metrics[metric], trained.fit_seconds)
    return trained.metrics[metric]


def _checked(composed: DictConfig, name: str) -> Config:
    """The job's typed config. One that does not fit leaves a failed run in the store that the parent lies in."""
    choices = OmegaConf.to_container(HydraConfig.get().runtime.choices)
    try:
        return configuration.check(composed, CONF, choices, list(HydraConfig.get().overrides.task))
    except RetrainError as error:
        import mlflow

        client, parent = mlflow.MlflowClient(), os.environ[PARENT]
        experiment = client.get_run(parent).info.experiment_id
        tags = {"kind": "candidate", "mlflow.parentRunId": parent, "mlflow.note.content": str(error)}
        client.set_terminated(client.create_run(experiment, run_name=name, tags=tags).info.run_id, "FAILED")
        raise


def _fixed(overrides: Sequence[str]) -> list[str]:
    """The overrides that hold for all jobs. Raises ConfigError for one that Hydra can't read."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"An override can't be read: {str(error).splitlines()[0]}") from error
    return [override.input_line for override in parsed if not override.is_sweep_override()]


def _summarize(store: Store, data: DataConfig, experiment: str, parent: str) -> int:
    """Rank the children on the terminal and in the parent run; returns how many failed."""
    from rich.console import Console
    from rich.table import Table

    children = store.client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'", max_results=5000)
    sign = 1 if lower_is_better(data.metric) else -1
    score = {
        child.info.run_id: sign * child.data.metrics.get(f"{data.metric}/validation", math.inf * sign)
        for child in children
    }
    children.sort(key=lambda child: score[child.info.run_id])
    shown = shown_metrics(data.task, [data.metric])
    shown = [data.metric, *(name for name in shown if name != data.metric)][:2]
    header = ["rank", "job", *(TITLES.get(name, name) for name in shown), "fit s", "run"]
    rows = []
    for rank, child in enumerate(children, 1):
        metrics = child.data.metrics
        names = [*(f"{name}/validation" for name in shown), "training/fit_seconds"]
        figures = [f"{metrics[name]:.4f}" if name in metrics else "failed" for name in names]
        rows.append([str(rank), child.info.run_name, *figures, child.info.run_id[:8]])
    table = Table(
        *header,
        box=None,
        pad_edge=False,
        padding=(0, 3, 0, 0),
        title="Candidates on the validation window",
        title_justify="left",
    )
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    Console(highlight=False, width=max(console.width, 120)).print("", table, "")
    lines = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
    store.client.log_text(parent, "\n".join(lines) + "\n", "summary.md")
    store.client.set_tag(parent, "mlflow.note.content", "\n".join(lines))
    best = children[0] if children else None
    if best is not None and math.isfinite(score[best.info.run_id]):
        store.client.log_metric(parent, f"{data.metric}/validation", sign * score[best.info.run_id])
        store.client.set_tag(parent, "best", best.info.run_name)
    return sum(child.info.status != "FINISHED" for child in children)
