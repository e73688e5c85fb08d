"""The snapshot's history once more, as some policy, strategy and gate would have lived through it.

At each batch only what was known then counts: the policy decides, the strategy trains, the gate compares, and the champion
serves the batch that comes next.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np

from retrain.backtest.history_view import HistoryView, Losses
from retrain.backtest.model_cache import CachedFit, FitJob
from retrain.config import Config, GateConfig, build
from retrain.data.manifest import CONTENT_DIGITS
from retrain.data.windows import batches_in
from retrain.errors import PromotionError
from retrain.gate.alpha_spending import to_look
from retrain.gate.comparison import Comparison, Verdict
from retrain.gate.decision import build_checks
from retrain.gate.estimates import INCUMBENT, Estimate, jackknife
from retrain.models.strategy import Strategy
from retrain.monitoring.policy import Policy, PolicyContext, Score
from retrain.pipeline.evaluate import check_holdouts
from retrain.pipeline.loop import (
    MemoryLedger,
    TrainingPlan,
    append,
    decide,
    is_refitted,
    plan_training,
    policy_context,
)
from retrain.registry.ledger import current_champion
from retrain.registry.transitions import AuditContext
from retrain.types import ChallengerRecord, ModelRecord

T = TypeVar("T")
Simulation: TypeAlias = Generator[
    FitJob, CachedFit, T
]  # goes on as it is sent the models that it asks for
ALWAYS_PROMOTE, BETTER_POINT_ESTIMATE = (
    "always promote",
    "higher metric wins",
)  # what a gate has to be worth
MATERIAL = 0.01  # of the loss: a promotion that makes it worse by less was not wrong


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


class CachedModels:
    """The versions of one replay: fits from the cache, numbered as they are registered."""

    def __init__(self) -> None:
        self._versions: list[tuple[ModelRecord, CachedFit]] = []

    def register(self, fit: CachedFit, job: FitJob) -> ModelRecord:
        """A new version for a fit."""
        used = job.training_batches
        record = ModelRecord(
            len(self._versions) + 1,
            job.window.start.isoformat(),
            fit.until.isoformat(),
            [batch.period for batch in used],
            {batch.period: batch.content[:CONTENT_DIGITS] for batch in used},
        )
        self._versions.append((record, fit))
        return record

    def record(self, version: int) -> ModelRecord:
        return self._versions[version - 1][0]

    def load(self, version: int) -> CachedFit:
        return self._versions[version - 1][1]


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
        self.ledger, self.models = MemoryLedger(), CachedModels()

    def run(self) -> Simulation[Outcome]:
        """From the first champion to the last batch.

        Yields the job of each model that it needs, and is sent its fit.
        """
        history = self.history
        outcome = Outcome(*self.plan.names)
        yield from self._first()
        decided = history.first
        for served, newest in history.served.items():
            if newest > decided and history.takes_part(newest, newest):
                decided = newest
                outcome.events.append((yield from self._retrain(newest)))
            champion = self._champion()
            outcome.periods.append(history.batches[served].period)
            outcome.served.append(history.losses(champion, served))
            outcome.ages.append(served - champion.number)
        return outcome

    def job(self, number: int, refit: bool, base: str | None = None) -> FitJob:
        """The job of a challenger, or of its refit.

        A challenger that will be refitted predicts no further than it may be asked.
        """
        history = self.history
        # A continued one that is not promoted is never refitted: the next batch shows its worth.
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

    def _champion(self) -> CachedFit:
        serving = current_champion(self.ledger.entries())
        assert serving is not None and serving.champion is not None
        return self.models.load(serving.champion)

    def _context(self, newest: int) -> PolicyContext:
        history, champion = self.history, self._champion()
        scores = []
        for number in range(champion.number + 1, newest + 1):
            if history.takes_part(number, newest):
                losses = history.losses(champion, number, corrupted=True)
                scores.append(
                    Score(
                        history.batches[number].period,
                        losses.value,
                        blocks=losses.blocks(),
                        baseline_loss=history.difficulty(number),
                    )
                )
        return policy_context(
            self.config,
            history.known(newest),
            self.ledger.entries(),
            scores,
            _OnDemand(lambda: history.drift(newest, champion.number, champion)),
            history.expected_difficulty(champion.number),
        )

    def _plan(self, number: int) -> TrainingPlan[CachedFit]:
        known, entries = self.history.known(number), self.ledger.entries()
        return plan_training(self.config, known, entries, self.models, self.continues)

    def _first(self) -> Simulation[None]:
        """The first champion: trained on the first batches, and promoted without a gate."""
        plan, job = self._plan(self.history.first), self.job(self.history.first, refit=False)
        challenger = yield job
        trained = self._trained(plan, job, challenger, None)
        refit = self.refit(challenger)
        serving = (yield refit) if self.refits else challenger
        self._promote(trained, self._evaluate(plan, trained, challenger), serving, refit)

    def _retrain(self, newest: int) -> Simulation[Event]:
        """A batch has arrived: ask the policy, train, compare, and carry the verdict out."""
        history, champion = self.history, self._champion()
        context = self._context(newest)
        decision = self.policy.decide_within_limits(context)
        event = Event(context.period, decision.retrain, decision.reason)
        if not decision.retrain:
            return event
        try:
            plan = self._plan(newest)
        except PromotionError as error:  # nothing can be compared with the champion
            return Event(context.period, False, str(error))
        parent = self.models.load(plan.parent).key if plan.parent is not None else None
        job = self.job(newest, refit=False, base=parent)
        challenger = yield job
        event.seconds = challenger.seconds
        trained = self._trained(plan, job, challenger, context.decay)
        compared = self._evaluate(plan, trained, challenger)
        event.promoted, event.gate = compared.verdict is Verdict.promote, compared.reason
        new_version, refit = challenger, self.refit(challenger, parent)
        if self.refits and (event.promoted or not self.continues):  # also to know what was missed
            new_version = yield refit
        if is_refitted(compared.verdict, self.refits):
            event.seconds += new_version.seconds
        self._promote(trained, compared, new_version, refit)
        before = history.losses(champion, newest + 1).value
        after = history.losses(new_version, newest + 1).value
        event.wrong = event.promoted and after > before * (1 + MATERIAL)
        event.missed = not event.promoted and after < before * (1 - MATERIAL)
        return event

    def _trained(
        self,
        plan: TrainingPlan[CachedFit],
        job: FitJob,
        challenger: CachedFit,
        decay: float | None,
    ) -> ChallengerRecord:
        """What stage `train` writes."""
        window, incumbent = plan.windows.evaluation, plan.incumbent
        judging = batches_in(job.batches, window)
        content = f"{challenger.key} {incumbent.model.key if incumbent else ''} {window}"
        return ChallengerRecord(
            True,
            "",
            snapshot="",
            newest_batch=job.batches[-1].period,
            challenger=self.models.register(challenger, job),
            incumbent=incumbent.record if incumbent else None,
            evaluation_start=window.start.isoformat(),
            evaluation_end=window.end.isoformat(),
            evaluation_batches={b.period: b.content[:CONTENT_DIGITS] for b in judging},
            decay=decay,
            ledger_length=len(self.ledger.entries()),
            predictions=hashlib.sha256(content.encode()).hexdigest(),
        )

    def _evaluate(
        self, plan: TrainingPlan[CachedFit], trained: ChallengerRecord, challenger: CachedFit
    ) -> Comparison:
        """What stage `evaluate` writes; computed once for all that ask the same."""
        look = self.ledger.record_look(to_look(trained, self.plan.names[2]))
        known = self.history.verdicts
        key = (self.plan.names[2], trained.predictions, look.look, look.unseen)
        if key not in known:
            incumbent = plan.incumbent.model if plan.incumbent else None
            comparison = self.history.compare(challenger, incumbent, challenger.number)
            if incumbent is None or self.plan.gate is None:
                known[key] = self._without_gate(comparison, incumbent is None)
            elif refusal := self._holdout_refusal(trained, comparison):
                known[key] = dataclasses.replace(comparison, verdict=Verdict.keep, reason=refusal)
            else:
                known[key] = decide(comparison, look, self.specs)
        return dataclasses.replace(known[key], gate=look.gate)

    def _holdout_refusal(self, trained: ChallengerRecord, comparison: Comparison) -> str:
        """Why it can't be shown that both are compared on rows that they were not trained on."""
        assert comparison.rows_judged is not None
        try:
            check_holdouts(comparison.rows_judged[self.config.data.time_column], trained)
        except PromotionError as error:
            return str(error)
        return ""

    def _without_gate(self, comparison: Comparison, first: bool) -> Comparison:
        if first or self.plan.names[2] == ALWAYS_PROMOTE:
            return dataclasses.replace(
                comparison, verdict=Verdict.promote, reason="promoted whatever it is"
            )
        loss = self.history.loss
        better = comparison.worsening(INCUMBENT, loss).value < 0
        verdict = Verdict.promote if better else Verdict.keep
        return dataclasses.replace(
            comparison, verdict=verdict, reason=f"its {loss} is the lower one"
        )

    def _promote(
        self,
        trained: ChallengerRecord,
        compared: Comparison,
        new_version: CachedFit,
        refit: FitJob,
    ) -> None:
        """What stage `promote` does."""
        version = trained.challenger
        assert version is not None
        if is_refitted(compared.verdict, self.refits):
            version = self.models.register(new_version, refit)
        audit = AuditContext(trained.predictions[:16], "", None)
        append(self.ledger, trained, compared, version, audit)


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
