"""The HTML report: one file without scripts or links, so that it can be mailed and opened anywhere."""

from __future__ import annotations

from retrain.records import ChallengerRecord, ComparisonRecord, PromotionRecord
from retrain.reporting import words

TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
  .verdict { display: inline-block; padding: .1rem .6rem; border-radius: .3rem; color: #fff; background: {{ color }}; }
  table { border-collapse: collapse; } td, th { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
  td.number { font-variant-numeric: tabular-nums; white-space: pre; }
  .plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots svg { width: 31rem; max-width: 100%; height: auto; }
  .scroll { overflow-x: auto; } footer { margin-top: 2rem; color: #666; font-size: .85rem; }
</style>
<h1>{{ title }}</h1>
<p><span class="verdict">{{ verdict }}</span> {{ headline }}</p>
<p>{{ reason }}</p>
{% if compared.scores %}
<h2>Scores on the evaluation rows</h2>
<p>{{ "{:,}".format(compared.rows) }} rows in {{ compared.blocks }} blocks of time, {{ trained.evaluation_start[:10] }} to {{ trained.evaluation_end[:10] }},
{{ "%.1f"|format(100 * compared.positive_share) }} % positive; neither model was trained on any of them. Intervals (&plusmn; and brackets) are 95 %. Arrows point to the better side.</p>
<div class="scroll"><table>
<tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td{% if not loop.first %} class="number"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
<h2>Checks of the gate</h2>
<div class="scroll"><table>
<tr><th>check</th><th>outcome</th><th>why</th></tr>
{% for name, check in compared.checks.items() %}<tr><td>{{ name }}</td><td>{{ check.outcome }}</td><td>{{ check.reason }}</td></tr>
{% endfor %}</table></div>
<h2>Pictures</h2>
<div class="plots">{% for svg in plots.values() %}<div>{{ svg|safe }}</div>{% endfor %}</div>
<h2>Models</h2>
<table>
<tr><th>challenger</th><td>version {{ trained.challenger.version }}, {{ trained.model }}, strategy {{ trained.strategy }}</td></tr>
<tr><th>trained on</th><td>{{ trained_on }} ({{ "{:,}".format(trained.rows) }} rows, {{ "%.1f"|format(trained.fit_seconds) }} s)</td></tr>
<tr><th>compared with</th><td>{{ opponent }}</td></tr>
<tr><th>champion now</th><td>{% if promotion.champion %}version {{ promotion.champion }}{% else %}none{% endif %}</td></tr>
</table>
{% endif %}
<footer>Snapshot {{ trained.snapshot }}{% if trained.run_id %}, MLflow run {{ trained.run_id }}{% endif %}{% if promotion.ledger_entry is not none %}, ledger entry {{ promotion.ledger_entry }}{% endif %}.</footer>
</html>
"""
COLORS = {"promote": "#2e7d4f", "keep": "#8a5a00", "insufficient_evidence": "#6b6b6b", None: "#6b6b6b"}


def render(trained: ChallengerRecord, compared: ComparisonRecord, promotion: PromotionRecord, plots: dict[str, str]) -> str:
    """The report as HTML. `plots` are SVG documents by name."""
    from jinja2 import Environment

    happened = trained.retrained
    header, rows = words.score_table(compared) if happened else ([], [])
    return Environment(autoescape=True).from_string(TEMPLATE).render(
        title=f"Retraining on batch {trained.newest_batch}",
        color=COLORS[compared.verdict],
        verdict=words.VERDICTS[compared.verdict] if happened else "No retraining",
        headline=words.headline(trained, promotion) if happened else "",
        reason=compared.reason,
        header=header,
        rows=rows,
        compared=compared,
        trained=trained,
        promotion=promotion,
        plots={name: svg[svg.index("<svg") :] for name, svg in plots.items()},
        trained_on=words.trained_on(trained.challenger) if happened else "",
        opponent=words.opponent(trained) if happened else "",
    )
