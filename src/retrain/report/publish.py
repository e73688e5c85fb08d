"""The outcome of a retraining, to the three places where people look: MLflow, `reports/` and the
terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from retrain.config import Config
from retrain.data.snapshot import SnapshotStore
from retrain.gate.comparison import Comparison
from retrain.gate.estimates import BASELINE, CHALLENGER, INCUMBENT, Estimate
from retrain.lazy import mlflow
from retrain.registry.entries import Entry
from retrain.registry.experiments import describe_experiments
from retrain.registry.names import LONGEST_TAG
from retrain.registry.pages import describe_model
from retrain.registry.scores import EvaluationSet, log_scores
from retrain.registry.store import Store
from retrain.registry.versions import get_version
from retrain.report import formatting, html, markdown, model_card
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
from retrain.workspace import REPORT, REPORT_TEXT, SNAPSHOT, write_text


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
    config: Config,
    store: Store,
    trained: ChallengerRecord,
    compared: Comparison,
    promotion: PromotionRecord,
    new_version: ModelRecord,
    drawn: dict[str, str],
) -> None:
    """Scores to both models that were compared; verdict, plots and report to the challenger's run;
    a description to each version that it made."""
    client, run_id = store.client, str(trained.run_id)
    describe_experiments(store, config)
    describe_model(store, config)
    _log_scores(config, store, trained, compared)
    challenger, verdict = trained.registered.version, str(compared.verdict)
    summary = formatting.headline(trained, promotion)
    tags = {
        "verdict": verdict,
        "verdict_reason": compared.reason,
        "mlflow.runName": formatting.run_name(trained, promotion, new_version.version),
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
    client.log_dict(run_id, compared.content(), "comparison.json")
    for model in {one.version: one for one in (new_version, trained.registered)}.values():
        own = get_version(store, model.version).run_id
        card = model_card.render(config, trained, compared, promotion, model)
        client.log_text(str(own), card, model_card.NAME)
    roles = {new_version.version: "refit", challenger: "challenger"}
    for version, role in roles.items():
        client.update_model_version(
            store.registered_model,
            str(version),
            formatting.markdown(trained, compared, promotion, role),
        )
        client.set_model_version_tag(store.registered_model, str(version), "verdict", verdict)


def _log_scores(
    config: Config, store: Store, trained: ChallengerRecord, compared: Comparison
) -> None:
    """What was measured to the challenger; to the incumbent its scores on the same rows."""
    batches = len(SnapshotStore(SNAPSHOT).manifest().labelled)
    rows = EvaluationSet.of(config.data.name, trained, batches)
    rows.log_input(store, str(trained.run_id))
    other = INCUMBENT if INCUMBENT in compared.differences else BASELINE
    scores = _values(compared.scores[CHALLENGER])
    for metric, value in _values(compared.differences.get(other, {})).items():
        scores[f"{metric}/minus_{other}"] = value
    log_scores(store, trained.registered.version, scores, rows)
    if trained.incumbent is not None:
        incumbent = _values(compared.scores.get(INCUMBENT, {}))
        with best_effort("The incumbent's scores in MLflow"):
            log_scores(store, trained.incumbent.version, incumbent, rows)


def _values(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    return {name: found.value for name, found in estimates.items() if math.isfinite(found.value)}


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
        "\nNext  retrain status       who serves, and since when\n      retrain ui           every "
        "run and version\n"
        f"      {REPORT}  this comparison with pictures\n"
    )
