"""When to retrain. A policy of your own is a subclass of `Policy` and a YAML in `conf/policy/` that names it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from retrain.config import instantiate
from retrain.errors import ConfigError
from retrain.monitoring.policy import Decision, Policy, Situation, at_least


class Always(Policy):
    """A challenger for every snapshot. Simplest, and right while a retraining is cheap and the gate is trusted."""

    def want(self, situation: Situation) -> Decision:
        return Decision(
            True, f"Batch {situation.period} is the newest, and policy `always` retrains on every snapshot."
        )


class Never(Policy):
    """The first champion for ever: shows how a model ages. What any other policy has to be worth."""

    def want(self, situation: Situation) -> Decision:
        return Decision(False, f"Policy `never` keeps the champion, whatever batch {situation.period} says.")


class Every(Policy):
    """Every so many batches, whatever happens. Predictable costs; blind to what the batches say."""

    def __init__(self, batches: int, **limits: Any) -> None:
        super().__init__(**limits)
        self.batches = at_least(batches, 1, "batches")

    def want(self, situation: Situation) -> Decision:
        since = situation.newest - max(situation.attempts, default=situation.trained_through)
        reason = f"{since} batches since the last retraining, and policy `every` waits for {self.batches}."
        return Decision(since >= self.batches, reason, {"batches_since": since})


class OnDrift(Policy):
    """When the inputs, the target or the predictions have moved. Needs no labels; pays for changes that do not hurt, and misses
    changes of the relation itself. `families`: those that count, of features, target, predictions and whole rows; null: all."""

    def __init__(self, families: list[str] | None = None, **limits: Any) -> None:
        super().__init__(**limits)
        self.families = families

    def want(self, situation: Situation) -> Decision:
        drift = {name: value for name, value in situation.drift.items() if not self.families or name in self.families}
        level = situation.false_alarm_rate / max(1, len(drift))
        alarms = [name for name, value in drift.items() if value < level]
        figures = {f"drift {name}": value for name, value in drift.items() if value == value}
        if not figures:
            return Decision(False, "There are too few batches yet to say what is drift.", figures)
        if alarms:
            shown = ", ".join(f"{name} ({drift[name]:.2g})" for name in alarms)
            return Decision(
                True, f"Drift of {shown}: an unchanged batch differs so much less often than {level:.2g}.", figures
            )
        least = min(figures.values())
        return Decision(
            False, f"No drift: an unchanged batch would differ as much with probability {least:.2g}.", figures
        )


class OnDecay(Policy):
    """When the champion has become worse. Sees only what matters, but only when labels show it, and a hard season looks like decay.

    `detector`: `k_of_n` (its loss was above `tolerance` times that at its promotion on `k` of the newest `n` batches), or `adwin`
    or `page_hinkley` on the losses of single blocks of time (Bifet and Gavalda 2007; Page 1954), by river.
    """

    def __init__(
        self,
        detector: str = "k_of_n",
        k: int = 2,
        n: int = 3,
        tolerance: float = 1.05,
        delta: float = 0.002,
        **limits: Any,
    ) -> None:
        super().__init__(**limits)
        if detector not in ("k_of_n", "adwin", "page_hinkley"):
            raise ConfigError(f"`policy.detector` is {detector!r}, but must be k_of_n, adwin or page_hinkley.")
        self.detector, self.tolerance, self.delta = detector, tolerance, delta
        self.k, self.n = at_least(k, 1, "k"), at_least(n, k, "n")

    def want(self, situation: Situation) -> Decision:
        if not situation.scores:
            return Decision(False, "The champion has not been tried on a labelled batch yet.")
        newest = situation.scores[-1].value
        figures = {"score": newest} | ({"expected": situation.expected} if situation.expected is not None else {})
        return self._k_of_n(situation, figures) if self.detector == "k_of_n" else self._stream(situation, figures)

    def _k_of_n(self, situation: Situation, figures: dict[str, float]) -> Decision:
        if situation.expected is None:
            return Decision(
                False, "The champion's loss at its promotion is not known, so decay can't be told.", figures
            )
        limit = self.tolerance * situation.expected
        worse = sum(score.value > limit for score in situation.scores[-self.n :])
        reason = (
            f"On {worse} of the newest {min(self.n, len(situation.scores))} batches the champion lost more than {limit:.4f} "
            f"({self.tolerance:g} times its loss at promotion); {self.k} of {self.n} are needed."
        )
        return Decision(worse >= self.k, reason, figures | {"worse_batches": worse, "limit": limit})

    def _stream(self, situation: Situation, figures: dict[str, float]) -> Decision:
        from river.drift import ADWIN, PageHinkley

        losses = [loss for score in situation.scores for loss in (score.blocks or (score.value,))]
        if self.detector == "adwin":
            detector = ADWIN(delta=self.delta, clock=1, min_window_length=3, grace_period=5)
        else:
            detector = PageHinkley(min_instances=5, delta=0.005, threshold=self.delta * 50, mode="up")
        found, before = None, 0.0
        for number, loss in enumerate(losses):
            detector.update(loss)
            if detector.drift_detected and loss >= before:
                found = number
            before = (before * number + loss) / (number + 1)
        reason = (
            f"{self.detector} found the champion's loss risen at block {found + 1} of {len(losses)}."
            if found is not None
            else f"{self.detector} found no rise in the champion's losses over {len(losses)} blocks."
        )
        return Decision(found is not None, reason, figures | {"blocks": len(losses)})


class CostAware(Policy):
    """When a retraining costs less than staying stale. `retraining_cost` is what a retraining must save to be worth it, in units of
    the loss over one batch; put in what your computing, reviewing and risk are worth.

    The cost of being `age` batches old is forecast as growth * age. `growth` is learnt from what earlier retrainings brought, with
    `prior_growth` counting as much as `prior_weight` of them (`retrain backtest` measures it). A champion is replaced when its
    next batch is expected to cost more than the average of a whole cycle, retraining included, has cost so far: the optimal rule
    for a renewal process (the marginal value theorem; Charnov 1976). Costs are those of Mahadevan and Mathioudakis (2024,
    "Cost-aware retraining for machine learning") and of Regol et al. (ICML 2025, "When to retrain a machine learning model").
    """

    def __init__(
        self, retraining_cost: float, prior_growth: float | None = None, prior_weight: float = 3, **limits: Any
    ) -> None:
        super().__init__(**limits)
        if retraining_cost < 0:
            raise ConfigError(f"`policy.retraining_cost` is {retraining_cost!r}, but must not be negative.")
        self.retraining_cost, self.prior_growth, self.prior_weight = retraining_cost, prior_growth, prior_weight

    def want(self, situation: Situation) -> Decision:
        growth = self.growth(situation)
        if growth is None:
            return Decision(True, "No retraining has shown yet what it brings, so one is tried.")
        age = situation.age  # on the batch that comes next
        next_excess = growth * (age + 1) - growth
        so_far = sum(growth * number for number in range(age))
        average = (self.retraining_cost + so_far) / max(1, age)
        figures = {
            "growth": growth,
            "next_excess": next_excess,
            "average_cost": average,
            "retraining_cost": self.retraining_cost,
        }
        reason = (
            f"Being {age} batches old is expected to cost {next_excess:.4f} on the next batch ({growth:.5f} a batch of age); a cycle "
            f"of {age} batches with its retraining costs {average:.4f} a batch on average."
        )
        return Decision(next_excess >= average and next_excess > 0, reason, figures)

    def growth(self, situation: Situation) -> float | None:
        """Loss that each batch of age adds: least squares through the origin; None without a prior or a single gain."""
        gains = [gain for gain in situation.gains if gain.age > 0]
        products = sum(gain.age * gain.value for gain in gains)
        squares = sum(gain.age**2 for gain in gains)
        if self.prior_growth is not None:
            products, squares = products + self.prior_weight * self.prior_growth, squares + self.prior_weight
        return max(0.0, products / squares) if squares else None


class _Combined(Policy):
    def __init__(self, policies: Mapping[str, Any], **limits: Any) -> None:
        super().__init__(**limits)
        if not policies:
            raise ConfigError("`policy.policies` names none to ask.")
        self.policies = {
            name: node if isinstance(node, Policy) else instantiate(node, f"policy.policies.{name}")
            for name, node in policies.items()
        }

    def want(self, situation: Situation) -> Decision:
        decisions = {name: policy.decide(situation) for name, policy in self.policies.items()}
        shown = " ".join(
            f"{name}: {'yes' if decision.retrain else 'no'}, {decision.reason}" for name, decision in decisions.items()
        )
        figures = {
            f"{name} {key}": value for name, decision in decisions.items() for key, value in decision.figures.items()
        }
        return Decision(self.combine([decision.retrain for decision in decisions.values()]), shown, figures)

    @staticmethod
    @abstractmethod
    def combine(answers: list[bool]) -> bool:
        """One answer of several."""


class AnyOf(_Combined):
    """When one of several policies says so. Misses least, costs most."""

    @staticmethod
    def combine(answers: list[bool]) -> bool:
        return any(answers)


class AllOf(_Combined):
    """When all of several policies say so: drift that also hurts, for instance."""

    @staticmethod
    def combine(answers: list[bool]) -> bool:
        return all(answers)
