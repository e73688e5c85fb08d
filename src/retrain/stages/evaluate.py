"""Stage `evaluate`: statistics on stored predictions, and the gate's verdict. Loads no model, imports no model library."""

from __future__ import annotations

import hashlib
import logging
import math

import polars as pl

from retrain import project, records
from retrain.config import Config
from retrain.data.windows import block_index, block_of
from retrain.errors import PromotionError
from retrain.promotion.comparison import compare
from retrain.promotion.figures import BASELINE, BLOCK, CHALLENGER, INCUMBENT, Comparison, Estimate
from retrain.promotion.gate import Judgement, build_checks, judge
from retrain.records import ChallengerRecord, CheckRecord, ComparisonRecord, FigureRecord

log = logging.getLogger("retrain")


def run(config: Config) -> None:
    trained = records.load(project.CHALLENGER, ChallengerRecord, "train")
    if not trained.retrained:
        records.save(project.COMPARISON, ComparisonRecord(None, trained.reason))
        log.info("Nothing to compare: %s", trained.reason)
        return
    predictions = _read_predictions(trained)
    refuse_seen_rows(predictions, config.data.time_column, trained)
    block = block_index(config.data.time_column, block_of(config.evaluation))
    predictions = predictions.with_columns(block.alias(BLOCK))
    models = [CHALLENGER, BASELINE]
    if trained.incumbent is not None:
        models.insert(1, INCUMBENT)
    checks = build_checks(config.gate, trained.incumbent is not None)
    comparison = compare(predictions, models)
    judgement = judge(comparison, checks)
    records.save(project.COMPARISON, to_record(comparison, judgement))
    log.info("Verdict %s: %s", judgement.verdict.value, judgement.reason)


def _read_predictions(trained: ChallengerRecord) -> pl.DataFrame:
    try:
        content = project.PREDICTIONS.read_bytes()
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest() != trained.predictions:
        raise PromotionError(
            f"{project.PREDICTIONS} is missing or not the file that train wrote. Run `dvc repro -f -s train` to make it again."
        )
    return pl.read_parquet(content)


def refuse_seen_rows(predictions: pl.DataFrame, time_column: str, trained: ChallengerRecord) -> None:
    """Raises PromotionError when a model was trained on rows that are to judge it: it would be praised for its memory."""
    first = predictions[time_column].min()
    for name, model in (("challenger", trained.challenger), ("incumbent", trained.incumbent)):
        if model is not None and first is not None and model.trained_until > first.isoformat():
            raise PromotionError(
                f"The {name} (version {model.version}) was trained on rows up to {model.trained_until}, and the evaluation rows "
                f"start at {first.isoformat()}: it has seen some of them. Run `dvc repro -f -s train` to repeat the comparison."
            )


def to_record(comparison: Comparison, judgement: Judgement) -> ComparisonRecord:
    """The comparison as it is stored, with two-sided 95 % intervals."""
    record = ComparisonRecord(
        judgement.verdict.value, judgement.reason, comparison.rows, comparison.blocks, comparison.positive_share
    )
    for name, result in judgement.checks.items():
        record.checks[name] = CheckRecord(
            result.outcome.value, result.reason, {key: float(value) for key, value in result.figures.items()}
        )
    for (model, metric), estimate in comparison.scores.items():
        record.scores.setdefault(model, {})[metric] = _figure(estimate)
    for (other, metric), estimate in comparison.differences.items():
        record.differences.setdefault(other, {})[metric] = _figure(estimate)
    return record


def _figure(estimate: Estimate) -> FigureRecord:
    low, high = estimate.interval()
    return FigureRecord(*(value if math.isfinite(value) else None for value in (estimate.value, low, high)))
