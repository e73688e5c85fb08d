"""How much of the target one column alone could tell.

Of classes, the share of the target's entropy; of amounts, the share of the variance of their ranks, or of themselves.
No row is predicted from itself, and a tree pays for each of its leaves, so that chance tells nothing.
"""

from __future__ import annotations

import heapq

import numpy as np
import polars as pl

MOST_LEVELS = 100  # a number with no more different values than this may stand for levels
LEAVES = 8  # of the tree over one column, beside one for each class
NATS_PER_LEAF = 1.5  # what a leaf can gain by chance: it has one threshold and one probability
BINS = 1024
SHRUNK_BY = 1.0  # rows at the overall mean that each level is given beside its own
FEW_KNOWN = 200
MOST_RUNS = 0.3  # of the rows of a class that has limits of its own
SEED = 0


def told_of_classes(values: pl.Series, classes: np.ndarray, least: float = 0.0) -> float:
    """The share of the entropy of `classes` (whole numbers from 0) that the levels of a column tell, or intervals of its
    values. A share below `least` may come out too large, but not as large as that."""
    shares = [0.0]
    if (levels := _levels(values)) is not None:
        shares.append(_told_by_levels(_contingency(levels, classes)))
    if (numbers := _numbers(values)) is not None:
        shares.append(_told_by_intervals(numbers, classes, least))
    return max(shares)


def told_of_one_class(values: pl.Series, classes: np.ndarray) -> tuple[float, int]:
    """The largest share of the entropy of one class against all others, and which class that is: by the levels of a flag or
    a category, or by whether a number is missing or its most common one, such as a fee that all other classes lack."""
    groups = _levels(values)
    if groups is None or (_is_number(values) and values.n_unique() > 2):
        common = values.drop_nulls().mode()
        same = (values == common.min()).fill_null(False) if len(common) else values.is_null()
        groups = (values.is_null().cast(pl.Int64) * 2 + same.cast(pl.Int64)).to_numpy()
    shares = [
        _told_by_levels(_contingency(groups, classes == k)) for k in range(int(classes.max()) + 1)
    ]
    return max(shares), int(np.argmax(shares))


def class_with_limits(values: pl.Series, classes: np.ndarray, least: float) -> int | None:
    """A class that lies between limits of a number of its own. Often in all honesty: petals of iris setosa are short."""
    numbers = _numbers(values)
    if numbers is None:
        return None
    numbers = numbers[order := np.argsort(numbers, kind="stable")]
    classes = classes[order]
    rows = np.bincount(classes)
    runs = np.bincount(classes[np.r_[True, classes[1:] != classes[:-1]]], minlength=len(rows))
    for k in np.flatnonzero(
        (rows > 0) & (runs <= MOST_RUNS * rows + LEAVES)
    ):  # the others lie about everywhere
        if _told_by_intervals(numbers, (classes == k).astype(np.int64), least) > least:
            return int(k)
    return None


def told_of_amounts(values: pl.Series, amounts: np.ndarray) -> float:
    """The share of the variance of `amounts`, or of their ranks, that a column tells as whatever function of it.

    Of infinite amounts nothing has a variance: their rows are left out.
    """
    if not (finite := np.isfinite(amounts)).all():
        values, amounts = values.filter(pl.Series(finite)), amounts[finite]
    if not len(amounts):
        return 0.0
    ranks = pl.Series(amounts).rank("average").to_numpy()
    shares = [0.0]
    if (levels := _levels(values)) is not None:
        shares.append(_told_by_means(levels, ranks))
    if (numbers := _numbers(values)) is not None:
        known = np.isfinite(numbers)
        if known.sum() >= min(FEW_KNOWN, len(numbers) / 2):
            shares += [
                _told_by_neighbours(numbers[known], outcome[known]) for outcome in (ranks, amounts)
            ]
    return max(shares)


def _levels(values: pl.Series) -> np.ndarray | None:
    """The number of its level for each row; None for numbers with too many of them."""
    if _is_number(values) and values.n_unique() > MOST_LEVELS:
        return None
    return values.cast(pl.String).fill_null("\0").rank("dense").to_numpy().astype(np.int64) - 1


def _is_number(values: pl.Series) -> bool:
    return values.dtype.is_numeric() or values.dtype.is_temporal() or values.dtype == pl.Boolean


def _numbers(values: pl.Series) -> np.ndarray | None:
    """Numbers, flags and times as floats, missing ones NaN; None for anything else."""
    if not _is_number(values):
        return None
    physical = values.to_physical() if values.dtype.is_temporal() else values
    return physical.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _contingency(groups: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Rows by group and class."""
    width, height = int(classes.max()) + 1, int(groups.max()) + 1
    return np.bincount(groups * width + classes, minlength=height * width).reshape(height, width)


def _losses(counts: np.ndarray) -> np.ndarray:
    """Log loss of the rows of each group, with the shares of the classes in it as its prediction."""
    shares = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    return -(counts * np.log(np.where(counts > 0, shares, 1.0))).sum(axis=-1)


def _share(loss: float, totals: np.ndarray) -> float:
    """What is told, where `totals` are the rows of each class and `loss` is what remains."""
    entropy = float(_losses(totals))
    return 1 - loss / entropy if entropy > 0 else 0.0


def _told_by_levels(counts: np.ndarray) -> float:
    """Each row is predicted from the other rows of its level, and a little from all: a level of one row tells nothing."""
    overall = counts.sum(axis=0) / counts.sum()
    others = counts.sum(axis=1, keepdims=True) - 1
    predicted = (counts - 1 + SHRUNK_BY * overall) / (others + SHRUNK_BY)
    there = counts > 0
    return _share(-float((counts[there] * np.log(predicted[there])).sum()), counts.sum(axis=0))


def _told_by_intervals(numbers: np.ndarray, classes: np.ndarray, least: float) -> float:
    """By a tree over one column: intervals of its values, and one group of the rows that lack it."""
    known = np.isfinite(numbers)
    totals = np.bincount(classes)
    missing = float(_losses(np.bincount(classes[~known], minlength=len(totals))))
    if not known.any():
        return 0.0
    order = np.argsort(numbers[known], kind="stable")
    values, classes = numbers[known][order], classes[known][order]
    starts = np.r_[True, values[1:] != values[:-1]]
    leaves = LEAVES + len(totals)
    # No tree is better than bins of their own, but for those that its thresholds lie in: a bound that is quick to find.
    value = np.cumsum(starts) - 1
    bins = value[np.arange(len(value)) * BINS // len(value) * len(value) // BINS]
    binned = _losses(_contingency(np.unique(bins, return_inverse=True)[1], classes))
    bound = _share(missing + float(np.sort(binned)[:-leaves].sum()), totals)
    return (
        bound
        if bound < least
        else _share(missing + _tree_loss(_contingency(value, classes), leaves), totals)
    )


def _tree_loss(counts: np.ndarray, leaves: int) -> float:
    """What a tree with up to so many leaves over ordered groups leaves over, and what its leaves cost."""
    sums = np.vstack([np.zeros(counts.shape[1]), np.cumsum(counts, axis=0)])

    def best_split(first: int, last: int) -> tuple[float, int, int, int]:
        inside = sums[first + 1 : last] - sums[first]
        whole = sums[last] - sums[first]
        after = _losses(inside) + _losses(whole - inside)
        best = int(np.argmin(after))
        return float(after[best] - _losses(whole)), first, first + 1 + best, last

    total, made = float(_losses(sums[-1])), 1
    queue = [best_split(0, len(counts))] if len(counts) > 1 else []
    while queue and made < leaves and -queue[0][0] > NATS_PER_LEAF:
        change, first, middle, last = heapq.heappop(queue)
        total, made = total + change + NATS_PER_LEAF, made + 1
        for start, end in ((first, middle), (middle, last)):
            if end - start > 1:
                heapq.heappush(queue, best_split(start, end))
    return total


def _told_by_means(groups: np.ndarray, outcome: np.ndarray) -> float:
    """Each row is predicted from the other rows of its level, and a little from all."""
    center = outcome.mean()
    rows, sums = np.bincount(groups)[groups], np.bincount(groups, weights=outcome)[groups]
    predicted = (sums - outcome + SHRUNK_BY * center) / (rows - 1 + SHRUNK_BY)
    variance = ((outcome - center) ** 2).sum()
    return 1 - float(((outcome - predicted) ** 2).sum() / variance) if variance > 0 else 0.0


def _told_by_neighbours(numbers: np.ndarray, outcome: np.ndarray) -> float:
    """Each row is predicted from the two beside it in the order of the column, on the straight line between them.

    As in von Neumann's ratio, what is left over is the variance that no smooth function of the column explains; equal
    values are in random order, so that they are one another's noise.
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
