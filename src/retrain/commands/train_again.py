"""What `retrain reproduce` runs inside the worktree, with the code of the recorded commit: train,
compare, print JSON."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from retrain.config import feature_types, load_params
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window
from retrain.errors import DataError, RetrainError
from retrain.models.metrics import row_loss_for
from retrain.models.model_files import load_model
from retrain.models.parent import ParentModel
from retrain.models.scoring import Model, score_rows
from retrain.models.training import train, with_selected_strategy
from retrain.workspace import SNAPSHOT


def train_again(
    trained_until: str, model: Path, sha256: str, digest: str, more: dict[str, str] | None = None
) -> dict[str, Any]:
    """Both models' predictions on the newest labelled batch, compared bit for bit.

    Parameters
    ----------
    trained_until
        The end of the training rows, ISO 8601.
    model, sha256
        The registered model's file.
    digest
        The recorded snapshot.
    more
        Of the version that it was continued from, where its `model` lies, its `sha256` and
        `trained_until`; of a refit, which of several strategies it carries out (`choice`).

    Raises
    ------
    DataError
        If the snapshot is not the one that was recorded.
    """
    config, snapshot, more = load_params(), SnapshotStore(SNAPSHOT), more or {}
    manifest, features = snapshot.manifest(), feature_types(config)
    if manifest.digest != digest:
        raise DataError(f"The snapshot has digest {manifest.digest}, and {digest} was recorded.")

    def loaded(path: str | Path, recorded: str) -> Model:
        return Model(load_model(Path(path), config.trusted_types, recorded), features)

    base = None
    if "model" in more:
        until = datetime.fromisoformat(more["trained_until"])
        base = ParentModel(loaded(more["model"], more["sha256"]), until)
    window = Window(datetime.min, datetime.fromisoformat(trained_until))
    chosen = with_selected_strategy(config, more.get("choice", ""))
    fitted = train(chosen, manifest, snapshot, window, base)
    models = {"now": Model(fitted.pipeline, features), "then": loaded(model, sha256)}
    newest = manifest.labelled[-1].period
    rows = snapshot.read([newest])
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
        arguments = map(json.loads, more)
        found = train_again(until, Path(path), recorded, snapshot_digest, *arguments)
        print(json.dumps(found))
    except RetrainError as error:
        sys.exit(str(error))
