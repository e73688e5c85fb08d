"""The model card of a version: what it is for, what it was made of, and how well it does."""

from __future__ import annotations

from retrain.config import Config
from retrain.gate.comparison import Comparison
from retrain.report import formatting
from retrain.report.formatting import escape_markdown, markdown_table
from retrain.types import ChallengerRecord, ModelRecord, PromotionRecord

NAME = "model_card.md"


def render(
    config: Config,
    trained: ChallengerRecord,
    compared: Comparison,
    promotion: PromotionRecord,
    model: ModelRecord,
) -> str:
    """The card in Markdown; names of columns and counts of rows, no row of the data."""
    data, challenger = config.data, trained.registered
    checks = [
        [name, formatting.outcome(check), check.reason] for name, check in compared.checks.items()
    ]
    whose = f"The figures are those of version {challenger.version}"
    if model.version != challenger.version:
        whose += ", the same recipe without the evaluation rows: for this version there are none"
    lines = [
        f"# {escape_markdown(promotion.registered_model)}, version {model.version}",
        escape_markdown(formatting.headline(trained, promotion)),
        "## Intended use",
        f"Predicts {escape_markdown(data.target_column)} ({data.task.value}) for rows as in the "
        f"data set {escape_markdown(data.name)}, from {len(data.features)} features that are known "
        "at prediction time. It was compared on the rows below and on no others.",
        "## Data",
        f"Trained on {escape_markdown(formatting.trained_on(model))}: {model.rows:,} rows.",
        "## Figures",
        f"{whose}. {compared.rows:,} later rows in {compared.blocks} blocks of time, "
        f"{trained.evaluation_start[:10]} to {trained.evaluation_end[:10]}, with 95 % intervals; "
        f"compared with {formatting.opponent(trained)}.",
        "\n".join(markdown_table(*formatting.score_table(compared))),
        "## Checks and slices",
        "\n".join(markdown_table(["check", "outcome", "why"], checks)),
        "## Limits",
        "Beyond the evaluation rows' time the figures are a forecast. `retrain monitor` shows how "
        "it does since.",
        *(escape_markdown(note) for note in formatting.notes(trained)),
        "## Verdict",
        f"{compared.verdict}: {escape_markdown(compared.reason)}",
        "## Lineage",
        f"{escape_markdown(trained.model)}, strategy {escape_markdown(trained.strategy)}; commit "
        f"`{trained.code.git_commit or 'none'}`, run `{trained.run_id}`, snapshot "
        f"`{trained.snapshot}`, model sha256 `{model.sha256}`, ledger entry "
        f"{promotion.ledger_entry}.",
    ]
    return "\n\n".join(lines) + "\n"
