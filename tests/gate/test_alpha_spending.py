"""Repeated looks at the same rows: how they are counted, and that all of them together cost no more
than one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from registry.test_ledger import entry

from retrain.gate.alpha_spending import Look, alpha_at, look_number, plan_look

START, END = "2013-02-20T00:00:00", "2013-03-02T00:00:00"


def judged(seq: int, predictions: str, start: str = START, end: str = END):
    return dataclasses.replace(
        entry(seq, 1, 1, None, seq),
        predictions=predictions,
        evaluation_start=start,
        evaluation_end=end,
    )


def look(predictions: str, gate: str, number: int = 0) -> Look:
    return Look(
        predictions,
        gate,
        START,
        END,
        challenger=1,
        incumbent=None,
        snapshot="s",
        newest_batch="b",
        look=number,
    )


def test_all_levels_add_up_to_the_configured_one() -> None:
    levels = [alpha_at(0.05, look) for look in range(1, 100_000)]
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
        ("2013-02-18T00:00:00", "2013-02-28T00:00:00", 1),  # most of it, but not its newest rows
        (
            "2013-02-26T00:00:00",
            "2013-03-10T00:00:00",
            1,
        ),  # its newest rows, but less than half of it
        ("2013-02-22T00:00:00", "2013-03-05T00:00:00", 2),  # its newest rows and most of it
        ("2013-01-01T00:00:00", "2013-04-01T00:00:00", 2),  # all of it
    ],
)
def test_a_window_counts_that_holds_the_newest_rows_and_more_than_half_of_this_one(
    start: str, end: str, look: int
) -> None:
    assert look_number([judged(0, "a", start, end)], START, END, "b") == look


def test_entries_of_people_and_of_older_versions_are_no_looks() -> None:
    assert look_number([entry(0, 1, None, None, 1)], START, END, "a") == 1


def test_the_same_predictions_under_another_gate_are_another_look() -> None:
    looks = [look("a", "g"), look("a", "h"), look("b", "g")]
    numbers = [
        look_number([], START, END, *pair, looks)
        for pair in (("a", "g"), ("a", "h"), ("b", "g"), ("b", "h"))
    ]
    assert numbers == [1, 2, 3, 4]
    assert look_number([], START, END, "a", "g", [*looks, look("c", "g")]) == 1, (
        "what has a number keeps it"
    )


def test_an_entry_that_does_not_know_its_gate_stands_for_the_first_one_asked_since() -> None:
    old = [judged(0, "a"), judged(1, "b")]
    assert look_number(old, START, END, "b", "g") == 2
    assert look_number(old, START, END, "b", "h", [look("b", "g")]) == 3


def test_a_carried_out_verdict_is_not_counted_twice() -> None:
    carried_out = dataclasses.replace(judged(0, "a"), gate="g")
    looks = [look("a", "g"), look("a", "h")]
    assert look_number([carried_out], START, END, "a", "g", looks) == 1
    assert look_number([carried_out], START, END, "b", "g", looks) == 3


def test_what_an_earlier_window_has_seen_is_subtracted_from_what_a_look_may_spend() -> None:
    earlier = [
        judged(0, "a", "2013-02-10T00:00:00", "2013-02-25T00:00:00"),
        judged(1, "b", "2013-02-01T00:00:00", START),
    ]
    planned = plan_look(earlier, [], look("c", "g"))
    assert (planned.look, planned.unseen) == (1, 0.5), "five of the ten days are new"
    assert plan_look([], [], look("c", "g")).unseen == 1
    same = plan_look(earlier, [planned], look("d", "g"))
    assert (same.look, same.unseen) == (2, 0.5), "another challenger on the same rows"
    assert alpha_at(0.05, 1, 0.5) == pytest.approx(0.04 * 0.5 ** (2 / 3)) and alpha_at(
        0.05, 1, 1.0
    ) == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("blocks", "step"), [(5, 5), (5, 1), (6, 3), (10, 5), (12, 1), (30, 3), (30, 1)]
)
def test_overlapping_windows_together_promote_no_more_than_alpha_within_one_windows_length(
    blocks: int, step: int
) -> None:
    """Worse by exactly the margin, 20,000 simulated histories: the standard error of a share of 5 %
    is 0.15 %."""
    from scipy.stats import t

    looks = blocks // step
    quantile = t.ppf(1 - alpha_at(0.05, 1, step / blocks), blocks - 1)
    rows = np.random.default_rng(blocks * 100 + step).standard_normal(
        (20_000, blocks + (looks - 1) * step)
    )
    promoted = np.zeros(len(rows), dtype=bool)
    for first in range(0, looks * step, step):
        window = rows[:, first : first + blocks]
        promoted |= (
            window.mean(axis=1) + quantile * window.std(axis=1, ddof=1) / np.sqrt(blocks) < 0
        )
    assert promoted.mean() < 0.05
