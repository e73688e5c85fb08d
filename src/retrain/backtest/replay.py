"""The snapshot's history once more, as some policy, strategy and gate would have lived through it.

At each batch only what was known then counts: the policy decides, the strategy trains, the gate compares, and the champion
serves the batch that comes next.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.backtest.corruptions import Corruption
from retrain.backtest.fits import Fit, Job, Workshop, chosen_by, first_number, reach_of_windows, read_batch
from retrain.backtest.judging import compare_scored, spread_classes
from retrain.config import Config, GateConfig, Task, instantiate
from retrain.data.manifest import Batch
from retrain.data.periods import parse_delay
from retrain.data.summary import BatchSummary
from retrain.data.windows import Window, block_index, block_of, plan_windows
from retrain.modeling.metrics import find_row_loss, loss_beside, monitored_loss
from retrain.modeling.pipeline import to_codes, to_target
from retrain.monitoring.drift import compare_batches
from retrain.monitoring.policies import Gain, Policy, Score, Situation
from retrain.promotion.comparison import block_codes, jackknife
from retrain.promotion.figures import BLOCK, CHALLENGER, INCUMBENT, Comparison, Estimate
from retrain.promotion.gate import Verdict, build_questions, judge

OPEN, HIGHER = "always promote", "higher metric wins"  # what a gate has to be worth
NOTABLE = 0.01  # of the loss: a promotion that makes it worse by less was not wrong
HISTORY = 24  # batches, the yardstick of drift


@dataclass(frozen=True)
class Losses:
    """A model on a batch: the sum of row losses and the rows of each block of time, both of shape (blocks,)."""

    sums: NDArray
    rows: NDArray
    rooted: bool  # the loss is the square root of the mean

    @property
    def value(self) -> float:
        return self._finish(self.sums.sum() / self.rows.sum())

    def without_blocks(self) -> NDArray:
        """The loss without each block in turn, shape (blocks,)."""
        rows = self.rows.sum() - self.rows
        left = np.divide(self.sums.sum() - self.sums, rows, out=np.full(len(rows), np.nan), where=rows > 0)
        return np.sqrt(left) if self.rooted else left

    def blocks(self) -> tuple[float, ...]:
        return tuple(self._finish(value) for value in self.sums / self.rows)

    def _finish(self, value: float) -> float:
        return math.sqrt(value) if self.rooted else float(value)


@dataclass(frozen=True)
class Champion:
    """A model that serves, or might have: what it was trained through, and the challenger that earned it its place."""

    strategy: str
    number: int
    serving: Fit
    challenger: Fit
    loss: float | None = None  # on the rows that it was promoted on


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
    ages: list[int] = field(default_factory=list)  # batches that the serving model had not learnt from
    corrupted: str = ""

    @property
    def loss(self) -> float:
        """The mean over the batches served: each counts the same."""
        return float(np.mean([losses.value for losses in self.served]))

    @property
    def estimate(self) -> Estimate:
        """The mean loss with its standard error over all blocks of time."""
        values = np.array([losses.value for losses in self.served])
        left = [self.loss + (losses.without_blocks() - losses.value) / len(values) for losses in self.served]
        if len(values) > 1 and not all(np.isfinite(part).all() for part in left):  # a block a batch: leave out batches
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


class History:
    """What a replay needs to know about the batches, each read once: rows to judge on, losses of models, drift between batches."""

    def __init__(
        self,
        config: Config,
        batches: Sequence[Batch],
        summaries: Sequence[BatchSummary],
        workshop: Workshop,
        corruptions: Mapping[str, Corruption] | None = None,
        hidden: frozenset[str] = frozenset(),
        metrics: Sequence[str] = (),
    ) -> None:
        """`hidden`: corrupted batches that the monitor holds back. `metrics`: all that any gate will ask for."""
        self.config, self.batches, self.summaries, self.workshop = config, tuple(batches), list(summaries), workshop
        self.corruptions, self.hidden = dict(corruptions or {}), hidden
        self.first = first_number(config, batches)
        self.reach = reach_of_windows(config, batches, self.first)
        self.loss = monitored_loss(config.data.metric, config.data.task)
        self.row_loss = find_row_loss(loss_beside(config.data.metric, config.data.task))
        self.rooted = self.loss == "rmse"
        self.metrics = tuple(dict.fromkeys([self.loss, *metrics]))
        self._rows: dict[tuple[int, bool], pl.DataFrame] = {}
        self._losses: dict[tuple[str, int, bool], Losses] = {}
        self._drift: dict[tuple[int, int], dict[str, float]] = {}
        self._comparisons: dict[tuple[str, str, int], Comparison] = {}
        self.verdicts: dict[tuple, tuple[bool, str]] = {}

    def known(self, number: int) -> tuple[Batch, ...]:
        """The labelled batches that take part up to a number."""
        return tuple(batch for batch in self.batches[: number + 1] if batch.period not in self.hidden)

    def rows(self, number: int, corrupted: bool = False) -> pl.DataFrame:
        """The rows of a batch in time order with block; as they arrived (`corrupted`), or as they truly were."""
        key = (number, corrupted and self.batches[number].period in self.corruptions)
        if key not in self._rows:
            batch = self.batches[number]
            corruption = self.corruptions.get(batch.period) if key[1] else None
            read = read_batch(self.config, self.workshop.snapshot, batch, corruption)
            block = block_index(self.config.data.time_column, block_of(self.config.evaluation))
            self._rows[key] = read.with_columns(block.alias(BLOCK))
        return self._rows[key]

    def losses(self, fit: Fit, number: int, corrupted: bool = False) -> Losses:
        """A model on the rows of a batch as they truly were, or as they arrived (`corrupted`)."""
        corrupted = corrupted and self.batches[number].period in self.corruptions
        key = (fit.key, number, corrupted)
        if key not in self._losses:
            rows = Window(fit.until, datetime.max).rows(self.rows(number, corrupted), self.config.data.time_column)
            scores = self.scores(fit, number) if corrupted else fit.scores(self.batches[number].period)
            target, score = align(self.config, rows, fit, scores)
            codes = block_codes(rows)
            values = self.row_loss(target, score)
            self._losses[key] = Losses(np.bincount(codes, values), np.bincount(codes), self.rooted)
        return self._losses[key]

    def drift(self, number: int, reference: int) -> dict[str, float]:
        """How often an unchanged batch would differ as much as one does from another, in any feature and in the target."""
        key = (number, reference)
        if key not in self._drift:
            sound = [
                summary
                for batch, summary in zip(self.batches[:number], self.summaries[:number], strict=True)
                if batch.period not in self.hidden
            ]
            history = sound[-HISTORY:]
            names = (self.batches[number].period, self.batches[reference].period)
            drift = compare_batches(self.summaries[number], self.summaries[reference], history, names)
            self._drift[key] = {name: change.p_value for name, change in drift.families.items()}
        return self._drift[key]

    def compare(self, challenger: Fit, incumbent: Fit, number: int) -> Comparison:
        """The two on the evaluation window of a batch, as the pipeline compares them."""
        key = (challenger.key, incumbent.key, number)
        if key not in self._comparisons:
            batches = self.known(number)
            window = plan_windows(batches, self.config.evaluation).evaluation
            time, parts, scores = self.config.data.time_column, [], {CHALLENGER: [], INCUMBENT: []}
            for index in range(number + 1):
                if self.batches[index].period in self.hidden or self.batches[index].last_time < window.start:
                    continue
                rows = self.rows(index, corrupted=True)
                parts.append(window.rows(rows, time))
                for name, fit in ((CHALLENGER, challenger), (INCUMBENT, incumbent)):
                    times = Window(fit.until, datetime.max).rows(rows, time)[time]
                    scores[name].append(self.scores(fit, index)[(times >= window.start).to_numpy()])
            self._comparisons[key] = compare_scored(
                self.config,
                pl.concat(parts, how="diagonal_relaxed"),
                {name: np.concatenate(found) for name, found in scores.items()},
                {CHALLENGER: challenger.classes, INCUMBENT: incumbent.classes},
                challenger.baseline,
                self.metrics,
            )
        return self._comparisons[key]

    def scores(self, fit: Fit, number: int) -> NDArray:
        """What a model predicts for the rows of a batch as they arrived."""
        batch = self.batches[number]
        corruption = self.corruptions.get(batch.period)
        if corruption is None:
            return fit.scores(batch.period)
        return self.workshop.scores_of_corrupted(fit, self.config, batch, corruption)


def align(config: Config, rows: pl.DataFrame, fit: Fit, scores: NDArray) -> tuple[NDArray, NDArray]:
    """Target and scores of labelled rows as `retrain.modeling.metrics` takes them."""
    target = to_target(rows, config)
    if config.data.task is not Task.multiclass:
        return to_codes(target, [], config.data.task), scores.astype(np.float64)
    union = sorted({str(label) for label in np.unique(target)} | set(fit.classes))
    return to_codes(target, union, config.data.task), spread_classes(scores, fit.classes, union)


@dataclass(frozen=True)
class Plan:
    """A combination to live through. `gate` is None for those that are no configured gate, by name."""

    names: tuple[str, str, str]  # policy, strategy, gate
    config: Config  # with this strategy and policy
    gate: GateConfig | None


class Replay:
    """Lives through a history with one combination."""

    def __init__(self, history: History, plan: Plan) -> None:
        self.history, self.plan = history, plan
        self.config = dataclasses.replace(history.config, strategy=plan.config.strategy, policy=plan.config.policy)
        self.policy: Policy = instantiate(self.config.policy, "policy")
        self.continues = instantiate(self.config.strategy, "strategy").continues
        self.refits = plan.gate is None or plan.gate.refit
        self.questions = build_questions(plan.gate, True) if plan.gate is not None else {}

    def run(self) -> Outcome:
        """From the first champion to the last batch."""
        history = self.history
        outcome = Outcome(*self.plan.names)
        champion = self._first()
        attempts, gains, decided = [history.first], [], history.first
        for number in range(history.first, len(history.batches) - 1):
            newest = self._newest_labelled(number)
            if newest > decided and history.batches[newest].period not in history.hidden:
                decided = newest
                situation = self._situation(newest, champion, attempts, gains)
                event, champion, gain = self._decide(situation, champion, newest)
                if event.retrained:
                    attempts.append(newest)
                    gains.append(gain)
                outcome.events.append(event)
            outcome.periods.append(history.batches[number + 1].period)
            outcome.served.append(history.losses(champion.serving, number + 1))
            outcome.ages.append(number + 1 - champion.number)
        return outcome

    def _newest_labelled(self, number: int) -> int:
        """The newest batch whose labels are there when batch `number` has arrived."""
        delay, history = timedelta(seconds=parse_delay(self.config.data.label_delay)), self.history
        arrived = history.batches[number].until
        return max(
            (index for index in range(number + 1) if history.batches[index].until + delay <= arrived), default=-1
        )

    def job(self, number: int, refit: bool, base: str | None = None) -> Job:
        """The job of a challenger, or of its refit. A challenger that will be refitted predicts no further than it may be asked."""
        history = self.history
        through = None if refit or not self.refits else number + max(1, history.reach) + 1
        keep = self.continues or bool(history.corruptions)
        predicts = history.batches[:through]
        return Job(self.config, history.known(number), number, refit, predicts, history.corruptions, base, keep)

    def jobs(self) -> list[Job]:
        """All that it may ask for, where that does not depend on what happens; the first champion, where it does."""
        numbers = range(self.history.first, len(self.history.batches) - 1)
        numbers = [number for number in numbers if self.history.batches[number].period not in self.history.hidden]
        kinds = (False, True) if self.refits else (False,)
        return [self.job(number, refit) for number in (numbers[:1] if self.continues else numbers) for refit in kinds]

    def _first(self) -> Champion:
        """Trained on the first batches, and put in place without a gate."""
        number = self.history.first
        challenger = self.history.workshop.get(self.job(number, refit=False))
        serving = self.history.workshop.get(self.job(number, refit=True)) if self.refits else challenger
        loss = self.history.losses(challenger, number).value
        return Champion(self.plan.names[1], number, serving, challenger, loss)

    def _situation(self, newest: int, champion: Champion, attempts: list[int], gains: list[Gain]) -> Situation:
        history = self.history
        numbers = [n for n in range(champion.number + 1, newest + 1) if history.batches[n].period not in history.hidden]
        scores = []
        for number in numbers:
            losses = history.losses(champion.serving, number, corrupted=True)
            scores.append(Score(history.batches[number].period, losses.value, blocks=losses.blocks()))
        return Situation(
            period=history.batches[newest].period,
            newest=newest,
            trained_through=champion.number,
            new_rows=sum(history.batches[number].rows for number in numbers),
            attempts=tuple(attempts),
            scores=tuple(scores),
            expected=champion.loss,
            drift=history.drift(newest, champion.number),
            false_alarm_rate=self.config.monitoring.false_alarm_rate,
            gains=tuple(gain for gain in gains if gain is not None),
        )

    def _decide(self, situation: Situation, champion: Champion, newest: int) -> tuple[Event, Champion, Gain | None]:
        decision = self.policy.decide(situation)
        event = Event(situation.period, decision.retrain, decision.reason)
        if not decision.retrain:
            return event, champion, None
        history, workshop = self.history, self.history.workshop
        job = self.job(newest, refit=False, base=champion.serving.key if self.continues else None)
        challenger = workshop.get(job)
        event.seconds = challenger.seconds
        incumbent = champion.serving if champion.serving.until <= job.windows.evaluation.start else champion.challenger
        comparison = history.compare(challenger, incumbent, newest)
        event.promoted, event.gate = self._verdict(comparison, (challenger.key, incumbent.key, newest))
        refit = dataclasses.replace(self.job(newest, True, job.base), config=chosen_by(challenger, self.config))
        newcomer = challenger
        if self.refits and (event.promoted or not self.continues):
            newcomer = workshop.get(refit)
        if event.promoted and self.refits:
            event.seconds += newcomer.seconds
        before = history.losses(champion.serving, newest + 1).value
        after = history.losses(newcomer, newest + 1).value
        event.wrong = event.promoted and after > before * (1 + NOTABLE)
        event.missed = not event.promoted and after < before * (1 - NOTABLE)
        gain = Gain(newest - champion.number, -comparison.differences[INCUMBENT, history.loss].value)
        if event.promoted:
            loss = comparison.scores[CHALLENGER, history.loss].value
            champion = Champion(self.plan.names[1], newest, newcomer, challenger, loss)
        return event, champion, gain

    def _verdict(self, comparison: Comparison, key: tuple) -> tuple[bool, str]:
        gate = self.plan.names[2]
        if self.plan.gate is None:
            better = comparison.worsening(INCUMBENT, self.history.loss).value < 0
            return (
                gate == OPEN or better,
                "promoted whatever it is" if gate == OPEN else f"its {self.history.loss} is the lower one",
            )
        known = self.history.verdicts
        if (gate, key) not in known:
            judgement = judge(comparison, self.questions)
            known[gate, key] = judgement.verdict is Verdict.promote, judgement.reason
        return known[gate, key]


def loss_matrix(history: History, fits: Sequence[Fit]) -> NDArray:
    """The loss of each model (rows, in the order of `fits`) on each batch (columns); NaN on those that it has learnt from."""
    matrix = np.full((len(fits), len(history.batches)), np.nan)
    for row, fit in enumerate(fits):
        for number in range(fit.number + 1, len(history.batches)):
            matrix[row, number] = history.losses(fit, number).value
    return matrix


def best_sequence(matrices: Sequence[NDArray], first: int, retraining_cost: float) -> tuple[float, list[int]]:
    """The least total cost a batch that any sequence of retrainings could have had, and after which batches it retrains.

    By dynamic programming, backwards: `matrices`, one for each strategy, hold the loss of the model trained through batch i on
    batch j, shape (batches, batches). The first champion comes free; after every batch one may keep the model or pay for the
    newest one of any strategy.
    """
    stacked = np.stack(matrices)
    strategies, _, count = stacked.shape
    value = np.zeros((strategies, count))  # by serving model, what is still to come
    choices: list[NDArray] = []
    for number in range(count - 1, first, -1):  # the batch that is served
        keep = np.where(np.isnan(stacked[:, :, number]), np.inf, stacked[:, :, number]) + value
        newest = keep[:, number - 1] + retraining_cost
        best = int(np.argmin(newest))
        switch = (keep > newest[best]) & (number - 1 > first)
        choices.append(np.where(switch, best, -1))
        value = np.where(switch, newest[best], keep)
    start = int(np.argmin(value[:, first]))
    retrained, state = [], (start, first)
    for number, choice in zip(range(first + 1, count), reversed(choices), strict=True):
        if choice[state] >= 0:
            state = (int(choice[state]), number - 1)
            retrained.append(number - 1)
    return float(value[start, first]) / (count - 1 - first), retrained
