"""Nothing is compared before it is shown that neither model was trained on an evaluation row."""

from __future__ import annotations

import pytest

from retrain.errors import PromotionError
from retrain.gate.holdout import check_holdout
from retrain.types import ModelRecord

FIRST_ROW = "2013-03-22T05:00:00"
NOW = {"2013-03": "ccc"}


def model(until: str = "2013-03-22T00:00:00", **contents: str) -> ModelRecord:
    named = {f"2013-{month[1:]}": digest for month, digest in contents.items()}
    return ModelRecord(7, "2013-01-01T00:00:00", until, list(named), named)


def test_earlier_batches_and_the_part_before_the_window_are_unseen() -> None:
    earlier = check_holdout(
        "incumbent", model("2013-03-01T00:00:00", m01="aaa", m02="bbb"), FIRST_ROW, NOW
    )
    assert "none of which holds an evaluation row" in earlier
    split = check_holdout("challenger", model(m01="aaa", m02="bbb", m03="ccc"), FIRST_ROW, NOW)
    assert "of 2013-03 only the part before" in split and "2013-03-22T00:00:00" in split


def test_a_revision_since_is_said() -> None:
    assert "2013-03 (revised since)" in check_holdout("incumbent", model(m03="old"), FIRST_ROW, NOW)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (model("2013-03-22T05:00:01", m03="ccc"), "has seen some of them"),
        (model("2013-04-01T00:00:00", m03="ccc"), "has seen some of them"),  # a refit
        (model(m01="aaa", m02="ccc"), "byte for byte"),
        (ModelRecord(7, "", "", []), "no record of the rows"),
        (
            ModelRecord(7, "2013-01-01T00:00:00", "2013-03-01T00:00:00", ["2013-02"]),
            "no record of the rows",
        ),
    ],
    ids=["a second too late", "refit", "copied batch", "unknown", "no digests"],
)
def test_what_can_not_be_shown_is_refused(found: ModelRecord, words: str) -> None:
    with pytest.raises(PromotionError, match=words):
        check_holdout("incumbent", found, FIRST_ROW, NOW)
