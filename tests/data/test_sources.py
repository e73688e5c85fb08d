"""Tables from files, URLs and databases, cut into batches; labels that come later."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from datetime import datetime, timedelta
from pathlib import Path

import fsspec
import polars as pl
import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain.config import Column, ColumnType, DataConfig, PeriodKind, instantiate
from retrain.data.periods import parse_delay, parse_period
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.parts import PLACE
from retrain.data.reading.table import read_table
from retrain.data.reading.time_column import as_times, with_times
from retrain.data.snapshot import SnapshotStore
from retrain.data.source import Source
from retrain.data.sources import Files, SqlQuery, WithLabels
from retrain.data.table_source import Table
from retrain.data.update import update_snapshot
from retrain.errors import ConfigError, DataError
from retrain.targets import allow

DATA = DataConfig(
    name="test",
    source={},
    period=PeriodKind.month,
    time_column="time",
    key_columns=["id"],
    target_column="target",
    features={"amount": Column(ColumnType.numeric, nullable=True)},
)


def table(days: int = 90) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": range(days),
            "time": [datetime(2013, 1, 1) + timedelta(days=day) for day in range(days)],
            "amount": [float(day) for day in range(days)],
            "target": [day % 2 for day in range(days)],
        }
    )


def bound(source: Source, **changes: object) -> Source:
    source.bind(dataclasses.replace(DATA, **changes))
    return source


def write(frame: pl.DataFrame, path: Path) -> Path:
    writers = {
        ".parquet": frame.write_parquet,
        ".csv": frame.write_csv,
        ".jsonl": frame.write_ndjson,
    }
    writers[path.suffix](path)
    return path


def read_files(paths: str) -> pl.DataFrame:
    return read_table(paths, Dialect(), {}).drop(PLACE)


class Frame(Table):
    """A table in memory."""

    def __init__(self, frame: pl.DataFrame, **options: object) -> None:
        super().__init__(**options)
        self.frame = frame

    def load(self) -> pl.DataFrame:
        return self.frame

    def stamp(self) -> str:
        return "always"


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_files_of_every_kind_become_the_same_batches(suffix: str, tmp_path: Path) -> None:
    for number, part in enumerate(table().iter_slices(40)):
        write(part, tmp_path / f"part{number}{suffix}")
    time_format = "%Y-%m-%d %H:%M:%S" if suffix == ".jsonl" else None
    source = bound(Files(str(tmp_path / f"*{suffix}"), time_format=time_format))
    assert sorted(source.periods()) == ["2013-01", "2013-02", "2013-03"]
    assert source.read("2013-02")["id"].to_list() == list(range(31, 59))
    before = source.fingerprint("2013-01")
    write(table(10).with_columns(pl.col("id") + 1000), tmp_path / f"part9{suffix}")
    assert (
        bound(Files(str(tmp_path / f"*{suffix}"), time_format=time_format)).fingerprint("2013-01")
        != before
    )


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz"])
def test_text_may_be_compressed(packed: str, tmp_path: Path) -> None:
    path = str(tmp_path / f"table.csv{packed}")
    with fsspec.open(path, "wb", compression="infer") as file:
        table().write_csv(file)
    assert read_files(path).equals(table())


def test_any_file_system_of_fsspec_will_do() -> None:
    with fsspec.open("memory://shop/table.parquet", "wb") as file:
        table().write_parquet(file)
    source = bound(Files("memory://shop/*.parquet"))
    assert len(source.read("2013-01")) == 31 and source.fingerprint("2013-01")


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ("nothing.csv", "There is no file nothing.csv"),
        ("*.parquet", "There is no file"),
        ("no-such-system://table.csv", "can't be opened"),
    ],
)
def test_a_source_that_is_not_there_says_so(
    paths: str, words: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=words):
        bound(Files(paths)).periods()


class Locked(fsspec.AbstractFileSystem):
    """A file system that lets nobody in."""

    protocol = "locked"

    def info(self, path: str, **options: object) -> dict:
        raise PermissionError("Forbidden")


def test_a_locked_door_is_not_taken_for_an_empty_room() -> None:
    fsspec.register_implementation("locked", Locked, clobber=True)
    with pytest.raises(DataError, match="can't be opened: Forbidden"):
        bound(Files("locked://shop/table.csv")).periods()


def test_files_that_do_not_fit_together_and_tables_without_the_time_are_refused(
    tmp_path: Path,
) -> None:
    write(table(), tmp_path / "a.parquet")
    write(table().with_columns(pl.lit([1]).alias("amount")), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="do not fit together"):
        read_files(str(tmp_path / "*.parquet"))
    with pytest.raises(DataError, match="no column `when`"):
        bound(Files(str(tmp_path / "a.parquet")), time_column="when").periods()


def test_marks_of_missing_numbers_become_nulls_and_words_stay_words(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("number,word\n1.5,NA\n.,DE\n3,FR\n")
    read = read_files(str(tmp_path / "table.csv"))
    assert read["number"].to_list() == [1.5, None, 3.0] and read["word"].to_list() == [
        "NA",
        "DE",
        "FR",
    ]


def test_a_query_is_a_source_and_its_password_stays_out_of_errors(
    tmp_path: Path, monkeypatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'shop.db'}"
    with sqlalchemy.create_engine(uri).begin() as connection:
        connection.execute(
            sqlalchemy.text("create table orders (id int, time text, amount real, target int)")
        )
        for row in table().with_columns(pl.col("time").cast(pl.String)).iter_rows(named=True):
            connection.execute(
                sqlalchemy.text("insert into orders values (:id, :time, :amount, :target)"), row
            )
    monkeypatch.setenv("SHOP", uri)
    source = bound(SqlQuery("select * from orders where amount >= 31", uri_from_env="SHOP"))
    assert sorted(source.periods()) == ["2013-02", "2013-03"] and source.fingerprint("2013-02")
    with pytest.raises(DataError, match="no such table"):
        bound(SqlQuery("select * from refunds", uri=uri)).periods()
    with pytest.raises(DataError, match="environment variable NOT_SET"):
        bound(SqlQuery("select 1", uri_from_env="NOT_SET")).periods()
    monkeypatch.setenv("SHOP", "postgresql+psycopg2://me:secret@127.0.0.1:9/shop")
    with pytest.raises(DataError) as error:
        bound(SqlQuery("select 1", uri_from_env="SHOP")).periods()
    assert "secret" not in str(error.value)


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 300), size=st.integers(1, 100))
def test_batches_of_a_fixed_number_of_rows_are_full_and_in_order(rows: int, size: int) -> None:
    shuffled = table(rows).sample(fraction=1, shuffle=True, seed=rows)
    source = bound(Frame(shuffled, rows_per_batch=size), period=PeriodKind.rows)
    keys = sorted(source.periods())
    assert len(keys) == rows // size
    read = [source.read(key) for key in keys]
    assert all(len(batch) == size for batch in read)
    if read:
        assert pl.concat(read)["id"].to_list() == list(range(rows // size * size))
    assert [parse_period(key, PeriodKind.rows).key for key in keys] == keys


@pytest.mark.parametrize("kind", [kind for kind in PeriodKind if kind is not PeriodKind.rows])
def test_every_row_lies_in_the_period_that_its_batch_is_named_for(kind: PeriodKind) -> None:
    source = bound(Frame(table(400)), period=kind)
    periods = [parse_period(key, kind) for key in source.periods()]
    rows = [source.read(period.key) for period in periods]
    assert sum(map(len, rows)) == 400
    for period, batch in zip(periods, rows, strict=True):
        assert period.start <= batch["time"].min() and batch["time"].max() < period.end


def test_the_length_of_a_batch_is_said_once() -> None:
    with pytest.raises(ConfigError, match="go together"):
        bound(Frame(table()), period=PeriodKind.rows)
    with pytest.raises(ConfigError, match="go together"):
        bound(Frame(table(), rows_per_batch=10))


@pytest.mark.parametrize(
    ("values", "time_format", "expected"),
    [
        ([1356998400], "epoch_s", datetime(2013, 1, 1)),
        ([1356998400000], "epoch_ms", datetime(2013, 1, 1)),
        ([20130131], "%Y%m%d", datetime(2013, 1, 31)),
        ([2013], "%Y", datetime(2013, 1, 1)),
        (["2013-01-31T05:00:00Z"], None, datetime(2013, 1, 31, 5)),
        (["2013-01-31T05:00:00+02:00"], None, datetime(2013, 1, 31, 3)),
        (["2013-01-31 05:00"], None, datetime(2013, 1, 31, 5)),
        (["31.01.2013"], "%d.%m.%Y", datetime(2013, 1, 31)),
    ],
)
def test_times_in_many_forms(values: list, time_format: str | None, expected: datetime) -> None:
    assert as_times(pl.Series("time", values), time_format).values.to_list() == [expected]


def test_what_is_no_time_is_refused_with_an_example() -> None:
    with pytest.raises(DataError, match=r"`time`.*soon"):
        with_times(pl.DataFrame({"time": ["soon"]}), "time", None, None)
    with pytest.raises(DataError, match="time_format"):
        as_times(pl.Series("time", [1.5]))


def test_labels_from_elsewhere_are_joined_and_later_ones_revise_their_batch(tmp_path: Path) -> None:
    rows, labels = table().drop("target"), table().select("id", "target")
    write(rows, tmp_path / "rows.parquet")
    write(labels.head(45), tmp_path / "labels.parquet")
    store = SnapshotStore(tmp_path / "snapshot")

    def update() -> tuple[SnapshotStore, object]:
        source = bound(
            WithLabels(Files(str(tmp_path / "rows.parquet")), str(tmp_path / "labels.parquet"))
        )
        return store, update_snapshot(DATA, source, store, tmp_path / "index.json")

    _, first = update()
    assert [(batch.rows, batch.unlabelled_rows) for batch in first.manifest.batches] == [
        (31, 0),
        (14, 14),
        (0, 31),
    ]
    write(labels, tmp_path / "labels.parquet")
    _, second = update()
    assert second.revised == ("2013-02", "2013-03")
    assert str(second.row_changes["2013-02"]) == "0 rows added, 0 removed, 14 changed"
    write(pl.concat([labels, labels.head(1)]), tmp_path / "labels.parquet")
    with pytest.raises(DataError, match="more than once"):
        update()


def test_a_correction_is_counted_by_key(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "snapshot")
    update_snapshot(DATA, bound(Frame(table())), store, tmp_path / "index.json")
    corrected = (
        table()
        .filter(pl.col("id") != 3)
        .with_columns(amount=pl.when(pl.col("id") < 2).then(99.0).otherwise("amount"))
    )
    late = corrected.head(1).with_columns(id=pl.lit(500, pl.Int64))
    change = update_snapshot(
        DATA, bound(Frame(pl.concat([corrected, late]))), store, tmp_path / "other.json"
    )
    assert change.revised == ("2013-01",)
    assert str(change.row_changes["2013-01"]) == "1 rows added, 1 removed, 2 changed"
    assert store.manifest().get("2013-01").revision == 2


def test_batches_count_as_labelled_once_their_labels_had_the_time_to_come(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "snapshot")
    data = dataclasses.replace(DATA, label_delay="30d")
    update_snapshot(data, bound(Frame(table())), store, tmp_path / "index.json")
    manifest = store.manifest()
    # The newest row is of 31 March, so that labels up to 1 March are complete.
    assert [batch.period for batch in manifest.labelled] == ["2013-01", "2013-02"]
    assert [batch.period for batch in manifest.waiting] == ["2013-03"]
    assert manifest.digest != dataclasses.replace(manifest, label_delay=0.0).digest


@pytest.mark.parametrize("text", ["soon", "30", "-3d", "3m"])
def test_a_delay_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"label_delay"):
        parse_delay(text)


class Counted(Frame):
    """A table that counts how often it is read and stamped."""

    loads = stamps = 0

    def load(self) -> pl.DataFrame:
        self.loads += 1
        return super().load()

    def stamp(self) -> str:
        self.stamps += 1
        return super().stamp()


def test_a_table_is_read_and_stamped_once_however_many_batches_it_has(tmp_path: Path) -> None:
    inner = Counted(table(300).drop("target"))
    labels = write(table(300).select("id", "target"), tmp_path / "labels.parquet")
    source = bound(WithLabels(inner, str(labels)))
    change = update_snapshot(
        DATA, source, SnapshotStore(tmp_path / "snapshot"), tmp_path / "index.json"
    )
    assert len(change.read) == 10 and (inner.loads, inner.stamps) == (1, 1)


def test_a_new_row_of_a_database_makes_its_own_batch_be_read_again_and_no_other(
    tmp_path: Path,
) -> None:
    uri = f"sqlite:///{tmp_path / 'shop.db'}"

    def update() -> tuple[str, ...]:
        source = bound(SqlQuery("select * from orders order by random()", uri=uri))
        return update_snapshot(
            DATA, source, SnapshotStore(tmp_path / "snapshot"), tmp_path / "index.json"
        ).read

    rows = table(90).with_columns(pl.col("time").cast(pl.String))
    rows.write_database("orders", uri)
    assert update() == ("2013-01", "2013-02", "2013-03")
    assert update() == ()
    rows.head(1).with_columns(id=pl.lit(500, pl.Int64)).write_database(
        "orders", uri, if_table_exists="append"
    )
    assert update() == ("2013-01",)


OWN_SOURCE = """
from retrain.data.sources import Files

class {name}({base}):
    def load(self):
        return super().load().with_columns(amount={amount})
"""


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("changed", ["own_source", "own_base"])
def test_other_code_of_a_source_makes_its_batches_be_read_again_also_inside_a_wrapper(
    wrapped: bool, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what was read by the old code stays in the snapshot, unnoticed."""
    write(table(), tmp_path / "rows.parquet")
    write(table().select("id", "target"), tmp_path / "labels.parquet")
    code = tmp_path / "src"
    code.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(code)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    node = {"_target_": "own_source.Own", "paths": str(tmp_path / "rows.parquet")}
    if wrapped:
        labels = {
            "_target_": "retrain.data.sources.WithLabels",
            "labels": str(tmp_path / "labels.parquet"),
        }
        node = labels | {"source": node}
    data = dataclasses.replace(DATA, source=node)
    allow(node)

    def update(amounts: dict[str, float]) -> tuple[str, ...]:
        base = OWN_SOURCE.format(name="Base", base="Files", amount=amounts["own_base"])
        own = OWN_SOURCE.format(name="Own", base="Base", amount=amounts["own_source"])
        (code / "own_base.py").write_text(base)
        (code / "own_source.py").write_text("from own_base import Base\n" + own)
        for name in ("own_base", "own_source"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        source = instantiate(node, "data.source")
        source.bind(data)
        return update_snapshot(
            data, source, SnapshotStore(tmp_path / "snapshot"), tmp_path / "index.json"
        ).read

    amounts = {"own_source": 1.0, "own_base": 2.0}
    assert len(update(amounts)) == 3
    assert update(amounts) == ()
    assert len(update(amounts | {changed: 3.0})) == 3
