"""What a person is told between two retrainings: refused batches, batches on hold, older stores,
and whose figure it is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from conftest import Project

from retrain import workspace
from retrain.commands import status
from retrain.config import Config
from retrain.gate.comparison import Comparison
from retrain.report import html
from retrain.report.evidence import Evidence
from retrain.report.outcome import Outcome
from retrain.results import gate_refused
from retrain.types import ChallengerRecord, DecisionRecord, PromotionRecord


def plain(text: str) -> str:
    return " ".join(text.split())


def decided(output: str) -> list[str]:
    """The lines that say what was seen and decided."""
    signs = (
        "Retrain: ",
        "No retraining: ",
        "Champion version",
        "Version ",
        "Drift of",
        "Schema changes in",
    )
    return [line.strip() for line in output.splitlines() if line.strip().startswith(signs)]


def test_a_refused_batch_is_said_by_status_until_it_is_mended(grown: Project) -> None:
    grown.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: null")
    assert "Refused" not in grown.run("retrain", "status").stdout
    grown.arrive("2013-04", change=lambda rows: pl.concat([rows, rows[:2]]))
    assert grown.run("dvc", "repro", check=False).returncode
    status = plain(grown.run("retrain", "status").stdout)
    assert "Refused on 20" in status and "Batch 2013-04 is refused: 4 of its" in status
    assert "data/incoming/2013-04.parquet, row 1; data/incoming/2013-04.parquet, row " in status
    assert "Next mend the batch at its source" in status and "a new batch" not in status
    grown.arrive("2013-04")
    grown.repro("snapshot")
    status = plain(grown.run("retrain", "status").stdout)
    assert "Refused" not in status and "Next `dvc repro` evaluates a challenger" in status


def test_a_batch_on_hold_gives_its_reason_once_and_status_says_what_to_do(grown: Project) -> None:
    why = "it is listed under `monitoring.hold`"
    grown.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: null")
    grown.edit("conf/config.yaml", "hold: []", "hold: [2013-04]")
    grown.arrive("2013-04")
    output = plain(grown.repro()).lower()
    assert (
        output.count(why) == 1 and "batch 2013-04 is on hold, and nothing else has come" in output
    )
    monitored = grown.run("retrain", "monitor")
    seen = plain(monitored.stdout + monitored.stderr)
    assert seen.count(f"Batch 2013-04 is on hold: {why}") == 1
    status = plain(grown.run("retrain", "status").stdout)
    assert f"On hold 2013-04: {why}" in status
    assert "Next batch 2013-04 is on hold: take it off `monitoring.hold` to use it" in status


def test_monitor_says_what_the_pipeline_then_decides_and_whose_figures_it_saw(
    grown: Project,
) -> None:
    before = grown.run("retrain", "monitor")
    seen = plain(before.stdout + before.stderr)
    assert "Version 1 (champion version 2 before its refit) has log_loss" in seen
    assert (
        "on the rows of batch 2013-03 that it was not trained on" in seen
        and "Champion version 2 has" not in seen
    )
    grown.edit("conf/data/slice.yaml", "as_of: 2013-03", "as_of: 2013-04")
    grown.arrive("2013-04")
    for old, policy, answer in (
        ("always", "never", "No retraining: "),
        ("never", "always", "Retrain: "),
    ):
        grown.edit("conf/config.yaml", f"- policy: {old} ", f"- policy: {policy} ")
        grown.repro("snapshot")
        monitored = grown.run("retrain", "monitor")
        said = decided(monitored.stdout + monitored.stderr)
        assert said[0].startswith(answer) and "Champion version 2 has log_loss" in said[1]
        assert said == decided(grown.repro("train")), "what the pipeline then saw and did"
        assert (
            said[0]
            == answer + json.loads((grown.root / "reports/decision.json").read_text())["reason"]
        )


def test_a_store_that_ends_before_the_last_promotion_is_an_older_one(grown: Project) -> None:
    path = grown.root / "reports/promotion.json"
    promotion = json.loads(path.read_text())
    path.write_text(json.dumps(promotion | {"ledger_entry": 3}))
    status = plain(grown.run("retrain", "status").stdout)
    assert (
        "Older store reports/promotion.json is of ledger entry 3, and the ledger here ends at 0"
        in status
    )
    assert "Next bring the newer mlflow.db and mlruns/ here" in status
    (grown.root / "mlflow.db").unlink()
    path.write_text(
        json.dumps(
            promotion | {"ledger_entry": 3, "champion": None, "verdict": "keep", "moved": False}
        )
    )
    status = plain(grown.run("retrain", "status").stdout)
    assert (
        "Older store reports/promotion.json is of ledger entry 3, and this tracking store has no "
        "ledger" in status
    )


def test_a_version_that_a_person_brings_back_is_said_to_know_the_rows_that_it_is_tried_on_or_not(
    grown: Project,
) -> None:
    brought = grown.run("retrain", "promote", "1", "--reason", "the one before the refit")
    said = plain(brought.stdout + brought.stderr)
    assert "Version 1 loads and scores" in said and "(was trained on none of them)" in said
    assert "(was trained on some of them)" in said, "of the champion beside it"
    back = grown.run("retrain", "rollback", "--reason", "complaints")
    said = plain(back.stdout + back.stderr)
    assert said.index("(was trained on some of them)") < said.index("(was trained on none of them)")


@pytest.fixture
def page(champion_project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The report of the first champion, with some of the comparison replaced."""
    monkeypatch.chdir(champion_project.root)

    def rendered(**changes: object) -> str:
        folder = Path("reports")
        decision = DecisionRecord.load(folder / "decision.json", "train")
        trained = ChallengerRecord.load(folder / "challenger.json", "train")
        compared = Comparison.load(folder / "comparison.json", "evaluate")
        promotion = PromotionRecord.load(folder / "promotion.json", "promote")
        compared = dataclasses.replace(compared, **changes)
        outcome = Outcome(decision, trained, compared, promotion)
        return plain(html.render(outcome, Evidence()))

    return rendered


def test_the_report_says_why_no_check_was_asked_instead_of_an_empty_table(
    page: Callable[..., str],
) -> None:
    assert "<th>check</th>" in page() and "No check was asked" not in page()
    reason = (
        "The challenger predicts exactly what the incumbent predicts, so there is nothing to "
        "promote."
    )
    same = page(checks={}, verdict="keep", reason=reason)
    assert (
        "No check was asked: the challenger predicts exactly" in same
        and "<th>check</th>" not in same
    )


@pytest.mark.parametrize(
    ("source", "command"),
    [
        ({"_target_": "retrain.data.sources.BatchFiles", "folder": "data/incoming"}, "dvc repro"),
        (
            {"_target_": "retrain.data.sources.Files", "paths": ["data/incoming/a*.csv"]},
            "dvc repro",
        ),
        (
            {"_target_": "retrain.data.sources.WithLabels", "source": {"folder": "data/incoming"}},
            "dvc repro",
        ),
        ({"_target_": "retrain.data.sources.SqlQuery", "query": "x"}, "dvc repro -f snapshot"),
        ({"_target_": "retrain.data.sources.Files", "paths": "data/else/a.csv"}, "-f snapshot"),
        ({"_target_": "retrain.data.sources.Files", "paths": "my ${files}/a.csv"}, "dvc repro"),
        ({"_target_": "retrain.data.sources.Files", "paths": ["shop/*.csv"]}, "dvc repro"),
        ({"_target_": "retrain.data.sources.Files", "paths": "shop.csv"}, "-f snapshot"),
    ],
)
def test_status_says_how_a_new_batch_is_noticed(
    source: dict[str, object],
    command: str,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deps = "[src/project, data/incoming, 'my \\${files}/a.csv', shop]"
    (tmp_path / "dvc.yaml").write_text(f"stages:\n  snapshot:\n    deps: {deps}\n")
    monkeypatch.chdir(tmp_path)
    config.data.source = source  # type: ignore[assignment]
    config.data.as_of = None
    entry = SimpleNamespace(kind="verdict", snapshot="d", candidate=None)
    monkeypatch.setattr(status, "pending_approval", lambda _: None)
    told = status._next(config, SimpleNamespace(digest="d"), [entry])  # type: ignore[arg-type, list-item]
    assert told.startswith("a new batch: put it to the source, then `dvc repro")
    assert ("-f snapshot" in told) == ("-f snapshot" in command)


@pytest.mark.parametrize(
    ("verdict", "refused"), [("promote", False), ("keep", True), ("insufficient_evidence", True)]
)
def test_a_refused_challenger_can_fail_a_pull_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, refused: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    PromotionRecord(verdict, False, 1, None, 0).save(workspace.PROMOTION)
    assert gate_refused() == refused
