"""What `retrain reproduce` runs inside the worktree, with the code of the recorded commit: train, compare, print JSON."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

import numpy as np

from retrain.config import feature_types, load_params
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window
from retrain.errors import DataError, RetrainError
from retrain.models.metrics import row_loss_for
from retrain.models.model_files import load_model
from retrain.models.scoring import Model, score_rows
from retrain.models.strategy import ParentModel
from retrain.models.training import train, with_selected_strategy
from retrain.workspace import SNAPSHOT


def train_again(
    trained_until: str, model: Path, sha256: str, digest: str, more: dict | None = None
) -> dict:
    """Both models' predictions on the newest labelled batch, compared bit for bit.

    `more` says of the version that it was continued from where its `model` lies, its `sha256` and `trained_until`, and of
    a refit which of several strategies it carries out (`choice`).

    Raises DataError when the snapshot is not the one that was recorded.
    """
    config = load_params()
    snapshot = SnapshotStore(SNAPSHOT)
    manifest = snapshot.manifest()
    if manifest.digest != digest:
        raise DataError(f"The snapshot has digest {manifest.digest}, and {digest} was recorded.")
    more, base = more or {}, None
    if "model" in more:
        earlier = load_model(Path(more["model"]), config.trusted_types, more["sha256"])
        base = ParentModel(
            Model(earlier, feature_types(config)), datetime.fromisoformat(more["trained_until"])
        )
    training = train(
        with_selected_strategy(config, more.get("choice", "")),
        manifest,
        snapshot,
        Window(datetime.min, datetime.fromisoformat(trained_until)),
        base,
    )
    registered = load_model(model, config.trusted_types, sha256)
    newest = manifest.labelled[-1].period
    rows = snapshot.read([newest])
    features = feature_types(config)
    models = {"now": Model(training.pipeline, features), "then": Model(registered, features)}
    scored = score_rows(models, rows, config)
    now, then = scored.scores["now"], scored.scores["then"]
    return {
        "identical": bool(np.array_equal(now, then)),
        "different": int((now != then).reshape(len(rows), -1).any(axis=1).sum()),
        "largest": float(np.abs(now - then).max()),
        "rows": len(rows),
        "batches": [newest],
        "metric": row_loss_for(config.data.metric, config.data.task),
        "value": scored.loss("now", config),
    }


if __name__ == "__main__":
    until, path, recorded, snapshot_digest, *more = sys.argv[1:]
    try:
        print(
            json.dumps(
                train_again(until, Path(path), recorded, snapshot_digest, *map(json.loads, more))
            )
        )
    except RetrainError as error:
        sys.exit(str(error))
