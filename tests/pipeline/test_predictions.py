"""What the gate is given: scores of models on the same rows."""

from __future__ import annotations

import numpy as np
import polars as pl

from retrain.config import Config
from retrain.gate.check import Outcome
from retrain.gate.estimates import BLOCK
from retrain.gate.guardrails import Slices
from retrain.gate.slices import sliced_columns
from retrain.models.scoring import Scored
from retrain.pipeline.predictions import compare_predictions, with_scores


def test_slices_are_those_of_the_features_never_of_the_target(config: Config) -> None:
    """A challenger that follows a lower share of positives is better, and worse on positives."""
    random = np.random.default_rng(0)
    late = random.random(4000) < 0.1
    rows = pl.DataFrame(
        {"late": late, "dest": random.choice(["A", "B"], 4000), BLOCK: np.arange(4000) // 400}
    )
    scores = {"challenger": np.full(4000, 0.1), "incumbent": np.full(4000, 0.3)}
    scored = Scored(late.astype(np.float64), scores, ["0", "1"], {})
    comparison = compare_predictions(
        config, with_scores(config, rows, scored, np.array([0.2])), [config.data.metric]
    )
    assert list(comparison.categories) == sliced_columns(config.data)
    result = Slices(None, None, 0.1, "relative", 0.95, 200, 5).evaluate(comparison)
    assert result.outcome is Outcome.passed and result.figures["slices"] == 2
