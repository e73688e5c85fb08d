"""What happened, in words and tables: one source for the terminal, the report and the MLflow UI."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from retrain.gate.check import CheckResult
from retrain.gate.comparison import Comparison
from retrain.gate.estimates import Estimate
from retrain.models.metrics import lower_is_better
from retrain.registry.names import fit_text
from retrain.types import (
    ChallengerRecord,
    ModelRecord,
    PromotionRecord,
)

TITLES = {
    "log_loss": "Log loss",
    "roc_auc": "ROC AUC",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
    "macro_f1": "Macro F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "mse": "MSE",
    "r2": "R\u00b2",
}
VERDICTS = {
    "promote": "Promoted",
    "keep": "Kept the champion",
    "insufficient_evidence": "Insufficient evidence, kept the champion",
}


def headline(trained: ChallengerRecord, promotion: PromotionRecord) -> str:
    """The outcome as one sentence."""
    challenger = trained.registered.version
    if promotion.verdict != "promote":
        text = (
            "not promoted" if promotion.verdict == "keep" else "not promoted for lack of evidence"
        )
        return f"Challenger version {challenger} was {text}; {_serving(promotion)}."
    if promotion.candidate is not None:
        refitted = (
            f", refitted as version {promotion.candidate},"
            if promotion.candidate != challenger
            else ""
        )
        return (
            f"Challenger version {challenger}{refitted} passed, and waits for `retrain approve`; "
            f"{_serving(promotion)}."
        )
    refitted = (
        f", refitted as version {promotion.champion}," if promotion.champion != challenger else ""
    )
    if not promotion.moved:
        return f"Challenger version {challenger} passed before; {_serving(promotion)}."
    instead = f" in place of version {promotion.previous}" if promotion.previous else ", the first"
    return f"Challenger version {challenger}{refitted} is champion now{instead}."


def _serving(promotion: PromotionRecord) -> str:
    return (
        f"version {promotion.champion} stays champion"
        if promotion.champion
        else "there is still no champion"
    )


def run_name(trained: ChallengerRecord, promotion: PromotionRecord, new_version: int) -> str:
    """Batch, verdict and version: what the table of runs shows first."""
    verdict = str(promotion.verdict).replace("_", " ")
    if promotion.candidate is not None:
        verdict = "waits for approval"
    made = "" if new_version == trained.registered.version else f", refit v{new_version}"
    return fit_text(f"{trained.newest_batch}: {verdict} v{trained.registered.version}{made}")


def outcome(check: CheckResult) -> str:
    """The outcome of a check, and whether it could have stopped the promotion."""
    text = check.outcome.replace("_", " ")
    return (
        text if check.blocks or check.outcome in ("passed", "not_applicable") else f"{text} (warns)"
    )


def opponent(trained: ChallengerRecord) -> str:
    """Whom the challenger was compared with."""
    if trained.incumbent is None:
        return "the baseline (no champion yet)"
    return (
        f"version {trained.incumbent.version} (trained until "
        f"{trained.incumbent.trained_until[:10]})"
    )


def notes(trained: ChallengerRecord) -> list[str]:
    """How the strategy came to its model, and classes and levels that a model was not trained on; a
    sentence each."""
    lines = [trained.note] if trained.note else []
    for model, classes in trained.unknown_classes.items():
        counted = ", ".join(f"{name} ({rows:,} rows)" for name, rows in classes.items())
        lines.append(
            f"The {model} was not trained on class {counted}: it is scored with probability 0 "
            "there."
        )
    if trained.new_levels:
        counted = ", ".join(f"{name} ({rows:,} rows)" for name, rows in trained.new_levels.items())
        lines.append(f"Levels that the challenger's training rows did not have: {counted}.")
    return lines


def trained_on(model: ModelRecord) -> str:
    batches = model.batches
    span = (
        f"batches {batches[0]} to {batches[-1]} ({len(batches)})"
        if len(batches) > 1
        else f"batch {batches[0]}"
        if batches
        else "rows"
    )
    return f"{span}, rows before {model.trained_until[:16].replace('T', ' ')}"


def score(estimate: Estimate) -> str:
    """A value and half the width of its 95 % interval."""
    if not math.isfinite(estimate.value):
        return "not known"
    low, high = estimate.interval()
    half = f" \u00b1{(high - low) / 2:.3f}" if math.isfinite(high - low) else ""
    return f"{estimate.value:z.4f}{half}"


def difference(estimate: Estimate) -> str:
    """A difference with its 95 % interval."""
    low, high = estimate.interval()
    if not math.isfinite(high - low):
        return "not known"
    return f"{estimate.value:+.4f} [{low:+.4f}, {high:+.4f}]"


def score_table(compared: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each metric for each model (an arrow shows the better direction), and the
    difference that counts."""
    models = [
        model for model in ("challenger", "incumbent", "baseline") if model in compared.scores
    ]
    other = "incumbent" if "incumbent" in models else "baseline"
    header = ["metric", *models, f"challenger - {other}"]
    rows = []
    for metric in compared.scores["challenger"]:
        better = "\u2193" if lower_is_better(metric) else "\u2191"
        cells = [score(compared.scores[model][metric]) for model in models]
        rows.append(
            [
                f"{TITLES.get(metric, metric)} {better}",
                *cells,
                difference(compared.differences[other][metric]),
            ]
        )
    return header, rows


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line; GitHub takes no name in it for a person or an
    issue."""
    # MLflow's pages show a backslash before these, so they are named.
    line = " ".join(text.split()).replace("&", "&amp;").replace("$", "&dollar;")
    line = line.replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*\[\]|~#])", r"\\\1", line)
    line = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", line)
    return re.sub(r"@(?=\w)|#(?=\d)", "\\g<0>\u200b", line)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    lines = [[escape_markdown(cell) for cell in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return ["| " + " | ".join(line) + " |" for line in lines]


def markdown(
    trained: ChallengerRecord, compared: Comparison, promotion: PromotionRecord, role: str
) -> str:
    """The description of a model version. Its first line is a plain sentence: the UI's lists show
    it raw."""
    if role == "refit":
        first = (
            f"Refit of version {trained.registered.version} with the evaluation rows included, for "
            f"batch {trained.newest_batch}."
        )
    else:
        first = f"Challenger of batch {trained.newest_batch}: {headline(trained, promotion)}"
    table = markdown_table(*score_table(compared))
    lines = [
        first,
        "",
        f"**Recipe** {trained.model}, strategy {trained.strategy}.",
        f"**Compared** version {trained.registered.version} ({trained_on(trained.registered)}) "
        f"with {opponent(trained)},",
        f"on {compared.rows:,} rows in {compared.blocks} blocks, {trained.evaluation_start[:10]} "
        f"to {trained.evaluation_end[:10]}.",
        f"**Verdict** {compared.verdict}: {escape_markdown(compared.reason)}",
        "",
        *table,
        "",
        "Intervals are 95 %, from leaving out one block of time after the other. The source run's "
        "`model_card.md` says more.",
    ]
    return "\n".join(lines)[:4900]  # Postgres holds 5,000 characters
