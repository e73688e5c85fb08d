"""The HTML report: one file without scripts or links, so that it can be mailed and opened
anywhere."""

from __future__ import annotations

import re
from pathlib import Path

from retrain.lazy import jinja2
from retrain.report import chart, formatting, monitor
from retrain.report.evidence import Evidence
from retrain.report.outcome import Outcome

FAILED = (
    "<!doctype html><meta charset=utf-8><p>This report could not be made; the log of `promote` "
    "says why.</p>\n"
)
TEMPLATE = Path(__file__).with_name("report.html.j2")
TONES = {"promote": "good", "keep": "bad"}  # variables of the template
FACTS = {
    "latency_one_row_ms": ("latency of one row", "{:.1f} ms"),
    "latency_1000_rows_ms": ("latency of 1,000 rows", "{:.1f} ms"),
    "model_megabytes": ("size of the model file", "{:.2f} MB"),
}
MOST_BATCHES = 12


def render(outcome: Outcome, evidence: Evidence) -> str:
    """The report as HTML."""
    decision, trained = outcome.decision, outcome.trained
    compared, changes = outcome.compared, outcome.changes
    happened = trained.retrained
    header, rows = formatting.score_table(compared) if happened else ([], [])

    environment = jinja2.Environment(autoescape=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        outcome=outcome,
        decision=decision,
        trained=trained,
        compared=compared,
        changes=changes,
        tone=TONES.get(str(compared.verdict), "idle"),
        style=chart.STYLE,
        steps=[_with_code(step) for step in outcome.next_steps],
        news=formatting.notes(trained),
        with_code=_with_code,
        outcome_of=formatting.outcome,
        header=header,
        rows=rows,
        loss_table=monitor.losses(decision),
        drift_table=monitor.drift(decision),
        trained_on=formatting.trained_on(trained.registered) if happened else "",
        opponent=formatting.opponent(trained) if happened else "",
        batch_rows=_batches(outcome),
        column_rows=_columns(outcome),
        facts=_facts(outcome),
        plots=evidence.named.values(),
        **vars(evidence),
    )


def _with_code(text: str) -> str:
    """Text whose parts between backticks are code, as HTML."""
    parts = re.split(r"`([^`]*)`", text)
    escaped = (chart.escape(part) for part in parts)
    return "".join(
        f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(escaped)
    )


def _batches(outcome: Outcome) -> list[list[str]]:
    return [
        [
            batch.period,
            str(batch.revision),
            f"{batch.rows:,}",
            f"{batch.unlabelled_rows:,}",
            f"{batch.quarantined_rows:,}",
            "" if batch.target_mean is None else f"{batch.target_mean:.4g}",
        ]
        for batch in outcome.changes.batches[-MOST_BATCHES:]
    ]


def _columns(outcome: Outcome) -> list[list[str]]:
    return [
        [
            column.name,
            f"{column.nulls_before:.1%}",
            f"{column.nulls_now:.1%}",
            f"{', '.join(column.new_levels)} ({column.new_share:.1%})" if column.new_levels else "",
            str(column.gone or ""),
        ]
        for column in outcome.changes.columns
    ]


def _facts(outcome: Outcome) -> list[tuple[str, str]]:
    """Cost and lineage, name and value."""
    trained, promotion, code = outcome.trained, outcome.promotion, outcome.trained.code
    facts = []
    if trained.retrained:
        facts.append(("training", f"{trained.rows:,} rows, {trained.fit_seconds:.1f} s to fit"))
        for name, value in trained.facts.items():
            title, form = FACTS.get(name, (name, "{:.4g}"))
            facts.append((title, form.format(value)))
    champion = f"version {promotion.champion}" if promotion.champion else "none"
    facts += [("champion now", champion), ("snapshot", trained.snapshot)]
    if code.git_commit:
        facts.append(("commit", code.git_commit + (", and uncommitted code" if code.patch else "")))
    if trained.run_id:
        facts.append(("MLflow run", trained.run_id))
    if trained.retrained and trained.registered.continued_from:
        parents = ", ".join(map(str, trained.registered.continued_from))
        facts.append(("continued from versions", parents))
    if promotion.ledger_entry is not None:
        facts.append(("ledger entry", str(promotion.ledger_entry)))
    if promotion.previous is not None and promotion.moved:
        back = f'retrain rollback --to {promotion.previous} --reason "..."'
        facts.append(("way back", back))
    return facts
