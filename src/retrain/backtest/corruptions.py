"""Known ways in which training rows go wrong. Pure: a frame in, a worse one out; the draws are seeded."""

from __future__ import annotations

import numpy as np
import polars as pl


def flip_labels(rows: pl.DataFrame, target: str, share: float, seed: int, where: pl.Expr | None = None) -> pl.DataFrame:
    """The labels of a random share of the rows (of those `where` is true) made wrong.

    True and false change places, a class becomes another one, and a number is mirrored at the middle of the range.
    """
    random = np.random.default_rng(seed)
    drawn = pl.Series(random.random(len(rows)) < share)
    chosen = drawn if where is None else drawn & where.fill_null(False)
    values = rows[target]
    if values.dtype == pl.Boolean:
        wrong = ~values
    elif values.dtype == pl.String:
        classes = values.unique().sort()
        moved = (classes.search_sorted(values).to_numpy() + random.integers(1, max(2, len(classes)), len(rows))) % len(
            classes
        )
        wrong = classes.gather(moved)
    else:
        wrong = values.min() + values.max() - values
    return rows.with_columns(pl.when(chosen).then(wrong).otherwise(values).alias(target))


def shuffle_column(rows: pl.DataFrame, name: str, seed: int) -> pl.DataFrame:
    """One column's values dealt out anew, as by a join on the wrong key."""
    return rows.with_columns(pl.col(name).shuffle(seed))


def leak_target(rows: pl.DataFrame, target: str, name: str) -> pl.DataFrame:
    """A new column that tells the target, as one that is filled in afterwards would."""
    values = rows[target]
    codes = values.cast(pl.Categorical).to_physical() if values.dtype == pl.String else values
    return rows.with_columns(codes.cast(pl.Float64).alias(name))


def resample(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """As many rows, drawn with replacement: what another sample of the same world would have taught."""
    return rows.sample(len(rows), with_replacement=True, seed=seed)
