"""Do the gate's intervals hold what they promise? A simulation with known answers.

    python tests/benchmarks/coverage.py                     # some minutes
    python tests/benchmarks/coverage.py --part looks --simulations 2000

Two models predict the same rows. Rows of one day share a shift of the truth and a shift of each
model's error, so that they move together as they do on the flights, where the standard error of a
difference in log loss is 3.3 times larger by day than by row. Days are independent of one another
and have heavy tails (Student's t, 5 degrees of freedom).

Three parts (`--part`):

- coverage: of every simulated evaluation window some intervals for the difference are asked whether
they hold the true
  one: the project's (jackknife by day with Student's t), the percentile bootstrap of days, and the
  usual one that takes rows for independent (for the ROC AUC: DeLong, DeLong and Clarke-Pearson
  1988);
- looks: one window is looked at again and again, each time with a new challenger that is no better:
how often is any of
  them promoted?
- power: how often is a challenger promoted that is truly better or worse by so much?
- small: how often is one promoted that is worse by the whole margin, where the window holds few
rows?
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

from retrain.gate.check import Outcome
from retrain.gate.checks import NonInferiority, Superiority
from retrain.gate.compare import compare
from retrain.gate.comparison import Comparison
from retrain.gate.estimates import (
    BLOCK,
    CHALLENGER,
    INCUMBENT,
    TARGET,
    Estimate,
    jackknife,
    score_column,
)
from retrain.models.block_sums import leave_one_out, mean
from retrain.models.metrics import METRICS as PROJECT_METRICS
from retrain.models.metrics import find_metric, find_row_loss

row_log_loss = find_row_loss("log_loss")
DAYS = (7, 10, 30, 90)
METRICS = ("log_loss", "roc_auc")
METHODS = ("jackknife-t by day", "percentile bootstrap", "normal by row")
LOOKS = (1, 5, 20, 100)
LOOKED_AT_DAYS = 10
CONFIDENCE = 0.95
RESAMPLES = 1000
# As many as the flights have. With them, these shared shifts give their ratio of by day to by row.
ROWS_A_DAY = (600, 1101)
TRUTH_DAYS = 10_000
INCUMBENT_SKILL = (0.3, 0.4)
# Challengers for the power, from clearly worse to clearly better, and the incumbent's like.
POWER_SKILLS = (
    (0.5, 0.6),
    (0.4, 0.5),
    (0.35, 0.45),
    INCUMBENT_SKILL,
    (0.25, 0.35),
    (0.2, 0.3),
    (0.1, 0.2),
)
POWER_DAYS = (10, 30)
SMALL_WINDOWS = (
    (5, 6),
    (30, 1),
    (5, 12),
    (30, 2),
    (5, 24),
    (30, 4),
    (5, 50),
    (5, 100),
)  # days, rows a day


@dataclass(frozen=True)
class Skill:
    """Standard deviations of a model's errors, in logits: shared by a day, and of its own for each
    row."""

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
    Case("equal", Skill(*INCUMBENT_SKILL), Skill(*INCUMBENT_SKILL)),
    Case("challenger better", Skill(0.2, 0.3), Skill(0.3, 0.5)),
)


@dataclass(frozen=True)
class Sample:
    """Evaluation rows: `target` is 0 or 1, `day` a number from 0, and two probabilities. All of
    shape (rows,)."""

    target: NDArray
    day: NDArray
    challenger: NDArray
    incumbent: NDArray

    def frame(self) -> pl.DataFrame:
        scores = {
            score_column(CHALLENGER): self.challenger,
            score_column(INCUMBENT): self.incumbent,
        }
        return pl.DataFrame({TARGET: self.target, BLOCK: self.day} | scores)

    def loss_difference(self) -> NDArray:
        return row_log_loss(self.target, self.challenger) - row_log_loss(
            self.target, self.incumbent
        )


def simulate(
    case: Case, days: int, random: np.random.Generator, rows: tuple[int, int] = ROWS_A_DAY
) -> Sample:
    """An evaluation window of some days with so many rows each, about a quarter of which are
    positive."""
    day = np.repeat(np.arange(days), random.integers(*rows, size=days))
    tail = math.sqrt(
        3 / 5
    )  # the standard deviation of Student's t with 5 degrees of freedom is 1 / tail

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
    auc = [
        PROJECT_METRICS["roc_auc"].value(sample.target, score)
        for score in (sample.challenger, sample.incumbent)
    ]
    return {"log_loss": float(sample.loss_difference().mean()), "roc_auc": auc[0] - auc[1]}


def bootstrap_intervals(
    sample: Sample, random: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Percentile intervals by metric: whole days are drawn with replacement."""
    days = int(sample.day[-1]) + 1
    drawn = random.multinomial(days, np.full(days, 1 / days), size=RESAMPLES).astype(np.float64)
    losses, rows = np.bincount(sample.day, sample.loss_difference()), np.bincount(sample.day)
    auc = [
        resampled_auc(sample.target, score, sample.day, drawn)
        for score in (sample.challenger, sample.incumbent)
    ]
    replicates = {"log_loss": drawn @ losses / (drawn @ rows), "roc_auc": auc[0] - auc[1]}
    tail = (1 - CONFIDENCE) / 2
    return {
        metric: tuple(np.quantile(values, [tail, 1 - tail]))
        for metric, values in replicates.items()
    }


def resampled_auc(target: NDArray, score: NDArray, day: NDArray, drawn: NDArray) -> NDArray:
    """ROC AUC with each day `drawn` times, shape (resamples,), for scores without ties.

    Which pairs of a positive and a negative row are in the right order is counted once for each
    pair of days.
    """
    order = np.argsort(score)
    target, day = target[order], day[order]
    of_day = np.eye(drawn.shape[1])[day]
    below = np.cumsum(of_day * (1 - target)[:, None], axis=0)
    ordered = (of_day * target[:, None]).T @ below
    positives, negatives = np.bincount(day, target), np.bincount(day, 1 - target)
    return np.einsum("rd,de,re->r", drawn, ordered, drawn, optimize=True) / (
        (drawn @ positives) * (drawn @ negatives)
    )


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
    """For each row the share of the other class's rows that it is on the right side of, shape
    (rows,)."""
    ranks = rankdata(score)
    result = np.empty(len(score))
    for group in (positive, ~positive):
        result[group] = (ranks[group] - rankdata(score[group])) / (~group).sum()
    result[~positive] = 1 - result[~positive]
    return result


@dataclass(frozen=True)
class Trial:
    """What one window gave, by metric: which methods' intervals hold the truth, which rules
    promote, and both errors."""

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
        estimate = comparison.differences[INCUMBENT][metric]
        value, error = by_row[metric]
        by_row_interval = value - width * error, value + width * error
        intervals = (
            estimate.interval(CONFIDENCE),
            bootstrap[metric],
            by_row_interval,
        )
        held = [low <= truth[metric] <= high for low, high in intervals]
        covered[metric] = dict(zip(METHODS, held, strict=True))
        promoted[metric] = promotions(comparison, metric, error)
        ratio[metric] = estimate.standard_error / error
    return Trial(covered, promoted, ratio)


def promotions(comparison: Comparison, metric: str, row_error: float) -> dict[str, bool]:
    """Whether the challenger would be promoted, by rule."""
    gain = -comparison.worsening(INCUMBENT, metric).value
    rules = {"superiority": Superiority(metric, minimum_gain=0.0, confidence=CONFIDENCE)}
    if metric in comparison.scores.get(INCUMBENT, {}):
        for margin in (0.02, 0.05):
            rules[f"non-inferiority, {margin:.0%}"] = NonInferiority(
                metric, margin, "relative", CONFIDENCE
            )
    verdicts = {
        name: check.evaluate(comparison).outcome is Outcome.passed for name, check in rules.items()
    }
    return verdicts | {
        "test by row": gain > norm.ppf(CONFIDENCE) * row_error,
        "better figure wins": gain > 0,
    }


def promotions_by_loss(sample: Sample) -> dict[str, bool]:
    """The same by log loss alone, without what the other metrics and intervals of a window cost."""
    rows, loss = np.bincount(sample.day), sample.loss_difference()
    scores = {CHALLENGER: sample.challenger, INCUMBENT: sample.incumbent}
    replicates = {
        model: {"log_loss": find_metric("log_loss").replicates(sample.target, score, sample.day)}
        for model, score in scores.items()
    }
    difference = replicates[CHALLENGER]["log_loss"] - replicates[INCUMBENT]["log_loss"]
    comparison = Comparison(
        rows=len(loss),
        blocks=len(rows),
        target_mean=float(sample.target.mean()),
        scores={
            model: {"log_loss": jackknife(found["log_loss"])} for model, found in replicates.items()
        },
        differences={INCUMBENT: {"log_loss": jackknife(difference)}},
        identical=False,
        replicates=replicates,
    )
    return promotions(comparison, "log_loss", float(loss.std(ddof=1) / math.sqrt(len(loss))))


def look_at_one_window(random: np.random.Generator) -> dict[str, NDArray]:
    """By rule, which of 100 challengers that are no better than the incumbent it would promote:
    shape (looks,)."""
    looks, days = LOOKS[-1], LOOKED_AT_DAYS
    skill = Skill(*INCUMBENT_SKILL)
    day = np.repeat(np.arange(days), random.integers(*ROWS_A_DAY, size=days))
    tail = math.sqrt(3 / 5)
    known = random.normal(-1.3, 0.7, size=len(day))
    target = (
        random.random(len(day)) < expit(known + (0.5 * tail * random.standard_t(5, size=days))[day])
    ).astype(float)
    errors = skill.day * tail * random.standard_t(5, size=(looks + 1, days))[:, day]
    scores = expit(known + errors + random.normal(0, skill.row, size=(looks + 1, len(day))))
    losses = np.stack([row_log_loss(target, score) for score in scores])
    differences = losses[1:] - losses[0]
    rows = np.bincount(day)
    sums = np.add.reduceat(differences, np.r_[0, np.cumsum(rows)[:-1]], axis=1)
    estimates = [jackknife(leave_one_out(mean, np.stack([by_day, rows]).T)) for by_day in sums]
    gate = Superiority("log_loss", minimum_gain=0.0, confidence=CONFIDENCE)
    row_errors = differences.std(axis=1, ddof=1) / math.sqrt(len(day))
    return {
        "gate, superiority": np.array(
            [_passes(gate, estimate, look) for look, estimate in enumerate(estimates, 1)]
        ),
        "the same, looks for free": np.array(
            [estimate.quantile(CONFIDENCE) < 0 for estimate in estimates]
        ),
        "test by row": differences.mean(axis=1) < -norm.ppf(CONFIDENCE) * row_errors,
        "better figure wins": differences.mean(axis=1) < 0,
    }


def _passes(gate: Superiority, estimate: Estimate, look: int) -> bool:
    differences = {INCUMBENT: {"log_loss": estimate}}
    comparison = Comparison(0, LOOKED_AT_DAYS, 0.25, {}, differences, identical=False, look=look)
    return gate.evaluate(comparison).outcome is Outcome.passed


def share(answers: Sequence[bool]) -> str:
    """Percentage with its Monte Carlo standard error."""
    mean = sum(answers) / len(answers)
    return f"{100 * mean:5.1f} % ±{100 * math.sqrt(mean * (1 - mean) / len(answers)):.1f}"


def show(
    console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    table = Table(
        *header, title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0)
    )
    for row in rows:
        table.add_row(*row)
    console.print("", table)


def steps(console: Console, count: int, title: str):
    return track(
        range(count), title, console=console, transient=True, disable=not console.is_terminal
    )


def show_coverage(console: Console, simulations: int, random: np.random.Generator) -> None:
    lines = []
    for case in CASES:
        truth = true_differences(case, random)
        for days in DAYS:
            trials = [
                run_trial(case, days, truth, random)
                for _ in steps(console, simulations, f"{case.name}, {days} days")
            ]
            for metric in METRICS:
                ratio = np.mean([trial.error_ratio[metric] for trial in trials])
                line = [case.name, metric, str(days), f"{truth[metric]:+.4f}", f"{ratio:.1f}"]
                lines.append(
                    line
                    + [
                        share([trial.covered[metric][method] for trial in trials])
                        for method in METHODS
                    ]
                )
    columns = ["models", "metric", "days", "true difference", "error ratio", *METHODS]
    show(console, f"Intervals of {CONFIDENCE:.0%} that hold the true difference", columns, lines)
    console.print("\nError ratio: standard error of the difference by day / by row.")


def show_looks(console: Console, simulations: int, random: np.random.Generator) -> None:
    windows = [look_at_one_window(random) for _ in steps(console, simulations, "looks")]
    rules = list(windows[0])
    lines = [
        [
            str(looks),
            *(share([bool(window[rule][:looks].any()) for window in windows]) for rule in rules),
        ]
        for looks in LOOKS
    ]
    title = (
        f"Windows of {LOOKED_AT_DAYS} days in which any challenger was promoted, though none is "
        "better (log loss)"
    )
    show(console, title, ["looks", *rules], lines)


def show_power(console: Console, simulations: int, random: np.random.Generator) -> None:
    lines = []
    for skill in POWER_SKILLS:
        case = Case("power", Skill(*skill), Skill(*INCUMBENT_SKILL))
        truth = true_differences(case, random)["log_loss"]
        sample = simulate(case, TRUTH_DAYS, random)
        incumbent = float(row_log_loss(sample.target, sample.incumbent).mean())
        for days in POWER_DAYS:
            promoted = [
                promotions_by_loss(simulate(case, days, random))
                for _ in steps(console, simulations, f"{skill}, {days} days")
            ]
            rules = list(promoted[0])
            answers = [share([verdicts[rule] for verdicts in promoted]) for rule in rules]
            lines.append([f"{-truth / incumbent:+.1%}", str(days), *answers])
    show(
        console,
        "Promotions by true gain (share of the incumbent's log loss)",
        ["true gain", "days", *rules],
        lines,
    )


def show_small(console: Console, simulations: int, random: np.random.Generator) -> None:
    """Windows of few rows: where does the interval of the primary check stop to mean what it
    says?"""
    gate = NonInferiority("log_loss", 0.05, "relative", CONFIDENCE)
    lines = []
    for days, rows in SMALL_WINDOWS:
        answers = []
        for skill in (POWER_SKILLS[0], INCUMBENT_SKILL):
            case = Case("small", Skill(*skill), Skill(*INCUMBENT_SKILL))
            samples = (
                simulate(case, days, random, (rows, rows + 1))
                for _ in steps(console, simulations, f"{days} days of {rows} rows")
            )
            made = (compare(sample.frame(), [CHALLENGER, INCUMBENT]) for sample in samples)
            answers.append(
                share([gate.evaluate(comparison).outcome is Outcome.passed for comparison in made])
            )
        lines.append([str(days * rows), str(days), *answers])
    title = "Promotions (non-inferiority, 5 %) in windows of few rows"
    show(
        console,
        title,
        ["rows", "days", "of challengers worse by the margin", "of equal ones"],
        lines,
    )


PARTS = {"coverage": show_coverage, "looks": show_looks, "power": show_power, "small": show_small}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Simulate what the gate's intervals and verdicts hold."
    )
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument(
        "--simulations", type=int, default=1000, help="windows for each line (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    console = Console(highlight=False, width=max(Console().width, 150))
    for name, part in PARTS.items():
        if options.part in (name, "all"):
            started = time.perf_counter()
            part(console, options.simulations, np.random.default_rng(options.seed))
            console.print(
                f"\n{name}: {options.simulations} windows a line, "
                f"{time.perf_counter() - started:.0f} s"
            )


if __name__ == "__main__":
    main()
