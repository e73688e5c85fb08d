"""`retrain status`: snapshot, champion, last verdict and what to do next, on one screen."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from retrain.commands.read_ledger import read_ledger
from retrain.config import Config
from retrain.data.manifest import CONTENT_DIGITS, Manifest
from retrain.data.snapshot import SnapshotStore
from retrain.errors import DataError, RetrainError
from retrain.pipeline.observe import describe
from retrain.registry.entries import VERDICT, Entry, current_champion, pending_approval
from retrain.registry.ledger import Ledger
from retrain.registry.store import open_store, store_exists
from retrain.registry.versions import model_record
from retrain.report.terminal import printable
from retrain.results import gate_refused, promoted_champion
from retrain.types import (
    DecisionRecord,
    LedgerPointer,
    PromotionRecord,
    RefusalRecord,
)
from retrain.workspace import DECISION, LEDGER_POINTER, PROMOTION, REFUSED, SNAPSHOT
from retrain.yaml_text import load

NEW_BATCH = "a new batch"
MOST_NAMED = 3  # batches, and versions of each
log = logging.getLogger("retrain")


def run(config: Config, options: argparse.Namespace) -> None:
    try:
        manifest = SnapshotStore(SNAPSHOT).manifest()
    except DataError:
        manifest = None
    entries = read_ledger(config)
    lines = screen(config, manifest, entries)
    lines = _lost(config, lines) if not entries else _of_another(config, lines)
    lines[-1:-1] = _decision(manifest)
    lines = _on_hold(manifest, _refused(config, lines))
    if manifest is not None and any(batch.revision > 1 for batch in manifest.batches):
        lines[1:1] = _corrected(config, manifest)
    for label, text in lines:
        print(printable(f"{label:<14}{text}"))
    if options.fail_if_refused and gate_refused():
        sys.exit(3)


def _lost(config: Config, lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The screen where the pipeline has had a champion and the store knows of none: it was deleted,
    or is another one."""
    champion = promoted_champion(config.tracking.registered_model)
    if champion is None:
        return _of_an_older(config.tracking.registered_model, -1, lines)
    variable = config.tracking.uri_from_env
    store = f"the server that {variable} named then" if variable else "mlflow.db and mlruns/"
    text = (
        f"unknown: {PROMOTION} names version {champion}, and this tracking store has no ledger. It "
        "was deleted, or is another one"
    )
    lost = [
        ("Champion", text) if label == "Champion" else (label, line) for label, line in lines[:-1]
    ]
    return [
        *lost,
        ("Next", f"bring back {store}; or start over with a first champion: `dvc repro -f`"),
    ]


def _of_another(config: Config, lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The screen where the results in `reports/` were made with another ledger than the one that is
    shown."""
    try:
        pointer = LedgerPointer.load(LEDGER_POINTER, "train")
    except RetrainError:
        return lines
    store = open_store(config)
    ledger = Ledger.open(store)
    if pointer.registered_model != store.registered_model:
        return lines
    if pointer.run_id == ledger.run_id:
        return _of_an_older(store.registered_model, len(ledger.entries()) - 1, lines)
    text = (
        f"{LEDGER_POINTER} and reports/ belong to another ledger (run {pointer.run_id[:8]}) than "
        "this store holds"
    )
    return [
        *lines[:-1],
        ("Other store", text),
        ("Next", "`dvc repro -f` compares a challenger with this store's champion"),
    ]


def _of_an_older(
    registered_model: str, last: int, lines: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The screen where the results in `reports/` come after the end of the ledger, the entry
    `last`: they are of a newer copy of the store."""
    try:
        promoted = PromotionRecord.load(PROMOTION, "promote")
    except RetrainError:
        return lines
    of_another = promoted.registered_model not in ("", registered_model)
    if promoted.ledger_entry is None or promoted.ledger_entry <= last or of_another:
        return lines
    ends = f"the ledger here ends at {last}" if last >= 0 else "this tracking store has no ledger"
    return [
        *lines[:-1],
        ("Older store", f"{PROMOTION} is of ledger entry {promoted.ledger_entry}, and {ends}"),
        ("Next", "bring the newer mlflow.db and mlruns/ here, or `dvc repro -f` on this one"),
    ]


def _decision(manifest: Manifest | None) -> list[tuple[str, str]]:
    """What the policy decided on this snapshot, why, and what the newest batch showed."""
    try:
        decision = DecisionRecord.load(DECISION, "train")
    except RetrainError:
        return []
    if manifest is None or decision.snapshot != manifest.digest:
        return []
    said, *seen = describe(decision)
    return [("Decision", f"{decision.policy}. {said}"), *(("", line) for line in seen)]


def _refused(config: Config, lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The screen where the snapshot is older than what its source holds: the newest update was
    refused."""
    try:
        refusal = RefusalRecord.load(REFUSED, "snapshot")
    except RetrainError:
        return lines
    if refusal.data != config.data.name:
        return lines
    reason, _, way_out = refusal.reason.partition("\nhint: ")
    return [
        *lines[:-1],
        ("Refused", f"on {refusal.time}: {reason}"),
        ("Next", way_out or "mend what was refused, as said there; then `dvc repro`"),
    ]


def _on_hold(manifest: Manifest | None, lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The screen with the batches on hold, and why; what to do about the newest one where nothing
    else comes first."""
    held = [batch for batch in manifest.batches if batch.on_hold] if manifest is not None else []
    if manifest is None or not held:
        return lines
    on_hold = [("On hold", f"{batch.period}: {batch.why_on_hold}") for batch in held]
    *before, (label, following) = lines
    newest = manifest.batches[-1]
    if newest.on_hold and following.startswith(NEW_BATCH):
        way_out = (
            "mend it at its source, or, if it is right, list it under `monitoring.accept`: "
            f"[{newest.period}]"
        )
        if newest.held_by_hand:
            way_out = "take it off `monitoring.hold` to use it"
        following = (
            f"batch {newest.period} is on hold: {way_out}, in conf/config.yaml; then `dvc repro`"
        )
    return [*before, *on_hold, (label, following)]


def _corrected(config: Config, manifest: Manifest) -> list[tuple[str, str]]:
    """Which versions were trained on rows of a batch that has been corrected since."""
    if not store_exists(config.tracking):
        return []
    store = open_store(config)
    found = store.client.search_model_versions(
        f"name = '{store.registered_model}'", max_results=1000
    )
    versions = sorted(
        (model_record(version) for version in found), key=lambda record: record.version
    )
    lines = []
    for batch in manifest.batches:
        now = batch.content[:CONTENT_DIGITS]
        stale = [
            str(record.version)
            for record in versions
            if record.contents.get(batch.period, now) != now
        ]
        if batch.revision > 1 and stale:
            older = f" and {len(stale) - MOST_NAMED} older" if stale[MOST_NAMED:] else ""
            text = (
                f"batch {batch.period} (revision {batch.revision}): versions "
                f"{', '.join(stale[-MOST_NAMED:])}{older} were trained on other rows of it"
            )
            lines.append(("Corrected", text))
    if lines[MOST_NAMED:]:
        earlier = f"{len(lines) - MOST_NAMED} earlier batches, too"
        lines = [("Corrected", earlier), *lines[-MOST_NAMED:]]
    return lines


def screen(
    config: Config, manifest: Manifest | None, entries: list[Entry]
) -> list[tuple[str, str]]:
    """Label and text of each line."""
    lines = []
    if manifest is None:
        lines.append(("Snapshot", "none yet"))
    else:
        batches = manifest.batches
        rows = sum(batch.rows for batch in batches)
        quarantined = sum(batch.quarantined_rows for batch in batches)
        text = (
            f"{manifest.digest[:8]}, {len(batches)} batches, {batches[0].period} to "
            f"{batches[-1].period}"
        )
        lines.append(("Snapshot", f"{text}, {rows:,} labelled rows ({quarantined:,} quarantined)"))
        if manifest.waiting:
            waits = ", ".join(batch.period for batch in manifest.waiting)
            lines.append(("", f"labels of {waits} may still be on their way (`data.label_delay`)"))
    champion = current_champion(entries)
    if champion is None:
        lines.append(("Champion", f"none yet for `{config.tracking.registered_model}`"))
    else:
        since = f"since {champion.time}, ledger entry {champion.seq}"
        lines.append(
            ("Champion", f"{config.tracking.registered_model} version {champion.champion}, {since}")
        )
        lines.append(
            (
                "",
                f"trained on rows before {(champion.trained_until or '?')[:16].replace('T', ' ')}, "
                f"for batch {champion.newest_batch}",
            )
        )
    pending = pending_approval(entries)
    if pending is not None:
        text = (
            f"version {pending.candidate} passed the gate and waits for a person (ledger entry "
            f"{pending.seq})"
        )
        lines.append(("Candidate", text))
    last = next((entry for entry in reversed(entries) if entry.kind == VERDICT), None)
    if last is not None:
        text = (
            f"{last.verdict} for version {last.challenger} on batch {last.newest_batch}, "
            f"{last.time}"
        )
        lines += [("Last verdict", text), ("", last.reason)]
    if entries and entries[-1].kind != VERDICT:
        lines += [
            ("Since then", f"{entries[-1].kind} by {entries[-1].who}, {entries[-1].time}"),
            ("", entries[-1].reason),
        ]
    lines.append(("Next", _next(config, manifest, entries)))
    return lines


def _next(config: Config, manifest: Manifest | None, entries: list[Entry]) -> str:
    if pending_approval(entries) is not None:
        return "`retrain approve` lets the candidate serve"
    judged = [entry.snapshot for entry in entries if entry.kind == VERDICT]
    if manifest is None or not judged:
        return "`dvc repro` trains and evaluates the first champion"
    if judged[-1] != manifest.digest and not _declined(manifest):
        return "`dvc repro` evaluates a challenger on this snapshot"
    if config.data.as_of is not None:
        return f"{NEW_BATCH}: set `as_of` (now {config.data.as_of}) in conf/data/, then `dvc repro`"
    again = "`dvc repro`" if _is_watched(config) else "`dvc repro -f snapshot` and `dvc repro`"
    return f"{NEW_BATCH}: put it to the source, then {again}"


def _is_watched(config: Config) -> bool:
    """Whether DVC notices a new batch: a path of the source lies where `dvc.yaml` looks."""
    stages = load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = stages.get("snapshot", {}).get("deps", [])
    watched = [PurePosixPath(path.replace("\\${", "${")) for path in _texts(deps)]
    places = [PurePosixPath(text, "*").parents for text in _texts(config.data.source)]
    return any(path in parents for path in watched for parents in places)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


def _declined(manifest: Manifest) -> bool:
    """Whether the policy has said no to this very snapshot."""
    try:
        decision = DecisionRecord.load(DECISION, "train")
    except RetrainError:
        return False
    return decision.snapshot == manifest.digest and not decision.retrain
