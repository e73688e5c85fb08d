"""How often a gate decided right, by kind of challenger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrain.lazy import scipy

EQUAL, WORSE, BETTER, USUAL = "equal", "worse", "better", "usual"
WRONG_AT_MOST = 0.05


@dataclass(frozen=True)
class Trial:
    """One comparison: the verdict, and how much larger the challenger's loss was on the rows of the
    evaluation window and on later ones."""

    scenario: str
    kind: str
    batch: str
    promoted: bool
    reason: str
    wrong: bool
    judged_difference: float
    later_difference: float


@dataclass(frozen=True)
class Line:
    """All comparisons of one scenario. `failed`: wrong promotions are more than chance would make
    of WRONG_AT_MOST."""

    scenario: str
    kind: str
    count: int
    promoted: int
    wrong: int
    judged_difference: float
    later_difference: float

    @property
    def failed(self) -> bool:
        return self.kind in (EQUAL, WORSE) and _too_many(self.wrong, self.count)


def summarize(trials: Sequence[Trial]) -> list[Line]:
    """One line for each scenario, in the order of their first trial. Names in brackets differ
    between batches."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.scenario.split(" (")[0], []).append(trial)
    return [
        Line(
            scenario,
            group[0].kind,
            len(group),
            sum(trial.promoted for trial in group),
            sum(trial.wrong for trial in group),
            float(np.mean([trial.judged_difference for trial in group])),
            float(np.mean([trial.later_difference for trial in group])),
        )
        for scenario, group in groups.items()
    ]


def failures(lines: Sequence[Line]) -> list[str]:
    """What was wrongly promoted too often: single scenarios, and all of a kind together, which
    shows it with fewer batches."""
    failed = [line.scenario for line in lines if line.failed]
    for kind in (EQUAL, WORSE):
        group = [line for line in lines if line.kind == kind]
        wrong, count = sum(line.wrong for line in group), sum(line.count for line in group)
        if _too_many(wrong, count):
            failed.append(f"{wrong} of {count} {kind} challengers together")
    return failed


def _too_many(wrong: int, count: int) -> bool:
    return count > 0 and share_interval(wrong, count)[0] > WRONG_AT_MOST


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """The exact 95 % interval of a share.

    References
    ----------
    Clopper and Pearson 1934, "The use of confidence or fiducial limits", Biometrika 26.
    """
    interval = scipy.stats.binomtest(hits, count).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)
