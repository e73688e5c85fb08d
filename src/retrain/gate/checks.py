"""The checks of scores and rows that come with the engine."""

from __future__ import annotations

from typing import Literal

from retrain.errors import ConfigError
from retrain.gate.alpha_spending import alpha_at
from retrain.gate.check import Check, CheckResult, Outcome
from retrain.gate.comparison import Comparison
from retrain.gate.estimates import BASELINE, CHALLENGER, INCUMBENT
from retrain.models.metrics import lower_is_better
from retrain.ranges import Confidence, Finite, NonNegative, PositiveCount

LARGEST_RELATIVE, LARGEST_ABSOLUTE = 0.5, 1e12
MarginKind = Literal["relative", "absolute"]


class NonInferiority(Check):
    """The challenger is not worse than the incumbent by more than a margin, with one-sided
    confidence.

    `margin_is` relative: a share of the incumbent's score (of R squared, of what it leaves
    unexplained); absolute: in units of the metric. Repeated looks at the same rows are paid for
    with confidence (`retrain.gate.alpha_spending`).
    """

    compares = True

    def __init__(
        self, metric: str | None, margin: NonNegative, margin_is: MarginKind, confidence: Confidence
    ) -> None:
        self.metric, self.confidence = metric, confidence
        self.margin, self.margin_is = margin_of(margin, margin_is)

    def evaluate(self, comparison: Comparison) -> CheckResult:
        metric = self.metric or comparison.metric
        beyond, margin = comparison.beyond_margin(INCUMBENT, metric, self.margin, self.margin_is)
        level = 1 - alpha_at(1 - self.confidence, comparison.look, comparison.unseen)
        bound = beyond.quantile(level) + margin
        passed = bound < margin
        relation = "below" if passed else "not below"
        reason = (
            f"{metric}: at worst {bound:+.4f} against the incumbent with {_percent(level)} "
            f"confidence{_look(comparison)}, "
            f"{relation} the margin of {margin:.4f}"
        )
        return CheckResult(
            Outcome.of(passed), reason, {"bound": bound, "margin": margin, "confidence": level}
        )


class Superiority(Check):
    """The challenger is better than the incumbent by more than a minimum gain, with one-sided
    confidence.

    Repeated looks at the same rows are paid for with confidence.
    """

    compares = True

    def __init__(
        self, metric: str | None, minimum_gain: NonNegative, confidence: Confidence
    ) -> None:
        self.metric, self.minimum_gain, self.confidence = metric, minimum_gain, confidence

    def evaluate(self, comparison: Comparison) -> CheckResult:
        return _gain(comparison, INCUMBENT, self.metric, self.minimum_gain, self.confidence)


class BeatsBaseline(Check):
    """The challenger is better than the best constant prediction for its training rows.

    Repeated looks at the same rows are paid for with confidence.
    """

    compares = True

    def __init__(self, metric: str | None, confidence: Confidence) -> None:
        self.metric, self.confidence = metric, confidence

    def evaluate(self, comparison: Comparison) -> CheckResult:
        return _gain(comparison, BASELINE, self.metric, 0.0, self.confidence)


class MetricLimit(Check):
    """A metric of the challenger stays on the right side of an absolute limit, whichever way the
    metric runs."""

    def __init__(self, metric: str | None, limit: Finite) -> None:
        self.metric, self.limit = metric, limit

    def evaluate(self, comparison: Comparison) -> CheckResult:
        metric = self.metric or comparison.metric
        value = comparison.score(CHALLENGER, metric).value
        passed = value <= self.limit if lower_is_better(metric) else value >= self.limit
        reason = (
            f"{metric} of the challenger is {value:.4f}, {'within' if passed else 'beyond'} the "
            f"limit of {self.limit}"
        )
        return CheckResult(Outcome.of(passed), reason, {"value": value, "limit": self.limit})


class EnoughEvidence(Check):
    """There are enough blocks of time, and rows, for the intervals to mean something.

    How much the rows can tell is in those intervals: on few rows they are wide, and the primary
    check fails on them. What is asked here is the least that an interval can be made of. In
    simulations a challenger that was worse by the whole margin was promoted in no more than 5 % of
    windows of 30 rows in 5 blocks; but harm that sits in one row of fifty shows in a few hundred
    rows only.
    """

    def __init__(self, minimum_rows: PositiveCount, minimum_blocks: PositiveCount) -> None:
        self.minimum_rows, self.minimum_blocks = minimum_rows, minimum_blocks

    def evaluate(self, comparison: Comparison) -> CheckResult:
        enough = comparison.rows >= self.minimum_rows and comparison.blocks >= self.minimum_blocks
        reason = (
            f"{comparison.rows:,} evaluation rows in {comparison.blocks} blocks, "
            f"{'enough' if enough else 'too few'} (at least {self.minimum_rows:,} in "
            f"{self.minimum_blocks})"
        )
        figures = {"rows": comparison.rows, "blocks": comparison.blocks}
        return CheckResult(Outcome.passed if enough else Outcome.insufficient, reason, figures)


def _gain(
    comparison: Comparison, other: str, metric: str | None, minimum_gain: float, confidence: float
) -> CheckResult:
    metric = metric or comparison.metric
    level = 1 - alpha_at(1 - confidence, comparison.look, comparison.unseen)
    bound = -comparison.worsening(other, metric).quantile(level)
    passed = bound > minimum_gain
    reason = (
        f"{metric}: better than the {other} by at least {bound:+.4f} with {_percent(level)} "
        f"confidence{_look(comparison)}, "
        f"{'more' if passed else 'not more'} than {minimum_gain:g}"
    )
    return CheckResult(
        Outcome.of(passed),
        reason,
        {"bound": bound, "minimum_gain": minimum_gain, "confidence": level},
    )


def _percent(level: float) -> str:
    """A confidence with as many digits as set it apart from certainty."""
    return f"{100 * level:.6g} %"


def _look(comparison: Comparison) -> str:
    """Said where looks cost: from the second one on, and where earlier windows have seen some of
    the rows."""
    noted = [f"look {comparison.look} at these rows"] if comparison.look > 1 else []
    noted += [f"{comparison.unseen:.0%} of the window is new"] if comparison.unseen < 1 else []
    return f" ({', '.join(noted)})" if noted else ""


def margin_of(margin: float, margin_is: str) -> tuple[float, str]:
    """A configured margin. Raises ConfigError for one that stops nothing: half of all there is to
    lose, or beyond any unit."""
    if margin_is == "absolute" and margin > LARGEST_ABSOLUTE:
        raise ConfigError(
            f"`margin` is {margin:g} with `margin_is: absolute`, so anything would pass.",
            hint="write it in units of the metric",
        )
    if margin_is == "relative" and margin > LARGEST_RELATIVE:
        raise ConfigError(
            f"`margin` is {margin:g} with `margin_is: relative`, {margin:.0%} of the incumbent's "
            "score, so nearly anything would pass.",
            hint="write a share of at most 0.5, such as 0.05 for 5 %",
        )
    return margin, margin_is
