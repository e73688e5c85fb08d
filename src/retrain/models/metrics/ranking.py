"""The area under the ROC curve, exact without each block of rows."""

from __future__ import annotations

import numpy as np

from retrain.models.block_sums import Array
from retrain.models.metric import Metric
from retrain.models.metrics.probability import CLASSIFICATION


class RocAuc(Metric):
    """Probability that a positive row scores above a negative one, ties count half.

    With several classes, the mean over them of one against the rest, of those that occur and of
    which no single block holds all rows.

    It counts pairs of rows, so it is no sum over blocks. A block is left out by taking away the
    pairs that it has a part in. Those are sums of placement values (how many rows of the other
    class a row is on the right side of), less the pairs within the block, which would be taken away
    twice. Two sorts in all, and exact.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more
    correlated receiver operating characteristic curves", Biometrics 44 (placement values). Provost
    and Domingos 2000, "Well-trained PETs", CeDER working paper IS-00-04 (several classes).
    """

    tasks = CLASSIFICATION
    lower_is_better = False

    def replicates(self, target: Array, score: Array, blocks: Array) -> Array:
        if score.ndim == 1:
            return self._of_two(target == 1, score, blocks)
        classes = [
            self._of_two(target == index, score[:, index], blocks)
            for index in range(score.shape[1])
        ]
        count = len(classes[0]) - 1
        known = [
            values for values in classes if np.isfinite(values if count > 1 else values[0]).all()
        ]
        return np.mean(known, axis=0) if known else np.full(count + 1, np.nan)

    def _of_two(self, positive: Array, score: Array, blocks: Array) -> Array:
        order = np.argsort(score)
        score, positive, blocks = score[order], positive[order], blocks[order]
        rows_of = np.bincount(blocks)
        below = _other_class_below(score, positive)
        positives_of = np.bincount(blocks[positive], minlength=len(rows_of))
        negatives_of = rows_of - positives_of
        positives, negatives = positives_of.sum(), negatives_of.sum()
        # A negative row is on the right side of the positives that do not lie below it.
        involved = np.bincount(blocks, np.where(positive, below, positives - below))
        by_block = np.argsort(blocks, kind="stable")
        score, positive, blocks = score[by_block], positive[by_block], blocks[by_block]
        below = _other_class_below(score, positive, blocks)
        within = np.bincount(blocks[positive], below[positive], minlength=len(rows_of))
        ordered = involved.sum() / 2  # each pair was counted from both of its rows
        left = np.r_[ordered, ordered - involved + within]
        pairs = np.r_[
            positives * negatives, (positives - positives_of) * (negatives - negatives_of)
        ].astype(np.float64)
        share: Array = np.divide(left, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        return share


def _other_class_below(score: Array, positive: Array, blocks: Array | None = None) -> Array:
    """For each row the number of rows of the other class that score lower, ties count half: float64
    of shape (rows,).

    The rows are sorted by `score`; with `blocks` by block and then score, and only rows of the same
    block count.
    """
    first = np.r_[True, score[1:] != score[:-1]]
    if blocks is not None:
        first[1:] |= blocks[1:] != blocks[:-1]
    starts = np.flatnonzero(first)
    positives = np.add.reduceat(positive, starts, dtype=np.float64)
    negatives = np.diff(np.r_[starts, len(score)]) - positives
    positives_below, negatives_below = (
        np.cumsum(positives) - positives / 2,
        np.cumsum(negatives) - negatives / 2,
    )
    if blocks is not None:
        opens = np.flatnonzero(np.r_[True, blocks[starts][1:] != blocks[starts][:-1]])
        lengths = np.diff(np.r_[opens, len(starts)])
        positives_below -= np.repeat((np.cumsum(positives) - positives)[opens], lengths)
        negatives_below -= np.repeat((np.cumsum(negatives) - negatives)[opens], lengths)
    group = np.cumsum(first) - 1
    below: Array = np.where(positive, negatives_below[group], positives_below[group])
    return below
