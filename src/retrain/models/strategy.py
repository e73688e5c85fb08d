"""The base class of strategies, which say how to retrain."""

from __future__ import annotations

from collections.abc import Sequence

from retrain.config import Config
from retrain.data.manifest import Batch
from retrain.models.from_scratch import FitResult, from_scratch
from retrain.models.parent import ParentModel
from retrain.models.training_set import TrainingSet


class Strategy:
    """How to retrain: which batches a challenger is trained on, and how. `conf/strategy/` names
    one.

    Most strategies only `select`. The arguments of `__init__` are the keys of the YAML file; their
    types and ranges (`retrain.ranges`) are checked when `conf/` is composed.

    Attributes
    ----------
    continues
        Whether it continues an earlier version, which is then loaded for it.
    streams
        Whether it reads batches one by one, and again, instead of keeping them.
    chooses
        Whether it selects one of several strategies, which a refit then repeats.

    Examples
    --------
    >>> class Newest(Strategy):
    ...     def __init__(self, batches: int) -> None:
    ...         self.batches = batches
    ...
    ...     def select(self, batches, base=None):
    ...         return list(batches[-self.batches :])
    >>> Newest(2).select(["2013-01", "2013-02", "2013-03"])
    ['2013-02', '2013-03']
    """

    continues: bool = False
    streams: bool = False
    chooses: bool = False

    def check(self, config: Config) -> None:
        """Raises ConfigError where the configured model can't be trained this way."""

    def select(self, batches: Sequence[Batch], base: ParentModel | None = None) -> list[Batch]:
        """The batches to train on: all of them, unless a strategy says otherwise.

        Parameters
        ----------
        batches
            Those that begin before the evaluation window, oldest first. What of them lies inside it
            is left out later.
        base
            The model to continue from; only where `continues` is set.

        Returns
        -------
        list of Batch
            Some of them, oldest first.
        """
        return list(batches)

    def fit(self, training_set: TrainingSet) -> FitResult:
        """A model of the selected batches: trained from scratch, unless a strategy says otherwise.

        Parameters
        ----------
        training_set
            `rows` at once, or `parts()` batch by batch: keys, time, features and target, all before
            the evaluation window; `batches`, `window` and `config`; `base`, the model to continue.

        Returns
        -------
        FitResult
            The fitted Pipeline, the number of its rows, and a `note` for people.
        """
        return from_scratch(training_set.rows, training_set.config)
