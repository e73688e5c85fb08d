"""The single questions that a gate asks. One of your own is a subclass of `Check` and a line in `conf/gate/`."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from retrain.errors import ConfigError
from retrain.promotion.figures import BASELINE, CHALLENGER, INCUMBENT, Comparison


class Outcome(enum.Enum):
    """`insufficient`: the rows can't answer the question."""

    passed = "passed"
    failed = "failed"
    insufficient = "insufficient"


@dataclass(frozen=True)
class CheckResult:
    """An answer, its reason as a sentence, and the figures behind it."""

    outcome: Outcome
    reason: str
    figures: dict[str, float] = field(default_factory=dict)


class Check(ABC):
    """One question about a comparison."""

    @abstractmethod
    def judge(self, comparison: Comparison) -> CheckResult:
        """Raises PromotionError when the comparison lacks what the question needs."""


def _confidence(value: float) -> float:
    if not 0.5 <= value < 1:
        raise ConfigError(f"`confidence` is {value!r}, but must be from 0.5 to below 1.")
    return value


class NonInferiority(Check):
    """The challenger is not worse than the incumbent by more than a margin, with one-sided confidence."""

    def __init__(self, metric: str, margin: float, margin_is: str, confidence: float) -> None:
        if margin_is not in ("relative", "absolute"):
            raise ConfigError(f"`margin_is` is {margin_is!r}, but must be relative or absolute.")
        if margin < 0:
            raise ConfigError(f"`margin` is {margin!r}, but must not be negative.")
        self.metric, self.margin, self.margin_is = metric, margin, margin_is
        self.confidence = _confidence(confidence)

    def judge(self, comparison: Comparison) -> CheckResult:
        worsening = comparison.worsening(INCUMBENT, self.metric)
        margin = self.margin
        if self.margin_is == "relative":
            margin *= abs(comparison.score(INCUMBENT, self.metric).value)
        bound = worsening.quantile(self.confidence)
        passed = bound < margin
        relation = "below" if passed else "not below"
        reason = (
            f"{self.metric}: at worst {bound:+.4f} against the incumbent with {self.confidence:.0%} confidence, "
            f"{relation} the margin of {margin:.4f}"
        )
        return CheckResult(Outcome.passed if passed else Outcome.failed, reason, {"bound": bound, "margin": margin})


class Superiority(Check):
    """The challenger is better than the incumbent by more than a minimum gain, with one-sided confidence."""

    def __init__(self, metric: str, minimum_gain: float, confidence: float) -> None:
        self.metric, self.minimum_gain, self.confidence = metric, minimum_gain, _confidence(confidence)

    def judge(self, comparison: Comparison) -> CheckResult:
        return _gain(comparison, INCUMBENT, self.metric, self.minimum_gain, self.confidence)


class BeatsBaseline(Check):
    """The challenger is better than always predicting the share of positives in its training rows."""

    def __init__(self, metric: str, confidence: float) -> None:
        self.metric, self.confidence = metric, _confidence(confidence)

    def judge(self, comparison: Comparison) -> CheckResult:
        return _gain(comparison, BASELINE, self.metric, 0.0, self.confidence)


class Ceiling(Check):
    """A metric of the challenger stays below an absolute limit. For metrics where lower is better."""

    def __init__(self, metric: str, maximum: float) -> None:
        self.metric, self.maximum = metric, maximum

    def judge(self, comparison: Comparison) -> CheckResult:
        value = comparison.score(CHALLENGER, self.metric).value
        passed = value <= self.maximum
        reason = f"{self.metric} of the challenger is {value:.4f}, {'within' if passed else 'above'} the limit of {self.maximum}"
        return CheckResult(
            Outcome.passed if passed else Outcome.failed, reason, {"value": value, "maximum": self.maximum}
        )


class EnoughEvidence(Check):
    """There are enough rows and blocks of time for the intervals to mean something."""

    def __init__(self, minimum_rows: int, minimum_blocks: int) -> None:
        self.minimum_rows, self.minimum_blocks = minimum_rows, minimum_blocks

    def judge(self, comparison: Comparison) -> CheckResult:
        enough = comparison.rows >= self.minimum_rows and comparison.blocks >= self.minimum_blocks
        reason = (
            f"{comparison.rows:,} evaluation rows in {comparison.blocks} blocks, "
            f"{'enough' if enough else 'too few'} (at least {self.minimum_rows:,} in {self.minimum_blocks})"
        )
        figures = {"rows": comparison.rows, "blocks": comparison.blocks}
        return CheckResult(Outcome.passed if enough else Outcome.insufficient, reason, figures)


def _gain(comparison: Comparison, other: str, metric: str, minimum_gain: float, confidence: float) -> CheckResult:
    bound = -comparison.worsening(other, metric).quantile(confidence)
    passed = bound > minimum_gain
    reason = (
        f"{metric}: better than the {other} by at least {bound:+.4f} with {confidence:.0%} confidence, "
        f"{'more' if passed else 'not more'} than {minimum_gain:g}"
    )
    return CheckResult(
        Outcome.passed if passed else Outcome.failed, reason, {"bound": bound, "minimum_gain": minimum_gain}
    )
