"""A colleague's clone, or a lost store: nothing is trained again that is there already."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from conftest import REPOSITORY, TARGET, TIME, Project, flights, make_project

from retrain.commands.project_files import watch
from retrain.errors import DataError
from retrain.own_code import code_digests

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.com")


def shared_project(root: Path) -> Project:
    """A project whose raw files DVC keeps, with a remote beside it."""
    made = make_project(root / "first")
    made.arrive("2013-01", "2013-02", "2013-03")
    made.run("git", "rm", "-q", "--cached", "data/incoming/.gitkeep")
    (made.root / "data/incoming/.gitkeep").unlink()
    made.run("dvc", "add", "-q", "data/incoming")
    made.run("dvc", "remote", "add", "-d", "shared", str(root / "remote"))
    return made


def publish(project: Project) -> None:
    project.run("git", "add", "-A")
    project.run("git", *IDENTITY, "commit", "-qm", "retrained")
    project.run("dvc", "push", "-q")


def clone(project: Project, root: Path) -> Project:
    project.run("git", "clone", "-q", ".", str(root))
    cloned = Project(root)
    cloned.run("dvc", "pull", "-q")
    return cloned


def is_unchanged(project: Project) -> bool:
    return project.run("git", "status", "--porcelain").stdout == ""


def test_a_second_clone_with_a_copy_of_the_local_store_has_nothing_to_do(tmp_path: Path) -> None:
    first = shared_project(tmp_path)
    first.repro()
    publish(first)
    second = clone(first, tmp_path / "second")
    for name in ("mlflow.db", "mlflow.db-wal", "mlflow.db-shm"):
        if (first.root / name).exists():
            shutil.copy2(first.root / name, second.root / name)
    shutil.copytree(first.root / "mlruns", second.root / "mlruns", dirs_exist_ok=True)
    assert second.stages_run() == [] and is_unchanged(second)
    assert "slice version 2" in second.run("retrain", "status").stdout
    assert (second.root / "reports/report.html").is_file() and is_unchanged(second)


def test_git_shows_what_a_retraining_changed(champion_project: Project, tmp_path: Path) -> None:
    project = champion_project.copy(tmp_path / "project")
    project.run("git", "add", "-A")
    tracked = set(project.run("git", "diff", "--cached", "--name-only").stdout.split())
    assert tracked == {
        "dvc.lock",
        "mlruns/ledger.json",
        "params.yaml",
        *(f"reports/{name}.json" for name in ("challenger", "comparison", "decision", "promotion")),
        "reports/metrics.json",
        "reports/plots/calibration.svg",
        "reports/plots/scores.svg",
        "reports/report.md",
    }
    project.run("git", *IDENTITY, "commit", "-qm", "first")
    project.edit("conf/config.yaml", "seed: 20130101", "seed: 7")
    project.repro("config")
    assert "seed" in project.run("dvc", "params", "diff").stdout


def test_dvc_shows_a_reviewer_few_numbers_and_pictures_that_need_no_network(
    champion_project: Project,
) -> None:
    shown = json.loads(champion_project.run("dvc", "metrics", "show", "--json").stdout)
    (numbers,) = [found["data"] for found in shown[""]["data"].values()]
    assert numbers["batch"] == "2013-03" and numbers["verdict"] == "promote"
    compared = numbers["log_loss"]
    assert compared["difference_low"] < compared["difference"] < compared["difference_high"] < 0
    assert not [text for text in numbers.values() if isinstance(text, str) and " " in text]
    champion_project.run("dvc", "plots", "show", "-o", "dvc_plots")
    page = champion_project.root / "dvc_plots/index.html"
    assert page.read_text().count("src=") == 2 and "http" not in page.read_text()
    assert all("over batches" in path.read_text() for path in page.parent.rglob("*scores.svg"))


def test_a_deleted_store_is_noticed_and_the_pipeline_starts_over(grown: Project) -> None:
    (grown.root / "mlflow.db").unlink()
    shutil.rmtree(grown.root / "mlruns")
    status = grown.run("retrain", "status").stdout
    assert (
        "names version 2, and this tracking store has no ledger" in status
        and "bring back mlflow.db" in status
    )
    assert (
        "names version 2, which this tracking store does not know"
        in grown.run("retrain", "history").stdout
    )
    output = grown.repro()
    assert (
        "the store was deleted" in " ".join(output.split())
        and "is champion now, the first" in output
    )
    assert "slice version 2" in grown.run("retrain", "status").stdout
    assert grown.stages_run() == []


def test_results_of_another_ledger_are_named(grown: Project) -> None:
    pointer = grown.root / "mlruns/ledger.json"
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"run_id": "0" * 32}))
    status = grown.run("retrain", "status").stdout
    assert "belong to another ledger (run 00000000)" in status and "dvc repro -f" in status


def test_results_that_are_newer_than_the_store_are_named(grown: Project) -> None:
    results = grown.root / "reports/promotion.json"
    results.write_text(json.dumps(json.loads(results.read_text()) | {"ledger_entry": 3}))
    status = grown.run("retrain", "status").stdout
    assert (
        "is of ledger entry 3, and the ledger here ends at 0" in status
        and "bring the newer mlflow.db" in status
    )


def test_an_environment_inside_the_project_is_no_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (".venv/lib/python3.11/site-packages/somebodys_library", "src/somebodys_own"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").write_text("class Model: ...\n")
        monkeypatch.syspath_prepend(str((tmp_path / folder).parent))
    library, own = (
        {"model": {"_target_": f"somebodys_{name}.Model"}} for name in ("library", "own")
    )
    assert (
        code_digests(library, tmp_path)["model"] == ""
        and code_digests(own, tmp_path)["model"] != ""
    )


POLICY = """
from retrain.monitoring.policy import Decision, Policy


class Mondays(Policy):
    def decide(self, context):
        return Decision(False, "not today")
"""


def test_an_edit_of_ones_own_code_re_runs_the_stages_that_use_it(grown: Project) -> None:
    package = grown.root / "src/mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "rules.py").write_text(POLICY)
    (grown.root / "conf/policy/mondays.yaml").write_text("_target_: mine.rules.Mondays\n")
    path = {"PYTHONPATH": str(grown.root / "src")}
    grown.edit("conf/config.yaml", "policy: always ", "policy: mondays ")
    grown.arrive("2013-04")
    grown.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    assert "not today" in grown.run("dvc", "repro", **path).stderr
    assert "Running stage" not in grown.run("dvc", "repro", **path).stdout
    (package / "helpers.py").write_text("DAY = 0\n")
    (package / "rules.py").write_text(POLICY.replace("not today", "not on a Tuesday"))
    result = grown.run("dvc", "repro", **path)
    assert "not on a Tuesday" in result.stderr
    ran = [
        line.split("'")[1]
        for line in result.stdout.splitlines()
        if line.startswith("Running stage")
    ]
    assert ran == ["config", "train", "evaluate", "promote"]
    grown.edit("src/retrain/gate/checks.py", "from __future__", "# Edited.\nfrom __future__")
    result = grown.run("dvc", "repro", **path)
    assert "'evaluate'" in result.stdout and "Running stage 'train'" not in result.stdout


def test_raw_files_that_init_was_given_are_kept_by_dvc_and_not_by_git(project: Project) -> None:
    (project.root / "exports").mkdir()
    flights("2013-01").head(3000).write_csv(project.root / "exports/january 2013.csv")
    flights("2013-02").head(3000).write_csv(project.root / "table.csv")
    for table in ("exports/*.csv", "table.csv", "data/incoming/*.parquet"):
        arguments = (
            "--target",
            TARGET,
            "--time",
            TIME,
            "--name",
            table.strip("*/.")[:4],
            "--period",
            "week",
        )
        assert "by DVC, not git" in project.run("retrain", "init", table, *arguments).stdout
    project.run("git", "add", "-A")
    tracked = project.run("git", "ls-files").stdout.splitlines()
    assert {"exports.dvc", "table.csv.dvc", "data/incoming.dvc"} <= set(tracked)
    assert not [name for name in tracked if name.endswith((".csv", ".parquet", ".gitkeep"))]
    flights("2013-04").write_parquet(project.root / "data/incoming/2013-04.parquet")
    assert "data/incoming.dvc" in project.run("dvc", "status").stdout, (
        "DVC keeps the next file as well"
    )


def test_a_table_that_is_in_git_already_stays_there(project: Project) -> None:
    flights("2013-01").head(3000).write_csv(project.root / "table.csv")
    project.run("git", "add", "-f", "table.csv")
    output = project.run(
        "retrain", "init", "table.csv", "--target", TARGET, "--time", TIME, "--period", "week"
    ).stdout
    assert (
        "table.csv is in git, and stays there" in output
        and not (project.root / "table.csv.dvc").exists()
    )


def test_no_table_or_database_in_the_project_gets_into_git(project: Project) -> None:
    rows = flights("2013-01").head(3000)
    (project.root / "later").mkdir()
    for name in ("later/dropped.csv", "scored.parquet", "src/project/lookup.csv"):
        (rows.write_csv if name.endswith("csv") else rows.write_parquet)(project.root / name)
    database = project.root / "our [orders]"  # no ending tells what it is
    with sqlite3.connect(database) as made:
        made.execute("create table orders (late integer, at text)")
        made.executemany(
            "insert into orders values (?, ?)",
            [(row % 2, f"2013-01-{1 + row % 28:02} 10:00:00") for row in range(3000)],
        )
    query = ("--query", "select * from orders", "--target", "late", "--time", "at")
    address = f"sqlite:///{database.name}"
    kept = project.run("retrain", "init", address, *query, "--period", "day").stdout
    assert "our [orders] not by git, nor by DVC" in kept
    project.run("git", "add", "-A")
    tracked = project.run("git", "diff", "--cached", "--name-only").stdout.splitlines()
    assert tracked == [
        ".gitignore",
        "conf/config.yaml",
        "conf/data/query.yaml",
        "src/project/lookup.csv",  # beside code it is the project's own
    ]


@pytest.mark.parametrize("pattern", ["*.csv", "data/*.csv", "**/*.csv"])
def test_a_glob_over_the_folder_in_which_the_pipeline_writes_is_refused(
    monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    """DVC would refuse the whole pipeline: the snapshot would be in its own dependency."""
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(DataError, match=r"retrain init 'raw/\*.csv'"):
        watch([pattern])
