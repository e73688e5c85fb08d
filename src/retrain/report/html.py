"""The HTML report: one file without scripts or links, so that it can be mailed and opened
anywhere."""

from __future__ import annotations

from pathlib import Path

from retrain.lazy import jinja2
from retrain.report import formatting
from retrain.report.outcome import Outcome

FAILED = (
    "<!doctype html><meta charset=utf-8><p>This report could not be made; the log of `promote` "
    "says why.</p>\n"
)
TEMPLATE = Path(__file__).with_name("report.html.j2")
COLORS = {
    "promote": "#2e7d4f",
    "keep": "#8a5a00",
    "insufficient_evidence": "#6b6b6b",
    None: "#6b6b6b",
}


def render(outcome: Outcome, plots: dict[str, str]) -> str:
    """The report as HTML. `plots` are SVG documents by name."""
    decision, trained = outcome.decision, outcome.trained
    compared, promotion = outcome.compared, outcome.promotion
    happened = trained.retrained
    header, rows = formatting.score_table(compared) if happened else ([], [])
    return (
        jinja2.Environment(autoescape=True)
        .from_string(TEMPLATE.read_text(encoding="utf-8"))
        .render(
            title=outcome.title,
            color=COLORS[str(compared.verdict)],
            verdict=outcome.verdict,
            headline=outcome.headline,
            reason=compared.reason,
            titles=formatting.TITLES,
            news=formatting.notes(trained),
            outcome=formatting.outcome,
            header=header,
            rows=rows,
            number=lambda value: "" if value is None else f"{value:.3g}",
            decision=decision,
            scored=lambda score: (
                f"champion {decision.champion_version}"
                if score.version is None
                else f"{score.version}, the champion before its refit, on rows that it was "
                "not trained on"
            ),
            compared=compared,
            trained=trained,
            promotion=promotion,
            plots={name: svg[svg.index("<svg") :] for name, svg in plots.items()},
            trained_on=formatting.trained_on(trained.registered) if happened else "",
            opponent=formatting.opponent(trained) if happened else "",
        )
    )
