"""What a report is about: the four results of a retraining, and what has changed since the
champion."""

from __future__ import annotations

from dataclasses import dataclass, field

from retrain.gate.check import Outcome as CheckOutcome
from retrain.gate.comparison import Comparison
from retrain.report import formatting
from retrain.report.changes import Changes
from retrain.types import ChallengerRecord, DecisionRecord, PromotionRecord


@dataclass(frozen=True)
class Outcome:
    """The results of the stages, as they lie in `reports/`."""

    decision: DecisionRecord
    trained: ChallengerRecord
    compared: Comparison
    promotion: PromotionRecord
    changes: Changes = field(default_factory=Changes)

    @property
    def title(self) -> str:
        return f"Retraining on batch {self.trained.newest_batch}"

    @property
    def verdict(self) -> str:
        """In two or three words."""
        if not self.trained.retrained:
            return "No retraining"
        if self.promotion.candidate is not None:
            return "Passed, waits for approval"
        if self.compared.verdict == "keep" and self.promotion.champion is None:
            return "Refused"
        return formatting.VERDICTS[str(self.compared.verdict)]

    @property
    def headline(self) -> str:
        """The outcome as one sentence."""
        if self.trained.retrained:
            return formatting.headline(self.trained, self.promotion)
        champion = self.promotion.champion
        return (
            f"No challenger was trained; champion version {champion} stays."
            if champion
            else "No challenger was trained, and there is no champion."
        )

    @property
    def stopped_by(self) -> list[str]:
        """The checks that kept the challenger from being promoted."""
        fine = (CheckOutcome.passed, CheckOutcome.not_applicable)
        return [
            name
            for name, check in self.compared.checks.items()
            if check.blocks and check.outcome not in fine
        ]

    @property
    def next_steps(self) -> list[str]:
        """What a person can do now, the most urgent first; commands and keys in backticks."""
        steps = []
        held = list(self.decision.held_back)
        if held:
            shown = ", ".join(held).replace("`", "'")
            steps.append(
                f"Mend {'batch' if len(held) == 1 else 'batches'} {shown} at the source, or list "
                "what is right under `monitoring.accept` in `conf/config.yaml`; then `dvc repro`."
            )
        if self.trained.retrained:
            steps.append(self._after_verdict())
        elif not held:
            steps.append("Nothing to do until a new batch arrives: the policy looks at it then.")
        return steps

    def _after_verdict(self) -> str:
        challenger, champion = self.trained.registered.version, self.promotion.champion
        if self.promotion.candidate is not None:
            return "`retrain approve` lets it serve, if you agree."
        if self.compared.verdict == "promote":
            if self.promotion.previous is None:
                return "Nothing to do: the next batch brings a challenger to compare it with."
            return (
                "Nothing to do. If the new champion disappoints: "
                f'`retrain rollback --to {self.promotion.previous} --reason "..."`.'
            )
        override = (
            f"To let version {challenger} serve all the same: `retrain promote {challenger} "
            '--reason "..."`.'
        )
        if self.compared.verdict == "insufficient_evidence":
            return f"Wait for more labelled rows, or ask less of them in `conf/gate/`. {override}"
        look = "Look at what failed below"
        if champion is None:
            return f"{look}, then change the recipe (`conf/model/`, `data.features`). {override}"
        return f"{look}; a new batch or another recipe makes the next challenger. {override}"
