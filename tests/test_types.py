"""Records between stages come back as they were written, whatever the data are called."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain.errors import RetrainError
from retrain.gate.check import CheckResult, Outcome
from retrain.gate.comparison import Comparison, Verdict
from retrain.gate.estimates import Estimate
from retrain.types import (
    ChallengerRecord,
    Change,
    DecisionRecord,
    ModelRecord,
)

NAMES = st.sampled_from(
    ["???", "${data.name}", "${", "\\${a}", "\\\\${", "a.b", "", "null", "1e3", "\n"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records") / "record.json"


@settings(deadline=None, derandomize=True)
@given(NAMES)
def test_any_name_comes_back(path: Path, name: str) -> None:
    trained = ChallengerRecord(
        True,
        name,
        "digest",
        "2013-01",
        challenger=ModelRecord(1, "", "", [name], {name: name}),
        classes=[name, "b"],
        unknown_classes={"challenger": {name: 3}},
        new_levels={name: 1},
    )
    compared = Comparison(
        verdict=Verdict.keep,
        reason=name,
        checks={name: CheckResult(Outcome.passed, name, {name: 1.0})},
        scores={"challenger": {name: Estimate(1.0, 0.5, 9)}},
    )
    decision = DecisionRecord(
        retrain=False,
        reason=name,
        policy=name,
        snapshot="",
        newest_batch="",
        new_rows=0,
        features={name: Change(0.1, None, 1)},
        news=[name],
        held_back={name: name},
    )
    for record in (trained, compared, decision):
        record.save(path)
        assert type(record).load(path, "train") == record


@pytest.mark.parametrize(
    "change",
    [
        {"retrained": "yes"},
        {"rows": "3"},
        {"unknown": 1},
        {"classes": "ab"},
        {"challenger": {"version": 1.5}},
        {"look": None},
    ],
)
def test_a_record_of_another_shape_is_refused_with_the_key(path: Path, change: dict) -> None:
    content = dataclasses.asdict(ChallengerRecord(False, "", "", ""))
    path.write_text(json.dumps(content | change))
    with pytest.raises(RetrainError, match=f"`{next(iter(change))}"):
        ChallengerRecord.load(path, "train")


def test_a_comparison_keeps_its_interval_for_readers_and_its_error_for_itself(path: Path) -> None:
    unknown = Estimate(0.5, math.nan, 0)
    scores = {"challenger": {"log_loss": Estimate(0.4, 0.1, 9), "roc_auc": unknown}}
    Comparison(verdict=Verdict.promote, scores=scores, metric="roc_auc").save(path)
    stored = json.loads(path.read_text())
    assert stored["verdict"] == "promote" and "metric" not in stored
    low = Estimate(0.4, 0.1, 9).interval()[0]
    assert stored["scores"]["challenger"]["log_loss"]["low"] == low
    assert stored["scores"]["challenger"]["roc_auc"]["high"] is None
    found = Comparison.load(path, "evaluate").scores["challenger"]
    assert found["log_loss"] == scores["challenger"]["log_loss"]
    assert math.isnan(found["roc_auc"].standard_error) and found["roc_auc"].value == 0.5


def test_a_comparison_of_an_earlier_version_is_read_with_its_intervals(path: Path) -> None:
    figures = {"value": 0.4, "low": 0.3, "high": 0.5}
    unknown = {"value": 0.7, "low": None, "high": None}
    content = {
        "verdict": "keep",
        "reason": "worse",
        "rows": 10,
        "bootstrap": {"log_loss": [0.1, 0.2]},
        "checks": {"primary": {"outcome": "failed", "reason": "worse", "blocks": True}},
        "scores": {"challenger": {"log_loss": figures, "roc_auc": unknown}},
    }
    path.write_text(json.dumps(content))
    found = Comparison.load(path, "evaluate")
    assert found.verdict is Verdict.keep and found.checks["primary"].outcome is Outcome.failed
    scores = found.scores["challenger"]
    assert scores["log_loss"].interval() == pytest.approx((0.3, 0.5))
    assert all(map(math.isnan, scores["roc_auc"].interval()))
