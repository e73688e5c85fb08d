"""conf/experiment/: each overlay does what its first comment says."""

from __future__ import annotations

import shlex

import pytest
from conftest import REPOSITORY, Project

OVERLAYS = REPOSITORY / "conf/experiment"
# Words of what each shipped one prints (a clone may have more); and what keeps a project with
# few rows from needing longer.
SAID = {
    "cadence": "never",
    "careful": "Verdict",
    "quick_look": "Candidate",
    "rare_class": "class_weight=balanced",
}
REDUCED = {
    "cadence": ["backtest.policies=[every,never]", "compute.workers=1"],
    "rare_class": ["model.estimator.max_iter=3"],
}


def test_some_are_shipped() -> None:
    assert {path.stem for path in OVERLAYS.glob("*.yaml")} >= SAID.keys()


@pytest.mark.parametrize("name", sorted(SAID))
def test_the_first_comment_of_an_overlay_is_the_command_that_runs_it(
    name: str, experimenting: Project
) -> None:
    package, first = (OVERLAYS / f"{name}.yaml").read_text().splitlines()[:2]
    assert package == "# @package _global_"
    assert f"experiment={name}" in first
    command = shlex.split(first.removeprefix("# "))
    result = experimenting.run(*command, *REDUCED.get(name, []))
    assert SAID[name] in result.stdout + result.stderr
    assert "failed" not in result.stdout


@pytest.fixture(scope="module")
def experimenting(champion_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """None of these commands changes what another one finds."""
    return champion_project.copy(tmp_path_factory.mktemp("experiments") / "my project")
