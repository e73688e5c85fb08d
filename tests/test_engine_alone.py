"""The engine stands on its own: as a wheel, and as a part that a clone replaces from upstream."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from sysconfig import get_paths

import pytest
import yaml
from conftest import REPOSITORY, Project, make_project

from retrain import __version__
from retrain.commands.new import TEMPLATE


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with the wheel and the libraries that knows nothing of this repository."""
    root = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root)], check=True)
    site = next((root / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The folder that a .pth file names is searched, its own .pth files aren't read: so the editable
    # install of this repository is not found.
    (site / "libraries.pth").write_text(get_paths()["purelib"] + "\n")
    python = root / "bin/python"
    for name, module in (("retrain", "retrain.cli"), ("dvc", "dvc.cli")):
        script = root / "bin" / name
        end = "main()" if name == "retrain" else "sys.exit(main())"
        script.write_text(f"#!{python}\nimport sys\nfrom {module} import main\n{end}\n")
        script.chmod(0o755)
    return {"PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}


def test_the_wheel_holds_the_engine_and_the_template_of_a_project_and_nothing_else(
    wheel: Path,
) -> None:
    assert __version__ in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names} == {"retrain"}
    prefix = "retrain/template/"
    packed = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z", *TEMPLATE],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert packed == set(filter(None, listed.stdout.split("\0")))


def test_a_new_project_of_the_wheel_runs_at_once(
    environment: dict[str, str], tmp_path: Path
) -> None:
    Project(tmp_path).run("retrain", "new", "mine/the new one", **environment)
    project = Project(tmp_path / "mine/the new one")
    git = project.run("git", "status", "--porcelain", "--ignored")
    assert git.stdout == "" and not (project.root / "src/retrain").exists()
    project.edit("conf/data/flights.yaml", "as_of: 2013-10", "as_of: 2013-01")  # for speed
    project.edit("conf/model/hist_gradient_boosting.yaml", "max_iter: 100", "max_iter: 5")
    project.run("dvc", "repro", **environment)
    assert "Champion" in project.run("retrain", "status", **environment).stdout
    again = project.run("retrain", "new", ".", check=False, **environment)
    assert again.returncode == 1 and "not empty" in again.stderr


def test_a_clone_without_the_engines_source_runs_on_the_wheel(
    environment: dict[str, str], grown: Project
) -> None:
    shutil.rmtree(grown.root / "src/retrain")
    result = grown.run("dvc", "repro", **environment)
    ran = [line for line in result.stdout.splitlines() if line.startswith("Running stage")]
    assert ran == ["Running stage 'config':"], "the same code: no stage has anything to do"
    assert "version 2" in grown.run("retrain", "status", **environment).stdout


def test_a_clone_takes_a_new_engine_without_conflict(tmp_path: Path) -> None:
    upstream = make_project(tmp_path / "upstream")
    clone = Project(tmp_path / "clone")
    named = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", "clone", "-q", str(upstream.root), str(clone.root)], check=True)
    clone.edit("src/project/source.py", "from __future__", "# Ours.\nfrom __future__")
    clone.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: 2013-02")
    clone.run("git", *named, "commit", "-qam", "our own project")
    before = _digests(clone)
    upstream.edit("src/retrain/gate/checks.py", "from __future__", "# New.\nfrom __future__")
    upstream.run("git", *named, "commit", "-qam", "a new engine")
    clone.run("git", *named, "pull", "-q", "--no-rebase", "--no-edit")
    after = _digests(clone)
    assert {stage for stage in after if after[stage] != before[stage]} >= {"evaluate", "promote"}
    assert after["snapshot"] == before["snapshot"]
    assert "# Ours." in (clone.root / "src/project/source.py").read_text()


def _digests(project: Project) -> dict[str, str]:
    project.run("retrain", "config", PYTHONPATH=str(project.root / "src"))
    return yaml.safe_load((project.root / "params.yaml").read_text())["code"]
