"""The snapshot's history once more, with some policy, strategy and gate.

At each batch only what was known then counts: the policy decides, the strategy trains, the gate
compares, and the champion serves the batch that comes next.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import UserDict
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TypeAlias, TypeVar

from retrain.backtest.history_view import HistoryView
from retrain.backtest.model_cache import CachedFit, FitJob
from retrain.backtest.outcome import Event, Outcome, Plan
from retrain.config import build
from retrain.data.manifest import CONTENT_DIGITS, Batch
from retrain.data.windows import batches_in
from retrain.errors import PromotionError
from retrain.gate.alpha_spending import to_look
from retrain.gate.comparison import Comparison, Verdict
from retrain.gate.decision import build_checks
from retrain.gate.estimates import INCUMBENT
from retrain.models.strategy import Strategy
from retrain.models.training import with_selected_strategy
from retrain.monitoring.policy import Policy, PolicyContext
from retrain.pipeline.evaluate import check_holdouts
from retrain.pipeline.loop import append, decide, is_refitted, plan_training
from retrain.pipeline.plan import TrainingPlan
from retrain.pipeline.policy_context import policy_context
from retrain.pipeline.stores import MemoryLedger
from retrain.registry.entries import current_champion
from retrain.registry.transitions import AuditContext, Promotion
from retrain.types import ChallengerRecord, ModelRecord, Score

T = TypeVar("T")
# Goes on when it is sent the models that it asks for.
Simulation: TypeAlias = Generator[FitJob, CachedFit, T]
# Gates that are compared with: they are not configured.
ALWAYS_PROMOTE, BETTER_POINT_ESTIMATE = "always promote", "higher metric wins"
MATERIAL = 0.01  # of the loss: a promotion that makes it worse by less was not wrong


class _OnDemand(UserDict[str, float]):
    """Figures that are measured when somebody looks at them: most policies never do."""

    def __init__(self, measure: Callable[[], dict[str, float]]) -> None:
        self.measure = measure

    @functools.cached_property
    def data(self) -> dict[str, float]:  # type: ignore[override]  # an attribute of UserDict
        return self.measure()


class CachedModels:
    """The versions of one replay: fits from the cache, numbered as they are registered."""

    def __init__(self) -> None:
        self.versions: list[tuple[ModelRecord, CachedFit]] = []

    def register(self, fit: CachedFit, job: FitJob) -> ModelRecord:
        """A new version for a fit."""
        contents = _contents(job.training_batches)
        span = job.window.start.isoformat(), fit.until.isoformat()
        record = ModelRecord(len(self.versions) + 1, *span, list(contents), contents)
        self.versions.append((record, fit))
        return record

    def record(self, version: int) -> ModelRecord:
        return self.versions[version - 1][0]

    def load(self, version: int) -> CachedFit:
        return self.versions[version - 1][1]


class Replay:
    """Replays a history with one combination."""

    def __init__(self, history: HistoryView, plan: Plan) -> None:
        self.history, self.plan = history, plan
        own = {name: getattr(plan.config, name) for name in ("strategy", "policy", "code")}
        self.config = dataclasses.replace(history.config, **own)
        self.policy = build(Policy, self.config.policy, "policy")
        self.strategy = build(Strategy, self.config.strategy, "strategy")
        self.continues = self.strategy.continues
        self.refits = plan.gate is None or plan.gate.refit
        self.specs = build_checks(plan.gate, True, self.config.data) if plan.gate else {}
        self.ledger, self.models = MemoryLedger(), CachedModels()

    def run(self) -> Simulation[Outcome]:
        """From the first champion to the last batch.

        Yields the job of each model that it needs, and is sent its fit.
        """
        history, outcome = self.history, Outcome(*self.plan.names)
        decided = history.first
        yield from self._train(decided, Event("", True, ""), None)
        for served, newest in history.served.items():
            if newest > decided and history.takes_part(newest, newest):
                decided = newest
                outcome.events.append((yield from self._arrive(newest)))
            champion = self._champion()
            outcome.periods.append(history.batches[served].period)
            outcome.served.append(history.losses(champion, served))
            outcome.ages.append(served - champion.number)
        return outcome

    def job(self, number: int, refit: bool, parent: str | None = None) -> FitJob:
        """The job of a challenger, or of its refit.

        A challenger that will be refitted predicts no further than it may be asked.
        """
        history = self.history
        # A continued one that is not promoted is never refitted: the next batch shows its worth.
        reach = max(1, history.reach) if self.continues else history.reach
        serves = refit or not self.refits
        return FitJob(
            self.config,
            history.known(number),
            number,
            refit,
            history.batches[: None if serves else number + reach + 1],
            history.corruptions,
            parent,
            keep_model=self.continues or bool(history.corruptions),
            serves=serves,
        )

    def refit(self, challenger: CachedFit, parent: str | None = None) -> FitJob:
        """The job of the model that serves once a challenger is promoted."""
        config = with_selected_strategy(self.config, challenger.choice)
        return dataclasses.replace(self.job(challenger.number, True, parent), config=config)

    def jobs(self) -> list[FitJob]:
        """What it will ask for whatever happens."""
        history = self.history
        numbers = [number for number in history.decided if history.takes_part(number, number)]
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
                losses = history.losses(champion, number, history.corruption(number))
                score = Score(
                    history.batches[number].period,
                    losses.value,
                    blocks=losses.blocks,
                    baseline_loss=history.baseline_loss(number),
                )
                scores.append(score)
        return policy_context(
            self.config,
            history.known(newest),
            self.ledger.entries(),
            scores,
            _OnDemand(lambda: history.drift(newest, champion.number, champion)),
            history.expected_baseline_loss(champion.number),
        )

    def _arrive(self, newest: int) -> Simulation[Event]:
        """A batch has arrived: ask the policy, train, compare, and carry the verdict out."""
        history, champion, context = self.history, self._champion(), self._context(newest)
        decision = self.policy.decide_within_limits(context)
        event = Event(context.period, decision.retrain, decision.reason)
        if not decision.retrain:
            return event
        try:
            new_version = yield from self._train(newest, event, context.decay)
        except PromotionError as error:  # nothing can be compared with the champion
            return Event(context.period, False, error.message)
        before = history.losses(champion, newest + 1).value
        after = history.losses(new_version, newest + 1).value
        event.wrong = bool(event.promoted) and after > before * (1 + MATERIAL)
        event.missed = not event.promoted and after < before * (1 - MATERIAL)
        return event

    def _train(self, newest: int, event: Event, decay: float | None) -> Simulation[CachedFit]:
        """What stages `train`, `evaluate` and `promote` do, noted in the event. Returns the version
        that serves or would have served."""
        known, entries = self.history.known(newest), self.ledger.entries()
        plan = plan_training(self.config, known, entries, self.models, self.continues)
        parent = self.models.load(plan.parent).model if plan.parent is not None else None
        job = self.job(newest, refit=False, parent=parent)
        challenger = yield job
        trained = self._trained(plan, job, challenger, decay)
        compared = self._evaluate(plan, trained, challenger)
        event.promoted = compared.verdict is Verdict.promote
        event.gate, event.seconds = compared.reason, challenger.seconds
        new_version, refit = challenger, self.refit(challenger, parent)
        if self.refits and (event.promoted or not self.continues):  # also to know what was missed
            new_version = yield refit
        version = trained.registered
        if is_refitted(compared.verdict, self.refits):
            event.seconds += new_version.seconds
            version = self.models.register(new_version, refit)
        audit = AuditContext(trained.predictions[:16], "", None)
        append(self.ledger, Promotion(trained, compared, version, audit))
        return new_version

    def _trained(
        self,
        plan: TrainingPlan[CachedFit],
        job: FitJob,
        challenger: CachedFit,
        decay: float | None,
    ) -> ChallengerRecord:
        """What stage `train` writes."""
        window, incumbent = plan.windows.evaluation, plan.incumbent
        content = f"{challenger.model} {incumbent.model.model if incumbent else ''} {window}"
        return ChallengerRecord(
            True,
            "",
            snapshot="",
            newest_batch=job.batches[-1].period,
            challenger=self.models.register(challenger, job),
            incumbent=incumbent.record if incumbent else None,
            evaluation_start=window.start.isoformat(),
            evaluation_end=window.end.isoformat(),
            evaluation_batches=_contents(batches_in(job.batches, window)),
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
            else:
                assert comparison.rows_judged is not None
                check_holdouts(comparison.rows_judged[self.config.data.time_column], trained)
                known[key] = decide(comparison, look, self.specs)
        return dataclasses.replace(known[key], gate=look.gate)

    def _without_gate(self, comparison: Comparison, first: bool) -> Comparison:
        loss, reason = self.history.loss, "promoted whatever it is"
        promote = first or self.plan.names[2] == ALWAYS_PROMOTE
        if not promote:
            promote = comparison.worsening(INCUMBENT, loss).value < 0
            reason = f"its {loss} is the lower one"
        verdict = Verdict.promote if promote else Verdict.keep
        return dataclasses.replace(comparison, verdict=verdict, reason=reason)


def _contents(batches: Sequence[Batch]) -> dict[str, str]:
    return {batch.period: batch.content[:CONTENT_DIGITS] for batch in batches}


def simulate(history: HistoryView, plans: Sequence[Plan]) -> list[Outcome]:
    """The outcome of each plan.

    Which models a strategy that continues or chooses will need shows on the way only: what several
    plans wait for is trained together.
    """
    models, replays = history.models, [Replay(history, plan) for plan in plans]
    # What is needed whatever happens does not depend on policy and gate, but for the refit.
    needed = {(replay.plan.names[1], replay.refits): replay for replay in replays}
    models.train(job for replay in needed.values() for job in replay.jobs())
    running: Mapping[int, Simulation[Outcome]] = dict(enumerate(replay.run() for replay in replays))
    waiting = {number: next(replay) for number, replay in running.items()}
    outcomes: dict[int, Outcome] = {}
    while waiting:
        models.train(waiting.values())
        for number, job in list(waiting.items()):
            try:
                while (fit := models.get(job)) is not None:
                    job = running[number].send(fit)
                waiting[number] = job
            except StopIteration as end:
                outcomes[number] = end.value
                del waiting[number]
    return [outcomes[number] for number in range(len(replays))]
