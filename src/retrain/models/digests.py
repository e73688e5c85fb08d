"""What shapes a model, as a digest: of its recipe, and of all that it is made of."""

from __future__ import annotations

import hashlib
import json

from retrain.config import Config, to_container
from retrain.own_code import engine_digest
from retrain.renamed import with_original_names

CANDIDATE = ("commands/candidate.py",)  # of the engine, beside what the stage `train` runs


def recipe_digest(config: Config, snapshot: str) -> str:
    """Stands for all that shapes a model: the snapshot, by its digest, and features, model,
    strategy, seed and windows in the config."""
    content = with_original_names(to_container(config))
    data = content["data"]
    shaping = [data["features"], data["task"]]
    shaping += [content[key] for key in ("model", "strategy", "seed", "evaluation")]
    shaping += [digest for group in ("model", "strategy") if (digest := config.code.get(group))]
    return hashlib.sha256(json.dumps([snapshot, shaping], sort_keys=True).encode()).hexdigest()[:16]


def candidate_digest(config: Config, snapshot: str) -> str:
    """Stands for all that shapes a candidate and its score: its recipe, the metric, and the code of
    both, the engine's included."""
    code = [config.code.get(part, "") for part in ("metric", "train")]
    parts = [recipe_digest(config, snapshot), config.data.metric, *code, engine_digest(CANDIDATE)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def model_digest(config: Config) -> str:
    """Stands for features, encoding and estimator: a model with another one can't be continued."""
    content = with_original_names(to_container(config))
    # How long a fit goes on is no part of it: what was stored before there was a choice can be
    # continued.
    content["model"].pop("choose_iterations_below", None)
    shaping = [content["data"]["features"], content["data"]["task"], content["model"]]
    return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:16]
