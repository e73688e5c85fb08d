"""The terminal and the report say the same about the newest batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_cases import OUTCOME

from retrain.report import html, monitor
from retrain.report.evidence import Evidence
from retrain.types import Change, Score

SEEN = replace(
    OUTCOME.decision,
    loss="log_loss",
    champion_version=2,
    scores=[
        Score("2012-11", 0.5, 0.4, 0.6),
        *(Score(f"2013-0{month}", 0.7, version=1) for month in (1, 2, 3)),
    ],
    expected=[Score("2013-04", 0.8)],
    watched_batch="2013-04",
    reference_batch="2013-01",
    alarms=["target"],
    families={"target": Change(0.3, 0.1, 0.001)},
    features={"[red]x\x1b[1m": Change(0.2, 0.1, 0.5, 0.01)},
)


def test_the_terminal_shows_each_figure_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    monitor.to_terminal(SEEN)
    shown = capsys.readouterr().out
    page = html.render(replace(OUTCOME, decision=SEEN), Evidence())
    for cell in ("0.5000 [0.4000, 0.6000]", "0.8000 expected; the labels are late", "0.001"):
        assert cell in shown and cell in page
    assert "target (drift)" in shown and "[red]x\\x1b[1m" in shown and "\x1b" not in shown


def test_without_a_champion_there_is_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    monitor.to_terminal(OUTCOME.decision)
    assert capsys.readouterr().out == ""
