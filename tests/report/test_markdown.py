"""The report in short: what somebody reads in a pull request, whatever the data are called."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from report_cases import COMPARED, OUTCOME, refused

from retrain.gate.check import CheckResult
from retrain.gate.check import Outcome as Found
from retrain.gate.comparison import Comparison, Verdict
from retrain.gate.estimates import Estimate
from retrain.report import formatting, markdown
from retrain.report.changes import Changes, ColumnChange, config_changes
from retrain.report.formatting import escape_markdown
from retrain.report.outcome import Outcome
from retrain.types import ChallengerRecord, PromotionRecord


def test_the_verdict_comes_first_then_what_to_do_and_the_way_back() -> None:
    lines = markdown.render(OUTCOME).splitlines()
    assert lines[0] == "### Retraining on batch 2013-02: promoted"
    assert lines[2].startswith("**Challenger version 3, refitted as version 4, is champion now")
    assert '`retrain rollback --to 2 --reason "..."`' in lines[5]
    assert "| Log loss \u2193 | 0.4100 \u00b10.023 | 0.4300 \u00b10.023 |" in markdown.render(
        OUTCOME
    )


@pytest.mark.parametrize("verdict", [Verdict.keep, Verdict.insufficient_evidence])
def test_a_refused_challenger_names_what_stopped_it_and_how_to_overrule_the_gate(
    verdict: Verdict,
) -> None:
    text = markdown.render(refused(OUTCOME, verdict))
    assert "| slices | failed | worse on two |" in text
    assert "`retrain promote 3 --reason" in text and "rollback" not in text


def test_a_first_champion_has_nothing_to_roll_back_to() -> None:
    first = replace(
        OUTCOME,
        trained=replace(OUTCOME.trained, incumbent=None),
        promotion=PromotionRecord("promote", True, 4, None, 0),
    )
    text = markdown.render(first)
    assert "rollback" not in text and "since the incumbent" not in text


def test_a_batch_on_hold_is_named_with_the_reason_and_the_way_out() -> None:
    decision = replace(
        OUTCOME.decision, retrain=False, reason="on hold", held_back={"2013-03": "all missing"}
    )
    idle = Outcome(
        decision,
        ChallengerRecord(False, "on hold", "s", "2013-03"),
        Comparison(),
        PromotionRecord(None, False, 4, None, None),
    )
    text = markdown.render(idle)
    assert "No challenger was trained; champion version 4 stays." in text
    assert "`monitoring.accept`" in text and "**on hold**: all missing." in text
    assert "| metric |" not in text


@pytest.mark.parametrize(
    "name", ["a|b", "<b>x</b>", "__init__", "@octocat", "#12", "`f`", "\u9867\u5ba2"]
)
def test_names_are_no_markup_no_people_and_no_issues(name: str) -> None:
    odd = replace(
        OUTCOME,
        compared=replace(COMPARED, checks={name: CheckResult(Found.passed, name)}),
        changes=Changes(
            columns=(ColumnChange(name, 0.1, 0.2),), config=((name, name, name),), against=2
        ),
    )
    text = markdown.render(odd)
    row = next(line for line in text.splitlines() if "passed" in line and line.startswith("|"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert not re.search(r"(?<!\\)[<`]" + re.escape(name.strip("<`")), text)
    assert not re.search(r"@\w|(?<![#\w])#\d|(?<![\\\w])__", text)
    assert escape_markdown("\u9867\u5ba2 a_b") == "\u9867\u5ba2 a_b"


def test_only_keys_of_the_config_that_differ_are_shown() -> None:
    before = "data: {as_of: 2013-10}\nmodel: {depth: 3, rate: 0.1}\n"
    now = "data: {as_of: 2013-11}\nmodel: {depth: 3}\nseed: 1\n"
    assert config_changes(before, now) == (
        ("data.as_of", "2013-10", "2013-11"),
        ("model.rate", "0.1", "(none)"),
        ("seed", "(none)", "1"),
    )


def test_files_of_a_diff_are_counted_by_line() -> None:
    diff = (
        "diff --git a/src/a b.py b/src/a b.py\n--- a/src/a b.py\n+++ b/src/a b.py\n@@ -1 +1,2 @@\n"
    )
    diff += "-x\n+y\n+z"
    assert Changes(code=tuple(diff.split("\n"))).files == [("src/a b.py", 2, 1)]


def test_what_a_reason_puts_between_backticks_is_code_on_one_line() -> None:
    decision = replace(OUTCOME.decision, reason="policy `always`, `a\n\n# <b>` and <b>")
    text = markdown.render(replace(OUTCOME, decision=decision))
    assert "policy `always`, `a # <b>` and &lt;b&gt;" in text


def test_a_zero_has_no_sign() -> None:
    assert formatting.score(Estimate(-1e-9, 0.0, 5)).startswith("0.0000")
