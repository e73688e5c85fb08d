"""What a schedule and a pull request run: the scripts in `.ci/`, between clones of one `origin`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project

BUSY = 75


@pytest.fixture(scope="module", autouse=True)
def lasting_machine() -> Iterator[None]:
    """One that keeps its local store, as those that set CI don't."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)
        yield


@pytest.fixture(scope="module")
def team(champion_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone after a scheduled run; beside it `origin` and DVC's remote."""
    root = tmp_path_factory.mktemp("team")
    made = champion_project.copy(root / "first clone")
    for key, value in (("user.name", "t"), ("user.email", "t@example.com")):
        made.run("git", "config", key, value)
    made.run("git", "rm", "-q", "--cached", "data/incoming/.gitkeep")
    (made.root / "data/incoming/.gitkeep").unlink()
    made.run("dvc", "add", "-q", "data/incoming")
    made.run("dvc", "remote", "add", "-d", "shared", str(root / "remote"))
    made.run("git", "add", ".dvc", "data")
    made.run("git", "commit", "-qm", "start")
    made.run("git", "clone", "-q", "--bare", ".", str(root / "origin.git"))
    made.run("git", "remote", "add", "origin", str(root / "origin.git"))
    assert "The results are on" in made.run(".ci/retrain").stdout
    return made


def refs(project: Project) -> dict[str, str]:
    lines = project.run("git", "ls-remote", "origin").stdout.splitlines()
    return {name: sha for sha, name in map(str.split, lines)}


def test_results_and_data_are_pushed_and_a_second_clone_has_nothing_to_do(
    team: Project, tmp_path: Path
) -> None:
    branch = team.run("git", "symbolic-ref", "HEAD").stdout.strip()
    assert refs(team)[branch] == team.run("git", "rev-parse", "HEAD").stdout.strip()
    changed = team.run("git", "show", "--stat", "--name-only", "--format=%s").stdout
    assert changed.startswith("Retrained on batch 2013-03 [skip ci]")
    assert "reports/metrics.json" in changed and "parquet" not in changed
    assert team.run("git", "status", "--short").stdout == ""
    team.run("git", "clone", "-q", str(team.root.parent / "origin.git"), str(tmp_path / "second"))
    second = Project(tmp_path / "second")
    shutil.copy(team.root / "mlflow.db", second.root)
    shutil.copytree(team.root / "mlruns", second.root / "mlruns", dirs_exist_ok=True)
    assert "Nothing has changed." in second.run(".ci/retrain").stdout


def test_a_machine_that_is_gone_after_the_run_needs_a_shared_store(team: Project) -> None:
    result = team.run(".ci/retrain", check=False, CI="true")
    assert result.returncode == 1 and 'choose "tracking: server"' in result.stderr


def test_of_two_at_once_one_is_told_that_the_other_is_at_work(team: Project) -> None:
    lock = "refs/retrain/lock"
    commit = ("commit-tree", "-m", "elsewhere", "HEAD^{tree}")
    other = team.run("git", *commit).stdout.strip()
    team.run("git", "push", "-q", "origin", f"{other}:{lock}")
    result = team.run(".ci/retrain", check=False)
    assert result.returncode == BUSY and "another retraining is at work since" in result.stderr
    assert refs(team)[lock] == other, "it is not ours to take away"
    long_ago = {"GIT_COMMITTER_DATE": "2020-01-01T00:00:00", "GIT_AUTHOR_DATE": "2020-01-01T00:00"}
    died = team.run("git", *commit, **long_ago).stdout.strip()
    team.run("git", "push", "-qf", "origin", f"{died}:{lock}")
    assert "Nothing has changed." in team.run(".ci/retrain").stdout
    assert lock not in refs(team)


def test_what_waits_for_approval_goes_to_a_branch_of_its_own(team: Project, tmp_path: Path) -> None:
    origin = shutil.copytree(team.root.parent / "origin.git", tmp_path / "origin.git")
    team = team.copy(tmp_path / "a clone")  # the others' clone stays as it is
    team.run("git", "remote", "set-url", "origin", str(origin))
    branch = team.run("git", "symbolic-ref", "HEAD").stdout.strip()
    team.edit("conf/gate/shared/guardrails.yaml", "approval: automatic", "approval: required")
    team.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    assert "commit them first" in team.run(".ci/retrain", check=False).stderr
    team.run("git", "commit", "-qam", "April")
    team.run("git", "push", "-q", "origin", "HEAD")
    team.arrive("2013-04")  # while no script runs
    before = refs(team)[branch]
    team.run(".ci/retrain")
    found = refs(team)
    report = f"{found['refs/heads/retrain/candidate']}:reports/report.md"
    assert "waits for" in team.run("git", "show", report).stdout
    assert found[branch] == before, "nothing of it is on the branch that others use"
    assert team.run("git", "status", "--short").stdout == ""
    verdict = team.run("retrain", "status", "--fail-if-refused")
    assert "approve" in verdict.stdout
