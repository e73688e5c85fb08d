"""`retrain predict`: score a file with the champion."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from retrain.columns import own_column
from retrain.commands.status import read_ledger
from retrain.config import ColumnType, Config, Task
from retrain.data.contract import to_feature
from retrain.data.dialect import Dialect
from retrain.data.files import SUFFIXES
from retrain.data.reading import read_one, split_problems
from retrain.data.sources import schema_casters
from retrain.errors import DataError, PromotionError
from retrain.project import replacing
from retrain.tracking.store import open_store

log = logging.getLogger("retrain")
OUTPUTS = (".parquet", ".csv")
_ORDER = own_column("order")


def run(config: Config, options: argparse.Namespace) -> None:
    for path, suffixes in ((options.input, SUFFIXES), (options.output, OUTPUTS)):
        if not path.name.lower().endswith(suffixes):
            raise DataError(f"{path.name} must end in {' or '.join(suffixes)}.")
    scored = score_readable(config, read_input(config, options.input), options.input)
    with replacing(options.output) as temporary:
        scored.write_parquet(temporary) if options.output.suffix == ".parquet" else scored.write_csv(temporary)
    log.info(
        "Scored %s rows with version %s into %s",
        f"{len(scored):,}",
        scored["model_version"][0] if len(scored) else "?",
        options.output.name,
    )


def read_input(config: Config, path: Path) -> pl.DataFrame:
    """A file in the types of the schema, written as those of the source are."""
    node: Any = config.data.source
    while isinstance(node, dict) and isinstance(node.get("source"), dict):  # wrapped, as by `WithLabels`
        node = node["source"]
    said = {key: node.get(key) for key in ("separator", "decimal", "encoding", "day_first")}
    dialect = Dialect.checked(**said)
    return read_one(path, dialect, schema_casters(config.data, dialect, node.get("time_format")))


def score_readable(config: Config, rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """As `score`; rows with a cell that can't be read have no prediction, and are named."""
    rows, unread = split_problems(rows)
    if unread is None:
        return score(config, rows, path)
    log.warning(
        "%s row(s) of %s have no prediction, since a cell can't be read. The first: %s",
        f"{unread.count():,}",
        path.name,
        unread.drop_nulls()[0],
    )
    rows = rows.with_row_index(_ORDER)
    scored = score(config, rows.filter(unread.is_null()), path)
    return pl.concat([scored, rows.filter(unread.is_not_null())], how="diagonal").sort(_ORDER).drop(_ORDER)


def check_columns(rows: pl.DataFrame, features: Mapping[str, ColumnType], path: Path) -> None:
    """Raises DataError that names every feature column that is missing or has the wrong type. Others are passed through."""
    problems = []
    for name, kind in features.items():
        if name not in rows.columns:
            problems.append(f"`{name}` is missing")
            continue
        if to_feature(rows[name], kind) is None:
            problems.append(f"`{name}` has type {rows.schema[name]} instead of {kind.name}")
    if problems:
        raise DataError(
            f"{path.name} can't be scored: {'; '.join(problems)}. The champion was trained on these columns, which were those "
            "of conf/data/ then."
        )


def score(config: Config, rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The rows with `prediction`, `model_version` and `predicted_at` (UTC).

    The prediction is the probability of the positive class, a value, or of several classes the most probable one, with
    the probability of each in `probability_<class>`.
    """
    from retrain.promotion.ledger import current_champion

    entries = read_ledger(config)
    champion = current_champion(entries)
    if champion is None:
        raise PromotionError("There is no champion to score with. Run `dvc repro` to train the first one.")
    from retrain.modeling.pipeline import known_classes, predict
    from retrain.promotion.registry import load_version

    model = load_version(open_store(config), champion.champion, config.trusted_types, entries)
    check_columns(rows, model.features, path)
    classes = known_classes(model.pipeline) if config.data.task is Task.multiclass else []
    empty = np.zeros((0, len(classes)) if classes else 0)
    scores = predict(model.pipeline, rows, model.features, classes) if len(rows) else empty
    predicted = [pl.Series("prediction", scores)]
    if classes:
        labels = [classes[index] for index in scores.argmax(axis=1)]
        predicted = [pl.Series("prediction", labels, dtype=pl.String)]
        predicted += [pl.Series(f"probability_{name}", scores[:, index]) for index, name in enumerate(classes)]
    return rows.with_columns(
        *predicted,
        pl.lit(champion.champion).alias("model_version"),
        pl.lit(datetime.now(UTC).replace(microsecond=0, tzinfo=None)).alias("predicted_at"),
    )
