"""Records between stages come back as they were written, whatever the data are called."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain import types
from retrain.errors import RetrainError
from retrain.types import (
    ChallengerRecord,
    ChangeRecord,
    CheckRecord,
    ComparisonRecord,
    DecisionRecord,
    FigureRecord,
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
    figure = FigureRecord(1.0, None, 2.0)
    compared = ComparisonRecord(
        "keep",
        name,
        checks={name: CheckRecord("passed", name)},
        scores={"challenger": {name: figure}},
    )
    decision = DecisionRecord(
        False,
        name,
        name,
        "",
        "",
        0,
        features={name: ChangeRecord(0.1, None, 1)},
        news=[name],
        held_back={name: name},
    )
    for record in (trained, compared, decision):
        types.save(path, record)
        assert types.load(path, type(record), "train") == record


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
        types.load(path, ChallengerRecord, "train")
