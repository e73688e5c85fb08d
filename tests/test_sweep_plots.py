"""Plots of a sweep: whatever parameters and values are called, however many jobs there are."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from retrain.report.sweep_plots import Trial, draw, importance

NAMES = ["a b", "$x_1$", '% "q" <b>&', "模型", "'"]


def trials(count: int) -> list[Trial]:
    return [
        Trial({"k $_{a}$ <": NAMES[one % 5], "rate": str(0.001 * 2**one), "fixed": "1"}, one % 7)
        for one in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 48])
def test_any_name_is_drawn_as_it_is(count: int, recwarn: pytest.WarningsRecorder) -> None:
    failed = Trial({}, math.nan)
    drawn = draw([failed, *trials(count), failed], "my.metric $%", False, 3.0)
    for svg in drawn.values():
        ElementTree.fromstring(svg)
    assert "my.metric $%" in drawn["history"] and not recwarn.list
    assert set(drawn) >= ({"parallel_coordinates"} if count > 1 else {"history"})
    if count == 48:
        text = "".join(ElementTree.fromstring(drawn["parallel_coordinates"]).itertext())
        assert all(name in text for name in [*NAMES, "k $_{a}$ <", "rate"])
        assert "fixed" not in text


def test_the_parameter_that_explains_the_metric_is_the_important_one() -> None:
    made = [
        Trial({"a": str(one % 5), "b": NAMES[one // 5 % 5]}, float(one // 5 % 5))
        for one in range(50)
    ]
    columns = {key: [trial.values[key] for trial in made] for key in ("a", "b")}
    shares = importance(made, columns)
    assert shares["b"] > 0.9 and sum(shares.values()) == pytest.approx(1)
    assert importance(made[:3], columns) == {} and importance(made, {"a": columns["a"]}) == {}
