"""Stage `snapshot`: bring `data/snapshot` to what the source holds as of the cut-off."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from retrain.config import Config, MonitoringConfig, build
from retrain.data.holds import is_small
from retrain.data.manifest import Batch, Manifest
from retrain.data.snapshot import SnapshotStore
from retrain.data.source import Source
from retrain.data.update import SnapshotChange, update_snapshot
from retrain.errors import DataError
from retrain.masking import mask
from retrain.types import RefusalRecord
from retrain.workspace import REFUSED, SNAPSHOT, SOURCE_INDEX

log = logging.getLogger("retrain")


def run(config: Config) -> None:
    source = build(Source, config.data.source, "data.source")
    try:
        source.bind(config.data)
        change = update_snapshot(
            config.data, source, SnapshotStore(SNAPSHOT), SOURCE_INDEX, config.monitoring
        )
    except DataError as error:
        # Kept for `retrain status`: all else stays as if nothing had been tried.
        now = datetime.now(UTC).isoformat(timespec="seconds")
        REFUSED.parent.mkdir(parents=True, exist_ok=True)
        RefusalRecord(config.data.name, now, mask(str(error))).save(REFUSED)
        raise
    REFUSED.unlink(missing_ok=True)
    _say_changes(change)
    _say_holds(config.monitoring, change.manifest.batches)
    _say_what_is_known(change.manifest)


def _say_changes(change: SnapshotChange) -> None:
    """Which batches came, went or were corrected."""
    for what, keys in (
        ("added", change.added),
        ("revised", change.revised),
        ("removed", change.removed),
    ):
        if keys:
            log.info("%s batch(es) %s: %s", len(keys), what, ", ".join(keys))
    for period, corrected in change.row_changes.items():
        log.info(
            "Batch %s was corrected: %s. Versions that were trained on the old rows: `retrain "
            "status`.",
            period,
            corrected,
        )


def _say_holds(monitoring: MonitoringConfig, batches: Sequence[Batch]) -> None:
    """Which batches are on hold or have been accepted, and what to do about it."""
    for key, listed in (("accept", monitoring.accept), ("hold", monitoring.hold)):
        unknown = set(listed) - {batch.period for batch in batches}
        if unknown:
            log.warning(
                "`monitoring.%s` lists %s, which the snapshot does not have.",
                key,
                ", ".join(sorted(unknown)),
            )
    for held, group in itertools.groupby(batches, key=lambda batch: batch.on_hold):
        if held:
            for line in how_to_accept(list(group), monitoring.accept_after):
                log.warning("%s", line)
    for _, group in itertools.groupby(
        (batch for batch in batches if batch.confirmed_by and not batch.accepted),
        key=lambda batch: batch.confirmed_by,
    ):
        log.warning("%s", how_to_hold_again(list(group)))


def _say_what_is_known(manifest: Manifest) -> None:
    """The rows that there are, and those that are not there yet."""
    batches = manifest.batches
    if is_small(batches[-1]):
        rows = batches[-1].rows + batches[-1].unlabelled_rows
        log.info(
            "Batch %s has %d rows so far, too few to tell whether it looks broken.",
            batches[-1].period,
            rows,
        )
    if manifest.waiting:
        names = ", ".join(batch.period for batch in manifest.waiting)
        log.info(
            "Labels of %s may still be on their way (`data.label_delay`): neither trains nor "
            "judges.",
            names,
        )
    quarantined = sum(batch.quarantined_rows for batch in batches)
    unlabelled = sum(batch.unlabelled_rows for batch in batches)
    log.info(
        "Snapshot %s: %d batches, %s to %s, %s labelled rows (%s unlabelled, %s quarantined)",
        manifest.digest[:8],
        len(batches),
        batches[0].period,
        batches[-1].period,
        f"{sum(batch.rows for batch in batches):,}",
        f"{unlabelled:,}",
        f"{quarantined:,}",
    )


def how_to_accept(batches: Sequence[Batch], accept_after: int | None) -> list[str]:
    """Why a batch, or several in a row, is on hold, and the ways out; a line each."""
    first, *others = batches
    why = first.why_on_hold
    if first.held_by_hand:
        way_out = (
            "Take it off `monitoring.hold` in conf/config.yaml to use "
            f"it{' again' if first.anomalies else ''}"
        )
    else:
        way_out = (
            "Mend it at its source, or, if it is right, list it under `monitoring.accept` in "
            f"conf/config.yaml: [{first.period}]"
        )
    lines = [
        f"Batch {first.period} {'is' if first.held_by_hand else 'looks broken and is'} on hold: it "
        "takes part in neither training nor evaluation. "
        f"{why[0].upper()}{why[1:]} {way_out}; then `dvc repro`."
    ]
    lines += [f"Batch {batch.period} as well: {batch.why_on_hold}" for batch in others]
    if others:
        waits = (
            f", or wait: after {accept_after} that agree with one before them it ends by itself"
            if accept_after
            else ""
        )
        lines.append(
            f"If things have changed for good, accept {first.period}: the later ones are then "
            f"compared with it{waits}."
        )
    return lines


def how_to_hold_again(batches: Sequence[Batch]) -> str:
    """That batches on hold have been accepted since they agree with each other, and the way
    back."""
    first, *_, last = batches
    names = ", ".join(batch.period for batch in batches)
    return (
        f"Things seem to have changed for good with batch {first.period} ({first.why_on_hold}): "
        f"{names} differ from all before, but agree "
        f"with each other, so they are used from {last.confirmed_by} on "
        "(`monitoring.accept_after`). If it is a fault that repeats itself, "
        f"list them under `monitoring.hold` in conf/config.yaml: [{names}], or set "
        "`monitoring.accept_after: null`; then `dvc repro`."
    )
