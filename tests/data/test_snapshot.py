"""The snapshot store: append-only, verified, all or nothing."""

from __future__ import annotations

import dataclasses
import json
import resource
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrain.config import Column, ColumnType, DataConfig, PeriodKind
from retrain.data.snapshot import SnapshotStore, content_digest
from retrain.data.source import Source
from retrain.data.sources import BatchFiles
from retrain.data.update import SnapshotChange, update_snapshot
from retrain.errors import DataError, RetrainError

DATA = DataConfig(
    name="test",
    source={"_target_": "memory"},
    period=PeriodKind.month,
    time_column="time",
    key_columns=["id"],
    target_column="target",
    features={"amount": Column(ColumnType.numeric, minimum=0)},
)


class Memory(Source):
    """Batches in a dictionary, that remembers which were read."""

    def __init__(self, batches: dict[str, pl.DataFrame]) -> None:
        self.batches, self.reads = batches, []

    def periods(self) -> list[str]:
        return list(self.batches)

    def fingerprint(self, period: str) -> str:
        return content_digest(self.batches[period])

    def read(self, period: str) -> pl.DataFrame:
        self.reads.append(period)
        return self.batches[period]


def batch(month: int, amounts: list[float] | None = None) -> pl.DataFrame:
    amounts = amounts or [1.0, 2.0, 3.0, 4.0]
    count = len(amounts)
    return pl.DataFrame(
        {
            "id": range(count),
            "time": [datetime(2013, month, 1 + number % 28) for number in range(count)],
            "amount": amounts,
            "target": [number % 2 == 0 for number in range(count)],
        }
    )


def update(
    folder: Path, source: Source, as_of: str | None = None, **changes: object
) -> SnapshotChange:
    data = dataclasses.replace(DATA, as_of=as_of, **changes)
    return update_snapshot(data, source, SnapshotStore(folder / "snapshot"), folder / "index.json")


def test_a_second_update_reads_nothing(tmp_path: Path) -> None:
    source = Memory({"2013-01": batch(1), "2013-02": batch(2)})
    first = update(tmp_path, source)
    assert first.added == ("2013-01", "2013-02")
    source.reads.clear()
    second = update(tmp_path, source)
    assert (second.added, second.revised, second.removed, source.reads) == ((), (), (), [])
    assert second.manifest == first.manifest


def test_only_the_new_batch_is_read_and_written(tmp_path: Path) -> None:
    source = Memory({"2013-01": batch(1)})
    update(tmp_path, source)
    written = (tmp_path / "snapshot/batch=2013-01/part.parquet").stat().st_mtime_ns
    source.batches["2013-02"] = batch(2)
    source.reads.clear()
    assert update(tmp_path, source).added == ("2013-02",)
    assert source.reads == ["2013-02"]
    assert (tmp_path / "snapshot/batch=2013-01/part.parquet").stat().st_mtime_ns == written


def test_a_revised_batch_is_found_by_content_and_counted(tmp_path: Path) -> None:
    source = Memory({"2013-01": batch(1), "2013-02": batch(2)})
    before = update(tmp_path, source).manifest
    source.batches["2013-01"] = batch(1, [1.0, 2.0, 3.0, 5.0])
    change = update(tmp_path, source)
    assert change.revised == ("2013-01",) and change.manifest.get("2013-01").revision == 2
    assert change.manifest.digest != before.digest
    assert SnapshotStore(tmp_path / "snapshot").read(["2013-01"])["amount"].to_list() == [
        1.0,
        2.0,
        3.0,
        5.0,
    ]


def test_the_same_rows_in_another_order_are_no_revision(tmp_path: Path) -> None:
    source = Memory({"2013-01": batch(1)})
    update(tmp_path, source)
    (tmp_path / "index.json").unlink()
    source.batches["2013-01"] = batch(1).reverse().select("target", "amount", "time", "id")
    change = update(tmp_path, source)
    assert change.read == ("2013-01",) and change.revised == ()


def test_an_earlier_cut_off_takes_batches_out_and_a_later_one_brings_them_back(
    tmp_path: Path,
) -> None:
    source = Memory({"2013-01": batch(1), "2013-02": batch(2)})
    full = update(tmp_path, source).manifest
    assert update(tmp_path, source, "2013-01").removed == ("2013-02",)
    assert not (tmp_path / "snapshot/batch=2013-02").exists()
    assert update(tmp_path, source, "2013-02").manifest == full


def test_changed_rules_check_every_batch_again(tmp_path: Path) -> None:
    source = Memory({"2013-01": batch(1)})
    update(tmp_path, source)
    stricter = {"amount": Column(ColumnType.numeric, minimum=1.5)}
    change = update(tmp_path, source, features=stricter, maximum_quarantine_share=0.5)
    assert change.manifest.get("2013-01").quarantined_rows == 1
    assert change.revised == (), "the batch is the same, only the rules are not"


@pytest.mark.parametrize("what", ["flip", "truncate", "delete"])
def test_a_damaged_file_is_refused(tmp_path: Path, what: str) -> None:
    update(tmp_path, Memory({"2013-01": batch(1)}))
    path = tmp_path / "snapshot/batch=2013-01/part.parquet"
    content = bytearray(path.read_bytes())
    if what == "delete":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if what == "flip" else content[:-10])
    with pytest.raises(DataError, match="missing or damaged"):
        SnapshotStore(tmp_path / "snapshot").read(["2013-01"])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_refused_batch_leaves_the_snapshot_as_it_was(tmp_path: Path) -> None:
    source = Memory({"2013-01": batch(1)})
    update(tmp_path, source)
    before = files(tmp_path / "snapshot")
    source.batches |= {"2013-02": batch(2), "2013-03": batch(2)}  # the third holds rows of February
    with pytest.raises(DataError, match="Batch 2013-03 is refused"):
        update(tmp_path, source)
    assert files(tmp_path / "snapshot") == before


def test_a_full_disk_leaves_the_snapshot_as_it_was(tmp_path: Path) -> None:
    source = Memory({"2013-01": batch(1)})
    update(tmp_path, source)
    before = files(tmp_path / "snapshot")
    source.batches["2013-02"] = batch(2, [float(number) for number in range(200_000)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (20_000, hard)
    )  # the kernel refuses the write, as on a full disk
    try:
        with pytest.raises(RetrainError, match="Could not write"):
            update(tmp_path, source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path / "snapshot") == before


def test_an_update_that_died_half_way_is_made_good(tmp_path: Path) -> None:
    source = Memory({"2013-01": batch(1), "2013-02": batch(2)})
    full = update(tmp_path, source).manifest
    update(tmp_path, source, "2013-01")
    folder = tmp_path / "snapshot/batch=2013-02"  # moved in, but not yet in the manifest
    folder.mkdir()
    (folder / "part.parquet").write_bytes(b"half")
    assert update(tmp_path, source).manifest == full
    assert len(SnapshotStore(tmp_path / "snapshot").read(["2013-01", "2013-02"])) == 8


@pytest.mark.parametrize(
    ("periods", "as_of", "words"),
    [((), None, "holds no batch"), (("2013-02",), "2013-01", "before the first batch, 2013-02")],
)
def test_nothing_to_read_is_an_error_with_a_way_out(
    tmp_path: Path, periods: tuple[str, ...], as_of: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        update(tmp_path, Memory({period: batch(2) for period in periods}), as_of)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_the_way_there_the_snapshot_is_what_the_source_holds(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any walk of arrivals, revisions and cut-offs ends at the snapshot that a fresh update
    makes."""
    folder = tmp_path_factory.mktemp("walk")
    amounts = st.lists(st.floats(0, 100), min_size=2, max_size=6)
    source = Memory({"2013-01": batch(1)})
    for _ in range(data.draw(st.integers(1, 5))):
        month = data.draw(st.integers(1, 4))
        source.batches[f"2013-{month:02}"] = batch(month, data.draw(amounts))
        cut_off = data.draw(st.sampled_from([None, *sorted(source.batches)]))
        walked = update(folder, source, cut_off).manifest
        fresh = update(tmp_path_factory.mktemp("fresh"), source, cut_off).manifest
        assert [b.content for b in walked.batches] == [b.content for b in fresh.batches]
        assert walked.digest == fresh.digest
        rows = SnapshotStore(folder / "snapshot").read([b.period for b in walked.batches])
        assert len(rows) == sum(b.rows for b in walked.batches)


def test_files_in_a_folder_are_batches(tmp_path: Path) -> None:
    batch(1).write_parquet(tmp_path / "2013-01.parquet")
    batch(2).write_csv(tmp_path / "2013-02.csv")
    source = BatchFiles(str(tmp_path))
    assert sorted(source.periods()) == ["2013-01", "2013-02"]
    change = update(tmp_path / "made", source)
    assert [b.rows for b in change.manifest.batches] == [4, 4]
    (tmp_path / "2013-02.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="more than one file for 2013-02"):
        source.periods()
    (tmp_path / "2013-02.csv").unlink()
    with pytest.raises(DataError, match="can't be read"):
        source.read("2013-02")


def test_what_looks_broken_is_a_function_of_the_batches_and_outlives_a_kill(tmp_path: Path) -> None:
    """A correction reaches far: each batch is updated by how far those before it lay from those
    before them."""
    data = dataclasses.replace(DATA, period=PeriodKind.day)

    def day(number: int, scale: float) -> pl.DataFrame:
        start = datetime(2024, 1, 1) + timedelta(days=number)
        return pl.DataFrame(
            {
                "id": range(200),
                "time": [start + timedelta(minutes=7 * row) for row in range(200)],
                "amount": [scale * (50 + row / 4) for row in range(200)],
                "target": [row % 2 == 0 for row in range(200)],
            }
        )

    def update(folder: str, scales: list[float]) -> dict[str, str]:
        days = {
            f"{datetime(2024, 1, 1) + timedelta(days=n):%Y-%m-%d}": day(n, scale)
            for n, scale in enumerate(scales)
        }
        store = SnapshotStore(tmp_path / folder)
        change = update_snapshot(data, Memory(days), store, tmp_path / f"{folder}.json")
        suspected.append({entry.period for entry in change.manifest.batches if entry.anomalies})
        return {
            str(path.relative_to(store.folder)): path.read_text()
            for path in sorted(store.folder.rglob("*.json"))
        }

    suspected: list[set[str]] = []
    scales = [1.0] * 7 + [1.3] * 36 + [1.3 * 1.45]
    update("kept", scales)
    before = suspected[-1]
    scales[6] = 1.3
    after, fresh = update("kept", scales), update("fresh", scales)
    assert suspected[-2] == suspected[-1] != before, "the correction is to make a difference"
    for texts in (after, fresh):  # it remembers that one batch has been corrected
        texts["manifest.json"] = texts["manifest.json"].replace('"revision": 2', '"revision": 1')
    assert after == fresh
    # A process that died after it had written a profile, and before the manifest.
    profile = tmp_path / "fresh/batch=2024-01-20/summary.json"
    profile.write_text(
        profile.read_text().replace('"slopes": {', '"slopes": {"amount": 0.5, "x": 1.0, ', 1)
    )
    assert update("fresh", scales) == fresh


def test_a_manifest_of_an_earlier_version_learns_when_its_rows_were_without_the_source(
    tmp_path: Path,
) -> None:
    source = Memory({"2013-01": batch(1)})
    update(tmp_path, source)
    store = SnapshotStore(tmp_path / "snapshot")
    written = store.manifest()
    assert written.batches[0].marks == tuple(datetime(2013, 1, day) for day in (1, 2, 3, 4))
    path = tmp_path / "snapshot/manifest.json"
    content = json.loads(path.read_text())
    for entry in content["batches"]:
        del entry["marks"]
    path.write_text(json.dumps(content))
    assert store.manifest().batches[0].marks == () and store.manifest().digest == written.digest
    source.reads.clear()
    update(tmp_path, source)
    assert store.manifest() == written and source.reads == []
