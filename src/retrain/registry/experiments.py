"""What each experiment says about itself in MLflow, and the view of its runs that opens from there.

A saved view is an experiment's tag; its columns and charts are those of MLflow 3.17's page.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from retrain.config import Config
from retrain.registry.names import fit_name
from retrain.registry.store import BACKTESTS, CANDIDATES, LEDGER, MONITORING, Store

NOTE = "mlflow.note.content"
VIEW = "retrain"
_VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"


@dataclass(frozen=True)
class Experiment:
    """What is in an experiment, what to look at first, and what its saved view shows."""

    name: str
    text: str
    tags: Sequence[str] = ()
    metrics: Sequence[str] = ()  # columns
    lines: Sequence[str] = ()  # charts over batches

    def note(self, experiment_id: str) -> str:
        """Its description."""
        if not self.metrics and not self.lines:
            return self.text
        table = runs_page(experiment_id)
        links = f"[Table]({table})"
        if self.lines:
            links += f", [charts over batches]({table}&compareRunsMode=CHART)"
        return f"{self.text}\n\nOpen the saved view `{VIEW}`: {links}."

    def view(self) -> str:
        """The tag that holds the saved view."""
        columns = [f"tags.`{name}`" for name in self.tags]
        columns += [f"metrics.`{fit_name(name)}`" for name in self.metrics]
        section = {"uuid": VIEW, "name": "Over batches", "display": True, "isReordered": False}
        charts = [
            {
                "type": "LINE",
                "uuid": f"{VIEW}-{number}",
                "metricSectionId": VIEW,
                "metricKey": fit_name(name),
                "selectedMetricKeys": [fit_name(name)],
                "xAxisKey": "step",
                "xAxisScaleType": "linear",
                "scaleType": "linear",
                "lineSmoothness": 0,
                "range": {},
                "displayPoints": True,
                "yAxisKey": "metric",
                "yAxisExpressions": [],
                "runsCountToCompare": 20,
                "deleted": False,
                "isGenerated": False,
            }
            for number, name in enumerate(self.lines)
        ]
        state: dict[str, object] = {"selectedColumns": columns, "runsHiddenMode": "FIRST_20_RUNS"}
        if charts:
            state |= {"compareRunCharts": charts, "compareRunSections": [section]}
            state["isAccordionReordered"] = True  # or the sections are put in alphabetical order
        now = int(time.time() * 1000)
        view = {"name": VIEW, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
        return json.dumps(view)


def runs_page(experiment_id: str) -> str:
    """Address of the runs of an experiment, below that of the server: with the saved view, and
    the menu of training instead of that of language models."""
    return (
        f"#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
    )


def pages(store: Store) -> dict[str, str]:
    """Addresses below that of the server, by what is there; those first that a reviewer wants."""
    found = {}
    for name, suffix in {"retrainings": "", "monitoring": MONITORING}.items():
        experiment = store.client.get_experiment_by_name(store.experiment + suffix)
        if experiment is not None and experiment.lifecycle_stage == "active":
            found[name] = runs_page(experiment.experiment_id)
    model = quote(store.registered_model, safe="")
    return found | {"versions": f"#/models/{model}?workflowType=machine_learning"}


def describe_experiments(store: Store, config: Config) -> None:
    """Let the project's experiments say what is in them. What a person has written stays."""
    for experiment in _experiments(store, config):
        found = store.client.get_experiment_by_name(experiment.name)
        if found is None or found.lifecycle_stage != "active":
            continue
        wanted = {NOTE: experiment.note(found.experiment_id)}
        if experiment.metrics or experiment.lines:
            wanted[_VIEW_TAG] = experiment.view()
        for key, value in wanted.items():
            if key not in found.tags:
                store.client.set_experiment_tag(found.experiment_id, key, value)


def _experiments(store: Store, config: Config) -> list[Experiment]:
    name, metric = store.experiment, config.data.metric
    model, loss = store.registered_model, f"{metric}/minus_incumbent"
    return [
        Experiment(
            name,
            "One run for each retraining, and one for the refit that serves after it. Look first "
            "at the newest run: its name is the verdict, its description the reason, "
            "`report.html` under its artifacts the comparison. A version that was compared again "
            "on later batches has a point for each of them.",
            ["batches", "verdict", "evaluation_window", "incumbent_version", "model", "strategy"],
            [metric, loss],
            [metric, loss],
        ),
        Experiment(
            name + MONITORING,
            "One run: what each batch showed of the champion and the data, a step a batch. Look "
            "first at `champion/...`, its loss on batches that it was not trained on, and at `p/`, "
            "where small values are drift. `decisions/` under the artifacts says why "
            "it was retrained or not.",
            [],
            ["retrain", "champion_version"],
            [
                *(f"champion/{metric}", "p/features", "p/target", "p/predictions"),
                *("champion_version", "retrain"),
            ],
        ),
        Experiment(
            name + CANDIDATES,
            "Recipes that were tried and not registered: sweeps with their runs below them, and "
            "single candidates. Scores are on the validation window, older than the rows that the "
            "gate decides on. Look first at the parent run of the newest sweep; `retrain adopt "
            "RUN_ID` writes a recipe into conf/.",
            ["kind", "model", "strategy"],
            [f"{metric}/validation", "training/rows", "training/fit_seconds"],
        ),
        Experiment(
            name + BACKTESTS,
            "Replays of the history: what each policy, strategy and gate would have done. "
            "Look first at the parent run of the newest; its children are the replays, with what "
            "served batch by batch.",
        ),
        Experiment(
            model + LEDGER,
            f"One run: the ledger of `{model}`, append-only. Its params `seq-...` are the verdicts "
            "and moves of the champion. Don't delete or edit it; `retrain history` shows it.",
        ),
    ]
