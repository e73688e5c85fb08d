"""Repeated looks at the same rows: how they are counted, and that all of them together cost no more than one."""

from __future__ import annotations

import dataclasses

import pytest
from promotion.test_ledger import entry

from retrain.promotion.looks import Look, look_number, spent_level

START, END = "2013-02-20T00:00:00", "2013-03-02T00:00:00"


def judged(seq: int, predictions: str, start: str = START, end: str = END):
    return dataclasses.replace(
        entry(seq, 1, 1, None, seq), predictions=predictions, evaluation_start=start, evaluation_end=end
    )


def look(predictions: str, gate: str, number: int = 0) -> Look:
    return Look(
        predictions, gate, START, END, challenger=1, incumbent=None, snapshot="s", newest_batch="b", look=number
    )


def test_all_levels_add_up_to_the_configured_one() -> None:
    levels = [spent_level(0.05, look) for look in range(1, 100_000)]
    assert levels[0] == pytest.approx(0.04)
    assert sum(levels) == pytest.approx(0.05, rel=1e-4) and sum(levels) <= 0.05
    assert levels == sorted(levels, reverse=True)


def test_every_other_challenger_on_the_window_is_a_look() -> None:
    assert look_number([], START, END, "a") == 1
    assert look_number([judged(0, "a"), judged(1, "b")], START, END, "c") == 3


def test_the_same_predictions_keep_their_number() -> None:
    entries = [judged(0, "a"), judged(1, "b"), judged(2, "a")]
    assert look_number(entries, START, END, "a") == 1
    assert look_number(entries, START, END, "b") == 2


@pytest.mark.parametrize(
    ("start", "end", "look"),
    [
        ("2013-01-20T00:00:00", "2013-02-01T00:00:00", 1),  # another month
        ("2013-02-15T00:00:00", "2013-02-25T00:00:00", 1),  # half of it
        ("2013-02-18T00:00:00", "2013-02-28T00:00:00", 2),  # most of it
        ("2013-01-01T00:00:00", "2013-04-01T00:00:00", 2),  # all of it
    ],
)
def test_a_window_counts_that_shares_more_than_half_of_this_one(start: str, end: str, look: int) -> None:
    assert look_number([judged(0, "a", start, end)], START, END, "b") == look


def test_entries_of_people_and_of_older_versions_are_no_looks() -> None:
    assert look_number([entry(0, 1, None, None, 1)], START, END, "a") == 1


def test_the_same_predictions_under_another_gate_are_another_look() -> None:
    looks = [look("a", "g"), look("a", "h"), look("b", "g")]
    numbers = [look_number([], START, END, *pair, looks) for pair in (("a", "g"), ("a", "h"), ("b", "g"), ("b", "h"))]
    assert numbers == [1, 2, 3, 4]
    assert look_number([], START, END, "a", "g", [*looks, look("c", "g")]) == 1, "what has a number keeps it"


def test_an_entry_that_does_not_know_its_gate_stands_for_the_first_one_asked_since() -> None:
    old = [judged(0, "a"), judged(1, "b")]
    assert look_number(old, START, END, "b", "g") == 2
    assert look_number(old, START, END, "b", "h", [look("b", "g")]) == 3


def test_a_carried_out_verdict_is_not_counted_twice() -> None:
    carried_out = dataclasses.replace(judged(0, "a"), gate="g")
    looks = [look("a", "g"), look("a", "h")]
    assert look_number([carried_out], START, END, "a", "g", looks) == 1
    assert look_number([carried_out], START, END, "b", "g", looks) == 3
