"""What a comparison measured, on the logged models, so that MLflow can rank them by it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrain.lazy import mlflow
from retrain.registry.names import fit_text, log_figures
from retrain.registry.store import Store
from retrain.registry.versions import get_version
from retrain.types import ChallengerRecord
from retrain.workspace import SNAPSHOT, current_commit

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

LONGEST_NAME = 250  # of a data set; MLflow takes 500 bytes or so


@dataclass(frozen=True)
class EvaluationSet:
    """The rows that models were compared on, as MLflow names them: equal where the rows are."""

    name: str
    digest: str
    batches: list[str]
    step: int  # how many batches there were by then

    @classmethod
    def of(cls, data: str, trained: ChallengerRecord, step: int) -> EvaluationSet:
        batches = list(trained.evaluation_batches)
        span = " to ".join(dict.fromkeys([batches[0], batches[-1]])) if batches else "rows"
        return cls(
            fit_text(f"{data} {span}", LONGEST_NAME), trained.evaluation_digest, batches, step
        )

    def log_input(self, store: Store, run_id: str) -> None:
        """Name the rows among a run's data sets, once."""
        commit = current_commit().sha
        source = {"path": str(SNAPSHOT), "batches": self.batches, "git_commit": commit}
        dataset = mlflow.entities.Dataset(self.name, self.digest, "dvc", json.dumps(source))
        context = mlflow.entities.InputTag("mlflow.data.context", "evaluation")
        store.client.log_inputs(run_id, [mlflow.entities.DatasetInput(dataset, [context])])


def log_scores(
    store: Store, version: int, scores: Mapping[str, float], rows: EvaluationSet
) -> None:
    """Scores of a version, to its run and its logged model, at the step of their batch.

    The run of a version that serves for long so holds a line over batches.
    """
    found = get_version(store, version)
    if found.run_id:
        log_figures(
            store.client,
            found.run_id,
            scores,
            rows.step,
            model_id=_logged_model(found),
            dataset=(rows.name, rows.digest),
        )


def _logged_model(version: ModelVersion) -> str | None:
    """The id of a version's logged model, which databases keep in its address alone."""
    found = re.search(r"/models/(m-[0-9a-f]+)(/|$)", version.source or "")
    return version.model_id or (found[1] if found else None)
