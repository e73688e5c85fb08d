"""When to retrain. A policy of your own is a subclass of `Policy` and a YAML in `conf/policy/`
that names it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen

from retrain.config import build
from retrain.errors import ConfigError
from retrain.lazy import river
from retrain.monitoring.forecast import Forecast, fit_forecast, plan_ahead, usable
from retrain.monitoring.policy import Policy, PolicyContext
from retrain.ranges import NonNegative, PositiveCount, Share
from retrain.types import Decision

Family = Literal["features", "target", "predictions", "whole rows"]


class Always(Policy):
    """A challenger for every snapshot. Simplest, and right while a retraining is cheap and the gate
    is trusted."""

    def decide(self, context: PolicyContext) -> Decision:
        return Decision(
            True,
            f"Batch {context.period} is the newest, and policy `always` retrains on every "
            "snapshot.",
        )


class Never(Policy):
    """The first champion for ever: shows how a model ages. The baseline of all other policies."""

    def decide(self, context: PolicyContext) -> Decision:
        return Decision(
            False, f"Policy `never` keeps the champion, whatever batch {context.period} says."
        )


class Every(Policy):
    """Every so many batches, whatever happens. Predictable costs; blind to what the batches
    say."""

    def __init__(self, batches: PositiveCount, **limits: Any) -> None:
        super().__init__(**limits)
        self.batches = batches

    def decide(self, context: PolicyContext) -> Decision:
        since = context.since_attempt
        reason = (
            f"{since} batches since the last retraining, and policy `every` waits for "
            f"{self.batches}."
        )
        return Decision(since >= self.batches, reason, {"batches_since": since})


class OnDrift(Policy):
    """When the inputs, the target or the predictions have moved. Needs no labels; pays for changes
    that do not hurt, and misses changes of the relation itself. `families`: those that count, of
    features, target, predictions and whole rows; null: all."""

    def __init__(
        self, families: Annotated[list[Family], MinLen(1)] | None = None, **limits: Any
    ) -> None:
        super().__init__(**limits)
        self.families = families

    def decide(self, context: PolicyContext) -> Decision:
        drift = {
            name: value
            for name, value in context.drift.items()
            if not self.families or name in self.families
        }
        level = context.false_alarm_rate / max(1, len(drift))
        alarms = [f"{name} ({value:.2g})" for name, value in drift.items() if value < level]
        figures = {f"drift {name}": value for name, value in drift.items() if value == value}
        if not figures:
            reason = "There are too few batches yet to say what is drift."
        elif alarms:
            reason = (
                f"Drift of {', '.join(alarms)}: an unchanged batch differs so much less often than "
                f"{level:.2g}."
            )
        else:
            reason = (
                "No drift: an unchanged batch would differ as much with probability "
                f"{min(figures.values()):.2g}."
            )
        return Decision(bool(alarms), reason, figures)


class OnDecay(Policy):
    """When the champion has become worse. Sees only what matters, but only when labels show it, and
    not what fresher data would bring.

    `detector`: `k_of_n` (its loss was above `tolerance` times that at its promotion on `k` of the
    newest `n` batches), or `adwin` or `page_hinkley` on the losses of single blocks of time (Bifet
    and Gavalda 2007; Page 1954), by river. For `k_of_n` the loss at promotion is adjusted to each
    batch's baseline loss: one on which a constant prediction loses more as well is no decay.
    """

    def __init__(
        self,
        detector: Literal["k_of_n", "adwin", "page_hinkley"] = "k_of_n",
        k: PositiveCount = 2,
        n: PositiveCount = 3,
        tolerance: Annotated[float, Ge(1), Le(10)] = 1.05,
        delta: Share = 0.002,
        **limits: Any,
    ) -> None:
        super().__init__(**limits)
        if k > n:
            raise ConfigError(
                f"`policy.k` is {k}, but must be at most `policy.n`, {n}: {k} of {n} batches can't "
                "be worse."
            )
        self.detector, self.tolerance, self.delta = detector, tolerance, delta
        self.k, self.n = k, n

    def decide(self, context: PolicyContext) -> Decision:
        if not context.scores:
            return Decision(False, "The champion has not been tried on a labelled batch yet.")
        figures = {"score": context.scores[-1].value}
        if context.expected is not None:
            figures["expected"] = context.expected
        if self.detector != "k_of_n":
            return self._stream(context, figures)
        if context.expected is None:
            return Decision(False, "The champion's loss at its promotion is not known.", figures)
        newest = context.scores[-self.n :]
        limits = [self.tolerance * context.expected_on(score) for score in newest]
        worse = sum(score.value > limit for score, limit in zip(newest, limits, strict=True))
        reason = (
            f"On {worse} of the newest {len(newest)} batches the champion lost more than "
            f"{self.tolerance:g} times its loss at promotion, {context.expected:.4f}, adjusted to "
            f"the baseline loss of each batch ({limits[-1]:.4f} on the newest one, where it lost "
            f"{newest[-1].value:.4f}); {self.k} of {self.n} are needed."
        )
        figures |= {"worse_batches": worse, "limit": limits[-1]}
        return Decision(worse >= self.k, reason, figures)

    def _stream(self, context: PolicyContext, figures: dict[str, float]) -> Decision:
        losses = [loss for score in context.scores for loss in (score.blocks or (score.value,))]
        detector: Any = (
            river.drift.ADWIN(delta=self.delta, clock=1, min_window_length=3, grace_period=5)
            if self.detector == "adwin"
            else river.drift.PageHinkley(
                min_instances=5, delta=0.005, threshold=self.delta * 50, mode="up"
            )
        )
        found, before = None, 0.0
        for number, loss in enumerate(losses):
            detector.update(loss)
            if detector.drift_detected and loss >= before:
                found = number
            before = (before * number + loss) / (number + 1)
        what = "no rise" if found is None else f"a rise at block {found + 1}"
        reason = f"{self.detector} found {what} of the champion's loss in {len(losses)} blocks."
        return Decision(found is not None, reason, figures | {"blocks": len(losses)})


class CostAware(Policy):
    """When a retraining costs less than staying stale. `retraining_cost` is what a retraining must
    save to be worth it, in units of the loss over one batch; put in what your computing, reviewing
    and risk are worth.

    What staying stale costs is forecast (`retrain.monitoring.forecast`) from how old the champion
    is, how much more a new model would know, and how much worse the champion has become; how much
    each counts is estimated from what earlier retrainings brought. `prior_staleness_rate` (loss a
    batch of age; null: STALENESS_RATE times the champion's loss) and `prior_value_of_data` (loss
    times batches; null: VALUE_OF_DATA times) are what it begins with; `retrain backtest --adopt`
    measures them. Of all plans for the next `horizon_batches` the cheapest is followed for one
    batch, then planned again. Batches known are those that have come, also for strategies that use
    a part of them. Costs are those of Mahadevan and Mathioudakis (2024, "Cost-aware retraining for
    machine learning") and of Regol et al. (ICML 2025, "When to retrain a machine learning model").
    """

    # Chosen on the histories in docs/backtests.md.
    STALENESS_RATE, VALUE_OF_DATA, PERSISTENCE, NOISE = 0.0064, 0.386, 0.644, 0.05
    LEAST_SPREAD = 0.2  # of these: a prior that was measured as zero is not certain

    def __init__(
        self,
        retraining_cost: NonNegative,
        horizon_batches: Annotated[int, Ge(1), Le(1000)] = 8,
        prior_staleness_rate: NonNegative | None = None,
        prior_value_of_data: NonNegative | None = None,
        **limits: Any,
    ) -> None:
        super().__init__(**limits)
        self.retraining_cost, self.horizon = retraining_cost, horizon_batches
        self.priors = prior_staleness_rate, prior_value_of_data

    def decide(self, context: PolicyContext) -> Decision:
        forecast = self.forecast(context)
        if forecast is None:
            return Decision(False, "No loss of the champion is known that is above zero.")
        known, come, decay = context.trained_through + 1, context.newest + 1, context.decay
        keep, retrain = plan_ahead(
            forecast, known, come, decay or 0.0, self.retraining_cost, self.horizon
        )
        figures = asdict(forecast) | {
            "cost_kept": keep,
            "cost_retrained": retrain,
            "retraining_cost": self.retraining_cost,
        }
        decayed = "how much worse the champion has become is not known"
        if decay is not None:
            figures["decay"] = decay
            decayed = (
                f"of the {decay:.4f} by which the champion has become worse "
                f"{decay * forecast.persistence:.4f} would last"
            )
        more_data = forecast.value_of_data / known - forecast.value_of_data / come
        reason = (
            f"The cheapest plan for the next {self.horizon} batches that retrains now costs "
            f"{retrain:.4f} by forecast, the cheapest that waits {keep:.4f}. A batch of age costs "
            f"{forecast.staleness_rate:.5f}, a model that knows {come} batches instead of {known} "
            f"loses {more_data:.5f} less, and {decayed}, by the priors and "
            f"{len(usable(context.gains))} earlier retraining(s)."
        )
        return Decision(retrain < keep, reason, figures)

    def forecast(self, context: PolicyContext) -> Forecast | None:
        """From prior and gains; None without anything that says how large a loss is here."""
        losses = [context.expected, *(score.value for score in reversed(context.scores))]
        known = (abs(loss) for loss in losses if loss and math.isfinite(loss))
        scale = next(known, None)
        if scale is None:
            return None
        usual = (self.STALENESS_RATE * scale, self.VALUE_OF_DATA * scale, self.PERSISTENCE)
        prior = [
            default if given is None else given
            for given, default in zip((*self.priors, None), usual, strict=True)
        ]
        spread = Forecast(*(self.LEAST_SPREAD * value for value in usual))
        return fit_forecast(context.gains, Forecast(*prior), spread, self.NOISE * scale)


class _Combined(Policy):
    combine: Callable[[Iterable[bool]], bool]

    def __init__(self, policies: Annotated[Mapping[str, Any], MinLen(1)], **limits: Any) -> None:
        super().__init__(**limits)
        self.policies = {
            name: node
            if isinstance(node, Policy)
            else build(Policy, node, f"policy.policies.{name}")
            for name, node in policies.items()
        }

    def decide(self, context: PolicyContext) -> Decision:
        decisions = {
            name: policy.decide_within_limits(context) for name, policy in self.policies.items()
        }
        reasons = [
            f"{name}: {'yes' if decision.retrain else 'no'}, {decision.reason}"
            for name, decision in decisions.items()
        ]
        figures = {
            f"{name} {key}": value
            for name, decision in decisions.items()
            for key, value in decision.figures.items()
        }
        retrain = self.combine(decision.retrain for decision in decisions.values())
        return Decision(retrain, " ".join(reasons), figures)


class AnyOf(_Combined):
    """When one of several policies says so. Misses least, costs most."""

    combine = staticmethod(any)


class AllOf(_Combined):
    """When all of several policies say so: drift that also hurts, for instance."""

    combine = staticmethod(all)
