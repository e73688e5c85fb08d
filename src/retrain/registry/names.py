"""Names that come from the data (columns, levels, classes) as MLflow takes them.

MLflow takes letters and digits of any script, `_`, `-`, `.`, spaces and `/` in the names of
metrics, params and tags, 250 characters at most, and no path that could be written shorter.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import time
from collections.abc import Mapping

from retrain.lazy import mlflow

LONGEST = 250
LONGEST_TAG = 4900  # what Postgres holds
METRICS_AT_ONCE = 500  # MLflow takes 1,000 in a request, and a megabyte
_TAKEN = re.compile(r"[/\w.\- ]+")
_REFUSED = re.compile(r"[^/\w.\- ]")


def fit_name(name: str) -> str:
    """The name if MLflow takes it, else one as like it as can be, with eight digits that stand for
    the original.

    The same name always gives the same one, and no two names give one and the same.
    """
    if _fits(name):
        return name
    digits = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    readable = _REFUSED.sub("_", name)
    parts = [part if part.strip(". ") else "_" for part in readable.split("/")]
    readable = "/".join(parts)[: LONGEST - len(digits) - 1]
    return f"{readable} {digits}"


def fit_text(text: str, longest: int = LONGEST) -> str:
    """A run's name, or another one line of text, no longer than the store's columns."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def fit_model_name(name: str) -> str:
    """The name of a logged model, which MLflow doesn't take with every sign."""
    return re.sub(r"[/:.%\"']", "_", fit_text(name))


def log_figures(
    client: mlflow.MlflowClient,
    run_id: str,
    figures: Mapping[str, float | None],
    step: int = 0,
    model_id: str | None = None,
    dataset: tuple[str | None, str | None] = (None, None),
) -> None:
    """Metrics of a run, under names that fit, as many as there are; what isn't known is left out.

    With `model_id` also of that logged model; `dataset` is a name and a digest.
    """
    now = int(time.time() * 1000)
    more = {"model_id": model_id, "dataset_name": dataset[0], "dataset_digest": dataset[1]}
    metrics = [
        # The sum shows -0.0 as 0.
        mlflow.entities.Metric(fit_name(name), float(value) + 0.0, now, step, **more)
        for name, value in figures.items()
        if value is not None
    ]
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_AT_ONCE])


def _fits(name: str) -> bool:
    if len(name) > LONGEST or not _TAKEN.fullmatch(name) or name != name.strip():
        return False
    shortest = posixpath.normpath(name)
    return shortest == name and shortest != "." and not shortest.startswith(("..", "/"))
