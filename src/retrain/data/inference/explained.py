"""How much of the target one column alone explains.

Of classes, the share of the target's entropy; of amounts, the share of the variance of their ranks,
or of themselves. No row is predicted from itself, and a tree pays for each of its leaves, so that
chance explains nothing.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

MOST_LEVELS = 100  # a number with no more different values than this may stand for levels
LEAVES = 8  # of the tree over one column, beside one for each class
NATS_PER_LEAF = 1.5  # what a leaf can gain by chance: it has one threshold and one probability
SHRUNK_BY = 1.0  # rows at the overall mean that each level is given beside its own
FEW_KNOWN = 200
SEED = 0


def explained_entropy(values: pl.Series, classes: NDArray[np.int64]) -> float:
    """The share of the entropy of `classes` (from 0) explained by a column's levels, or by
    intervals of its values."""
    levels = _levels(values)
    by_levels = 0.0 if levels is None else entropy_by_levels(levels, classes)
    return max(by_levels, entropy_by_intervals(values, classes))


def explained_variance(values: pl.Series, amounts: NDArray[np.float64]) -> float:
    """The share of the variance of `amounts`, or of their ranks, explained by whatever function of
    a column.

    Infinite amounts have no variance: their rows are left out.
    """
    finite = np.isfinite(amounts)
    values, amounts = values.filter(pl.Series(finite)), amounts[finite]
    if not len(amounts):
        return 0.0
    ranks = pl.Series(amounts).rank("average").to_numpy()
    shares = [0.0]
    if (levels := _levels(values)) is not None:
        shares.append(_variance_by_levels(levels, ranks))
    if (numbers := _numbers(values)) is not None:
        known = np.isfinite(numbers)
        if known.sum() >= min(FEW_KNOWN, len(numbers) / 2):
            shares += [_variance_by_neighbours(numbers[known], y[known]) for y in (ranks, amounts)]
    return max(shares)


def indicator_levels(values: pl.Series) -> NDArray[np.int64]:
    """The levels of a flag or a category; of other numbers whether they are missing, or their most
    common value, such as a fee that most rows lack."""
    groups = _levels(values)
    if groups is not None and (values.n_unique() <= 2 or not _is_number(values)):
        return groups
    common = values.drop_nulls().mode().min()
    return (
        pl.select(pl.when(values.is_null()).then(0).when(values == common).then(1).otherwise(2))
        .to_series()
        .to_numpy()
        .astype(np.int64)
    )


def entropy_by_levels(levels: NDArray[np.int64], classes: NDArray[np.int64]) -> float:
    """Each row is predicted from the other rows of its level, and a little from all: a level of one
    row explains nothing."""
    width, height = int(classes.max()) + 1, int(levels.max()) + 1
    counts = np.bincount(levels * width + classes, minlength=height * width).reshape(height, width)
    counts = counts[counts.any(axis=1)]
    totals = counts.sum(axis=0)
    others = counts.sum(axis=1, keepdims=True) - 1
    predicted = (counts - 1 + SHRUNK_BY * totals / totals.sum()) / (others + SHRUNK_BY)
    there = counts > 0
    return _share(-float((counts[there] * np.log(predicted[there])).sum()), totals)


def entropy_by_intervals(values: pl.Series, classes: NDArray[np.int64]) -> float:
    """By a tree over one column: intervals of its values, and one group of the rows that lack it. 0
    for texts."""
    from sklearn.tree import DecisionTreeClassifier

    numbers = _numbers(values)
    if numbers is None or not (known := np.isfinite(numbers)).any():
        return 0.0
    totals = np.bincount(classes)
    count, missing = int(known.sum()), np.bincount(classes[~known], minlength=len(totals))
    tree = DecisionTreeClassifier(
        criterion="entropy",
        max_leaf_nodes=LEAVES + len(totals),
        min_impurity_decrease=NATS_PER_LEAF / count / math.log(2),
    )
    # Ranks, since the tree holds numbers in single precision.
    ranks = pl.Series(numbers[known]).rank("dense").to_numpy()
    nodes = tree.fit(ranks[:, None], classes[known]).tree_
    leaves = nodes.children_left < 0
    bits = float((nodes.impurity * nodes.n_node_samples)[leaves].sum())
    cost = NATS_PER_LEAF * (leaves.sum() - 1)
    return _share(_loss(missing) + bits * math.log(2) + cost, totals)


def _loss(totals: NDArray[np.int64]) -> float:
    """Log loss of rows of several classes, predicted by the shares of these."""
    there = totals[totals > 0]
    return -float((there * np.log(there / there.sum())).sum())


def _share(loss: float, totals: NDArray[np.int64]) -> float:
    """What is explained, where `totals` are the rows of each class and `loss` is what remains."""
    entropy = _loss(totals)
    return 1 - loss / entropy if entropy > 0 else 0.0


def _levels(values: pl.Series) -> NDArray[np.int64] | None:
    """The number of its level for each row; None for numbers with too many of them."""
    if _is_number(values) and values.n_unique() > MOST_LEVELS:
        return None
    return values.cast(pl.String).fill_null("\0").rank("dense").to_numpy().astype(np.int64) - 1


def _is_number(values: pl.Series) -> bool:
    return values.dtype.is_numeric() or values.dtype.is_temporal() or values.dtype == pl.Boolean


def _numbers(values: pl.Series) -> NDArray[np.float64] | None:
    """Numbers, flags and times as floats, missing ones NaN; None for anything else."""
    if not _is_number(values):
        return None
    return values.to_physical().cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _variance_by_levels(levels: NDArray[np.int64], outcome: NDArray[np.float64]) -> float:
    """Each row is predicted from the other rows of its level, and a little from all."""
    center = outcome.mean()
    rows, sums = np.bincount(levels)[levels], np.bincount(levels, weights=outcome)[levels]
    predicted = (sums - outcome + SHRUNK_BY * center) / (rows - 1 + SHRUNK_BY)
    variance = ((outcome - center) ** 2).sum()
    return 1 - float(((outcome - predicted) ** 2).sum() / variance) if variance > 0 else 0.0


def _variance_by_neighbours(numbers: NDArray[np.float64], outcome: NDArray[np.float64]) -> float:
    """Each row is predicted from the two beside it in the order of the column, on the straight line
    between them.

    As in von Neumann's ratio, what is left over is the variance that no smooth function of the
    column explains; equal values are in random order, so that they are one another's noise.
    """
    order = np.random.default_rng(SEED).permutation(len(numbers))
    order = order[np.argsort(numbers[order], kind="stable")]
    x, y = numbers[order], outcome[order]
    gap = x[2:] - x[:-2]
    weight = np.where(gap > 0, (x[1:-1] - x[:-2]) / np.where(gap > 0, gap, 1), 0.5)
    left_over = y[1:-1] - (1 - weight) * y[:-2] - weight * y[2:]
    noise = (left_over**2 / (1 + weight**2 + (1 - weight) ** 2)).sum()
    variance = ((y[1:-1] - y[1:-1].mean()) ** 2).sum()
    return 1 - float(noise / variance) if variance > 0 else 0.0
