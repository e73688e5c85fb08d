"""The outcome of a retraining, to the three places where people look: MLflow, `reports/` and the terminal."""

from __future__ import annotations

import time

import polars as pl

from retrain.config import Config
from retrain.modeling.metrics import loss_beside
from retrain.project import PREDICTIONS, REPORT, write_text
from retrain.promotion.figures import EVALUATION, WINDOW
from retrain.records import ChallengerRecord, ComparisonRecord, DecisionRecord, ModelRecord, PromotionRecord
from retrain.reporting import plots, report, words
from retrain.tracking.store import Store


def to_files(
    config: Config,
    decision: DecisionRecord,
    trained: ChallengerRecord,
    compared: ComparisonRecord,
    promotion: PromotionRecord,
) -> dict[str, str]:
    """Write the HTML report; returns its plots as SVG documents by name."""
    drawn = {}
    if trained.retrained:
        judged = pl.read_parquet(PREDICTIONS).filter(pl.col(WINDOW) == EVALUATION)
        drawn = plots.draw(
            judged, config.data.time_column, config.data.task, loss_beside(config.data.metric, config.data.task)
        )
    write_text(REPORT, report.render(decision, trained, compared, promotion, drawn))
    return drawn


def to_mlflow(
    store: Store,
    trained: ChallengerRecord,
    compared: ComparisonRecord,
    promotion: PromotionRecord,
    newcomer: ModelRecord,
    drawn: dict[str, str],
) -> None:
    """Scores, verdict, plots and report to the challenger's run; a description to each version that it made."""
    from mlflow.entities import Metric, RunTag

    client, run_id = store.client, trained.run_id
    now = int(time.time() * 1000)
    figures = {"evaluation/rows": compared.rows, "evaluation/blocks": compared.blocks, "evaluation/look": compared.look}
    figures |= compared.flat()
    figures |= {f"new_levels/{name}": rows for name, rows in trained.new_levels.items()}
    for name, check in compared.checks.items():
        figures |= {f"gate/{name}/{figure}": value for figure, value in check.figures.items()}
    metrics = [Metric(name, value, now, 0) for name, value in figures.items()]
    summary = words.headline(trained, promotion)
    tags = {
        "verdict": compared.verdict,
        "verdict_reason": compared.reason,
        "mlflow.note.content": f"{summary}\n\n{compared.reason}",
    }
    client.log_batch(run_id, metrics=metrics, tags=[RunTag(key, value[:4900]) for key, value in tags.items()])
    for name, svg in drawn.items():
        client.log_text(run_id, svg, f"plots/{name}.svg")
    client.log_artifact(run_id, str(REPORT))
    made = {
        trained.challenger.version: "challenger",
        newcomer.version: "refit" if newcomer.version != trained.challenger.version else "challenger",
    }
    for version, role in made.items():
        client.update_model_version(
            store.registered_model, str(version), words.markdown(trained, compared, promotion, role)
        )
        client.set_model_version_tag(store.registered_model, str(version), "verdict", compared.verdict)


def to_terminal(trained: ChallengerRecord, compared: ComparisonRecord, promotion: PromotionRecord) -> None:
    """The summary that ends a retraining."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"\n[bold]{words.headline(trained, promotion)}[/bold]")
    console.print(f"Challenger     version {trained.challenger.version}: {trained.model}, strategy {trained.strategy}")
    console.print(
        f"Trained on     {words.trained_on(trained.challenger)} ({trained.rows:,} rows, {trained.fit_seconds:.1f} s)"
    )
    console.print(f"Compared with  {words.opponent(trained)}")
    console.print(
        f"On             {compared.rows:,} rows in {compared.blocks} blocks, {trained.evaluation_start[:10]} to {trained.evaluation_end[:10]}"
    )
    header, rows = words.score_table(compared)
    table = Table(*header, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for row in rows:
        table.add_row(*row)
    console.print()
    Console(highlight=False, width=max(console.width, 110)).print(table)
    for line in words.news(trained):
        console.print(f"\n{line}")
    console.print(f"\nVerdict        [bold]{compared.verdict}[/bold]. {compared.reason}")
    for name, check in compared.checks.items():
        console.print(f"  {words.outcome(check):<16}{name}: {check.reason}")
    console.print(
        f"\nNext  retrain status       who serves, and since when\n      mlflow ui            every run and version\n      {REPORT}  this comparison with pictures\n"
    )
