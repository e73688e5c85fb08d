"""Questions beside the primary one: harm that an average hides. A guardrail fails on proven harm,
not on doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import polars as pl
from annotated_types import Ge, Lt

from retrain.config import Task
from retrain.errors import PromotionError
from retrain.gate.check import Check, CheckResult, Outcome
from retrain.gate.checks import MarginKind, NonInferiority, margin_of
from retrain.gate.comparison import Comparison
from retrain.gate.estimates import (
    BASELINE,
    CHALLENGER,
    INCUMBENT,
    TARGET,
    WINDOW,
    score_column,
)
from retrain.gate.row_losses import REFERENCE, beyond_margin, loss_named, row_losses, sums_by_block
from retrain.gate.slices import NO_INCUMBENT, Slices
from retrain.models.metrics import lower_is_better
from retrain.ranges import Confidence, NonNegative, Positive, PositiveCount, Share

__all__ = [
    "BaselineFloor",
    "Churn",
    "ClassCoverage",
    "Forgetting",
    "NoProvenHarm",
    "ResourceLimit",
    "Slices",
]


class Forgetting(Check):
    """On the reference windows (the evaluation rows of earlier batches) the challenger is not
    proven worse by more than a margin.

    A model may have been trained on such rows: what is asked is whether it lost what its
    predecessor knew. Not applicable while there are no earlier batches, or with
    `evaluation.reference_windows: 0`.
    """

    def __init__(
        self, metric: str | None, margin: NonNegative, margin_is: MarginKind, confidence: Confidence
    ) -> None:
        self.loss, self.confidence = loss_named(metric), confidence
        self.margin, self.margin_is = margin_of(margin, margin_is)

    def evaluate(self, comparison: Comparison) -> CheckResult:
        rows = comparison.reference_rows
        if rows is None or rows.is_empty():
            return CheckResult(Outcome.not_applicable, "there is no reference window yet")
        if score_column(INCUMBENT) not in rows.columns:
            return NO_INCUMBENT
        metric = self.loss or comparison.loss
        losses = row_losses(rows, metric)
        beyond, worsening, margin = beyond_margin(
            sums_by_block(losses), self.margin, self.margin_is
        )
        incumbent = float(losses.select(pl.col(REFERENCE).mean()).item())
        proven = beyond.p_above(0.0) < 1 - self.confidence
        windows = rows[WINDOW].unique().sort().to_list()
        reason = (
            f"{metric} on the old evaluation rows of {', '.join(windows)}: {worsening:+.4f} "
            "against the incumbent's "
            f"{incumbent:.4f}, {'proven to be more' if proven else 'not proven to be more'} than "
            f"the margin of {margin:.4f}"
        )
        figures = {
            "worsening": worsening,
            "incumbent": incumbent,
            "margin": margin,
            "windows": len(windows),
        }
        return CheckResult(Outcome.of(not proven), reason, figures)


class NoProvenHarm(NonInferiority):
    """A metric of the challenger is not proven worse than the incumbent's by more than a margin:
    doubt is for the challenger, not against it."""

    def evaluate(self, comparison: Comparison) -> CheckResult:
        metric = self.metric or comparison.metric
        worsening = comparison.worsening(INCUMBENT, metric)
        beyond, margin = comparison.beyond_margin(INCUMBENT, metric, self.margin, self.margin_is)
        bound = beyond.quantile(1 - self.confidence) + margin
        passed = bound <= margin
        reason = (
            f"{metric}: {_better_or_worse(worsening.value)} than the incumbent, "
            f"{'not ' if passed else ''}proven worse"
            f" by more than {margin:.4f}"
        )
        figures = {"worsening": worsening.value, "bound": bound, "margin": margin}
        return CheckResult(Outcome.of(passed), reason, figures)


class BaselineFloor(Check):
    """The challenger is not proven worse than the best constant prediction for its training rows,
    and where the incumbent is better than that constant, so is the challenger.

    On rows with a high baseline loss both may be a little worse; one that has forgotten
    everything is proven worse.
    """

    def __init__(self, metric: str | None, confidence: Confidence) -> None:
        self.metric, self.confidence = metric, confidence

    def evaluate(self, comparison: Comparison) -> CheckResult:
        metric = self.metric or comparison.metric
        worsening = comparison.worsening(BASELINE, metric)
        bound = worsening.quantile(1 - self.confidence)
        gap = comparison.score(INCUMBENT, metric).value - comparison.score(BASELINE, metric).value
        incumbent = gap if lower_is_better(metric) else -gap
        passed = worsening.value < 0 or (bound < 0 <= incumbent)
        reason = f"{metric}: {_better_or_worse(worsening.value)} than the baseline"
        if worsening.value >= 0:
            reason += (
                f", {'proven' if bound >= 0 else 'not proven'}; the incumbent is "
                f"{_better_or_worse(incumbent)}"
            )
        figures = {"worsening": worsening.value, "bound": bound, "incumbent": incumbent}
        return CheckResult(Outcome.of(passed), reason, figures)


def _better_or_worse(worsening: float) -> str:
    return f"{abs(worsening):.4f} {'better' if worsening < 0 else 'worse'}"


class Churn(Check):
    """No more than a share of the rows changes sides between incumbent and challenger.

    Of two classes, at a threshold of the probability; of several, when another one is the most
    probable. Whoever acts on the predictions has to live with every flip, also with those that make
    the average better.
    """

    def __init__(self, threshold: Share, maximum: Annotated[float, Ge(0), Lt(1)]) -> None:
        self.threshold, self.maximum = threshold, maximum

    def evaluate(self, comparison: Comparison) -> CheckResult:
        rows = comparison.rows_judged
        if rows is None or score_column(INCUMBENT) not in rows.columns:
            return NO_INCUMBENT
        if comparison.task is Task.regression:
            return CheckResult(Outcome.not_applicable, "numbers have no sides to change")
        new, old = (rows[score_column(name)].to_numpy() for name in (CHALLENGER, INCUMBENT))
        if comparison.task is Task.binary:
            changed, sides = (
                (new >= self.threshold) != (old >= self.threshold),
                f"change sides at {self.threshold:g}",
            )
        else:
            changed, sides = (
                new.argmax(axis=1) != old.argmax(axis=1),
                "change their most probable class",
            )
        flipped, moved = float(changed.mean()), float(abs(new - old).mean())
        passed = flipped <= self.maximum
        reason = (
            f"{flipped:.2%} of the rows {sides}, {'within' if passed else 'above'} the limit of "
            f"{self.maximum:.2%}; the mean change of a probability is {moved:.4f}"
        )
        figures = {"flipped": flipped, "mean_change": moved, "maximum": self.maximum}
        return CheckResult(Outcome.of(passed), reason, figures)


Figure = Literal["latency_one_row_ms", "latency_1000_rows_ms", "model_megabytes"]


class ResourceLimit(Check):
    """A figure of the challenger stays within a limit: `latency_one_row_ms`, `latency_1000_rows_ms`
    or `model_megabytes`.

    Latencies are medians in the training process, with the model in memory.
    """

    def __init__(self, resource: Figure, maximum: Positive) -> None:
        self.resource, self.maximum = resource, maximum

    def evaluate(self, comparison: Comparison) -> CheckResult:
        value = comparison.facts.get(self.resource)
        if value is None:
            known = ", ".join(comparison.facts) or "none"
            raise PromotionError(
                f"The gate asks for `{self.resource}`, which was not measured. Measured: {known}."
            )
        passed = value <= self.maximum
        reason = (
            f"{self.resource} is {value:.4g}, {'within' if passed else 'above'} the budget of "
            f"{self.maximum:g}"
        )
        return CheckResult(
            Outcome.of(passed),
            reason,
            {self.resource: value, "maximum": self.maximum},
        )


class ClassCoverage(Check):
    """The evaluation rows tell about more than one class, and the challenger knows the classes that
    the incumbent knows.

    A class with at least `minimum_rows` of them is evaluated by itself, all rarer ones together;
    those can't be evaluated one by one, and the verdict says so. It fails when the challenger
    doesn't know classes of at least so many rows that the incumbent knows, or before the first
    champion, classes of so many rows at all.
    """

    def __init__(self, minimum_rows: PositiveCount) -> None:
        self.minimum_rows = minimum_rows

    def evaluate(self, comparison: Comparison) -> CheckResult:
        rows = comparison.rows_judged
        if rows is None:
            raise PromotionError("The comparison holds no rows to count classes in.")
        if comparison.task is Task.regression:
            return CheckResult(Outcome.not_applicable, "numbers have no classes")
        counted = rows[TARGET].value_counts().sort(TARGET).iter_rows()
        found = {comparison.classes[int(code)]: int(count) for code, count in counted}
        figures = {f"rows_of_class_{name}": count for name, count in found.items()}
        unknown = [name for name in comparison.unknown_classes.get(CHALLENGER, ()) if name in found]
        known_before = [
            name for name in unknown if name not in comparison.unknown_classes.get(INCUMBENT, ())
        ]
        lost = {name: found[name] for name in known_before}
        # A first champion replaces nobody who knew the rare ones: a tail of them always holds some
        # that are new.
        together = score_column(INCUMBENT) in rows.columns
        if lost and (sum if together else max)(lost.values()) >= self.minimum_rows:
            text = (
                f"the challenger does not know class {_listed(lost)}, at least "
                f"{self.minimum_rows:,} rows"
            )
            return CheckResult(Outcome.failed, text, figures)
        if len(rows) - max(found.values()) < self.minimum_rows:
            text = (
                f"too few evaluation rows of any class but one: {_listed(found)}; at least "
                f"{self.minimum_rows:,}"
            )
            return CheckResult(Outcome.insufficient, text, figures)
        rare = {
            name: found.get(name, 0)
            for name in comparison.classes
            if found.get(name, 0) < self.minimum_rows
        }
        judged = len(found.keys() - rare.keys())
        warnings = [f"too few rows to be evaluated by themselves: {_listed(rare)}"] if rare else []
        warnings += (
            [f"unknown to the challenger: {_listed({name: found[name] for name in unknown})}"]
            if unknown
            else []
        )
        reason = (
            f"{judged} of {len(comparison.classes)} classes occur on at least "
            f"{self.minimum_rows:,} rows"
        )
        reason += f", {sum(rare.values()):,} rows are of rarer ones" if rare else ""
        return CheckResult(Outcome.passed, reason, figures, "; ".join(warnings))


def _listed(counts: Mapping[str, int], most: int = 5) -> str:
    """Classes with their rows, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} ({count:,} rows)" for name, count in ordered[:most])
    return shown + (f" and {len(ordered) - most} more" if len(ordered) > most else "")
