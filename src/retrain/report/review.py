"""What a reviewer compares between two commits: few numbers, and pictures without a script.

`dvc metrics diff` and `dvc plots diff` show them; they lie in git, so a pull request does too.
"""

from __future__ import annotations

import math
from typing import Any

from retrain.gate.estimates import BASELINE, CHALLENGER, INCUMBENT
from retrain.report.best_effort import best_effort
from retrain.report.outcome import Outcome
from retrain.workspace import METRICS, REVIEW_PLOTS, write_json, write_text

SHOWN, FIRST = "calibration", "scores"
NOTHING = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="374" height="60">'
    '<text x="10" y="35" font-family="sans-serif" font-size="13">Nothing was compared yet.</text>'
    "</svg>\n"
)


def write(
    metric: str,
    outcome: Outcome,
    drawn: dict[str, str] | None = None,
) -> None:
    """Write the numbers and the pictures. Where nothing was compared the pictures stay as they
    are."""
    content: dict[str, Any] = {"batch": outcome.trained.newest_batch}
    with best_effort("The figures for DVC"):
        content = numbers(metric, outcome)
    write_json(METRICS, content)
    pictures = drawn or {}
    for name in (FIRST, SHOWN):
        path = REVIEW_PLOTS / f"{name}.svg"
        if name in pictures or not path.is_file():
            write_text(path, pictures.get(name, NOTHING))


def numbers(metric: str, outcome: Outcome) -> dict[str, Any]:
    """Batch, verdict, champion; the metric of each model with the difference that was decided by
    and its 95 % interval; the challenger's other metrics; the champion's loss on the newest
    batch."""
    trained, compared = outcome.trained, outcome.compared
    content: dict[str, Any] = {
        "batch": trained.newest_batch,
        "verdict": str(compared.verdict) if trained.retrained else "not_retrained",
        "champion": outcome.promotion.champion,
    }
    if trained.retrained:
        other = INCUMBENT if INCUMBENT in compared.scores else BASELINE
        difference = compared.differences[other][metric]
        low, high = difference.interval()
        content["rows"] = compared.rows
        content[metric] = {
            **{model: scores[metric].value for model, scores in compared.scores.items()},
            "difference": difference.value,
            "difference_low": low,
            "difference_high": high,
        }
        content |= {
            name: estimate.value
            for name, estimate in compared.scores[CHALLENGER].items()
            if name != metric
        }
    if outcome.decision.scores:
        content["monitored"] = {outcome.decision.loss: outcome.decision.scores[-1].value}
    return {name: _finite(value) for name, value in content.items() if value is not None}


def _finite(value: Any) -> Any:
    """Six digits; without what is not a number, which JSON does not have."""
    if isinstance(value, dict):
        kept = {name: _finite(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one is not None}
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
