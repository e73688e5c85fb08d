"""`retrain predict`: score a file with the champion."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from retrain.commands.read_ledger import first_or_lost, read_ledger
from retrain.commands.rows_to_score import read_in_parts
from retrain.commands.scored_files import OUTPUTS, writing
from retrain.config import ColumnType, Config, Task
from retrain.data.reading.conversions import KINDS, first_of, to_feature, without_misfits
from retrain.data.reading.files import refuse_other_kinds
from retrain.data.reading.parts import split_problems
from retrain.errors import DataError, ModelError, PromotionError
from retrain.models.block_sums import Array
from retrain.models.fitting import known_classes, predict
from retrain.models.scoring import Model
from retrain.registry.entries import current_champion
from retrain.registry.store import open_store
from retrain.registry.versions import load_version

log = logging.getLogger("retrain")
MOST_FAILED = 100  # single rows of a part that a model fails on


@dataclass(frozen=True)
class Outputs:
    """Names of the columns that scoring adds, all with the beginning that the user gave."""

    prefix: str = ""

    def named(self, name: str) -> str:
        return self.prefix + name

    @property
    def prediction(self) -> str:
        return self.named("prediction")

    @property
    def problem(self) -> str:
        """Why a row has no prediction, null where it has one."""
        return self.named("prediction_problem")

    def probability(self, label: str) -> str:
        return self.named(f"probability_{label}")


def run(config: Config, options: argparse.Namespace) -> None:
    """Rows that can't be scored have no prediction but the reason; raises DataError, and writes
    nothing, when none can be."""
    refuse_other_kinds(options.input)
    if not options.output.name.lower().endswith(OUTPUTS) or options.output.is_dir():
        raise DataError(
            f"`--output` is {options.output.name}, but must be a file that ends in "
            f"{' or '.join(OUTPUTS)}."
        )
    if options.output == options.input:
        raise DataError(
            f"`--output` is the input itself, {options.input.name}.",
            hint="give the scored rows a file of their own",
        )
    version, model = load_champion(config)
    outputs, seen = Outputs(options.prefix), Seen()
    with writing(options.output) as write_part:
        for rows in read_in_parts(config, options.input, model.features):
            scored = score_part(config, rows, options.input.name, version, model, outputs)
            seen = seen.more(scored[outputs.problem])
            write_part(scored)
        seen.check(options.input.name)
    _tell(seen, options, version)


@dataclass(frozen=True)
class Seen:
    """How many rows there were, how many without a prediction, and why the first of them."""

    rows: int = 0
    bad: int = 0
    first: str = ""

    def more(self, problems: pl.Series) -> Seen:
        bad = problems.drop_nulls()
        first = self.first or (str(bad[0]) if len(bad) else "")
        return Seen(self.rows + len(problems), self.bad + len(bad), first)

    def check(self, source: str) -> None:
        """Raises DataError when there are rows, and none has a prediction."""
        if self.rows and self.bad == self.rows:
            raise DataError(
                f"None of the {self.rows:,} rows of {source} can be scored. "
                f"The first: {self.first}."
            )


def load_champion(config: Config) -> tuple[int, Model]:
    """Version and model of the champion. Raises PromotionError when there is none."""
    entries = read_ledger(config)
    champion = current_champion(entries)
    if champion is None or champion.champion is None:
        raise PromotionError(f"There is no champion to score with. {first_or_lost(config)}")
    return champion.champion, load_version(
        open_store(config), champion.champion, config.trusted_types, entries
    )


def score(
    config: Config, rows: pl.DataFrame, source: str, version: int, model: Model, outputs: Outputs
) -> pl.DataFrame:
    """All rows of a source at once, as `score_part`. Raises DataError when none can be scored."""
    scored = score_part(config, rows, source, version, model, outputs)
    Seen().more(scored[outputs.problem]).check(source)
    return scored


def score_part(
    config: Config, rows: pl.DataFrame, source: str, version: int, model: Model, outputs: Outputs
) -> pl.DataFrame:
    """The rows with `prediction`, `prediction_problem`, `model_version` and `predicted_at` (UTC).

    The prediction is the probability of the positive class, a value, or of several classes the most
    probable one, with the probability of each in `probability_<class>`. It is null where
    `prediction_problem` says why. Raises DataError when a feature is missing in all rows, or a
    column of the input has the name of a new one.
    """
    rows, unread = split_problems(rows)
    classes = known_classes(model.pipeline) if config.data.task is Task.multiclass else []
    _check_names(rows, source, classes, outputs)
    kinds = {name: KINDS[kind] for name, kind in model.features.items() if kind in KINDS}
    fitting, misfits = without_misfits(rows, kinds)
    check_columns(fitting, model.features, source)
    required = {name for name, column in config.data.features.items() if not column.nullable}
    problems = _unfit(fitting, model.features, required)
    problems = first_of(unread, misfits, problems)
    sound = problems.is_null()
    scores = np.full((len(rows), len(classes)) if classes else len(rows), np.nan)
    scores[sound.to_numpy()], failed = _score_rows(model, fitting.filter(sound), classes)
    places = sound.arg_true()
    for place, why in failed.items():
        problems[int(places[place])] = why
    return rows.with_columns(
        *_predicted(scores, problems, classes, outputs),
        problems.alias(outputs.problem),
        pl.lit(version).alias(outputs.named("model_version")),
        pl.lit(datetime.now(UTC).replace(microsecond=0, tzinfo=None)).alias(
            outputs.named("predicted_at")
        ),
    )


def _check_names(rows: pl.DataFrame, source: str, classes: Sequence[str], outputs: Outputs) -> None:
    new = [
        outputs.prediction,
        outputs.problem,
        *map(outputs.named, ("model_version", "predicted_at")),
    ]
    taken = [name for name in [*new, *map(outputs.probability, classes)] if name in rows.columns]
    if taken:
        raise DataError(
            f"{source} has a column {', '.join(f'`{name}`' for name in taken)} already, which "
            "scoring would overwrite.",
            hint="give the new columns names of their own, such as `--prefix champion_`",
        )


def _unfit(
    rows: pl.DataFrame, features: Mapping[str, ColumnType], required: Collection[str]
) -> pl.Series:
    """For each row why its values can't be scored, null where they can: infinite ones, and missing
    ones that are required."""
    problems = pl.Series([None], dtype=pl.String).new_from_index(0, len(rows))
    for name, kind in features.items():
        values = to_feature(rows[name], kind)
        if values is None:
            raise DataError(f"`{name}` holds {rows[name].dtype}, which is no {kind.name} column.")
        if name in required and values.null_count():
            missing = (
                pl.Series([f"{name}: missing"])
                .new_from_index(0, len(rows))
                .set(values.is_not_null(), None)
            )
            problems = problems.zip_with(problems.is_not_null(), missing)
        if values.dtype.is_float() and values.is_infinite().any():
            why = (name + ": " + values.cast(pl.String) + " is not a finite number").set(
                ~values.is_infinite(), None
            )
            problems = problems.zip_with(problems.is_not_null(), why)
    return problems


def _score_rows(
    model: Model, rows: pl.DataFrame, classes: Sequence[str]
) -> tuple[Array, dict[int, str]]:
    """Scores of rows, NaN for those that the model fails on, with the reason by the row's place:
    halved until they are found.

    Raises ModelError when there are too many of them to be single bad rows.
    """
    scores, failed = np.full((len(rows), len(classes)) if classes else len(rows), np.nan), {}
    open_parts = [(0, len(rows))] if len(rows) else []
    while open_parts:
        start, end = open_parts.pop()
        try:
            scores[start:end] = predict(
                model.pipeline, rows.slice(start, end - start), model.features, classes
            )
        except ModelError as error:
            if end - start > 1:
                middle = (start + end) // 2
                open_parts += [(middle, end), (start, middle)]
                continue
            failed[start] = str(error).partition(";")[0]
            if len(failed) > MOST_FAILED:
                raise
    return scores, failed


def _predicted(
    scores: Array, problems: pl.Series, classes: Sequence[str], outputs: Outputs
) -> list[pl.Series]:
    wrong = problems.is_not_null()
    if not classes:
        return [pl.Series(outputs.prediction, scores, dtype=pl.Float64).set(wrong, None)]
    best = np.where(np.isnan(scores), -1.0, scores).argmax(axis=1)
    labels = pl.Series(outputs.prediction, [classes[index] for index in best], dtype=pl.String)
    columns = [
        pl.Series(outputs.probability(name), scores[:, index]) for index, name in enumerate(classes)
    ]
    return [values.set(wrong, None) for values in (labels, *columns)]


def _tell(seen: Seen, options: argparse.Namespace, version: int) -> None:
    if seen.bad:
        log.warning(
            "%s of %s rows of %s have no prediction; `%s` says why. The first: %s",
            f"{seen.bad:,}",
            f"{seen.rows:,}",
            options.input.name,
            Outputs(options.prefix).problem,
            seen.first,
        )
    elif not seen.rows:
        log.warning(
            "%s has no rows, so %s holds the columns alone.",
            options.input.name,
            options.output.name,
        )
    scored = seen.rows - seen.bad
    log.info("Scored %s rows with version %d into %s", f"{scored:,}", version, options.output.name)


def check_columns(rows: pl.DataFrame, features: Mapping[str, ColumnType], source: str) -> None:
    """Raises DataError that names every feature column that is missing or has the wrong type.
    Others are passed through."""
    problems = []
    for name, kind in features.items():
        if name not in rows.columns:
            problems.append(f"`{name}` is missing")
            continue
        if to_feature(rows[name], kind) is None:
            problems.append(f"`{name}` has type {rows.schema[name]} instead of {kind.name}")
    if problems:
        raise DataError(
            f"{source} can't be scored: {'; '.join(problems)}. The champion was trained on these "
            "columns, which were those "
            "of conf/data/ then."
        )
