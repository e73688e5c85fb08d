"""The outcome of a retraining, to the three places where people look: MLflow, `reports/` and the
terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retrain.config import Config
from retrain.gate.comparison import Comparison
from retrain.lazy import mlflow
from retrain.registry.entries import Entry
from retrain.registry.names import LONGEST_TAG, log_figures
from retrain.registry.store import Store
from retrain.report import formatting, html, markdown
from retrain.report.best_effort import best_effort
from retrain.report.changes import Changes, data_changes, recipe_changes
from retrain.report.chart import standalone
from retrain.report.evidence import gather
from retrain.report.outcome import Outcome
from retrain.report.terminal import plain_console, print_table, printable
from retrain.types import (
    ChallengerRecord,
    ModelRecord,
    PromotionRecord,
)
from retrain.workspace import REPORT, REPORT_TEXT, write_text


def to_files(
    config: Config, outcome: Outcome, store: Store | None = None, entries: Sequence[Entry] = ()
) -> dict[str, str]:
    """Write the report, as HTML and in short as Markdown; returns its pictures as SVG documents by
    name. `entries` are those of the ledger, the newest verdict among them."""
    with best_effort("What has changed"):
        outcome = replace(outcome, changes=_changes(config, outcome, store, entries))
    page, text, documents = html.FAILED, markdown.FAILED, dict[str, str]()
    with best_effort("The report"):
        text = markdown.render(outcome)
        evidence = gather(config, outcome, entries)
        page = html.render(outcome, evidence)
        documents = {name: standalone(svg) for name, svg in evidence.documents.items()}
    write_text(REPORT_TEXT, text)
    write_text(REPORT, page)
    return documents


def _changes(
    config: Config, outcome: Outcome, store: Store | None, entries: Sequence[Entry]
) -> Changes:
    found = data_changes(outcome.decision, outcome.trained)
    if store is None or found.against is None:
        return found
    keys, code, unknown = recipe_changes(config, store, entries, found.against)
    return replace(found, config=keys, code=code, unknown=unknown)


def to_mlflow(
    store: Store,
    trained: ChallengerRecord,
    compared: Comparison,
    promotion: PromotionRecord,
    new_version: ModelRecord,
    drawn: dict[str, str],
) -> None:
    """Scores, verdict, plots and report to the challenger's run; a description to each version that
    it made."""
    client, run_id = store.client, str(trained.run_id)
    figures: dict[str, float] = {
        "evaluation/rows": compared.rows,
        "evaluation/blocks": compared.blocks,
        "evaluation/look": compared.look,
    }
    figures |= compared.flat()
    figures |= {f"new_levels/{name}": rows for name, rows in trained.new_levels.items()}
    for name, check in compared.checks.items():
        figures |= {f"gate/{name}/{figure}": value for figure, value in check.figures.items()}
    log_figures(client, run_id, figures)
    summary = formatting.headline(trained, promotion)
    tags = {
        "verdict": str(compared.verdict),
        "verdict_reason": compared.reason,
        "mlflow.note.content": f"{summary}\n\n{formatting.escape_markdown(compared.reason)}",
    }
    client.log_batch(
        run_id,
        tags=[mlflow.entities.RunTag(key, value[:LONGEST_TAG]) for key, value in tags.items()],
    )
    for name, svg in drawn.items():
        client.log_text(run_id, svg, f"plots/{name}.svg")
    for path in (REPORT, REPORT_TEXT):
        client.log_artifact(run_id, str(path))
    made = {
        trained.registered.version: "challenger",
        new_version.version: "refit"
        if new_version.version != trained.registered.version
        else "challenger",
    }
    for version, role in made.items():
        client.update_model_version(
            store.registered_model,
            str(version),
            formatting.markdown(trained, compared, promotion, role),
        )
        client.set_model_version_tag(
            store.registered_model, str(version), "verdict", str(compared.verdict)
        )


def to_terminal(
    trained: ChallengerRecord, compared: Comparison, promotion: PromotionRecord
) -> None:
    """The summary that ends a retraining."""
    console = plain_console(soft_wrap=True)

    def show(text: str, style: str | None = None) -> None:
        console.print(printable(text), style=style)

    console.print()
    show(formatting.headline(trained, promotion), "bold")
    show(
        f"Challenger     version {trained.registered.version}: {trained.model}, strategy "
        f"{trained.strategy}"
    )
    show(
        f"Trained on     {formatting.trained_on(trained.registered)} ({trained.rows:,} rows, "
        f"{trained.fit_seconds:.1f} s)"
    )
    show(f"Compared with  {formatting.opponent(trained)}")
    window = f"{trained.evaluation_start[:10]} to {trained.evaluation_end[:10]}"
    show(f"On             {compared.rows:,} rows in {compared.blocks} blocks, {window}")
    console.print()
    print_table(*formatting.score_table(compared), width=110, gap=3)
    for line in formatting.notes(trained):
        console.print()
        show(line)
    console.print()
    show(f"Verdict        {compared.verdict}. {compared.reason}")
    for name, check in compared.checks.items():
        show(f"  {formatting.outcome(check):<16}{name}: {check.reason}")
    console.print(
        "\nNext  retrain status       who serves, and since when\n      mlflow ui            every "
        "run and version\n"
        f"      {REPORT}  this comparison with pictures\n"
    )
