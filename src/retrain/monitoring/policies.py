"""When to retrain. A policy of your own is a subclass of `Policy` and a YAML in `conf/policy/` that names it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """What is known when a policy is asked.

    `target_mean` is the share of positives or the mean of the newest batch, None with several classes; `champion_score`
    the incumbent's loss there (`retrain.modeling.metrics.loss_beside`).
    """

    newest_batch: str
    new_rows: int
    target_mean: float | None
    earlier_target_mean: float | None
    champion_version: int | None = None
    champion_score: float | None = None


@dataclass(frozen=True)
class Decision:
    """Whether to train a challenger, and why: also when the answer is no."""

    retrain: bool
    reason: str


class Policy(ABC):
    """Decides on a new snapshot. Never asked before there is a champion: the first one is always trained."""

    # Finding and scoring the champion costs some seconds of imports; a policy that doesn't look is spared them.
    needs_champion = True

    @abstractmethod
    def decide(self, evidence: Evidence) -> Decision:
        """The decision and its reason, a full sentence."""


class Always(Policy):
    """A challenger for every snapshot. Simplest, and right while a retraining is cheap and the gate is trusted."""

    needs_champion = False

    def decide(self, evidence: Evidence) -> Decision:
        return Decision(
            True, f"Batch {evidence.newest_batch} is the newest, and policy `always` retrains on every snapshot."
        )


class Never(Policy):
    """The first champion for ever: shows how a model ages. What any other policy has to be worth."""

    def decide(self, evidence: Evidence) -> Decision:
        return Decision(
            False,
            f"Policy `never` keeps version {evidence.champion_version}, whatever batch {evidence.newest_batch} says.",
        )
