"""The candidates of a sweep, ranked: on the terminal and in the parent run."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from retrain.commands import candidate
from retrain.commands.champion_recipe import ChampionRecipe
from retrain.commands.sweep_ranking import Ranked, rank
from retrain.commands.sweep_runs import Sweep, at_work, succeeded
from retrain.config import DataConfig
from retrain.errors import RetrainError
from retrain.lazy import mlflow
from retrain.models.metrics import lower_is_better, shown_metrics
from retrain.report import sweep_plots
from retrain.report.formatting import TITLES, escape_markdown, markdown_table
from retrain.report.sweep_plots import Trial
from retrain.report.terminal import print_table

log = logging.getLogger("retrain")
LONGEST_NOTE = 4900
SUMMARY_TAG = "summary_sha256"  # of what the parent run shows, set last


@dataclass(frozen=True)
class Failure:
    """A job that came to no result, and why."""

    job: str
    error: str
    started: float = 0.0  # seconds since 1970


def summarize(
    sweep: Sweep,
    data: DataConfig,
    champion: ChampionRecipe | None,
    children: Sequence[mlflow.entities.Run],
) -> list[Failure]:
    """Rank the children, those in the store where none are given, on the terminal and in the parent
    run; returns the jobs that failed."""
    ranked = rank(children or sweep.children(), data.metric)
    if not ranked:
        return []  # what stopped it before any job says so
    header, rows = _table(ranked, data, champion)
    notes = [*_notes(ranked, champion), *_notes_of_champion(ranked, champion)]
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
        if one.is_job and not succeeded(one.run) and not at_work(one.run)
    ]
    lines = [*(escape_markdown(note) for note in notes), "", *markdown_table(header, rows)]
    failed = [f"{failure.job} failed: {failure.error}" for failure in failures]
    lines += ["", *(f"- {escape_markdown(line)}" for line in failed)] if failed else []
    _store(sweep, ranked, data, champion, "\n".join(lines) + "\n")
    return failures


def _store(
    sweep: Sweep,
    ranked: Sequence[Ranked],
    data: DataConfig,
    champion: ChampionRecipe | None,
    text: str,
) -> None:
    """Put table, best job and plots into the parent run, unless it has them already."""
    client, parent = sweep.store.client, sweep.parent
    digest = hashlib.sha256(text.encode()).hexdigest()
    if client.get_run(parent).data.tags.get(SUMMARY_TAG) == digest:
        return
    try:
        client.log_text(parent, text, "summary.md")
        for name, svg in _draw(ranked, data, champion).items():
            client.log_text(parent, svg, f"plots/{name}.svg")
    except OSError as error:
        raise RetrainError(
            f"The sweep's table can't be stored ({error.strerror or error}). The jobs that were "
            "finished stay.",
            hint="make room or mend the permissions, then the same command goes on from there",
        ) from error
    client.set_tag(parent, "mlflow.note.content", text[:LONGEST_NOTE])
    first, metric = _best_job(ranked), f"{data.metric}/validation"
    if first is not None:
        client.log_metric(parent, metric, first.run.data.metrics[metric])
        client.set_tag(parent, "best", first.name)
        client.set_tag(parent, "best_run", first.run.info.run_id)
    client.set_tag(parent, SUMMARY_TAG, digest)


def _draw(
    ranked: Sequence[Ranked], data: DataConfig, champion: ChampionRecipe | None
) -> dict[str, str]:
    """The sweep's plots by name; none where no job came to a result, or one can't be drawn."""
    if _best_job(ranked) is None:
        return {}
    metric, served = f"{data.metric}/validation", None
    trials = []
    for one in sorted(ranked, key=lambda one: int(one.run.info.start_time)):
        value = one.run.data.metrics.get(metric, math.nan) if one.scored else math.nan
        if champion is not None and champion.is_of(one.run) and one.scored:
            served = value
        pairs = (text.partition("=") for text in (one.record.overrides if one.record else ()))
        if one.is_job:
            trials.append(Trial({key.lstrip("+"): to for key, _, to in pairs}, value))
    try:
        return sweep_plots.draw(trials, data.metric, lower_is_better(data.metric), served)
    except Exception as error:  # whatever a library can't draw: the ranking is what counts
        log.warning("The sweep's plots can't be drawn: %s", candidate.one_line(error))
        return {}


def _best_job(ranked: Sequence[Ranked]) -> Ranked | None:
    return next((one for one in ranked if one.scored and one.is_job), None)


def _notes_of_champion(ranked: Sequence[Ranked], champion: ChampionRecipe | None) -> list[str]:
    """Whether what came first is better than what serves."""
    if champion is None or not any(one.scored for one in ranked):
        return []
    name = f"the champion's recipe (version {champion.version})"
    found = next((one for one in ranked if champion.is_of(one.run)), None)
    if found is None or not found.scored:
        return [f"Not compared with {name}: its fit came to no result."]
    if found is ranked[0]:
        return [f"The first is {name}: no other does better."]
    if found.behind is None:
        return [f"There are too few blocks of time to compare the first with {name}."]
    if found.tied:
        return [f"The first can't be told apart from {name}: their interval holds 0."]
    return [f"The first is better than {name}, by {_interval(found)}."]


def _notes(ranked: Sequence[Ranked], champion: ChampionRecipe | None) -> list[str]:
    """What the table does not say."""
    scored, best = [one for one in ranked if one.scored], _best_job(ranked)
    if not scored:
        return ["No job came to a result."]
    tied = [rank for rank, one in enumerate(scored, 1) if one.tied]
    notes = [f"All jobs: {' '.join(scored[0].shared)}"] if scored[0].shared else []
    if tied:
        ranks = f"{'rank' if len(tied) == 1 else 'ranks'} {_ranges(tied)}"
        notes.append(
            f"Not to be told apart from the first: {ranks}, {len(tied)} of the other "
            f"{len(scored) - 1}, since the 95 % interval of their difference, over blocks of time, "
            "holds 0."
        )
    elif len(scored) > 1 and all(one.behind for one in scored[1:]):
        notes.append("All others are worse than the first beyond doubt: no interval holds 0.")
    serves = champion is not None and champion.is_of(scored[0].run)
    if len(scored) > 1 and best is scored[0] and not serves:
        notes.append(
            f"The first is the best of {len(scored)} on the rows that chose it, so it looks better "
            "than it is. The gate decides on rows that no job has seen: "
            f"`retrain adopt {best.run.info.run_id}`, then `dvc repro`."
        )
    return notes


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in order, neighbours taken together: 2 to 5, 7."""
    breaks = [i for i, number in enumerate(numbers) if not i or number > numbers[i - 1] + 1]
    parts = [numbers[start:end] for start, end in itertools.pairwise([*breaks, len(numbers)])]
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]} to {p[-1]}" for p in parts)


def _table(
    ranked: Sequence[Ranked], data: DataConfig, champion: ChampionRecipe | None
) -> tuple[list[str], list[list[str]]]:
    """Header and rows, the metrics as they are, whichever way they run."""
    shown = shown_metrics(data.task, [data.metric])
    shown = [data.metric, *(name for name in shown if name != data.metric)][:2]
    rows = []
    for number, one in enumerate(ranked, 1):
        metrics = one.run.data.metrics if succeeded(one.run) else {}
        missing = "running" if at_work(one.run) else "failed"

        def figure(
            name: str, digits: int = 4, metrics: dict[str, float] = metrics, missing: str = missing
        ) -> str:
            return f"{metrics[name]:.{digits}f}" if name in metrics else missing

        values = [figure(f"{name}/validation") for name in shown]
        seconds, run = figure("training/fit_seconds", 1), one.run.info.run_id[:8]
        mark = " (champion)" if champion is not None and champion.is_of(one.run) else ""
        rows.append(
            [str(number), one.shown + mark, values[0], _interval(one), *values[1:], seconds, run]
        )
    titles = [TITLES.get(name, name) for name in shown]
    return ["rank", "job", titles[0], "behind the first", *titles[1:], "fit s", "run"], rows


def _interval(one: Ranked) -> str:
    if one.behind is None:
        return ""
    low, high = one.behind.interval()
    return f"{one.behind.value:.4f} [{low:+.4f}, {high:+.4f}]"
