"""Known ways in which training rows go wrong. Pure: a frame in, a worse one out; the draws are
seeded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from retrain.config import ColumnType, Config


def flip_labels(
    rows: pl.DataFrame, target: str, share: float, seed: int, where: pl.Series | None = None
) -> pl.DataFrame:
    """The labels of a random share of the rows (of those `where` is true) made wrong.

    True and false change places, a class becomes another one, and a number is mirrored at the
    middle of the range.
    """
    random = np.random.default_rng(seed)
    drawn = pl.Series(random.random(len(rows)) < share)
    chosen = drawn if where is None else drawn & where.fill_null(False)
    values, column = rows[target], pl.col(target)
    wrong: pl.Expr | pl.Series
    if values.dtype == pl.Boolean:
        wrong = ~column
    elif values.dtype == pl.String:
        classes = values.unique().sort()
        places = classes.search_sorted(values).to_numpy()
        moved = random.integers(1, max(2, len(classes)), len(rows))
        wrong = classes.gather((places + moved) % len(classes))
    else:
        wrong = column.min() + column.max() - column
    return rows.with_columns(pl.when(chosen).then(wrong).otherwise(column).alias(target))


def shuffle_column(rows: pl.DataFrame, name: str, seed: int) -> pl.DataFrame:
    """One column's values dealt out anew, as by a join on the wrong key."""
    return rows.with_columns(pl.col(name).shuffle(seed))


def leak_target(rows: pl.DataFrame, target: str, name: str) -> pl.DataFrame:
    """A new column that tells the target, as one that is filled in afterwards would."""
    values = rows[target]
    codes = values.cast(pl.Categorical).to_physical() if values.dtype == pl.String else values
    return rows.with_columns(codes.cast(pl.Float64).alias(name))


def resample(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """As many rows, drawn with replacement: what another sample of the same world would have
    taught."""
    return rows.sample(len(rows), with_replacement=True, seed=seed)


def _other_columns(rows: pl.DataFrame, config: Config, seed: int) -> pl.DataFrame:
    """Every second feature comes from other rows."""
    for name in list(config.data.features)[::2]:
        rows = shuffle_column(rows, name, seed)
    return rows


def _other_units(rows: pl.DataFrame, config: Config, seed: int) -> pl.DataFrame:
    """A quarter of the numbers as if miles had become kilometres."""
    features = config.data.features.items()
    numbers = [name for name, column in features if column.type is ColumnType.numeric]
    return rows.with_columns(pl.col(name) * 1.609344 for name in numbers[::4])


def _repeated(rows: pl.DataFrame, config: Config, seed: int) -> pl.DataFrame:
    """The older half of the rows three times."""
    half = rows.head(len(rows) // 2)
    return pl.concat([half, half, rows]).sort(config.data.time_column, maintain_order=True)


CORRUPTIONS: dict[str, Callable[[pl.DataFrame, Config, int], pl.DataFrame]] = {
    "40% of the labels flipped": lambda rows, config, seed: flip_labels(
        rows, config.data.target_column, 0.4, seed
    ),
    "all labels flipped": lambda rows, config, seed: flip_labels(
        rows, config.data.target_column, 1.0, seed
    ),
    "half of the columns shuffled": _other_columns,
    "units changed": _other_units,
    "rows repeated": _repeated,
}


@dataclass(frozen=True)
class Corruption:
    """One way in which a whole batch goes wrong, by its name in CORRUPTIONS."""

    kind: str
    seed: int = 0

    def apply(self, rows: pl.DataFrame, config: Config) -> pl.DataFrame:
        """The batch as it would have arrived."""
        return CORRUPTIONS[self.kind](rows, config, self.seed)

    def __str__(self) -> str:
        return f"{self.kind} {self.seed}"
