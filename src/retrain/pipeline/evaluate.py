"""Stage `evaluate`: statistics on stored predictions, and the gate's verdict. Loads no model,
imports no model library."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from datetime import datetime

import polars as pl

from retrain import workspace
from retrain.config import Config, Task, class_name
from retrain.data.snapshot import SnapshotStore
from retrain.errors import PromotionError
from retrain.gate.alpha_spending import to_look
from retrain.gate.comparison import Comparison
from retrain.gate.decision import CheckSpec, build_checks, gate_digest
from retrain.gate.estimates import BASELINE, CHALLENGER, EVALUATION, INCUMBENT, WINDOW
from retrain.gate.holdout import check_holdout
from retrain.gate.slices import asked_columns
from retrain.pipeline.loop import decide
from retrain.pipeline.predictions import asked_metrics, compare_predictions, with_block
from retrain.registry.ledger import Ledger
from retrain.registry.store import open_store
from retrain.report import formatting
from retrain.types import ChallengerRecord

NOTABLY_WORSE = 0.001  # of the constant's score
log = logging.getLogger("retrain")


def run(config: Config) -> None:
    """Official where DVC runs it. For a person it is a what-if: printed, counted as a look, and
    written nowhere that a later command takes for a verdict."""
    official = workspace.running_stage() is not None
    trained = ChallengerRecord.load(workspace.CHALLENGER, "train")
    if not trained.retrained:
        if official:
            Comparison(reason=trained.reason).save(workspace.COMPARISON)
        log.info("Nothing to compare: %s", trained.reason)
        return
    if trained.task != config.data.task.name:
        raise PromotionError(
            f"The predictions are of a {trained.task} model, and `data.task` is "
            f"{config.data.task.name}.",
            hint="run `dvc repro` to train for that task",
        )
    predictions = _read_predictions(trained)
    evaluated = predictions.filter(pl.col(WINDOW) == EVALUATION)
    provenance = check_holdouts(evaluated[config.data.time_column], trained)
    specs = build_checks(config.gate, trained.incumbent is not None, config.data)
    comparison = compare_stored(config, predictions, trained, specs)
    gate = gate_digest(config, trained.incumbent is not None)
    comparison = dataclasses.replace(
        _decide_once(config, trained, gate, comparison, specs),
        predictions=trained.predictions,
        provenance=provenance,
    )
    warning = worse_than_constant(config, comparison)
    if warning:
        log.warning("%s", warning)
    if not official:
        _show(comparison)
        return
    comparison.save(workspace.COMPARISON)
    log.info("Verdict %s: %s", comparison.verdict, comparison.reason)


def worse_than_constant(config: Config, comparison: Comparison) -> str:
    """That the challenger is no model, and what to try; empty where it does better than the best
    constant, or where nobody can tell."""
    metric = comparison.metric
    try:
        worsening = comparison.worsening(BASELINE, metric).value
        scores = [comparison.score(model, metric).value for model in (CHALLENGER, BASELINE)]
    except PromotionError:
        return ""
    if worsening <= NOTABLY_WORSE * abs(scores[1]):
        return ""
    model = class_name(config.model.estimator)
    linear = "ridge" if config.data.task is Task.regression else "logistic_regression"
    others = [
        name
        for name in (linear, "random_forest")
        if not model.lower().startswith(name.replace("_", ""))
    ]
    return (
        f"The challenger ({model}) ends worse than a constant prediction on the evaluation rows: "
        f"{metric} "
        f"{scores[0]:.4g} against {scores[1]:.4g}. Either the features tell nothing about the "
        "target, or this model can't cope with so "
        f"few rows (a class): try {' or '.join(f'`model={name}`' for name in others)}, and look "
        "through `data.features`."
    )


def _decide_once(
    config: Config,
    trained: ChallengerRecord,
    gate: str,
    comparison: Comparison,
    specs: Mapping[str, CheckSpec],
) -> Comparison:
    """The comparison with its look and verdict: a look is in the ledger before anybody sees it.

    Of the configured gate train has recorded it, with the store open. Only for another one MLflow
    is loaded, for 2 s or 3.
    """
    if gate in trained.looks:
        look = dataclasses.replace(
            to_look(trained, gate), look=trained.looks[gate], unseen=trained.unseen
        )
        return decide(comparison, look, specs)
    ledger = Ledger.open(open_store(config))
    look = ledger.record_look(
        to_look(trained, gate),
        lambda found: str(decide(comparison, found, specs).verdict),
    )
    return decide(comparison, look, specs)


def _show(compared: Comparison) -> None:
    """A what-if, on standard output."""
    print(f"Verdict {compared.verdict}: {compared.reason}")
    for name, check in compared.checks.items():
        print(f"  {formatting.outcome(check):<16}{name}: {check.reason}")
    print(
        f"Only shown, and counted as look {compared.look} at these evaluation rows; `retrain "
        "promote` does not carry it out. "
        "To make a gate the pipeline's, write it into conf/, then `dvc repro`."
    )


def _read_predictions(trained: ChallengerRecord) -> pl.DataFrame:
    try:
        content = workspace.PREDICTIONS.read_bytes()
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest() != trained.predictions:
        raise PromotionError(
            f"{workspace.PREDICTIONS} is missing or not the file that train wrote.",
            hint="run `dvc repro -f -s train` to make it again",
        )
    predictions = pl.read_parquet(content)
    if WINDOW not in predictions.columns:
        raise PromotionError(
            f"{workspace.PREDICTIONS} was written by an earlier version of this project, and "
            f"lacks the column `{WINDOW}`.",
            hint="run `dvc repro -f -s train` to make it again",
        )
    return predictions


def check_holdouts(times: pl.Series, trained: ChallengerRecord) -> dict[str, str]:
    """By model why it can't have been trained on an evaluation row, of which `times` are.

    Raises PromotionError when that can't be shown.
    """
    first = times.min()
    first_row = first.isoformat() if isinstance(first, datetime) else trained.evaluation_start
    models = {CHALLENGER: trained.challenger, INCUMBENT: trained.incumbent}
    return {
        name: check_holdout(name, model, first_row, trained.evaluation_batches)
        for name, model in models.items()
        if model is not None
    }


def compare_stored(
    config: Config,
    predictions: pl.DataFrame,
    trained: ChallengerRecord,
    specs: Mapping[str, CheckSpec],
) -> Comparison:
    """The comparison with all that the checks ask for: metrics, features, reference windows,
    facts."""
    predictions = with_block(config, predictions)
    rows = predictions.filter(pl.col(WINDOW) == EVALUATION)
    checks = [spec.check for spec in specs.values()]
    comparison = compare_predictions(
        config,
        with_features(config, rows, trained, asked_columns(checks, config.data)),
        asked_metrics(config, specs.values()),
        trained.classes,
        trained.unknown_classes,
    )
    reference = predictions.filter(pl.col(WINDOW) != EVALUATION)
    return dataclasses.replace(comparison, facts=trained.facts, reference_rows=reference)


def with_features(
    config: Config, judged: pl.DataFrame, trained: ChallengerRecord, columns: list[str]
) -> pl.DataFrame:
    """The evaluation rows with some feature columns, which lie in the snapshot in the same
    order."""
    wanted = [name for name in columns if name not in judged.columns]
    if not wanted:
        return judged
    identity = list(dict.fromkeys([config.data.time_column, *config.data.key_columns]))
    read = SnapshotStore(workspace.SNAPSHOT).read(
        list(trained.evaluation_batches), [*identity, *wanted]
    )
    start, end = judged[config.data.time_column].min(), judged[config.data.time_column].max()
    features = read.filter(pl.col(config.data.time_column).is_between(start, end))
    if not features.select(identity).equals(judged.select(identity)):
        raise PromotionError(
            "The snapshot no longer holds the rows that the predictions are about.",
            hint="run `dvc repro -f -s train` to make them again",
        )
    return judged.hstack(features.select(name for name in wanted if name in features.columns))
