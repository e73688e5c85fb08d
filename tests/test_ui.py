"""What people look at, in a real browser: the pages that `retrain ui` opens, and the HTML
report."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project, free_port

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"
)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


def text_of(url: str, tmp_path: Path) -> str:
    """The words that a page shows once its scripts have run."""
    command = [
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={tmp_path / 'browser'}",
        "--virtual-time-budget=30000",
        "--dump-dom",
        url,
    ]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


@pytest.fixture(scope="module")
def address(champion_project: Project) -> Iterator[str]:
    """The server that `retrain ui` starts."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    port = free_port()
    environment = os.environ | {"PATH": path}
    environment.pop("MLFLOW_TRACKING_URI", None)
    log = (champion_project.root.parent / "ui.log").open("w")
    server = subprocess.Popen(
        ["retrain", "ui", "--port", str(port)],
        cwd=champion_project.root,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        said = ""
        while "Ctrl-C ends it" not in said:
            said = (champion_project.root.parent / "ui.log").read_text()
            assert server.poll() is None, said
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)


def test_the_champion_says_what_it_is_and_how_it_came_to_serve(
    address: str, tmp_path: Path
) -> None:
    text = text_of(f"{address}/#/models/slice/versions/2", tmp_path)
    assert re.search(r"@ ?champion", text)
    assert "Refit of version 1 with the evaluation rows included" in text
    assert re.search(r"Log loss . 0\.\d{4} .0\.\d{3}", text)


def test_the_view_of_the_retrainings_shows_verdicts_and_scores(
    address: str, champion_project: Project, tmp_path: Path
) -> None:
    log = (champion_project.root.parent / "ui.log").read_text()
    (page,) = re.findall(r"retrainings +(http\S+)", log)
    assert page.startswith(address)
    text = text_of(page, tmp_path)
    for words in ("One run for each retraining", "2013-03: promote v1", "2013-03: refit v2"):
        assert words in text
    assert "verdict" in text and "log_loss" in text and "shared view" in text


def test_the_run_shows_verdict_data_set_and_metrics(
    address: str, champion_project: Project, tmp_path: Path
) -> None:
    client = champion_project.client()
    experiment = client.get_experiment_by_name("slice").experiment_id
    (run,) = client.search_runs([experiment], "tags.kind = 'retraining'")
    text = text_of(f"{address}/#/experiments/{experiment}/runs/{run.info.run_id}", tmp_path)
    for words in (
        "2013-03: promote v1, refit v2",
        "verdict",
        "promote",
        "Challenger version 1, refitted as version 2",
        "log_loss/minus_baseline",
    ):
        assert words in text
    assert f"slice ({run.data.tags['snapshot']})" in text


def test_the_report_needs_no_network(champion_project: Project, tmp_path: Path) -> None:
    page = (champion_project.root / "reports/report.html").read_text()
    assert not re.findall(r"<script|<link|src=|url\(\s*[\"']?http", page)
    text = text_of((champion_project.root / "reports/report.html").as_uri(), tmp_path)
    for words in (
        "Promoted",
        "Scores on the evaluation rows",
        "Checks of the gate",
        "Calibration",
        "Log loss over time",
    ):
        assert words in text
