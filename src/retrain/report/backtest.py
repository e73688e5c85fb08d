"""What a backtest found, in tables, pictures and a sentence: for the terminal, one HTML file, and
MLflow."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain.backtest.outcome import Outcome
from retrain.backtest.replay import ALWAYS_PROMOTE
from retrain.backtest.result import Result, recommend
from retrain.config import Config
from retrain.lazy import jinja2, mlflow
from retrain.registry.names import METRICS_AT_ONCE, fit_text, log_figures
from retrain.registry.runs import start_run
from retrain.registry.store import BACKTESTS, open_store
from retrain.report.backtest_plots import front, heat_map, over_time
from retrain.report.plots import svg
from retrain.report.terminal import print_table

if TYPE_CHECKING:
    pass

TEMPLATE = Path(__file__).with_name("backtest.html.j2")
HEADER = (
    *("policy", "strategy", "gate", "cost", "loss", "retrained", "promoted", "wrongly"),
    *("missed", "fit s", "age", "regret", "to never", "to always"),
)


def rows_of(result: Result, outcomes: Sequence[Outcome]) -> list[list[str]]:
    """The cells of the ranking."""
    cost, rows = result.retraining_cost, []
    for outcome in outcomes:
        never, always = (
            result.reference("never", outcome.strategy),
            result.reference("always", outcome.strategy, ALWAYS_PROMOTE),
        )
        own = outcome.cost(cost)
        low, high = outcome.estimate.interval()
        rows.append(
            [
                outcome.policy,
                outcome.strategy,
                outcome.gate,
                f"{own:.4f}",
                f"{outcome.loss:.4f} \u00b1{(high - low) / 2:.3f}",
                str(outcome.retrainings),
                str(outcome.promotions),
                str(outcome.count("wrong")),
                str(outcome.count("missed")),
                f"{outcome.seconds:.0f}",
                f"{outcome.staleness:.1f}",
                f"{own - result.best:.4f}",
                f"{own - never.cost(cost):+.4f}" if never else "",
                f"{own - always.cost(cost):+.4f}" if always else "",
            ]
        )
    return rows


def drill_rows(result: Result) -> tuple[list[str], list[list[str]]]:
    header = ["broken batch", "combination", "monitor", "on hold", "promoted", "loss", "to clean"]
    rows = [
        [
            drill.kind,
            f"{drill.policy}, {drill.strategy}, {drill.gate}",
            "on" if drill.monitored else "off",
            f"{drill.held_back} of {drill.broken}",
            f"{drill.promoted} of {drill.broken - drill.held_back}",
            f"{drill.loss:.4f}",
            f"{drill.loss / drill.clean - 1:+.2%}",
        ]
        for drill in result.drills
    ]
    return header, rows


def to_terminal(result: Result) -> None:
    def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        print_table(header, rows, width=150, title=title)

    batches = len(result.outcomes[0].periods)
    show(
        f"{result.title} over {batches} batches served; cost: with {result.retraining_cost:g} for "
        "each retraining, a batch",
        HEADER,
        rows_of(result, result.ranked),
    )
    if result.drills:
        show("\nWith one broken batch in six", *drill_rows(result))
    print(f"\nRecommended: {recommend(result)}")


def to_json(result: Result) -> dict[str, Any]:
    """Every figure, for other tools."""
    outcomes = []
    for outcome in result.ranked:
        low, high = outcome.estimate.interval()
        outcomes.append(
            {
                **_names(outcome),
                **_figures(result, outcome),
                "loss_low": low if math.isfinite(low) else None,
                "loss_high": high if math.isfinite(high) else None,
                "served": dict(zip(outcome.periods, outcome.values, strict=True)),
                "served_intervals": [
                    [end if math.isfinite(end) else None for end in losses.interval()]
                    for losses in outcome.served
                ],
                "events": [vars(event) for event in outcome.events],
            }
        )
    matrices = {
        name: [
            [value if math.isfinite(value) else None for value in row] for row in matrix.tolist()
        ]
        for name, matrix in result.matrices.items()
    }
    return {
        "loss": result.loss,
        "retraining_cost": result.retraining_cost,
        "best_cost": result.best if math.isfinite(result.best) else None,
        "best_sequence": result.best_sequence,
        "forecast": dataclasses.asdict(result.forecast) if result.forecast else None,
        "recommendation": recommend(result),
        "seconds": result.seconds,
        "outcomes": outcomes,
        "matrices": matrices,
        "drills": [vars(drill) for drill in result.drills],
    }


def _names(outcome: Outcome) -> dict[str, str]:
    return {"policy": outcome.policy, "strategy": outcome.strategy, "gate": outcome.gate}


def _figures(result: Result, outcome: Outcome) -> dict[str, float]:
    return {
        "cost": outcome.cost(result.retraining_cost),
        "loss": outcome.loss,
        "retrainings": outcome.retrainings,
        "promotions": outcome.promotions,
        "wrong_promotions": outcome.count("wrong"),
        "missed_promotions": outcome.count("missed"),
        "fit_seconds": outcome.seconds,
    }


def to_html(result: Result) -> str:
    """One file without scripts or links."""
    drawn = [
        svg(functools.partial(heat_map, result=result, strategy=name), legend=False)
        for name in result.matrices
    ]
    drawn += [
        svg(lambda axes: over_time(axes, result)),
        svg(lambda axes: front(axes, result), legend=False),
    ]
    header, rows = drill_rows(result)
    events = result.recommended.events
    return (
        jinja2.Environment(autoescape=True)
        .from_string(TEMPLATE.read_text(encoding="utf-8"))
        .render(
            result=result,
            recommendation=recommend(result),
            header=HEADER,
            rows=rows_of(result, result.ranked),
            plots=[text[text.index("<svg") :] for text in drawn],
            drill_header=header,
            drill_rows=rows,
            events=events,
        )
    )


def to_mlflow(config: Config, result: Result, report: Path) -> None:
    """One run, with a child for each combination."""
    store = open_store(config)
    chosen = result.recommended
    tags = {
        "kind": "backtest",
        "recommended": f"{chosen.policy}, {chosen.strategy}, {chosen.gate}",
        "mlflow.note.content": recommend(result),
    }
    with start_run(store, f"backtest of {result.data}", config, tags, suffix=BACKTESTS) as parent:
        mlflow.log_artifact(str(report))
        mlflow.log_dict(to_json(result), "backtest.json")
        figures = {
            f"{result.loss}/recommended": chosen.loss,
            "cost/recommended": chosen.cost(result.retraining_cost),
        }
        figures |= {"cost/best": result.best} if math.isfinite(result.best) else {}
        mlflow.log_metrics(figures)
    _log_children(store, result, parent)


def _log_children(store: Any, result: Result, parent: str) -> None:
    experiment = store.client.get_run(parent).info.experiment_id
    now = int(time.time() * 1000)
    for outcome in result.ranked:
        names = _names(outcome)
        run = store.client.create_run(
            experiment,
            run_name=fit_text(", ".join(names.values())),
            tags={"mlflow.parentRunId": parent, "kind": "replay"},
        )
        figures = _figures(result, outcome)
        figures[result.loss] = figures.pop("loss")
        figures["regret"] = figures["cost"] - result.best
        log_figures(
            store.client,
            run.info.run_id,
            {name: f for name, f in figures.items() if math.isfinite(f)},
        )
        served = [
            mlflow.entities.Metric(f"served/{result.loss}", losses.value, now, step)
            for step, losses in enumerate(outcome.served)
        ]
        store.client.log_batch(
            run.info.run_id,
            metrics=served[-METRICS_AT_ONCE:],
            params=[mlflow.entities.Param(*pair) for pair in names.items()],
            tags=[mlflow.entities.RunTag("strategy", outcome.strategy)],
        )
        store.client.set_terminated(run.info.run_id)
