"""The words of a target of two classes: by value, so that 2.0 is 2, and whatever their capitals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from retrain.data.reading.casting import without_case


@dataclass(frozen=True)
class Words:
    """The words of a target of two classes: which one is not positive, and those that are neither.

    `unclear` where the words other than the positive one are too many for all but one of them to be
    slips: then nothing tells what they mean.
    """

    negative: str
    odd: pl.Series  # for each row, whether its word is neither
    unclear: bool
    others: Mapping[str, int]  # words that are not the positive one, with their rows, most first


def split_words(values: pl.Series, positive: str, tolerated: float) -> Words | None:
    """Words of a target beside its positive one, of which all but the most frequent are slips; None where there is one only.

    They count as slips up to the share `tolerated` of the labels that are not the positive one, and none
    may be as frequent as the one that is meant.
    """
    texts = (values.fill_nan(None) if values.dtype.is_float() else values).cast(pl.String)
    meant = {text: without_case(text) for text in texts.drop_nulls().unique()}
    folded = texts.replace_strict(meant, return_dtype=pl.String)
    negatives = folded.filter((folded != without_case(positive)).fill_null(False))
    if negatives.n_unique() < 2:
        return None
    counts = sorted(
        negatives.value_counts(name="rows").rows(), key=lambda pair: (-pair[1], pair[0])
    )
    shown = {word: text for text, word in sorted(meant.items(), reverse=True)}
    negative, most = counts[0]
    odd = folded.is_in([word for word, _ in counts[1:]]).fill_null(False)
    unclear = len(negatives) - most > tolerated * len(negatives) or counts[1][1] == most
    return Words(shown[negative], odd, unclear, {shown[word]: rows for word, rows in counts})


def is_positive(values: pl.Series, label: str) -> pl.Series:
    """Which labels are the positive one."""
    texts = (values.fill_nan(None) if values.dtype.is_float() else values).cast(pl.String)
    if two_capitals(values, label):
        return texts == label
    words = {text: without_case(text) for text in texts.drop_nulls().unique()}
    return texts.replace_strict(words, return_dtype=pl.String) == without_case(label)


def two_capitals(values: pl.Series, label: str | None) -> bool:
    """Whether the two words of a target differ in their capitals only, so that these do count."""
    if values.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return False
    words = values.drop_nulls().unique().cast(pl.String).to_list()
    return len(words) == 2 and label in words and len({without_case(word) for word in words}) == 1
