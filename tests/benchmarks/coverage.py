"""Do the gate's intervals hold what they promise? A simulation with known answers.

    python tests/benchmarks/coverage.py                     # some minutes
    python tests/benchmarks/coverage.py --simulations 2000

Two models predict the same rows. Rows of one day share a shift of the truth and a shift of each model's error, so that
they move together as they do on the flights, where the standard error of a difference in log loss is 3.3 times
larger by day than by row. Days are independent of one another and have heavy tails (Student's t, 5 degrees of freedom).

Of every simulated evaluation window three intervals for the difference are asked whether they hold the true one:

- the project's: jackknife by day with Student's t (`retrain.promotion.comparison`),
- the percentile bootstrap of whole days,
- the usual one that takes rows for independent (for the ROC AUC: DeLong, DeLong and Clarke-Pearson 1988).

Then equal models are put before the gate, where each promotion is a false one.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.special import expit
from scipy.stats import norm, rankdata

from retrain.modeling.metrics import roc_auc, row_log_loss
from retrain.promotion.checks import Outcome, Superiority
from retrain.promotion.comparison import BLOCK, CHALLENGER, INCUMBENT, TARGET, Comparison, compare

DAYS = (7, 10, 30, 90)
METRICS = ("log_loss", "roc_auc")
METHODS = ("jackknife-t by day", "bootstrap by day", "normal by row")
CONFIDENCE = 0.95
RESAMPLES = 1000
# A tenth of the flights' rows a day: shared shifts that are the larger for it keep the ratio of by day to by row.
ROWS_A_DAY = (60, 110)
TRUTH_DAYS = 40_000


@dataclass(frozen=True)
class Skill:
    """Standard deviations of a model's errors, in logits: shared by a day, and of its own for each row."""

    day: float
    row: float


@dataclass(frozen=True)
class Case:
    """A pair of models. Of equal ones the true difference is 0, by symmetry."""

    name: str
    challenger: Skill
    incumbent: Skill

    @property
    def equal(self) -> bool:
        return self.challenger == self.incumbent


CASES = (
    Case("equal", Skill(0.9, 0.4), Skill(0.9, 0.4)),
    Case("challenger better", Skill(0.6, 0.3), Skill(0.9, 0.5)),
)


@dataclass(frozen=True)
class Sample:
    """Evaluation rows: `target` is 0 or 1, `day` a number from 0, and two probabilities. All of shape (rows,)."""

    target: NDArray
    day: NDArray
    challenger: NDArray
    incumbent: NDArray

    def frame(self) -> pl.DataFrame:
        columns = {TARGET: self.target, BLOCK: self.day, CHALLENGER: self.challenger, INCUMBENT: self.incumbent}
        return pl.DataFrame(columns)

    def loss_difference(self) -> NDArray:
        return row_log_loss(self.target, self.challenger) - row_log_loss(self.target, self.incumbent)


def simulate(case: Case, days: int, random: np.random.Generator) -> Sample:
    """An evaluation window of some days, about a quarter of whose rows are positive."""
    day = np.repeat(np.arange(days), random.integers(*ROWS_A_DAY, size=days))
    tail = math.sqrt(3 / 5)  # the standard deviation of Student's t with 5 degrees of freedom is 1 / tail

    def shared(deviation: float) -> NDArray:
        return (deviation * tail * random.standard_t(5, size=days))[day]

    known = random.normal(-1.3, 0.7, size=len(day))
    truth = expit(known + shared(0.5))
    target = (random.random(len(day)) < truth).astype(np.float64)
    probabilities = [
        expit(known + shared(skill.day) + random.normal(0, skill.row, size=len(day)))
        for skill in (case.challenger, case.incumbent)
    ]
    return Sample(target, day, *probabilities)


def true_differences(case: Case, random: np.random.Generator) -> dict[str, float]:
    """By metric: 0 for equal models, else from so many days that chance hardly counts."""
    if case.equal:
        return dict.fromkeys(METRICS, 0.0)
    sample = simulate(case, TRUTH_DAYS, random)
    weight = np.ones(len(sample.target))
    auc = [roc_auc(sample.target, score, weight) for score in (sample.challenger, sample.incumbent)]
    return {"log_loss": float(sample.loss_difference().mean()), "roc_auc": auc[0] - auc[1]}


def bootstrap_intervals(sample: Sample, random: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Percentile intervals by metric: whole days are drawn with replacement."""
    days = int(sample.day[-1]) + 1
    drawn = random.multinomial(days, np.full(days, 1 / days), size=RESAMPLES).astype(np.float64)
    losses, rows = np.bincount(sample.day, sample.loss_difference()), np.bincount(sample.day)
    auc = [resampled_auc(sample.target, score, sample.day, drawn) for score in (sample.challenger, sample.incumbent)]
    replicates = {"log_loss": drawn @ losses / (drawn @ rows), "roc_auc": auc[0] - auc[1]}
    tail = (1 - CONFIDENCE) / 2
    return {metric: tuple(np.quantile(values, [tail, 1 - tail])) for metric, values in replicates.items()}


def resampled_auc(target: NDArray, score: NDArray, day: NDArray, drawn: NDArray) -> NDArray:
    """ROC AUC with each day `drawn` times, shape (resamples,), for scores without ties.

    Which pairs of a positive and a negative row are in the right order is counted once for each pair of days.
    """
    order = np.argsort(score)
    target, day = target[order], day[order]
    of_day = np.eye(drawn.shape[1])[day]
    below = np.cumsum(of_day * (1 - target)[:, None], axis=0)
    ordered = (of_day * target[:, None]).T @ below
    positives, negatives = np.bincount(day, target), np.bincount(day, 1 - target)
    return np.einsum("rd,de,re->r", drawn, ordered, drawn, optimize=True) / ((drawn @ positives) * (drawn @ negatives))


def row_estimates(sample: Sample) -> dict[str, tuple[float, float]]:
    """Difference and standard error by metric, as if rows were independent."""
    loss = sample.loss_difference()
    positive = sample.target == 1
    differences = placements(sample.challenger, positive) - placements(sample.incumbent, positive)
    variance = sum(differences[group].var(ddof=1) / group.sum() for group in (positive, ~positive))
    return {
        "log_loss": (float(loss.mean()), float(loss.std(ddof=1) / math.sqrt(len(loss)))),
        "roc_auc": (float(differences[positive].mean()), math.sqrt(variance)),
    }


def placements(score: NDArray, positive: NDArray) -> NDArray:
    """For each row the share of the other class's rows that it is on the right side of, shape (rows,)."""
    ranks = rankdata(score)
    result = np.empty(len(score))
    for group in (positive, ~positive):
        result[group] = (ranks[group] - rankdata(score[group])) / (~group).sum()
    result[~positive] = 1 - result[~positive]
    return result


@dataclass(frozen=True)
class Trial:
    """What one window gave, by metric: which methods' intervals hold the truth, which rules promote, and both errors."""

    covered: dict[str, dict[str, bool]]
    promoted: dict[str, dict[str, bool]]
    error_ratio: dict[str, float]  # standard error by day / by row


def run_trial(case: Case, days: int, truth: dict[str, float], random: np.random.Generator) -> Trial:
    sample = simulate(case, days, random)
    comparison = compare(sample.frame(), [CHALLENGER, INCUMBENT])
    bootstrap, by_row = bootstrap_intervals(sample, random), row_estimates(sample)
    width = norm.ppf(1 - (1 - CONFIDENCE) / 2)
    covered, promoted, ratio = {}, {}, {}
    for metric in METRICS:
        estimate = comparison.differences[INCUMBENT, metric]
        value, error = by_row[metric]
        intervals = (
            estimate.interval(CONFIDENCE),
            bootstrap[metric],
            (value - width * error, value + width * error),
        )
        held = [low <= truth[metric] <= high for low, high in intervals]
        covered[metric] = dict(zip(METHODS, held, strict=True))
        promoted[metric] = promotions(comparison, metric, error)
        ratio[metric] = estimate.standard_error / error
    return Trial(covered, promoted, ratio)


def promotions(comparison: Comparison, metric: str, row_error: float) -> dict[str, bool]:
    """Whether the challenger would be promoted as the better one, by rule."""
    gain = -comparison.worsening(INCUMBENT, metric).value
    gate = Superiority(metric, minimum_gain=0.0, confidence=CONFIDENCE).judge(comparison)
    return {
        "gate, superiority": gate.outcome is Outcome.passed,
        "test by row": gain > norm.ppf(CONFIDENCE) * row_error,
        "better figure wins": gain > 0,
    }


def share(answers: Sequence[bool]) -> str:
    """Percentage with its Monte Carlo standard error."""
    mean = sum(answers) / len(answers)
    return f"{100 * mean:5.1f} % ±{100 * math.sqrt(mean * (1 - mean) / len(answers)):.1f}"


def show(console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*header, title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print("", table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate the coverage of the project's intervals.")
    parser.add_argument("--simulations", type=int, default=400, help="windows for each line (default: 400)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    console = Console(highlight=False, width=max(Console().width, 130))
    random, started = np.random.default_rng(options.seed), time.perf_counter()
    coverage, false_promotions = [], []
    for case in CASES:
        truth = true_differences(case, random)
        for days in DAYS:
            title = f"{case.name}, {days} days"
            quiet = not console.is_terminal
            each = track(range(options.simulations), title, console=console, transient=True, disable=quiet)
            trials = [run_trial(case, days, truth, random) for _ in each]
            for metric in METRICS:
                ratio = np.mean([trial.error_ratio[metric] for trial in trials])
                line = [case.name, metric, str(days), f"{truth[metric]:+.4f}", f"{ratio:.1f}"]
                coverage.append(
                    line + [share([trial.covered[metric][method] for trial in trials]) for method in METHODS]
                )
                if case.equal:
                    rules = trials[0].promoted[metric]
                    counts = [share([trial.promoted[metric][rule] for trial in trials]) for rule in rules]
                    false_promotions.append([metric, str(days), *counts])
    columns = ["models", "metric", "days", "true difference", "error ratio", *METHODS]
    show(console, f"Intervals of {CONFIDENCE:.0%} that hold the true difference", columns, coverage)
    show(console, "Promotions of a challenger that is no better", ["metric", "days", *rules], false_promotions)
    console.print("\nError ratio: standard error of the difference by day / by row.")
    console.print(f"{options.simulations} windows a line, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
