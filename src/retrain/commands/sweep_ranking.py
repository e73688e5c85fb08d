"""The jobs of a sweep, best first, each with its distance from the first."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from retrain.commands.candidate import CandidateRecord
from retrain.commands.sweep_runs import ADDED_TAG, read_record, succeeded
from retrain.gate.estimates import Estimate, jackknife
from retrain.lazy import mlflow
from retrain.models.metrics import lower_is_better

AT_ONCE = 8  # files that are fetched
LONG_NUMBER = re.compile(r"(?<==)-?\d+\.\d{5,}(e-?\d+)?(?= |$)")  # as searches draw them


@dataclass(frozen=True)
class Ranked:
    """A job with its score, which is NaN for one that came to none.

    Attributes
    ----------
    loss
        The primary metric, negated where more of it is better; infinite where there is none.
    behind
        By how much it is worse than the first on the same rows; None where that can't be known.
    shared
        Overrides that all jobs have, so that none need show them.
    """

    run: mlflow.entities.Run
    loss: float
    record: CandidateRecord | None = None
    behind: Estimate | None = None
    shared: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.run.info.run_name)

    @property
    def shown(self) -> str:
        """The name without what all share, its long numbers at four digits."""
        name = self.name
        for one in self.shared:
            name = re.sub(rf"(^| ){re.escape(one)}(?= |$)", "", name).strip()
        return LONG_NUMBER.sub(lambda found: f"{float(found[0]):.4g}", name)

    @property
    def is_job(self) -> bool:
        """Whether the sweep asked for it: the champion's recipe is added."""
        return ADDED_TAG not in self.run.data.tags

    @property
    def scored(self) -> bool:
        return math.isfinite(self.loss)

    @property
    def tied(self) -> bool:
        """Whether it can't be told apart from the first."""
        return self.behind is not None and self.behind.interval()[0] <= 0


def rank(children: Sequence[mlflow.entities.Run], metric: str) -> list[Ranked]:
    """Best first, each with its distance from the first."""
    sign = 1 if lower_is_better(metric) else -1

    def loss(run: mlflow.entities.Run) -> float:
        value = run.data.metrics.get(f"{metric}/validation", math.nan)
        return sign * value if succeeded(run) and math.isfinite(value) else math.inf

    losses = [loss(run) for run in children]
    with ThreadPoolExecutor(AT_ONCE) as pool:  # a server takes its time for each file
        records = list(pool.map(_record, children, losses))
    ranked = [*map(Ranked, children, losses, records)]
    ranked.sort(key=lambda one: one.loss)
    shared = _shared([one for one in ranked if one.is_job])
    return [
        dataclasses.replace(
            one,
            shared=shared,
            behind=_behind(one.record, ranked[0].record, metric) if number else None,
        )
        for number, one in enumerate(ranked)
    ]


def _shared(jobs: Sequence[Ranked]) -> tuple[str, ...]:
    """The overrides of every job, where there are several that differ; those of a job that failed
    are not known."""
    known = [one.record.overrides for one in jobs if one.record is not None]
    shared = [one for one in known[0] if all(one in each for each in known)] if known else []
    return tuple(shared) if any(len(each) > len(shared) for each in known) else ()


def _record(run: mlflow.entities.Run, loss: float) -> CandidateRecord | None:
    """None for a failed job, and for one whose file is gone."""
    try:
        return read_record(run) if math.isfinite(loss) else None
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
