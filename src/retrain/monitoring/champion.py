"""How the champion does on the newest batch, for policies that want to know."""

from __future__ import annotations

from datetime import datetime

from retrain.config import Config
from retrain.data.manifest import Manifest
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, plan_windows
from retrain.modeling.model_files import import_first
from retrain.modeling.scoring import score_rows
from retrain.project import SNAPSHOT
from retrain.promotion.ledger import Ledger, current_champion, find_incumbent
from retrain.promotion.registry import load_version
from retrain.tracking.store import open_store


def score_champion(config: Config, manifest: Manifest) -> tuple[int | None, float | None]:
    """The champion's version, and its loss on rows of the newest batch that it wasn't trained on; None before the first.

    After a refit on this very batch its unrefitted twin is scored in its stead.
    """
    import_first()
    windows = plan_windows(manifest.labelled, config.evaluation)
    store = open_store(config)
    entries = Ledger.open(store).entries()
    champion, incumbent = current_champion(entries), find_incumbent(entries, windows.evaluation.start.isoformat())
    if champion is None or incumbent is None:
        return None, None
    unseen = Window(datetime.fromisoformat(incumbent.trained_until), windows.evaluation.end)
    newest = SnapshotStore(SNAPSHOT).read([manifest.labelled[-1].period])
    rows = unseen.rows(newest, config.data.time_column)
    model = load_version(store, incumbent.version, config.trusted_types)
    return champion.champion, score_rows({"champion": model}, rows, config).loss("champion", config)
