"""Tell people what a run changed: a JSON POST, or a command that reads it.

Never with values from rows: names of columns, batches, checks and versions only. It never fails or
holds up a run, and says each thing once.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import shlex
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from retrain.config import Event, NotifyConfig, load_params
from retrain.errors import RetrainError
from retrain.masking import mask
from retrain.report.outcome import Outcome
from retrain.types import DecisionRecord
from retrain.workspace import write_json

SENT = Path(".dvc/tmp/retrain_notified.json")  # what was told last, by event
SECONDS = 10.0
log = logging.getLogger("retrain")


class News(NamedTuple):
    """One thing to tell. `key` tells it from what was told before."""

    event: Event
    key: str
    text: str


def tell_outcome(config: NotifyConfig, outcome: Outcome) -> None:
    """After a retraining: verdict, drift, batches on hold, decay; what was told before is not
    told again."""
    trained, promotion = outcome.trained, outcome.promotion
    facts = {
        "model": promotion.registered_model,
        "batch": trained.newest_batch,
        "verdict": promotion.verdict,
        "challenger": trained.challenger.version if trained.challenger else None,
        "champion": promotion.champion,
        "previous": promotion.previous,
        "candidate": promotion.candidate,
    }
    _tell(config, [*_verdict(outcome), *_observed(outcome.decision)], facts)


def tell_failure(verb: str, error: BaseException) -> None:
    """After a stage that failed. Not its message: that may quote values from rows."""
    try:
        config = load_params().notify
    except RetrainError:
        config = NotifyConfig()
    kind = type(error).__name__
    digest = hashlib.sha256(str(error).encode()).hexdigest()[:16]
    text = f"Stage {verb} failed ({kind}). The log of the run says why, `retrain status` what next."
    _tell(config, [News(Event.failure, f"{verb} {kind} {digest}", text)], {})


def _verdict(outcome: Outcome) -> Iterator[News]:
    if outcome.trained.retrained:
        stopped = outcome.stopped_by
        why = f" Stopped by: {', '.join(stopped)}." if stopped else ""
        key = f"{outcome.promotion.registered_model} {outcome.promotion.ledger_entry}"
        yield News(Event.verdict, key, outcome.headline + why)


def _observed(decision: DecisionRecord) -> Iterator[News]:
    batch = decision.watched_batch
    if decision.alarms:
        first = ", ".join(list(decision.features)[:3])
        text = f"Drift of {', '.join(decision.alarms)} in batch {batch}; look at {first} first."
        yield News(Event.drift, f"{batch} {decision.alarms}", text)
    for period in decision.held_back:
        yield News(Event.hold, period, f"Batch {period} is on hold; `retrain status` says why.")
    score = decision.scores[-1] if decision.scores else None
    if score is None or score.low is None or decision.decay is None:
        return
    if decision.decay > score.value - score.low:  # more than the newest batch is unsure about
        text = (
            f"Champion version {decision.champion_version} has decayed: on the newest batches its "
            f"{decision.loss} is {decision.decay:.4f} more than at its promotion."
        )
        yield News(Event.decay, f"{decision.champion_version}", text)


def _tell(config: NotifyConfig, news: list[News], facts: Mapping[str, Any]) -> None:
    """One message for all that is new."""
    url = os.environ.get(config.url_from_env or "", "").strip()
    if not url and not config.command:
        return
    sent = _sent()
    new = [one for one in news if one.key not in sent.get(one.event.value, [])]
    new = [one for one in new if one.event in config.events]
    if new:
        lines = [mask(one.text) for one in new]
        content = {
            "title": lines[0],
            "text": "\n".join(filter(None, [_about(facts), *lines])),
            "events": [one.event.value for one in new],
            **facts,
        }
        if failed := _deliver(url, config.command, json.dumps(content).encode()):
            log.warning("Nobody was told of this run: %s. It stands as it is.", failed)
            return
    # What a run that ended well no longer says may be told again; a failed one knows of itself.
    said = Event if facts else [Event.failure]
    sent |= {event.value: [one.key for one in news if one.event is event] for event in said}
    try:
        write_json(SENT, sent)
    except RetrainError as error:
        log.warning("%s", error)


def _sent() -> dict[str, list[str]]:
    try:
        content = json.loads(SENT.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _about(facts: Mapping[str, Any]) -> str:
    return f"{facts['model']}, batch {facts['batch']}" if facts else ""


def _deliver(url: str, command: str | None, content: bytes) -> str:
    """Send to both where both are set; returns what went wrong, in words that hold no address."""
    problems: list[str] = []

    def work() -> None:
        if url:
            problems.append(_post(url, content))
        if command:
            problems.append(_call(command, content))
        problems.append("")

    # The limits of urllib are for each packet: a server that drips would hold up the run.
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(SECONDS)
    if worker.is_alive():
        return f"no answer within {SECONDS:g} seconds"
    return "; ".join(filter(None, problems)) if problems else "the message could not be made"


def _post(url: str, content: bytes) -> str:
    if not url.lower().startswith(("http://", "https://")):
        return "the address does not begin with http:// or https://"
    try:
        request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"the address answered {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)  # their texts may hold the address
        why = getattr(cause, "strerror", None) or type(cause).__name__
        return f"the address can't be reached ({why})"


def _call(command: str, content: bytes) -> str:
    try:
        done = subprocess.run(
            shlex.split(command), input=content, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"`notify.command` did not end within {SECONDS:g} seconds"
    except (OSError, ValueError) as error:
        return f"`notify.command` can't be run ({type(error).__name__})"
    return f"`notify.command` ended with {done.returncode}" if done.returncode else ""
