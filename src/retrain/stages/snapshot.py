"""Stage `snapshot`: bring `data/snapshot` to what the source holds as of the cut-off."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

from retrain.config import Config, instantiate
from retrain.data.manifest import Batch
from retrain.data.snapshot import SnapshotStore
from retrain.data.update import update_snapshot
from retrain.project import SNAPSHOT, SOURCE_INDEX

log = logging.getLogger("retrain")


def run(config: Config) -> None:
    source = instantiate(config.data.source, "data.source")
    source.bind(config.data)
    change = update_snapshot(config.data, source, SnapshotStore(SNAPSHOT), SOURCE_INDEX, config.monitoring)
    batches = change.manifest.batches
    for what, keys in (("added", change.added), ("revised", change.revised), ("removed", change.removed)):
        if keys:
            log.info("%s batch(es) %s: %s", len(keys), what, ", ".join(keys))
    for period, rows in change.row_changes.items():
        log.info(
            "Batch %s was corrected: %s. Versions that were trained on the old rows: `retrain status`.", period, rows
        )
    unknown = set(config.monitoring.release) - {batch.period for batch in batches}
    if unknown:
        log.warning("`monitoring.release` lists %s, which the snapshot does not have.", ", ".join(sorted(unknown)))
    for held, group in itertools.groupby(batches, key=lambda batch: batch.held_back):
        if held:
            for line in how_to_release(list(group)):
                log.warning("%s", line)
    if change.manifest.waiting:
        names = ", ".join(batch.period for batch in change.manifest.waiting)
        log.info("Labels of %s may still be on their way (`data.label_delay`): neither trains nor judges.", names)
    quarantined = sum(batch.quarantined_rows for batch in batches)
    unlabelled = sum(batch.unlabelled_rows for batch in batches)
    log.info(
        "Snapshot %s: %d batches, %s to %s, %s labelled rows (%s unlabelled, %s quarantined)",
        change.manifest.digest[:8],
        len(batches),
        batches[0].period,
        batches[-1].period,
        f"{sum(batch.rows for batch in batches):,}",
        f"{unlabelled:,}",
        f"{quarantined:,}",
    )


def how_to_release(batches: Sequence[Batch]) -> list[str]:
    """Why a batch, or several in a row, is held back, and the ways out; a line each."""
    first, *others = batches
    why = "; ".join(first.suspicions)
    lines = [
        f"Batch {first.period} looks broken and is held back: it neither trains nor judges. {why[0].upper()}{why[1:]} Mend it at its "
        f"source, or, if it is right, list it under `monitoring.release` in conf/config.yaml: [{first.period}]; then `dvc repro`."
    ]
    lines += [f"Batch {batch.period} as well: {'; '.join(batch.suspicions)}" for batch in others]
    if others:
        lines.append(
            f"If things have changed for good, release {first.period}: the later ones are then judged beside it."
        )
    return lines
