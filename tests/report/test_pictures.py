"""The report's pictures: of any task, with any name, readable without a script."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from report_cases import OUTCOME, refused

from retrain.config import Task
from retrain.data.profiles import ColumnProfile
from retrain.gate.estimates import CHALLENGER, INCUMBENT, TARGET, Estimate, score_column
from retrain.registry.entries import Entry
from retrain.report import batch_pictures, html
from retrain.report.chart import Chart, standalone, ticks
from retrain.report.evidence import Evidence, _add_classes
from retrain.report.pictures import draw
from retrain.types import PromotionRecord

ODD = ["100 %", "<b>bold</b>", 'a "quote"', "it's [x]", "\u9867\u5ba2", "\u202eabc", "a\nb", "]]>"]
ROWS = 400


def predictions(task: Task, models: tuple[str, ...], classes: int = 2) -> pl.DataFrame:
    generator = np.random.default_rng(0)
    times = [datetime(2013, 1, 1) + timedelta(hours=number) for number in range(ROWS)]
    if task is Task.multiclass:
        scores = generator.dirichlet(np.ones(classes), ROWS)
        target = generator.integers(0, classes, ROWS)
    else:
        scores = generator.uniform(size=ROWS)
        target = scores + generator.normal(size=ROWS) * 0.2
        target = target if task is Task.regression else (target > 0.5).astype(int)
    kind = pl.Array(pl.Float64, classes) if task is Task.multiclass else pl.Float64
    columns = {score_column(name): pl.Series(scores, dtype=kind) for name in models}
    return pl.DataFrame({"time": times, TARGET: target} | columns)


def words(svg: str) -> str:
    """The text of a picture, which is well-formed XML."""
    return " ".join(ElementTree.fromstring(svg).itertext())


@pytest.mark.parametrize("models", [(CHALLENGER,), (CHALLENGER, INCUMBENT)])
@pytest.mark.parametrize(
    ("task", "loss", "names"),
    [
        (Task.binary, "log_loss", {"calibration", "roc", "precision_recall"}),
        (Task.multiclass, "log_loss", {"calibration"}),
        (Task.regression, "mse", {"calibration", "residuals"}),
    ],
)
def test_each_task_has_its_pictures_and_each_says_in_words_what_it_shows(
    task: Task, loss: str, names: set[str], models: tuple[str, ...]
) -> None:
    drawn = draw(predictions(task, models, 48), "time", task, loss)
    assert set(drawn) == names | {"predictions", "loss_over_time"}
    for svg in drawn.values():
        assert 'role="img"' in svg and 'aria-label="' in svg and '"nan' not in svg
        assert all(model in words(standalone(svg)) for model in models)


def test_constant_predictions_and_one_class_can_be_drawn() -> None:
    for task, loss in ((Task.binary, "log_loss"), (Task.regression, "mse")):
        rows = predictions(task, (CHALLENGER,)).with_columns(
            pl.lit(0.0).alias(TARGET), pl.lit(0.5).alias(score_column(CHALLENGER))
        )
        for svg in draw(rows, "time", task, loss).values():
            assert "nan" not in words(svg)


def test_classes_beyond_fifty_are_counted_not_listed() -> None:
    evidence, models = Evidence(), (CHALLENGER, INCUMBENT)
    rows = predictions(Task.multiclass, models, 60)
    _add_classes(evidence, rows, [f"c{number}" for number in range(60)])
    assert len(evidence.class_rows) == 50 and evidence.more_classes == 10
    assert evidence.class_header[2:4] == ["recall, challenger", "recall, incumbent"]


def entry(seq: int, kind: str, champion: int, previous: int | None, batch: str = "") -> Entry:
    figures = {"log_loss/challenger": 0.4} | ({"log_loss/incumbent": 0.5} if previous else {})
    return Entry(
        kind, "promote", "", champion, previous, None, champion, "", previous, "", "", batch,
        None, None, figures=figures if kind == "verdict" else {}, seq=seq,
    )  # fmt: skip


def test_who_served_when_follows_verdicts_and_rollbacks() -> None:
    entries = [
        entry(0, "verdict", 2, None, "<1>"),
        entry(1, "verdict", 4, 2, "<2>"),
        entry(2, "verdict", 4, 4, "<3>"),
        entry(3, "rollback", 2, 4),
    ]
    served = [version for version, _ in batch_pictures._serving(entries, ["<1>", "<2>", "<3>"])]
    assert served == [None, 2, 4, 2]
    text = words(batch_pictures.served_when(entries, "log_loss"))
    assert "v2" in text and "v4" in text and "<3>" in text
    assert batch_pictures.served_when([], "log_loss") == ""


@pytest.mark.parametrize("name", ODD)
def test_names_stand_in_pictures_as_they_are(name: str) -> None:
    shown = name if name.isprintable() else name.encode("unicode_escape").decode()
    levels = ColumnProfile(10, 1, levels={name: 9})
    numbers = ColumnProfile(10, 0, quantiles=[1.0, 2.0, 3.0])
    found = {name: (100, Estimate(0.1, 0.05, 9))}
    for svg in (
        batch_pictures.draw_slices(found, "log_loss"),
        batch_pictures.draw_importance({CHALLENGER: {name: 0.1}}, "log_loss"),
        batch_pictures.draw_column(name, levels, levels, (name, name)),
        batch_pictures.draw_column(name, numbers, numbers, (name, name)),
        Chart(name, name, (0, 1), (0, 1), name, name, places=[name]).svg(),
    ):
        assert shown[:8] in words(svg)


def test_a_column_that_is_missing_throughout_can_be_drawn() -> None:
    gone = ColumnProfile(10, 10)
    words(batch_pictures.draw_column("x", gone, gone, ("1", "2")))


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-3.2, 7.9), (1e-7, 3e-7), (1e9, 5e9), (2.0, 2.0)])
def test_ticks_are_few_round_and_inside(ends: tuple[float, float]) -> None:
    found = ticks(*ends)
    assert 1 <= len(found) <= 7
    room = 1e-9 * max(1e-9, ends[1] - ends[0])
    assert all(ends[0] - room <= value <= ends[1] + room for value in found)


@pytest.mark.parametrize("name", ODD)
def test_names_are_no_markup_in_the_page(name: str) -> None:
    decision = replace(OUTCOME.decision, reason=name, held_back={name: name}, news=[name])
    page = html.render(replace(OUTCOME, decision=decision), Evidence())
    assert name not in page if "<" in name else True
    assert "retrain rollback --to 2" in page and "<script" not in page


def test_a_refused_first_challenger_has_a_page_without_a_champion() -> None:
    first = replace(OUTCOME, trained=replace(OUTCOME.trained, incumbent=None))
    nobody = replace(refused(first), promotion=PromotionRecord("keep", False, None, None, 0))
    page = html.render(nobody, Evidence())
    assert "there is still no champion" in page and "retrain promote 3" in page
    assert "rollback" not in page
