"""`reproduce` runs code and config from the tracking store only when the ledger says that they are the ones that trained."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
from mlflow.entities.model_registry import ModelVersion

from retrain.commands.reproduce import _show_and_check
from retrain.config import Config
from retrain.errors import StoreError
from retrain.registry import runs, versions
from retrain.registry.entries import Entry
from retrain.registry.recorded import RecordedCode, read_recorded
from retrain.registry.store import Store
from retrain.types import CodeRecord
from retrain.workspace import Commit

COMMIT, HASH = "a" * 40, "b" * 32 + ".dir"
# Line ends of Windows and another encoding than UTF-8: as text, either would come back changed.
PATCH = "diff --git a/src/x.py b/src/x.py\n-old\r\n+n\udce9w \x1b[2K\n"


@dataclasses.dataclass
class Made:
    """A run as training leaves it, its version, and what the ledger would say about it."""

    store: Store
    version: ModelVersion
    entry: Entry
    folder: Path

    def read(self, known: bool = True) -> RecordedCode:
        version = versions.get_version(self.store, 1)
        run_id = versions.training_run(self.store, version)
        return read_recorded(self.store, version, run_id, self.entry if known else None)


@pytest.fixture
def made(store: Store, config: Config, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(runs, "current_commit", lambda: Commit(COMMIT, PATCH))
    with runs.start_run(store, "retrain", config, {"snapshot_dvc": HASH}) as run_id:
        code = runs.code_record(config)
    assert (
        code == CodeRecord(COMMIT, code.config, code.patch)
        and len(code.config) == len(code.patch) == 64
    )
    store.client.create_registered_model("flights")
    folder = Path(store.client.get_run(run_id).info.artifact_uri)
    version = store.client.create_model_version(
        "flights", str(folder), run_id=run_id, tags={"snapshot": "digest"}
    )
    fields = dict(
        verdict="keep", reason="", champion=None, previous=None, trained_until=None, challenger=1
    )
    fields |= dict(
        challenger_trained_until="",
        incumbent=None,
        comparison="",
        snapshot="digest",
        newest_batch="",
    )
    fields |= dict(
        git_commit="c" * 40, run_id=run_id, trained_commit=COMMIT, run_config=code.config
    )
    return Made(store, version, Entry("verdict", **fields, run_patch=code.patch), folder)


def test_what_the_ledger_recorded_is_given_back_byte_for_byte(
    made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    code = made.read()
    assert (code.git_commit, code.snapshot, code.known, code.disagreements) == (
        COMMIT,
        HASH,
        True,
        (),
    )
    assert code.patch == PATCH.encode("utf-8", "surrogateescape")
    caplog.set_level(logging.INFO)
    _show_and_check(made.version, code, trusted=False)
    assert COMMIT in caplog.text and "1 file(s) changed" in caplog.text, "shown before it runs"


@pytest.mark.parametrize("what", ["config", "uncommitted code", "commit", "snapshot"])
def test_what_was_changed_in_the_store_is_shown_and_not_run(
    made: Made, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    if what == "config":
        (made.folder / "config.yaml").write_text("model: {_target_: os.system}\n")
    elif what == "uncommitted code":
        (made.folder / "code.patch").write_text(
            "diff --git a/src/x.py b/src/x.py\n+import os  # new\n"
        )
    elif what == "commit":
        made.store.client.set_tag(made.version.run_id, "git_commit", "d" * 40)
    else:
        made.store.client.set_model_version_tag("flights", "1", "snapshot", "another")
    caplog.set_level(logging.INFO)
    for trusted in (False, True):
        with pytest.raises(
            StoreError, match=rf"no longer holds what the ledger recorded \({what} .* instead of"
        ):
            _show_and_check(made.version, made.read(), trusted)
    if what in ("config", "uncommitted code"):
        assert "os.system" in caplog.text or "# new" in caplog.text


def test_a_patch_can_neither_be_hidden_nor_slipped_in_by_a_tag(made: Made) -> None:
    made.store.client.set_tag(made.version.run_id, "git_dirty", "false")
    assert made.read().patch and not made.read().disagreements
    made.entry = dataclasses.replace(made.entry, run_patch="")
    made.store.client.set_tag(made.version.run_id, "git_dirty", "true")
    assert made.read().patch == b"" and not made.read().disagreements


def test_without_a_digest_in_the_ledger_a_person_must_say_that_they_trust_the_store(
    made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    code = made.read(known=False)
    with pytest.raises(StoreError, match=r"retrain reproduce 1 --trust-store"):
        _show_and_check(made.version, code, trusted=False)
    assert "minimum_rows" in caplog.text and "diff --git" in caplog.text, "the whole of it is shown"
    assert "\x1b" not in caplog.text and r"\x1b" in caplog.text, (
        "and nothing of it can hide from a terminal"
    )
    _show_and_check(made.version, code, trusted=True)


@pytest.mark.parametrize(
    "tag, value",
    [
        ("git_commit", "--upload-pack=touch /tmp/x"),
        ("git_commit", "HEAD"),
        ("git_commit", "a" * 39),
        ("git_commit", "a" * 40 + "\n"),
        ("snapshot_dvc", "../../../etc"),
        ("snapshot_dvc", "b" * 32 + "/../x"),
    ],
)
def test_what_can_be_no_commit_or_hash_does_not_get_to_git_or_dvc(
    made: Made, tag: str, value: str
) -> None:
    made.store.client.set_tag(made.version.run_id, tag, value)
    for known in (True, False):
        with pytest.raises(StoreError, match=rf"the tag `{tag}` of its run is .*Nothing was run"):
            made.read(known)


def test_a_run_without_commit_says_what_to_do(made: Made) -> None:
    made.store.client.set_tag(made.version.run_id, "git_commit", "none")
    with pytest.raises(
        StoreError, match=r"has no `git_commit`\.\nhint: For the next one, commit the project"
    ):
        made.read()
