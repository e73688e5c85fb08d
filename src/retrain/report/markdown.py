"""The report in short, as GitHub's Markdown: a comment on a pull request, or read as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

from retrain.report import formatting
from retrain.report.formatting import escape_markdown, markdown_table
from retrain.report.outcome import Outcome
from retrain.workspace import REPORT

FAILED = "This report could not be made; the log of `promote` says why.\n"
MOST_BATCHES, MOST_FILES, LONGEST_VALUE = 6, 12, 60


def render(outcome: Outcome) -> str:
    """Verdict first, then figures, checks and what has changed; no row of the data."""
    lines = [
        f"### {escape_markdown(outcome.title)}: {outcome.verdict.lower()}",
        "",
        f"**{escape_markdown(outcome.headline)}**",
        _with_code(outcome.compared.reason or outcome.trained.reason),
        "",
        *(f"- Next: {_with_code(step)}" for step in outcome.next_steps),
    ]
    if outcome.trained.retrained:
        lines += ["", *_figures(outcome), "", *_checks(outcome)]
    lines += ["", *_newest_batch(outcome), "", *_changed(outcome), "", _lineage(outcome)]
    return "\n".join(lines) + "\n"


def _with_code(text: str) -> str:
    """Text whose parts between backticks are code."""
    parts = re.split(r"(`[^`]*`)", text)
    code = (" ".join(part.split()) if part.startswith("`") else _inline(part) for part in parts)
    return "".join(code)


def _inline(text: str) -> str:
    """Escaped text that keeps the blanks at its ends."""
    return re.sub(r"\S(?:.*\S)?", lambda found: escape_markdown(found[0]), text, flags=re.DOTALL)


def _figures(outcome: Outcome) -> Iterator[str]:
    trained, compared = outcome.trained, outcome.compared
    yield (
        f"{compared.rows:,} evaluation rows in {compared.blocks} blocks of time, "
        f"{trained.evaluation_start[:10]} to {trained.evaluation_end[:10]}, that neither model was "
        f"trained on; compared with {formatting.opponent(trained)}. Intervals are 95 %."
    )
    yield ""
    yield from markdown_table(*formatting.score_table(compared))
    for note in formatting.notes(trained):
        yield f"\n{escape_markdown(note)}"


def _checks(outcome: Outcome) -> Iterator[str]:
    checks = outcome.compared.checks
    if not checks:
        return
    yield "**Checks of the gate**"
    yield ""
    rows = [[name, formatting.outcome(check), check.reason] for name, check in checks.items()]
    yield from markdown_table(["check", "outcome", "why"], rows)


def _newest_batch(outcome: Outcome) -> Iterator[str]:
    decision = outcome.decision
    yield f"**Policy {escape_markdown(decision.policy)}**: {_with_code(decision.reason)}"
    for score in decision.scores[-1:]:
        known = score.low is not None and score.high is not None
        spread = f" [{score.low:.4f}, {score.high:.4f}]" if known else ""
        version = score.version or decision.champion_version
        yield (
            f"Champion (version {version}) on batch {escape_markdown(score.period)}: "
            f"{formatting.TITLES.get(decision.loss, decision.loss)} {score.value:.4f}{spread}."
        )
    if decision.families:
        found = escape_markdown(", ".join(decision.alarms)) or "none"
        first = escape_markdown(", ".join(list(decision.features)[:3]))
        yield (
            f"Drift of batch {escape_markdown(decision.watched_batch)} against "
            f"{escape_markdown(decision.reference_batch)}: {found}"
            f"{f'; look at {first} first' if decision.alarms else ''}."
        )
    for line in decision.news:
        yield f"Schema: {escape_markdown(line)}."
    for batch, why in decision.held_back.items():
        yield f"Batch {escape_markdown(batch)} is **on hold**: {escape_markdown(why)}."


def _changed(outcome: Outcome) -> Iterator[str]:
    changes = outcome.changes
    since = f" since the incumbent, version {changes.against}" if changes.against else ""
    yield f"**Changed{since}**"
    yield ""
    yield f"- Data: {_batches(outcome)}"
    for column in changes.columns[:5]:
        what = [f"missing in {column.nulls_before:.1%}, now {column.nulls_now:.1%}"]
        if column.nulls_before == column.nulls_now:
            what = []
        if column.new_levels:
            what.append(f"{column.new_share:.1%} of the rows have levels that are new")
        yield f"  - {escape_markdown(column.name)}: {', '.join(what)}"
    if changes.against is None:
        return
    yield f"- Config: {f'{len(changes.config)} keys' if changes.config else 'the same'}"
    for key, before, now in changes.config[:MOST_FILES]:
        yield f"  - {escape_markdown(key)}: {_short(before)} \u2192 {_short(now)}"
    files = changes.files
    known = "the same" if not changes.unknown else "nothing that is known"
    yield f"- Code: {f'{len(files)} files' if files else known}"
    for name, added, removed in files[:MOST_FILES]:
        yield f"  - {escape_markdown(name)} (+{added}, \u2212{removed})"
    for line in changes.unknown:
        yield f"  - {escape_markdown(line)}"


def _batches(outcome: Outcome) -> str:
    new = outcome.changes.batches
    if not new:
        return "the same batches"
    shown = "; ".join(
        f"{escape_markdown(batch.period)}"
        f"{f' (revision {batch.revision})' if batch.revision > 1 else ''}: {batch.rows:,} rows, "
        f"{batch.quarantined_rows:,} quarantined"
        f"{f', {batch.unlabelled_rows:,} without label' if batch.unlabelled_rows else ''}"
        for batch in new[-MOST_BATCHES:]
    )
    more = f"; {len(new) - MOST_BATCHES} earlier ones" if len(new) > MOST_BATCHES else ""
    return f"{shown}{more}"


def _short(value: str) -> str:
    text = value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 1]}\u2026"
    return escape_markdown(text) or "(empty)"


def _lineage(outcome: Outcome) -> str:
    trained, promotion = outcome.trained, outcome.promotion
    parts = [f"snapshot `{trained.snapshot[:12]}`"]
    if trained.run_id:
        parts.append(f"MLflow run `{trained.run_id}`")
    if trained.code.git_commit:
        dirty = " with uncommitted code" if trained.code.patch else ""
        parts.append(f"commit `{trained.code.git_commit[:12]}`{dirty}")
    if trained.retrained:
        size = trained.facts.get("model_megabytes")
        megabytes = f", {size:.1f} MB" if size is not None else ""
        parts.append(f"{trained.rows:,} rows, {trained.fit_seconds:.1f} s to fit{megabytes}")
    if promotion.ledger_entry is not None:
        parts.append(f"ledger entry {promotion.ledger_entry}")
    return f"<sub>{'; '.join(parts)}. With pictures: `{REPORT}`.</sub>"
