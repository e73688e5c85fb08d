"""`retrain history`: the ledger, oldest entry first; who served at a date; export as JSON Lines."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time

from retrain.commands.read_ledger import first_or_lost, read_ledger, read_looks
from retrain.config import Config
from retrain.errors import ConfigError
from retrain.gate.alpha_spending import Look
from retrain.registry.chain import chained_from, check_results, digest_of
from retrain.registry.entries import Entry, current_champion
from retrain.registry.ledger import Ledger
from retrain.registry.store import open_store
from retrain.report.terminal import print_table, printable
from retrain.workspace import PROMOTION

LOOK = "look"


def run(config: Config, options: argparse.Namespace) -> None:
    entries = read_ledger(config)
    looks = unanswered_looks(entries, read_looks(config))
    if options.jsonl:
        for line in in_order(entries, looks):
            content = dataclasses.asdict(line)
            print(
                json.dumps(
                    {"kind": LOOK} | content if isinstance(line, Look) else content,
                    ensure_ascii=False,
                )
            )
    elif not entries and not looks:
        print(
            f"The ledger of `{config.tracking.registered_model}` is empty: there is no champion. "
            f"{first_or_lost(config)}"
        )
    elif options.verify:
        print(*map(printable, verified(config)), sep="\n")
    elif options.at is not None:
        for label, text in served_at(entries, parse_moment(options.at), config.data.metric):
            print(printable(f"{label:<14}{text}"))
    else:
        _show(entries, looks)


def verified(config: Config) -> list[str]:
    """What the chain of digests vouches for. Raises StoreError where it does not hold."""
    model = config.tracking.registered_model
    ledger = Ledger.open(open_store(config))
    entries, looks, texts = ledger.entries(), ledger.looks(), ledger.texts()
    newest, first = check_results(model, texts), chained_from(entries)
    lines = [
        f"The ledger of `{model}` is as it was written: {len(entries)} entries and {len(looks)} "
        "looks, each with the digest of those before it."
    ]
    if first:
        lines.append(
            f"Not chained until entry {first}: those before it are of an earlier version of this "
            "project, and unchanged since that entry."
            if first < len(entries)
            else f"Not chained until entry {first}, the next: these are of an earlier version."
        )
    lines.append(
        f"{PROMOTION} does not name a digest yet: the next `dvc repro` that gives a verdict does."
        if newest is None
        else f"Entries 0 to {newest} are those that {PROMOTION} names; keep that file in git."
    )
    return [*lines, f"Digest of all entries: {digest_of(texts)}"]


def unanswered_looks(entries: Sequence[Entry], looks: Sequence[Look]) -> list[Look]:
    """Those that no entry says anything about: verdicts that were shown, and never carried out."""
    answered = {(entry.predictions, entry.gate) for entry in entries}
    return [look for look in looks if (look.predictions, look.gate) not in answered]


def in_order(entries: Sequence[Entry], looks: Sequence[Look]) -> list[Entry | Look]:
    """Entries in their own order, each look before the first entry that is younger."""
    lines: list[Entry | Look] = []
    waiting = sorted(looks, key=lambda look: look.time)
    for entry in entries:
        while waiting and waiting[0].time < entry.time:
            lines.append(waiting.pop(0))
        lines.append(entry)
    return lines + waiting


def parse_moment(text: str) -> datetime:
    """A date means the end of that day, a time itself; both in UTC unless a zone is given. Returned
    in UTC.

    Raises ConfigError for anything else: a guess at `03/04/2013` would give the wrong champion
    without a word.
    """
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d|\d{8}", text, re.ASCII):
            return datetime.combine(date.fromisoformat(text), time.max, UTC)
        if "W" in text:  # a week, which `fromisoformat` takes for its Monday
            raise ValueError
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"`--at` is {text!r}, but must be a date such as 2013-11-15, which means the end of "
            "that day in UTC, or a time such "
            "as 2013-11-15T12:00 (UTC) or 2013-11-15T12:00+02:00."
        ) from None


def served_at(entries: Sequence[Entry], moment: datetime, metric: str) -> list[tuple[str, str]]:
    """Who served at a moment by the ledger's clock, and why.

    Where that was before the first entry, history was replayed: then also whose data ended last
    before the moment. Of the figures those of `metric`, the data set's own, come first.
    """
    champion = current_champion(
        [entry for entry in entries if datetime.fromisoformat(entry.time) <= moment]
    )
    end = ", the end of that day" if moment.time() == time.max else ""
    at = f"{moment:%Y-%m-%d %H:%M} UTC{end}"
    if champion is not None:
        return [("At", at), *_explain(champion, entries, metric)]
    first = next((entry for entry in entries if entry.moved), None)
    since = f"; the first champion came {first.time}" if first else ""
    lines = [("At", f"{at}: nothing was in production{since}")]
    data_time = moment.replace(tzinfo=None).isoformat()
    replayed = [
        entry for entry in entries if entry.evaluation_end and entry.evaluation_end <= data_time
    ]
    champion = current_champion(replayed)
    if champion is not None:
        lines += [
            (
                "By the data",
                "history was replayed later; the champion whose data ended last before then is",
            ),
            *_explain(champion, entries, metric),
        ]
    return lines


def _explain(champion: Entry, entries: Sequence[Entry], metric: str) -> list[tuple[str, str]]:
    """Which version, since and until when, on what grounds, and where to look further."""
    until = next((entry for entry in entries[champion.seq + 1 :] if entry.moved), None)
    end = f"until {until.time} (ledger entry {until.seq}: {until.kind})" if until else "until now"
    grounds = f"verdict {champion.verdict}" if champion.kind == "verdict" else champion.kind
    lines = [
        ("Champion", f"version {champion.champion}, from {champion.time} {end}"),
        ("Why", f"{grounds}, by {champion.who}: {champion.reason}"),
        (
            "Trained",
            f"on rows before {(champion.trained_until or '?')[:16].replace('T', ' ')}, for batch "
            f"{champion.newest_batch}",
        ),
    ]
    # What a person brought back was judged by the gate once, earlier.
    judged = next(
        (one for one in reversed(entries[: champion.seq + 1]) if _same_judged(one, champion)), None
    )
    original = (
        f"as refit of version {champion.challenger}"
        if champion.challenger != champion.champion
        else ""
    )
    if judged is not None:
        text = f"compared with {_opponent(judged)} (ledger entry {judged.seq}: {judged.verdict})"
        lines.append(("", f"{original}, which was {text}" if original else text))
        shown = [_figures(judged, name) for name in _metrics(judged, metric)]
        lines += [("Figures" if number == 0 else "", text) for number, text in enumerate(shown)]
    elif original:
        lines.append(("", original))
    where = (
        f"run {champion.run_id}, snapshot {champion.snapshot}, commit "
        f"{champion.git_commit or 'none'}, ledger entry {champion.seq}"
    )
    return [*lines, ("Where", where)]


def _same_judged(entry: Entry, champion: Entry) -> bool:
    return (
        entry.kind == "verdict"
        and entry.challenger == champion.challenger
        and bool(_metrics(entry, ""))
    )


def _metrics(entry: Entry, first: str) -> list[str]:
    """The metrics that the challenger was judged by, `first` before the others."""
    found = [
        name.removesuffix("/challenger") for name in entry.figures if name.endswith("/challenger")
    ]
    return sorted(found, key=lambda name: (name != first, name))


def _figures(entry: Entry, metric: str) -> str:
    other = "incumbent" if f"{metric}/incumbent" in entry.figures else "baseline"
    text = f"{metric} {entry.figures[f'{metric}/challenger']:.4g}"
    if f"{metric}/{other}" in entry.figures:
        text += f", {other} {entry.figures[f'{metric}/{other}']:.4g}"
    low, high = (entry.figures.get(f"{metric}/minus_{other}_{side}") for side in ("low", "high"))
    return text + (
        f", difference [{low:+.4g}, {high:+.4g}]" if low is not None and high is not None else ""
    )


def _opponent(entry: Entry) -> str:
    return f"version {entry.incumbent}" if entry.incumbent else "the baseline"


def _show(entries: Sequence[Entry], looks: Sequence[Look]) -> None:
    header = [
        "#",
        "time (UTC)",
        "batch",
        "what",
        "version",
        "against",
        "look",
        "champion",
        "commit",
        "who",
    ]
    rows = []
    serving = "none"
    for entry in in_order(entries, looks):
        if isinstance(entry, Look):
            rows.append(_look_cells(entry, serving))
            continue
        serving = str(entry.champion or "none")
        champion = (
            f"{entry.previous or 'none'} -> {entry.champion}"
            if entry.moved
            else f"{entry.champion or 'none'}"
        )
        judged = bool(entry.comparison)
        cells = (
            str(entry.seq),
            entry.time[:16].replace("T", " "),
            entry.newest_batch,
            _what(entry),
            str(entry.challenger if entry.kind in ("verdict", "refusal") else entry.champion),
            str(entry.incumbent or "baseline") if judged else "",
            str(entry.look) if judged else "",
            champion,
            (entry.git_commit or "none")[:8],
            entry.who,
        )
        rows.append(cells)
    print_table(header, rows, width=120)


def _look_cells(look: Look, serving: str) -> tuple[str, ...]:
    moment, said = (
        look.time[:16].replace("T", " "),
        f"{LOOK}: {look.verdict}" if look.verdict else LOOK,
    )
    against = str(look.incumbent or "baseline")
    return (
        "",
        moment,
        look.newest_batch,
        said,
        str(look.challenger),
        against,
        str(look.look),
        serving,
        "",
        look.who,
    )


def _what(entry: Entry) -> str:
    if entry.kind == "verdict":
        return f"{entry.verdict}, waits" if entry.candidate else entry.verdict
    return "refused" if entry.kind == "refusal" else entry.kind
