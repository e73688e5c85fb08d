"""The snapshot's history once more, as some policy, strategy and gate would have lived through it.

At each batch only what was known then counts: the policy decides, the strategy trains, the gate compares, and the champion
serves the batch that comes next.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, TypeVar

import numpy as np

from retrain.backtest.history_view import HistoryView, Losses
from retrain.backtest.model_cache import CachedFit, FitJob
from retrain.config import Config, GateConfig, build
from retrain.gate.alpha_spending import unseen_share
from retrain.gate.comparison import jackknife
from retrain.gate.decision import Verdict, build_checks, judge
from retrain.gate.estimates import CHALLENGER, INCUMBENT, Comparison, Estimate
from retrain.models.scoring import difficulty
from retrain.models.strategy import Strategy
from retrain.monitoring.policy import Policy, PolicyContext, RetrainingGain, Score

T = TypeVar("T")
Simulation: TypeAlias = Generator[
    FitJob, CachedFit, T
]  # goes on as it is sent the models that it asks for
ALWAYS_PROMOTE, BETTER_POINT_ESTIMATE = (
    "always promote",
    "higher metric wins",
)  # what a gate has to be worth
MATERIAL = 0.01  # of the loss: a promotion that makes it worse by less was not wrong


@dataclass(frozen=True)
class Champion:
    """A model that serves, or might have: what it was trained through, and the challenger that earned it its place."""

    strategy: str
    number: int
    serving: CachedFit
    challenger: CachedFit
    loss: float  # of the challenger, on the rows that it was promoted on
    difficulty: float  # of those rows


@dataclass
class Event:
    """What happened when a batch arrived."""

    period: str
    retrained: bool
    reason: str
    promoted: bool | None = None
    gate: str = ""
    seconds: float = 0.0
    wrong: bool = False
    missed: bool = False


@dataclass
class Outcome:
    """One combination, lived through. `served` are the losses of the batches that were served, in order."""

    policy: str
    strategy: str
    gate: str
    events: list[Event] = field(default_factory=list)
    periods: list[str] = field(default_factory=list)
    served: list[Losses] = field(default_factory=list)
    ages: list[int] = field(
        default_factory=list
    )  # batches that the serving model had not learnt from
    corrupted: str = ""

    @property
    def loss(self) -> float:
        """The mean over the batches served: each counts the same."""
        return float(np.mean([losses.value for losses in self.served]))

    @property
    def estimate(self) -> Estimate:
        """The mean loss with its standard error over all blocks of time."""
        values = np.array([losses.value for losses in self.served])
        left = [
            self.loss + (losses.without_blocks() - losses.value) / len(values)
            for losses in self.served
        ]
        if len(values) > 1 and not all(
            np.isfinite(part).all() for part in left
        ):  # a block a batch: leave out batches
            left = [(values.sum() - values) / (len(values) - 1)]
        replicates = np.concatenate([[self.loss], *left])
        return jackknife(replicates)

    @property
    def retrainings(self) -> int:
        return sum(event.retrained for event in self.events)

    @property
    def promotions(self) -> int:
        return sum(bool(event.promoted) for event in self.events)

    @property
    def seconds(self) -> float:
        return sum(event.seconds for event in self.events)

    @property
    def staleness(self) -> float:
        return float(np.mean(self.ages))

    def cost(self, retraining_cost: float) -> float:
        """Loss and retrainings together, a batch: the total cost of Mahadevan and Mathioudakis (2024), per batch."""
        return self.loss + retraining_cost * self.retrainings / len(self.served)

    def count(self, what: str) -> int:
        return sum(getattr(event, what) for event in self.events)


@dataclass(frozen=True)
class Plan:
    """A combination to live through. `gate` is None for those that are no configured gate, by name."""

    names: tuple[str, str, str]  # policy, strategy, gate
    config: Config  # with this strategy and policy
    gate: GateConfig | None


class _OnDemand(Mapping[str, float]):
    """Figures that are measured when somebody looks at them: most policies never do."""

    def __init__(self, measure: Callable[[], Mapping[str, float]]) -> None:
        self._measure = measure

    @functools.cached_property
    def _figures(self) -> Mapping[str, float]:
        return self._measure()

    def __getitem__(self, name: str) -> float:
        return self._figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)


class Replay:
    """Lives through a history with one combination."""

    def __init__(self, history: HistoryView, plan: Plan) -> None:
        self.history, self.plan = history, plan
        self.config = dataclasses.replace(
            history.config, strategy=plan.config.strategy, policy=plan.config.policy
        )
        self.policy = build(Policy, self.config.policy, "policy")
        self.strategy = build(Strategy, self.config.strategy, "strategy")
        self.continues = self.strategy.continues
        self.refits = plan.gate is None or plan.gate.refit
        self.specs = (
            build_checks(plan.gate, True, self.config.data) if plan.gate is not None else {}
        )
        self.looked_until: list[datetime] = []  # ends of the evaluation windows that were looked at

    def run(self) -> Simulation[Outcome]:
        """From the first champion to the last batch. Yields the job of each model that it needs, and is sent its fit."""
        history = self.history
        outcome = Outcome(*self.plan.names)
        champion = yield from self._first()
        attempts, gains, decided = [history.first], [], history.first
        for served, newest in history.served.items():
            if newest > decided and history.takes_part(newest, newest):
                decided = newest
                situation = self._situation(newest, champion, attempts, gains)
                event, champion, gain = yield from self._decide(situation, champion, newest)
                if gain is not None:
                    attempts.append(newest)
                    gains.append(gain)
                outcome.events.append(event)
            outcome.periods.append(history.batches[served].period)
            outcome.served.append(history.losses(champion.serving, served))
            outcome.ages.append(served - champion.number)
        return outcome

    def job(self, number: int, refit: bool, base: str | None = None) -> FitJob:
        """The job of a challenger, or of its refit. A challenger that will be refitted predicts no further than it may be asked."""
        history = self.history
        # A continued one that is kept back is never refitted: the next batch shows by itself what it was worth.
        reach = max(1, history.reach) if self.continues else history.reach
        serves = refit or not self.refits
        predicts = history.batches[: None if serves else number + reach + 1]
        keep = self.continues or bool(history.corruptions)
        return FitJob(
            self.config,
            history.known(number),
            number,
            refit,
            predicts,
            history.corruptions,
            base,
            keep,
            serves,
        )

    def refit(self, challenger: CachedFit, base: str | None = None) -> FitJob:
        """The job of the model that serves once a challenger is promoted."""
        return dataclasses.replace(
            self.job(challenger.number, True, base), config=challenger.settle(self.config)
        )

    def jobs(self) -> list[FitJob]:
        """What it will ask for whatever happens."""
        history = self.history
        numbers = [number for number in history.fit_result if history.takes_part(number, number)]
        kinds = (False, True) if self.refits and not self.strategy.chooses else (False,)
        return [
            self.job(number, refit)
            for number in (numbers[:1] if self.continues else numbers)
            for refit in kinds
        ]

    def _first(self) -> Simulation[Champion]:
        """Trained on the first batches, and put in place without a gate."""
        number = self.history.first
        job = self.job(number, refit=False)
        self.looked_until.append(job.windows.evaluation.end)
        challenger = yield job
        serving = (yield self.refit(challenger)) if self.refits else challenger
        loss = self.history.losses(challenger, number).value
        hard = self.history.difficulty(number, challenger.until)
        return Champion(self.plan.names[1], number, serving, challenger, loss, hard)

    def _situation(
        self, newest: int, champion: Champion, attempts: list[int], gains: list[RetrainingGain]
    ) -> PolicyContext:
        history = self.history
        numbers = [
            n for n in range(champion.number + 1, newest + 1) if history.takes_part(n, newest)
        ]
        scores = []
        for number in numbers:
            losses = history.losses(champion.serving, number, corrupted=True)
            hard = history.difficulty(number)
            scores.append(
                Score(
                    history.batches[number].period,
                    losses.value,
                    blocks=losses.blocks(),
                    difficulty=hard,
                )
            )
        return PolicyContext(
            period=history.batches[newest].period,
            newest=history.place(newest, newest),
            trained_through=history.place(champion.number, newest),
            new_rows=sum(history.batches[number].rows for number in numbers),
            attempts=tuple(history.place(number, newest) for number in attempts),
            scores=tuple(scores),
            expected=champion.loss,
            expected_difficulty=champion.difficulty,
            drift=_OnDemand(lambda: history.drift(newest, champion.number, champion.serving)),
            false_alarm_rate=self.config.monitoring.false_alarm_rate,
            gains=tuple(gains),
        )

    def _decide(
        self, situation: PolicyContext, champion: Champion, newest: int
    ) -> Simulation[tuple[Event, Champion, RetrainingGain | None]]:
        decision = self.policy.decide_within_limits(situation)
        event = Event(situation.period, decision.retrain, decision.reason)
        if not decision.retrain:
            return event, champion, None
        history = self.history
        job = self.job(newest, refit=False, base=champion.serving.key if self.continues else None)
        challenger = yield job
        event.seconds = challenger.seconds
        incumbent = (
            champion.serving
            if champion.serving.until <= job.windows.evaluation.start
            else champion.challenger
        )
        window = job.windows.evaluation
        unseen = unseen_share(self.looked_until, window.start, window.end)
        self.looked_until.append(window.end)
        comparison = dataclasses.replace(
            history.compare(challenger, incumbent, newest), unseen=unseen
        )
        event.promoted, event.gate = self._verdict(
            comparison, (challenger.key, incumbent.key, newest)
        )
        refits = self.refits and (event.promoted or not self.continues)
        new_version = (yield self.refit(challenger, job.base)) if refits else challenger
        if event.promoted and self.refits:
            event.seconds += new_version.seconds
        before = history.losses(champion.serving, newest + 1).value
        after = history.losses(new_version, newest + 1).value
        event.wrong = event.promoted and after > before * (1 + MATERIAL)
        event.missed = not event.promoted and after < before * (1 - MATERIAL)
        brought = -comparison.differences[INCUMBENT, history.loss].value
        known = history.place(champion.number, newest) + 1
        gain = RetrainingGain(
            known, history.place(newest, newest) + 1 - known, brought, situation.decay
        )
        if event.promoted:
            loss = comparison.scores[CHALLENGER, history.loss].value
            hard = difficulty(comparison.rows_judged, self.config)
            champion = Champion(self.plan.names[1], newest, new_version, challenger, loss, hard)
        return event, champion, gain

    def _verdict(self, comparison: Comparison, key: tuple) -> tuple[bool, str]:
        gate = self.plan.names[2]
        if self.plan.gate is None:
            better = comparison.worsening(INCUMBENT, self.history.loss).value < 0
            return (
                gate == ALWAYS_PROMOTE or better,
                "promoted whatever it is"
                if gate == ALWAYS_PROMOTE
                else f"its {self.history.loss} is the lower one",
            )
        known = self.history.verdicts
        key = (*key, comparison.unseen)
        if (gate, key) not in known:
            decision = judge(comparison, self.specs)
            known[gate, key] = decision.verdict is Verdict.promote, decision.reason
        return known[gate, key]


def simulate(
    history: HistoryView, plans: Sequence[Plan], train: Callable[[Sequence[FitJob]], object]
) -> list[Outcome]:
    """The outcome of each plan. Which models a strategy that continues or chooses will need shows on the way only: what several
    plans wait for is trained together."""
    replays = [Replay(history, plan) for plan in plans]
    # What is needed whatever happens does not depend on policy and gate, but for the refit.
    needed = {(replay.plan.names[1], replay.refits): replay for replay in replays}
    train([job for replay in needed.values() for job in replay.jobs()])
    living = {number: replay.run() for number, replay in enumerate(replays)}
    waiting = {number: next(life) for number, life in living.items()}
    outcomes: dict[int, Outcome] = {}
    while waiting:
        train([job for job in waiting.values() if history.models.get(job) is None])
        for number, job in list(waiting.items()):
            try:
                while (fit := history.models.get(job)) is not None:
                    job = living[number].send(fit)
                waiting[number] = job
            except StopIteration as end:
                outcomes[number] = end.value
                del waiting[number]
    return [outcomes[number] for number in range(len(replays))]
