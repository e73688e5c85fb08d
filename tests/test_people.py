"""What people decide: rollback, override, approval; who served when; and training a version
again."""

from __future__ import annotations

import json

import pytest
from conftest import Project
from test_loop import aliases, promotion


@pytest.fixture(scope="module")
def april(champion_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two promotions: version 2 with March, then version 4 with April. Shared: copy it before
    changing it."""
    made = champion_project.copy(tmp_path_factory.mktemp("april") / "my project")
    made.arrive("2013-04")
    made.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    made.repro()
    assert aliases(made)["champion"] == 4
    return made


def error(project: Project, *command: str) -> str:
    result = project.run("retrain", *command, check=False)
    assert result.returncode != 0 and "Traceback" not in result.stderr
    return " ".join(result.stderr.split())


def entries(project: Project) -> list[dict]:
    return [
        json.loads(line)
        for line in project.run("retrain", "history", "--jsonl").stdout.splitlines()
    ]


def test_a_rollback_restores_who_last_served_and_the_same_recipe_does_not_come_back(
    april: Project, tmp_path
) -> None:
    project = april.copy(tmp_path / "project")
    assert "--reason" in error(project, "rollback")
    result = project.run("retrain", "rollback", "--reason", "complaints")
    assert "Version 2 of slice is champion now in place of version 4" in result.stdout
    tried, serving = (
        next(line for line in result.stderr.splitlines() if words in line)
        for words in ("loads and", "The champion")
    )
    assert tried.startswith("Version 2 ") and "(was trained on none of them)" in tried
    assert "version 4" in serving and "(was trained on some of them)" in serving
    assert aliases(project) == {"challenger": 3, "champion": 2, "previous": 4}
    pages = {number: project.client().get_model_version("slice", str(number)) for number in (2, 4)}
    assert "complaints" in pages[4].tags["rolled_back"] and pages[4].description.startswith(
        "Rolled back on "
    )
    assert pages[2].description.startswith("Serves again since ")
    assert project.stages_run() == [], "nothing has changed for the pipeline"
    output = project.repro("-f", "-s", "train") + project.repro()
    assert (
        "No challenger: This recipe on this snapshot gave version 4, which" in output
        and "complaints" in output
    )
    assert aliases(project)["champion"] == 2 and promotion(project)["moved"] is False
    assert "No version served before" in error(project, "rollback", "--reason", "again")

    # Another recipe on the same snapshot may try; the incumbent is the restored version.
    project.edit("conf/model/hist_gradient_boosting.yaml", "max_iter: 20", "max_iter: 21")
    project.repro()
    assert (
        json.loads((project.root / "reports/challenger.json").read_text())["incumbent"]["version"]
        == 2
    )
    kinds = [
        (entry["seq"], entry["kind"], entry["previous"], entry["champion"])
        for entry in entries(project)
    ]
    assert kinds[:3] == [(0, "verdict", None, 2), (1, "verdict", 2, 4), (2, "rollback", 4, 2)]
    assert entries(project)[2]["reason"] == "complaints" and entries(project)[3]["look"] == 2
    assert entries(project)[3]["figures"]["decay"] >= 0, (
        "the restored version's loss at its promotion is known"
    )


def test_a_rollback_to_a_version_that_does_not_load_changes_nothing(
    april: Project, tmp_path
) -> None:
    project = april.copy(tmp_path / "project")
    source = project.run("retrain", "status").stdout  # mends the paths of the copied store
    assert "version 4" in source
    location = project.client().get_model_version("slice", "2").source.removeprefix("file://")
    with open(f"{location}/model.skops", "ab") as file:
        file.write(b"tampered")
    assert "content has changed" in error(project, "rollback", "--reason", "complaints")
    assert aliases(project)["champion"] == 4 and len(entries(project)) == 2


def test_a_person_overrides_the_gate_and_it_is_recorded(april: Project, tmp_path) -> None:
    project = april.copy(tmp_path / "project")
    assert "go together" in error(project, "promote", "1")
    assert "There is no version 17" in error(project, "promote", "17", "--reason", "why not")
    assert "is champion already" in error(project, "promote", "4", "--reason", "why not")
    project.run("retrain", "promote", "1", "--reason", "the refit saw a strike")
    last = entries(project)[-1]
    assert (last["kind"], last["previous"], last["champion"], last["reason"]) == (
        "override",
        4,
        1,
        "the refit saw a strike",
    )
    assert last["who"] and last["time"] and last["git_commit"] and last["snapshot"]
    assert aliases(project)["champion"] == 1
    status = project.run("retrain", "status").stdout
    assert "override by" in status and "the refit saw a strike" in status


def test_with_approval_required_a_promotion_waits_for_a_person(grown: Project) -> None:
    grown.edit("conf/gate/shared/guardrails.yaml", "approval: automatic", "approval: required")
    grown.arrive("2013-04")
    grown.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    assert "passed, and waits for `retrain approve`; version 2 stays champion" in grown.repro()
    assert aliases(grown) == {"candidate": 4, "challenger": 3, "champion": 2}
    assert grown.stages_run() == []
    assert "`retrain approve` lets the candidate serve" in grown.run("retrain", "status").stdout
    assert "Version 3 does not wait for approval; version 4 does" in error(grown, "approve", "3")
    grown.run("retrain", "approve", "4", "--reason", "looked at the slices")
    assert aliases(grown) == {"challenger": 3, "champion": 4, "previous": 2}
    assert [entry["kind"] for entry in entries(grown)] == ["verdict", "verdict", "approval"]
    assert "No version waits for approval" in error(grown, "approve")
    grown.repro("-f", "-s", "promote")
    assert len(entries(grown)) == 3 and aliases(grown)["champion"] == 4


def test_history_says_who_served_at_a_date_and_why(april: Project) -> None:
    by_data = april.run("retrain", "history", "--at", "2013-04-15").stdout
    assert (
        "nothing was in production" in by_data
        and "version 2" in by_data
        and "refit of version 1" in by_data
    )
    now = april.run("retrain", "history", "--at", "2999-01-01").stdout
    for words in (
        "version 4",
        "until now",
        "verdict promote",
        "compared with version 2",
        "log_loss",
        "run ",
        "snapshot ",
    ):
        assert words in now
    assert "must be a date" in error(april, "history", "--at", "last march")


def test_the_ledger_says_all_about_a_verdict(april: Project) -> None:
    last = entries(april)[-1]
    for key in (
        "snapshot",
        "git_commit",
        "config",
        "run_id",
        "who",
        "time",
        "comparison",
        "predictions",
        "recipe",
    ):
        assert last[key], key
    assert last["checks"]["primary"] == "passed" and last["look"] == 1
    assert {"log_loss/challenger", "log_loss/incumbent", "log_loss/minus_incumbent_low"} <= last[
        "figures"
    ].keys()


def test_a_version_is_trained_again_with_identical_predictions(april: Project, tmp_path) -> None:
    """From the commit before the run: what was not committed then (config, snapshot, code) is
    restored as well."""
    project = april.copy(tmp_path / "project")
    for number in ("3", "4"):
        assert "its predictions are identical" in project.run("retrain", "reproduce", number).stdout
    assert project.run("git", "worktree", "list").stdout.count("\n") == 1, "the worktree is gone"
    project.edit(
        "conf/config.yaml", "seed: 20130101", "seed: 2"
    )  # today's config has no part in it
    assert "its predictions are identical" in project.run("retrain", "reproduce", "2").stdout
    (project.root / ".dvc/cache").rename(tmp_path / "elsewhere")
    assert "neither in this project's DVC cache nor in its remote" in error(
        project, "reproduce", "4"
    )


def test_a_queued_experiment_waits_for_approval(april: Project, tmp_path) -> None:
    project = april.copy(tmp_path / "project")
    for command in (["add", "-A", "-f", "data/incoming"], ["commit", "-qm", "april"]):
        project.run("git", "-c", "user.name=test", "-c", "user.email=test@example.com", *command)
    change = "conf/model/hist_gradient_boosting.yaml:estimator.max_iter=21"
    output = project.run("dvc", "exp", "run", "--temp", "-S", change).stdout
    assert "passed, and waits for `retrain approve`; version 4 stays champion" in output
    found = aliases(project)
    assert found["champion"] == 4 and found["candidate"] == 6
    assert promotion(project)["champion"] == 4, "the project's own reports are not the experiment's"


def test_a_verdict_that_somebody_sees_is_a_look_and_a_what_if_is_carried_out_by_nobody(
    grown: Project,
) -> None:
    comparison = grown.root / "reports/comparison.json"

    def looks() -> list[tuple[int, str]]:
        return [
            (entry["look"], entry["verdict"]) for entry in entries(grown) if entry["kind"] == "look"
        ]

    official = comparison.read_bytes()
    assert "Verdict promote" in grown.run("retrain", "evaluate").stdout and looks() == [], (
        "the one that was carried out"
    )
    for _ in range(2):
        shown = grown.run(
            "retrain", "evaluate", "gate.first_champion.baseline.confidence=0.9"
        ).stdout
        assert "look 2" in shown and "does not carry it out" in shown
        assert comparison.read_bytes() == official and looks() == [(2, "promote")]
    assert "look: promote" in grown.run("retrain", "history").stdout

    grown.edit(
        "conf/gate/shared/guardrails.yaml", "confidence: 0.95      # one-sided", "confidence: 0.94"
    )
    grown.repro("evaluate")
    assert json.loads(comparison.read_text())["look"] == 3 and [
        number for number, _ in looks()
    ] == [2, 3]
    grown.repro()
    assert entries(grown)[-1]["kind"] == "verdict" and entries(grown)[-1]["look"] == 3
    assert looks() == [(2, "promote")], "that one has become an entry"

    for command in (["promote", "gate.approval=automatic"], ["approve", "gate.approval=automatic"]):
        assert "takes no overrides, and was given gate.approval=automatic" in error(grown, *command)

    comparison.write_text(
        json.dumps(json.loads(comparison.read_text()) | {"predictions": "0" * 64})
    )
    assert "`evaluate` has not compared it yet" in error(grown, "promote"), (
        "a verdict is about its own challenger"
    )
