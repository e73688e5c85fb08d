"""Bad input: one paragraph that says what, where and the way out; exit code not 0; nothing lost."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import TARGET, TIME, Project


def state(project: Project) -> dict[str, str]:
    """What must survive: every file of the snapshot, the ledger and the aliases."""
    digests = {
        str(path.relative_to(project.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((project.root / "data/snapshot").rglob("*"))
        if path.is_file()
    }
    client = project.client()
    (ledger,) = client.search_runs([client.get_experiment_by_name("slice-ledger").experiment_id])
    aliases = client.get_registered_model("slice").aliases
    return digests | {
        key: str(value)
        for key, value in {**ledger.data.params, "champion": aliases["champion"]}.items()
    }


def refused(project: Project, *words: str) -> None:
    """`dvc repro` fails with all words in its error, without traceback, and changes nothing that
    matters."""
    before = state(project)
    result = project.run("dvc", "repro", check=False)
    output = result.stdout + result.stderr
    assert result.returncode != 0
    assert "Traceback" not in output
    error = " ".join(output[output.index("error: ") :].split())
    for word in words:
        assert word in error, error
    assert state(project) == before


BROKEN_BATCHES: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "a missing column": (lambda batch: batch.drop("distance"), "no column `distance`"),
    "a wrong type": (
        lambda batch: batch.with_columns(pl.col("distance").cast(pl.String)),
        "`distance` has type String",
    ),
    "duplicate keys": (lambda batch: pl.concat([batch, batch.head(5)]), "share their key"),
    "a constant target": (
        lambda batch: batch.with_columns(pl.lit(True).alias(TARGET)),
        "is constant",
    ),
    "times outside its period": (
        lambda batch: batch.with_columns(pl.col(TIME).dt.offset_by("1mo")),
        "outside the period",
    ),
    "too many broken rows": (
        lambda batch: batch.with_columns(pl.lit(-1).alias("distance")),
        "break the schema",
    ),
}


@pytest.mark.parametrize("what", BROKEN_BATCHES)
def test_a_broken_batch_is_refused_as_a_whole(grown: Project, what: str) -> None:
    change, words = BROKEN_BATCHES[what]
    grown.arrive("2013-04", change=change)
    grown.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    refused(grown, "Batch 2013-04 is refused", words, "dvc repro")


def test_a_batch_without_rows_is_left_out_until_it_has_some(grown: Project) -> None:
    grown.arrive("2013-04", change=lambda batch: batch.clear())
    grown.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    output = grown.repro("snapshot")
    assert "Batch 2013-04 has no rows" in output and "2013-01 to 2013-03" in output


def test_a_broken_row_is_quarantined_and_the_rest_goes_on(grown: Project) -> None:
    broken = (
        pl.when(pl.int_range(pl.len()) < 3).then(-1).otherwise(pl.col("distance")).alias("distance")
    )
    grown.arrive("2013-04", change=lambda batch: batch.with_columns(broken))
    grown.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    assert "8 quarantined" in grown.repro("snapshot")
    # Five of them are February's, where the wind blows at a thousand miles an hour.
    kept = pl.read_parquet(grown.root / "data/snapshot/batch=2013-04/quarantine.parquet")
    assert kept["__retrain_quarantine_reason"].to_list() == ["distance: below the minimum 0"] * 3


def test_a_missing_source_folder(grown: Project) -> None:
    grown.edit("conf/data/slice.yaml", "data/incoming", "data/nowhere")
    refused(grown, "data/nowhere is missing", "data.source.folder")


def test_an_empty_source(grown: Project) -> None:
    for file in (grown.root / "data/incoming").glob("*.parquet"):
        file.unlink()
    refused(grown, "holds no batch", "data.source")


def test_a_cut_off_before_the_first_batch(grown: Project) -> None:
    grown.edit("conf/data/slice.yaml", "2013-03", "2012-12")
    refused(grown, "`data.as_of` is 2012-12, before the first batch, 2013-01")


def test_an_unknown_key_or_choice(grown: Project) -> None:
    grown.edit("conf/tracking/local.yaml", "experiment:", "experimant:")
    refused(grown, "conf/tracking/local.yaml", "tracking.experimant")
    grown.edit("conf/tracking/local.yaml", "experimant:", "experiment:")
    grown.edit("conf/config.yaml", "gate: non_inferiority", "gate: generous")
    refused(grown, "gate/generous", "superiority")


def test_a_champion_whose_files_were_deleted(grown: Project) -> None:
    version = grown.client().get_model_version_by_alias("slice", "champion")
    grown.run("retrain", "status")  # the copied project's paths now point to its own files
    shutil.rmtree(grown.root / Path(version.source).relative_to(Path(version.source).parents[4]))
    grown.arrive("2013-04")
    grown.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    grown.repro("snapshot")
    refused(
        grown,
        "Version 2 of `slice` can't be loaded",
        "restore its files from a backup",
        "retrain rollback",
    )
    grown.client().delete_model_version("slice", "2")
    for command in (
        "status",
        "history",
    ):  # who has to find a way back must still see what there was
        shown = grown.run("retrain", command)
        assert "2013-03" in shown.stdout and "`retrain rollback --to VERSION`" in shown.stderr


def test_a_damaged_snapshot_trains_nothing(grown: Project) -> None:
    path = grown.root / "data/snapshot/batch=2013-01/part.parquet"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    result = grown.run("retrain", "train", check=False)
    assert result.returncode == 1 and "missing or damaged" in " ".join(result.stderr.split())


def test_a_second_run_at_the_same_time_is_turned_away(grown: Project) -> None:
    grown.arrive("2013-04")
    grown.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    grown.repro("snapshot")
    first = subprocess.Popen(
        ["dvc", "repro"],
        cwd=grown.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(3)
    assert first.poll() is None, "the first run must still be at work"
    second = grown.run("dvc", "repro", check=False)
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 0, output
    assert second.returncode != 0 and "is busy" in second.stdout + second.stderr
    assert "Traceback" not in second.stdout + second.stderr


def test_a_stage_that_outlived_its_dvc_keeps_the_next_one_out(grown: Project) -> None:
    from filelock import FileLock

    with FileLock(grown.root / ".dvc/tmp/retrain.lock"):
        result = grown.run("retrain", "snapshot", check=False)
    assert result.returncode == 1 and "another retraining is at work" in " ".join(
        result.stderr.split()
    )


def test_outside_a_project(grown: Project, tmp_path: Path) -> None:
    result = Project(tmp_path).run("retrain", "status", check=False)
    assert result.returncode == 1 and "No retraining project" in result.stderr
