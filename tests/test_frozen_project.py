"""A project of an earlier version works with today's engine: its store, snapshot, models, conf/.

`frozen/project.tar.xz` was made with version 0.1.0, before the engine's folders, names and keys
became what they are: four batches of every twelfth flight, two promotions (versions 2 and 4), its
git history, its DVC cache and its own conf/.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import REPOSITORY, Project, flights

OF_THE_ENGINE = ("dvc.yaml", "pyproject.toml", "constraints.txt")


@pytest.fixture(scope="module")
def updated(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The frozen project, today's engine committed on top. Shared: copy it before changing it."""
    root = tmp_path_factory.mktemp("frozen") / "my project"
    with tarfile.open(Path(__file__).parent / "frozen/project.tar.xz") as archive:
        # Python before 3.11.4 knows no filter.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(root)
    cached = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "src", root / "src", ignore=cached)
    for name in OF_THE_ENGINE:
        shutil.copy(REPOSITORY / name, root / name)
    for command in (["add", "-A"], ["commit", "-qm", "engine of today"]):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        subprocess.run(["git", *identity, *command], cwd=root, check=True)
    return Project(root)


@pytest.fixture
def frozen(updated: Project, tmp_path: Path) -> Project:
    return updated.copy(tmp_path / "my project")


def test_an_earlier_project_is_shown_as_it_was_left(updated: Project) -> None:
    status = updated.run("retrain", "status")
    assert "4 batches, 2013-01 to 2013-04, 8,784 labelled rows" in status.stdout
    assert "slice version 4" in status.stdout
    assert "promote for version 3 on batch 2013-04" in status.stdout
    history = updated.run("retrain", "history").stdout
    assert "none -> 2" in history and "2 -> 4" in history


def test_an_earlier_projects_names_are_read_with_a_warning_of_todays(updated: Project) -> None:
    """`_target_`s and keys of its conf/ are those of the engine that it was made with."""
    said = updated.run("retrain", "config")
    assert "retrain.models.strategies.Full" in said.stdout + said.stderr


def test_an_earlier_champion_can_be_rolled_back_and_reproduced(frozen: Project) -> None:
    assert "predictions are identical" in frozen.run("retrain", "reproduce", "3").stdout
    frozen.run("retrain", "rollback", "--reason", "the new engine's test")
    assert "4 -> 2" in frozen.run("retrain", "history").stdout


def test_an_earlier_project_takes_its_next_batch(frozen: Project) -> None:
    flights("2013-05").gather_every(2).write_parquet(frozen.root / "data/incoming/2013-05.parquet")
    frozen.edit("conf/data/slice.yaml", "as_of: 2013-04", "as_of: 2013-05")
    frozen.repro()
    assert "5 batches, 2013-01 to 2013-05" in frozen.run("retrain", "status").stdout
    history = frozen.run("retrain", "history").stdout.splitlines()
    assert any("2013-05" in line for line in history)
    assert frozen.stages_run() == []
