"""The one run in which a registered model is monitored: a step for each batch."""

from __future__ import annotations

from retrain.registry.names import fit_text, log_figures
from retrain.registry.store import MONITORING, Store, end_run, ensure_experiment
from retrain.types import DecisionRecord

MOST_FEATURES = 50  # the most worrying ones


def log_monitoring(store: Store, decision: DecisionRecord, step: int) -> None:
    """The decision and what was seen; intervals and importances are in the artifact."""
    experiment, _ = ensure_experiment(store, store.experiment + MONITORING)
    oldest = ["attributes.start_time ASC"]
    found = store.client.search_runs([experiment], max_results=1, order_by=oldest)
    name = fit_text(f"monitoring of {store.registered_model}")
    run = found[0] if found else store.client.create_run(experiment, run_name=name)
    end_run(store, run)
    log_figures(store.client, run.info.run_id, _monitored(decision), step)
    store.client.log_dict(
        run.info.run_id,
        decision.content(),
        f"decisions/{decision.watched_batch or decision.newest_batch}.json",
    )


def _monitored(decision: DecisionRecord) -> dict[str, float | None]:
    figures = {f"p/{name}": change.p_value for name, change in decision.families.items()}
    for name, change in list(decision.features.items())[:MOST_FEATURES]:
        figures[f"distance/{name}"] = change.distance
    figures |= {f"policy/{name}": value for name, value in decision.figures.items()}
    figures |= {
        "retrain": float(decision.retrain),
        "champion_version": float(decision.champion_version or 0),
    }
    if decision.scores and decision.scores[-1].period == decision.newest_batch:
        figures[f"champion/{decision.loss}"] = decision.scores[-1].value
    return figures | {f"expected/{decision.loss}": score.value for score in decision.expected[-1:]}
