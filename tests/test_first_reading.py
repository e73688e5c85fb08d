"""What a newcomer reads before a first change of their own stays short, and holds nothing else."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from conftest import REPOSITORY

import retrain

BASES = {
    retrain.Source: "data/source.py",
    retrain.Strategy: "models/strategy.py",
    retrain.Policy: "monitoring/policy.py",
    retrain.Check: "gate/check.py",
    retrain.Metric: "models/metric.py",
}
ENGINE = REPOSITORY / "src/retrain"
MOST_LINES = 900
PROJECT_LINES = 303  # of src/project as it is shipped; a clone's own may grow


def test_the_loop_and_the_base_classes_are_at_most_900_lines_with_the_shipped_project() -> None:
    files = [ENGINE / "pipeline/loop.py", *(ENGINE / name for name in BASES.values())]
    counted = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert PROJECT_LINES + sum(counted.values()) <= MOST_LINES, counted


@pytest.mark.parametrize(("base", "name"), BASES.items(), ids=BASES.values())
def test_a_base_class_lies_in_a_module_of_its_own_without_anything_private(
    base: type, name: str
) -> None:
    assert Path(inspect.getfile(base)) == ENGINE / name
    body = ast.parse((ENGINE / name).read_text(encoding="utf-8")).body
    defined = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert base.__name__ in defined
    assert set(defined) <= set(retrain.__all__)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "AGENTS.md", "docs/extending.md"])
def test_the_docs_name_each_file_to_read(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    missing = [name for name in ["pipeline/loop.py", *BASES.values()] if name not in text]
    assert not missing


def test_no_module_of_the_engine_is_longer_than_300_lines() -> None:
    known = {"config.py", "backtest/model_cache.py"}  # to be cut
    long = {
        path.relative_to(ENGINE).as_posix()
        for path in ENGINE.rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) > 300
    }
    assert long <= known
