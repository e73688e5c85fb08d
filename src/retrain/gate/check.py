"""The base class of checks, the questions that a gate asks, and what a check returns."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from retrain.renamed import renamed_method

if TYPE_CHECKING:
    from retrain.gate.comparison import Comparison


class Outcome(enum.StrEnum):
    """`not_applicable`: the question does not arise. `insufficient`: the rows can't answer it."""

    passed = "passed"
    failed = "failed"
    not_applicable = "not_applicable"
    insufficient = "insufficient"

    @classmethod
    def of(cls, passed: bool) -> Outcome:
        """Passed or failed."""
        return cls.passed if passed else cls.failed


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes
    ----------
    outcome, reason
        What, and why, as a sentence.
    figures
        The numbers behind it, by name.
    warning
        What it could not look at; empty where there is nothing of the kind.
    blocks
        Whether it can stop a promotion: the gate sets that.
    """

    outcome: Outcome
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)
    warning: str = ""
    blocks: bool = True


class Check(ABC):
    """One question of the gate about a comparison.

    Subclass it, write `evaluate`, and name it in a file of conf/gate/, such as
    `checks: {new_rows: {_target_: project.extensions.NewEnough, minimum_share: 0.5}}`.

    Attributes
    ----------
    compares
        Whether it compares the challenger with the incumbent or the baseline: only such a check can
        be the primary one.
    metric, loss
        To be measured for it, and a loss of single rows; None for the primary metric and its loss.
    columns
        That the evaluation rows have to carry; None for all categorical and boolean features.

    Examples
    --------
    >>> class FewFlips(Check):
    ...     def __init__(self, most_rows: int) -> None:
    ...         self.most_rows = most_rows
    ...
    ...     def evaluate(self, comparison: Comparison) -> CheckResult:
    ...         passed = comparison.rows <= self.most_rows
    ...         return CheckResult(Outcome.of(passed), f"{comparison.rows} rows")
    """

    compares: bool = False
    metric: str | None = None
    loss: str | None = None
    columns: tuple[str, ...] | None = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        renamed_method(cls, "judge", "evaluate")

    @abstractmethod
    def evaluate(self, comparison: Comparison) -> CheckResult:
        """What the check finds.

        Parameters
        ----------
        comparison
            How the models did on the evaluation rows: `rows`, `blocks`, `unseen`, `facts`;
            `score(model, metric)` of the challenger, incumbent or baseline, and
            `worsening(other, metric)` of the challenger against another, each an `Estimate`.

        Returns
        -------
        CheckResult
            Such as `CheckResult(Outcome.of(passed), "why", {"bound": 0.1})`.

        Raises
        ------
        PromotionError
            Where the comparison lacks what the question needs.
        """

    def columns_among(self, known: Collection[str]) -> tuple[str, ...] | None:
        """`columns`, where a check has to know which there are. Raises ConfigError when it asks for
        another."""
        return self.columns
