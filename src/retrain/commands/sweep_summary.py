"""The candidates of a sweep, ranked: on the terminal and in the parent run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrain.commands import candidate
from retrain.commands.candidate import CandidateRecord
from retrain.commands.sweep_runs import Sweep, at_work, read_record, succeeded
from retrain.config import DataConfig
from retrain.errors import RetrainError
from retrain.gate.estimates import Estimate, jackknife
from retrain.lazy import mlflow
from retrain.models.metrics import lower_is_better, shown_metrics
from retrain.report.formatting import TITLES, escape_markdown, markdown_table
from retrain.report.terminal import print_table

LONGEST_NOTE = 4900
MOST_NAMED = 10  # jobs in one sentence


@dataclass(frozen=True)
class Failure:
    """A job that came to no result, and why."""

    job: str
    error: str
    started: float = 0.0  # seconds since 1970


@dataclass(frozen=True)
class Ranked:
    """A job with its score, which is NaN for one that came to none.

    Attributes
    ----------
    loss
        The primary metric, negated where more of it is better; infinite where there is none.
    behind
        By how much it is worse than the first on the same rows; None where that can't be known.
    """

    run: mlflow.entities.Run
    loss: float
    behind: Estimate | None = None

    @property
    def name(self) -> str:
        return str(self.run.info.run_name)

    @property
    def tied(self) -> bool:
        """Whether it can't be told apart from the first."""
        return self.behind is not None and self.behind.interval()[0] <= 0


def summarize(sweep: Sweep, data: DataConfig) -> list[Failure]:
    """Rank the children on the terminal and in the parent run; returns those that failed."""
    ranked = rank(sweep.children(), data.metric)
    header, rows = _table(ranked, data)
    notes = _notes(ranked)
    print()
    print_table(header, rows, width=120, title="Candidates on the validation window", gap=3)
    print("\n".join(["", *notes]))
    failures = [
        Failure(
            one.name,
            one.run.data.tags.get(candidate.ERROR_TAG, "it was stopped"),
            one.run.info.start_time / 1000,
        )
        for one in ranked
        if not succeeded(one.run) and not at_work(one.run)
    ]
    lines = [*(escape_markdown(note) for note in notes), "", *markdown_table(header, rows)]
    failed = [f"{failure.job} failed: {failure.error}" for failure in failures]
    lines += ["", *(f"- {escape_markdown(line)}" for line in failed)] if failed else []
    client, parent = sweep.store.client, sweep.parent
    try:
        client.log_text(parent, "\n".join(lines) + "\n", "summary.md")
    except OSError as error:
        raise RetrainError(
            f"The sweep's table can't be stored ({error.strerror or error}). The jobs that were "
            "finished stay.",
            hint="make room or mend the permissions, then the same command goes on from there",
        ) from error
    client.set_tag(parent, "mlflow.note.content", "\n".join(lines)[:LONGEST_NOTE])
    if ranked and math.isfinite(ranked[0].loss):
        first, metric = ranked[0], f"{data.metric}/validation"
        client.log_metric(parent, metric, first.run.data.metrics[metric])
        client.set_tag(parent, "best", first.name)
        client.set_tag(parent, "best_run", first.run.info.run_id)
    return failures


def rank(children: Sequence[mlflow.entities.Run], metric: str) -> list[Ranked]:
    """Best first, each with its distance from the first."""
    sign = 1 if lower_is_better(metric) else -1

    def loss(run: mlflow.entities.Run) -> float:
        value = run.data.metrics.get(f"{metric}/validation", math.nan)
        return sign * value if succeeded(run) and math.isfinite(value) else math.inf

    ranked = sorted((Ranked(run, loss(run)) for run in children), key=lambda one: one.loss)
    first = _record(ranked[0]) if ranked else None
    return [
        Ranked(one.run, one.loss, _behind(_record(one), first, metric) if number else None)
        for number, one in enumerate(ranked)
    ]


def _record(ranked: Ranked) -> CandidateRecord | None:
    """None for a failed job, and for one whose file is gone."""
    try:
        return read_record(ranked.run) if math.isfinite(ranked.loss) else None
    except (mlflow.exceptions.MlflowException, OSError, ValueError):
        return None


def _behind(
    one: CandidateRecord | None, first: CandidateRecord | None, metric: str
) -> Estimate | None:
    """The paired difference to the first, by blocks of time of the same rows."""
    if one is None or first is None or one.metric != metric:
        return None
    if (one.metric, one.scored_on) != (first.metric, first.scored_on):
        return None
    worse = np.array(one.replicates, dtype=float) - np.array(first.replicates, dtype=float)
    estimate = jackknife(worse if lower_is_better(metric) else -worse)
    return estimate if math.isfinite(estimate.standard_error) else None


def _notes(ranked: Sequence[Ranked]) -> list[str]:
    """What the table does not say."""
    scored = [one for one in ranked if math.isfinite(one.loss)]
    if not scored:
        return ["No job came to a result."]
    tied = [one.name for one in scored[1:] if one.tied]
    shown = "; ".join(tied[:MOST_NAMED]) + ("; ..." if len(tied) > MOST_NAMED else "")
    notes = []
    if tied:
        notes.append(
            f"Not to be told apart from the first: {len(tied)} of the other {len(scored) - 1}, "
            f"since the 95 % interval of their difference, over blocks of time, holds 0: {shown}."
        )
    elif len(scored) > 1 and all(one.behind for one in scored[1:]):
        notes.append("All others are worse than the first beyond doubt: no interval holds 0.")
    if len(scored) > 1:
        notes.append(
            f"The first is the best of {len(scored)} on the rows that chose it, so it looks better "
            "than it is. The gate decides on rows that no job has seen: "
            f"`retrain adopt {scored[0].run.info.run_id}`, then `dvc repro`."
        )
    return notes


def _table(ranked: Sequence[Ranked], data: DataConfig) -> tuple[list[str], list[list[str]]]:
    """Header and rows, the metrics as they are, whichever way they run."""
    shown = shown_metrics(data.task, [data.metric])
    shown = [data.metric, *(name for name in shown if name != data.metric)][:2]
    rows = []
    for number, one in enumerate(ranked, 1):
        metrics = one.run.data.metrics if succeeded(one.run) else {}
        missing = "running" if at_work(one.run) else "failed"

        def figure(name: str, metrics: dict[str, float] = metrics, missing: str = missing) -> str:
            return f"{metrics[name]:.4f}" if name in metrics else missing

        values = [figure(f"{name}/validation") for name in shown]
        seconds, run = figure("training/fit_seconds"), one.run.info.run_id[:8]
        rows.append([str(number), one.name, values[0], _interval(one), *values[1:], seconds, run])
    titles = [TITLES.get(name, name) for name in shown]
    return ["rank", "job", titles[0], "behind the first", *titles[1:], "fit s", "run"], rows


def _interval(one: Ranked) -> str:
    if one.behind is None:
        return ""
    low, high = one.behind.interval()
    return f"{one.behind.value:.4f} [{low:+.4f}, {high:+.4f}]"
