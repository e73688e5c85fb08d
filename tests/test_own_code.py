"""Stages depend on the code that they run and on no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, Project

import retrain
from retrain import own_code
from retrain.own_code import ENGINE, code_digests

Digests = Callable[[], dict[str, str]]


@pytest.fixture
def digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digests:
    """Digests of a project whose source, model and policy lie in one package of its own."""
    package = tmp_path / "src/shop"
    (package / "rules").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "source.py": "from .units import EURO\n\nclass Orders: ...\n",
        "units.py": "EURO = 1\n",
        "features.py": "def build():\n    from shop import units\n",
        "rules/__init__.py": "",
        "rules/mondays.py": "class Mondays: ...\n",
        "holidays.csv": "2013-12-25\n",
    }.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(str(package.parent))
    names = {
        "data": "shop.source.Orders",
        "model": "shop.features.build",
        "policy": "shop.rules.mondays.Mondays",
    }
    content = {group: {"_target_": name} for group, name in names.items()}
    return lambda: code_digests(content, tmp_path)


@pytest.mark.parametrize(
    ("edited", "groups"),
    [
        ("source.py", {"data"}),
        ("features.py", {"model"}),
        ("units.py", {"data", "model"}),
        ("rules/mondays.py", {"policy"}),
        ("rules/__init__.py", {"policy"}),
        ("__init__.py", {"data", "model", "policy"}),
        ("holidays.csv", {"data", "model", "policy"}),
    ],
)
def test_an_edit_changes_the_digests_of_the_groups_that_use_it(
    digests: Digests, tmp_path: Path, edited: str, groups: set[str]
) -> None:
    before = digests()
    file = tmp_path / "src/shop" / edited
    file.write_text(file.read_text() + "\n# edited\n")
    after = digests()
    assert {group for group in after if after[group] != before[group]} == groups


def test_what_a_stage_runs_of_the_engine_exists() -> None:
    engine = Path(retrain.__file__).parent
    missing = [name for names in ENGINE.values() for name in names if not (engine / name).exists()]
    assert missing == []


def test_every_stage_depends_on_the_engine_by_one_key_and_on_none_of_its_files() -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        assert not [path for path in stage["deps"] if path.startswith("src/")] or name == "config"
    keys = {name: {f"code.{each}" for each in ENGINE} for name in ENGINE}
    assert {name: keys[name] & set(stages[name]["params"]) for name in ENGINE} == {
        name: {f"code.{name}"} for name in ENGINE
    }


def test_an_engine_that_is_installed_has_the_digests_of_the_one_in_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = code_digests({}, REPOSITORY)
    installed = tmp_path / "site-packages/retrain"
    shutil.copytree(Path(own_code.__file__).parent, installed)
    monkeypatch.setattr(own_code, "__file__", str(installed / "own_code.py"))
    assert code_digests({}, REPOSITORY) == here


def test_the_package_of_the_project_one_stands_in_is_used_whatever_the_environment_holds(
    project: Project,
) -> None:
    def digest() -> str:
        project.run("retrain", "config", PYTHONPATH=str(REPOSITORY / "src"))
        return yaml.safe_load((project.root / "params.yaml").read_text())["code"]["model"]

    before = digest()
    project.edit("src/project/features.py", "from __future__", "# Ours.\nfrom __future__")
    assert before and digest() not in ("", before)


def test_the_package_in_the_projects_src_counts_not_one_of_the_same_name_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("mine", "another"):
        (tmp_path / folder / "src/shop").mkdir(parents=True)
        (tmp_path / folder / "src/shop/__init__.py").write_text("class Full: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path / "another/src"))
    content = {"strategy": {"_target_": "shop.Full"}}
    assert code_digests(content, tmp_path / "mine")["strategy"]


def test_every_module_of_the_loop_is_one_that_some_stage_depends_on() -> None:
    listed = {name for names in ENGINE.values() for name in names}
    modules = {path.name for path in (REPOSITORY / "src/retrain/pipeline").glob("*.py")}
    assert {f"pipeline/{name}" for name in modules - {"__init__.py", "config.py"}} <= listed
