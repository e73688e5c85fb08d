"""People are told of what changed, once; a server that misbehaves changes nothing for the run."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Project

from retrain.config import Event, NotifyConfig
from retrain.gate.comparison import Comparison
from retrain.report import notify
from retrain.report.outcome import Outcome
from retrain.types import ChallengerRecord, Change, DecisionRecord, PromotionRecord, Score


class Server(ThreadingHTTPServer):
    """Keeps what it is sent; `answer` is a status, or None for no answer at all."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.answer: int | None = 200
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook/s3cr3t-t0ken"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        if self.server.answer is None:
            self.server.ended.wait(20)
            return
        self.server.received.append(json.loads(content))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    monkeypatch.setenv("RETRAIN_NOTIFY_URL", made.url)
    yield made
    made.ended.set()
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def outcome(batch: str = "2013-12", decay: float = 0.2, **observed: Any) -> Outcome:
    decision = DecisionRecord(
        False,
        "why",
        policy="Always",
        snapshot="s",
        newest_batch=batch,
        new_rows=10,
        champion_version=4,
        loss="log_loss",
        scores=[Score(batch, 0.6, 0.55, 0.65)],
        decay=decay,
        watched_batch=batch,
        features={"wind": Change(0.5)},
        **observed,
    )
    trained = ChallengerRecord(False, "why", "s", batch)
    promotion = PromotionRecord(None, False, 4, None, None, registered_model="flights")
    return Outcome(decision, trained, Comparison(), promotion)


def test_what_changed_is_told_once(server: Server) -> None:
    found = outcome(alarms=["target"], held_back={"2013-11": "level `Jane Doe` is new"})
    for _ in range(2):
        notify.tell_outcome(NotifyConfig(), found)
    (told,) = server.received
    assert told["events"] == ["drift", "hold", "decay"] and told["batch"] == "2013-12"
    assert told["text"].startswith("flights, batch 2013-12\nDrift of target")
    assert told["champion"] == 4 and "Jane Doe" not in json.dumps(told)
    notify.tell_outcome(NotifyConfig(), outcome(held_back={"2013-11": "", "2013-12": ""}))
    assert server.received[-1]["events"] == ["hold"]
    assert "2013-12 is on hold" in server.received[-1]["title"]
    notify.tell_outcome(NotifyConfig(), outcome(decay=0.01))
    assert len(server.received) == 2, "less than the newest batch is unsure about is no decay"
    notify.tell_outcome(NotifyConfig(), outcome())
    assert server.received[-1]["events"] == ["decay"], "it had gone, and came again"


def test_only_the_events_of_the_configuration_are_told(server: Server) -> None:
    config = NotifyConfig(events=[Event.hold])
    notify.tell_outcome(config, outcome(alarms=["target"], held_back={"2013-11": ""}))
    assert server.received[0]["events"] == ["hold"]


@pytest.mark.parametrize("trouble", ["answers 500", "hangs", "refuses", "is no address"])
def test_a_server_that_misbehaves_ends_in_a_warning_without_its_address(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
) -> None:
    monkeypatch.setattr(notify, "SECONDS", 0.5)
    server.answer = {"answers 500": 500, "hangs": None}.get(trouble, 200)
    if trouble == "refuses":
        monkeypatch.setenv("RETRAIN_NOTIFY_URL", "http://127.0.0.1:9/s3cr3t-t0ken")
    if trouble == "is no address":
        monkeypatch.setenv("RETRAIN_NOTIFY_URL", "file:///etc/s3cr3t-t0ken")
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING):
        notify.tell_outcome(NotifyConfig(), outcome())
    assert time.monotonic() - begun < 10
    (warning,) = caplog.messages
    assert warning.startswith("Nobody was told of this run") and "s3cr3t" not in warning
    server.answer = 200
    monkeypatch.setenv("RETRAIN_NOTIFY_URL", server.url)
    before = len(server.received)
    notify.tell_outcome(NotifyConfig(), outcome())
    assert len(server.received) == before + 1, "the next run tells what this one could not"


def test_a_command_gets_the_message_on_its_standard_input(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RETRAIN_NOTIFY_URL", raising=False)
    notify.tell_outcome(NotifyConfig(command="tee 'told it.json'"), outcome())
    assert json.loads(Path("told it.json").read_text())["events"] == ["decay"]
    for command in ("false", "no-such-command", "tee 'open"):
        notify.SENT.unlink()
        notify.tell_outcome(NotifyConfig(command=command), outcome())
        assert "`notify.command`" in caplog.messages[-1]
        notify.SENT.write_text("{}")


def test_a_verdict_and_a_failed_stage_are_told_by_the_pipeline(
    grown: Project, server: Server
) -> None:
    grown.run("dvc", "repro", "-f", "-s", "promote", RETRAIN_NOTIFY_URL=server.url)
    (told,) = server.received
    assert told["events"] == ["verdict"] and told["verdict"] == "promote"
    assert (
        told["title"] == "Challenger version 1, refitted as version 2, is champion now, the first."
    )
    (grown.root / "data/incoming/2013-03.parquet").write_bytes(b"Jane Doe")
    for _ in range(2):
        grown.run("dvc", "repro", check=False, RETRAIN_NOTIFY_URL=server.url)
    (failed,) = server.received[1:]
    assert failed["events"] == ["failure"] and "Stage snapshot failed" in failed["text"]
    assert "Jane Doe" not in json.dumps(server.received)
    grown.run("dvc", "repro", "-f", "-s", "promote", RETRAIN_NOTIFY_URL=server.url)
    assert len(server.received) == 2, "the verdict was told before the failure"
