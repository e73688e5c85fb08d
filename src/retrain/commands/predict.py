"""`retrain predict`: score a file with the champion."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from retrain.commands.status import read_ledger
from retrain.config import ColumnType, Config
from retrain.errors import DataError, PromotionError
from retrain.project import replacing
from retrain.tracking.store import open_store

log = logging.getLogger("retrain")
FORMATS = (".parquet", ".csv")


def run(config: Config, options: argparse.Namespace) -> None:
    for path in (options.input, options.output):
        if path.suffix not in FORMATS:
            raise DataError(f"{path.name} must end in {' or '.join(FORMATS)}.")
    rows = read_rows(options.input)
    scored = score(config, rows, options.input)
    with replacing(options.output) as temporary:
        scored.write_parquet(temporary) if options.output.suffix == ".parquet" else scored.write_csv(temporary)
    log.info(
        "Scored %s rows with version %s into %s",
        f"{len(scored):,}",
        scored["model_version"][0] if len(scored) else "?",
        options.output.name,
    )


def read_rows(path: Path) -> pl.DataFrame:
    """Raises DataError when the file is missing or can't be read."""
    try:
        return (
            pl.read_parquet(path)
            if path.suffix == ".parquet"
            else pl.read_csv(path, try_parse_dates=True, infer_schema_length=None)
        )
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} can't be read: {str(error).splitlines()[0]}") from error


def check_columns(rows: pl.DataFrame, features: Mapping[str, ColumnType], path: Path) -> None:
    """Raises DataError that names every feature column that is missing or has the wrong type. Others are passed through."""
    problems = []
    for name, kind in features.items():
        if name not in rows.columns:
            problems.append(f"`{name}` is missing")
            continue
        dtype = rows.schema[name]
        if kind is ColumnType.categorical:
            fits = dtype in (pl.String, pl.Categorical, pl.Enum) or dtype.is_integer()
        else:
            fits = dtype.is_numeric() or dtype == pl.Boolean
        if not fits and dtype != pl.Null:
            problems.append(f"`{name}` has type {dtype} instead of {kind.name}")
    if problems:
        raise DataError(
            f"{path.name} can't be scored: {'; '.join(problems)}. The champion was trained on these columns, which were those "
            "of conf/data/ then."
        )


def score(config: Config, rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The rows with `prediction` (probability of the positive class), `model_version` and `predicted_at` (UTC)."""
    from retrain.promotion.ledger import current_champion

    champion = current_champion(read_ledger(config))
    if champion is None:
        raise PromotionError("There is no champion to score with. Run `dvc repro` to train the first one.")
    from retrain.modeling.pipeline import predict
    from retrain.promotion.registry import load_version

    model = load_version(open_store(config), champion.champion, config.trusted_types)
    check_columns(rows, model.features, path)
    return rows.with_columns(
        pl.Series("prediction", predict(model.pipeline, rows, model.features) if len(rows) else [], dtype=pl.Float64),
        pl.lit(champion.champion).alias("model_version"),
        pl.lit(datetime.now(UTC).replace(microsecond=0, tzinfo=None)).alias("predicted_at"),
    )
