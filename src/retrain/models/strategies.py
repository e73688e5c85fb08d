"""How to retrain. A strategy of your own is a subclass of `Strategy` and a YAML in `conf/strategy/`
that names it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl
from annotated_types import Gt, Le, MinLen

from retrain.config import Config, Task, build, feature_types
from retrain.data.manifest import Batch
from retrain.data.windows import LARGEST_SHARE, Window
from retrain.errors import ConfigError, ModelError
from retrain.lazy import sklearn
from retrain.models import continuing
from retrain.models.continued import Continuing
from retrain.models.from_scratch import FitResult, from_scratch
from retrain.models.metrics import row_loss_for
from retrain.models.out_of_core import Sample as Sample
from retrain.models.out_of_core import Streaming as Streaming
from retrain.models.parent import ParentModel
from retrain.models.scoring import Model, score_rows
from retrain.models.strategy import Strategy
from retrain.models.training_set import TrainingSet
from retrain.ranges import Duration, Positive, PositiveCount, Share

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


class Full(Strategy):
    """All history. Most rows, steadiest; slow to follow when the relation itself changes."""


class SlidingWindow(Strategy):
    """The newest `batches`, or those that reach back no further than `duration` (`90d`, `12h`,
    `8w`) from the newest row.

    Follows change quickly; forgets seasons that lie further back.
    """

    def __init__(
        self, batches: PositiveCount | None = None, duration: Duration | None = None
    ) -> None:
        if (batches is None) == (duration is None):
            raise ConfigError("`strategy` needs either `batches` or `duration`, and not both.")
        self.batches, self.duration = batches, duration

    def select(self, batches: Sequence[Batch], base: ParentModel | None = None) -> list[Batch]:
        if self.duration is None:
            return list(batches[-(self.batches or 1) :])
        since = batches[-1].span[1] - _duration(self.duration)
        return [batch for batch in batches if batch.span[1] >= since]


class Recency(Strategy):
    """All history, older rows weighing less: half as much for every `half_life` batches that they
    are older."""

    def __init__(self, half_life: Positive) -> None:
        self.half_life = half_life

    def check(self, config: Config) -> None:
        estimator = continuing.find_class(config)
        if not sklearn.utils.validation.has_fit_parameter(estimator, "sample_weight"):
            raise ConfigError(
                f"`strategy` Recency weighs rows, and `model.estimator` ({estimator.__name__}) "
                "takes no weights.",
                hint="choose another model, or `strategy=sliding_window`",
            )

    def fit(self, training_set: TrainingSet) -> FitResult:
        times = training_set.rows[training_set.config.data.time_column]
        starts = pl.Series([batch.span[0] for batch in training_set.batches], dtype=times.dtype)
        ages = len(starts) - starts.search_sorted(times, side="right").to_numpy()
        weights = 0.5 ** (ages / self.half_life)
        return from_scratch(training_set.rows, training_set.config, weights)


class WarmStart(Continuing):
    """The base's weights are the start: `passes` over the new rows with `partial_fit`, or `trees`
    more for forests and boosting."""

    def __init__(self, passes: PositiveCount = 1, trees: PositiveCount = 20) -> None:
        self.passes, self.trees = passes, trees

    def check(self, config: Config) -> None:
        continuing.check_continuable(config)

    def continue_from(self, base: ParentModel, new: pl.DataFrame, config: Config) -> Pipeline:
        return continuing.continue_fit(base.model.pipeline, new, config, self.passes, self.trees)


class Replay(WarmStart):
    """As a warm start, on the new rows mixed with `old_share` times as many rows drawn from all
    before: against forgetting."""

    def __init__(
        self, passes: PositiveCount = 1, trees: PositiveCount = 20, old_share: Positive = 1.0
    ) -> None:
        super().__init__(passes, trees)
        self.old_share = old_share

    def select(self, batches: Sequence[Batch], base: ParentModel | None = None) -> list[Batch]:
        return list(batches)

    def new_rows(self, training_set: TrainingSet, base: ParentModel) -> pl.DataFrame:
        """The new rows, and a uniform sample (Vitter's reservoir, 1985) of the old ones, shuffled
        together."""
        config, new = training_set.config, super().new_rows(training_set, base)
        old = training_set.rows.filter(pl.col(config.data.time_column) < base.trained_until)
        drawn = old.sample(min(len(old), round(self.old_share * len(new))), seed=config.seed)
        return pl.concat([drawn, new]).sample(fraction=1, shuffle=True, seed=config.seed)


class Residual(Continuing):
    """The base stays, and a small boosted model of what it gets wrong on the new rows is added.

    One Newton step of boosting, as deep as `iterations` trees with `learning_rate`. A chain of more
    than `maximum_corrections` is trained anew on all history.

    References
    ----------
    Friedman, Hastie and Tibshirani 2000, "Additive logistic regression", Annals of Statistics 28.
    """

    def __init__(
        self,
        iterations: PositiveCount = 20,
        learning_rate: Annotated[float, Gt(0), Le(1)] = 0.1,
        maximum_corrections: PositiveCount = 6,
    ) -> None:
        self.iterations, self.learning_rate = iterations, learning_rate
        self.maximum_corrections = maximum_corrections

    def continue_from(self, base: ParentModel, new: pl.DataFrame, config: Config) -> Pipeline:
        from retrain.models.correcting import add_correction, corrections_of

        pipeline = base.model.pipeline
        if len(corrections_of(pipeline[-1])) >= self.maximum_corrections:
            raise continuing.NotContinuable(
                f"{base.name} has {self.maximum_corrections} corrections already"
            )
        return add_correction(pipeline, new, config, self.iterations, self.learning_rate)


class Recalibrate(Continuing):
    """The base stays as it is, and only its probabilities are scaled anew on the new rows: the
    cheapest retraining.

    References
    ----------
    Platt 1999, "Probabilistic outputs for support vector machines".
    """

    def check(self, config: Config) -> None:
        if config.data.task is Task.regression:
            raise ConfigError(
                "`strategy` Recalibrate scales probabilities, and `data.task` is regression.",
                hint="choose `strategy=residual`",
            )

    def continue_from(self, base: ParentModel, new: pl.DataFrame, config: Config) -> Pipeline:
        return continuing.recalibrate(base.model.pipeline, new, config)


class BestOf(Strategy):
    """Several strategies are tried on all but the newest training rows; the one that predicts those
    best is carried out on all, and its result goes to the gate.

    The inner validation rows are the newest `validation_share` of the newest batch's training rows,
    and reach back over earlier ones to `minimum_rows`, but over no more than LARGEST_SHARE of all.
    Where that is too few to choose on, the first strategy is taken.
    """

    chooses = True

    def __init__(
        self,
        strategies: Annotated[Mapping[str, Any], MinLen(1)],
        validation_share: Share = 0.25,
        minimum_rows: PositiveCount = 1000,
    ) -> None:
        self.strategies = {
            name: node
            if isinstance(node, Strategy)
            else build(Strategy, node, f"strategy.strategies.{name}")
            for name, node in strategies.items()
        }
        self.validation_share, self.minimum_rows = validation_share, minimum_rows
        self.continues = any(strategy.continues for strategy in self.strategies.values())

    def check(self, config: Config) -> None:
        for strategy in self.strategies.values():
            strategy.check(config)

    def select(self, batches: Sequence[Batch], base: ParentModel | None = None) -> list[Batch]:
        selected = [strategy.select(batches, base) for strategy in self.strategies.values()]
        wanted = {batch.period for some in selected for batch in some}
        return [batch for batch in batches if batch.period in wanted]

    def fit(self, training_set: TrainingSet) -> FitResult:
        border = self._border(training_set)
        if border is None:
            best = next(iter(self.strategies))
            note = (
                f"Strategy {best} was taken as the first on the list: of "
                f"{len(training_set.rows):,} training rows too few can be kept to choose on "
                f"(`strategy.minimum_rows`: {self.minimum_rows:,})."
            )
        else:
            best, note = self._choose(training_set, border)
        final = run_strategy(self.strategies[best], training_set)
        return dataclasses.replace(final, note=f"{note} {final.note}".strip(), choice=best)

    def _border(self, training_set: TrainingSet) -> datetime | None:
        """Where the inner validation rows begin; None where they would be too few, or leave too few
        to train on."""
        times = training_set.rows[training_set.config.data.time_column].sort()
        in_newest = int((times >= training_set.batches[-1].span[0]).sum())
        wanted = max(self.minimum_rows, math.ceil(in_newest * self.validation_share))
        most = len(times) * LARGEST_SHARE
        border: datetime | None = times[len(times) - wanted] if wanted <= most else None
        # Rows of one time stay on one side.
        return border if border is not None and (times >= border).sum() <= most else None

    def _choose(self, training_set: TrainingSet, border: datetime) -> tuple[str, str]:
        """The name of the best on the rows from the border on, trained on those before it, and what
        a person should know."""
        config, window = training_set.config, training_set.window
        shorter = training_set.holding(training_set.batches, Window(window.start, border))
        validation = Window(border, window.end).rows(training_set.rows, config.data.time_column)
        losses = {}
        for name, strategy in self.strategies.items():
            model = Model(run_strategy(strategy, shorter).pipeline, feature_types(config))
            losses[name] = score_rows({name: model}, validation, config).loss(name, config)
        best = min(losses, key=lambda name: losses[name])
        loss = row_loss_for(config.data.metric, config.data.task)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        rows = f"{len(validation):,} inner validation rows"
        return best, f"Strategy {best} did best on {rows} ({loss}: {shown})."


def run_strategy(strategy: Strategy, training_set: TrainingSet) -> FitResult:
    """Carry a strategy out on its part of a training set; on all of it from scratch when the base
    proves not to be continuable.

    Raises
    ------
    ModelError
        If the estimator refuses rows or parameters.
    """
    base = training_set.base
    part = training_set.holding(strategy.select(training_set.batches, base))
    try:
        if not part.batches and base is not None:
            raise continuing.NotContinuable(f"no rows have come since {base.name}")
        result = strategy.fit(part)
    except continuing.NotContinuable as error:
        assert base is not None
        part = dataclasses.replace(training_set, base=dataclasses.replace(base, refusal=str(error)))
        result = strategy.fit(part)
    except ValueError as error:  # of scikit-learn, about rows or parameters
        raise ModelError(
            f"`strategy` {type(strategy).__name__} can't train this `model` on these rows: {error}",
            hint="mend conf/model/, or choose another",
        ) from error
    return result if result.batches else dataclasses.replace(result, batches=part.batches)


def _duration(text: str) -> timedelta:
    number, unit = int(text.strip()[:-1]), text.strip()[-1]
    return number * {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}[unit]
