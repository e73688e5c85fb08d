"""Single values that can't be what their column is go to quarantine with file and row, whether the
table has types or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from retrain.config import Column, ColumnType, DataConfig, PeriodKind, Task
from retrain.data.inference.schema import draft_schema
from retrain.data.schema import REASON
from retrain.data.snapshot import SnapshotStore
from retrain.data.sources import BatchFiles, Files, WithLabels
from retrain.data.update import update_snapshot
from retrain.errors import DataError

ROWS = 100
DATA = DataConfig(
    name="test",
    source={},
    period=PeriodKind.month,
    time_column="when",
    key_columns=["id"],
    target_column="late",
    features={
        "kind": Column(ColumnType.categorical),
        "flag": Column(ColumnType.boolean, nullable=True),
    },
)


def table(**columns: list) -> pl.DataFrame:
    """Rows of one month, against the order of time."""
    start = datetime(2023, 1, 1)
    rows = {
        "id": list(range(ROWS)),
        "when": [start + timedelta(hours=ROWS - row) for row in range(ROWS)],
        "kind": [float(row % 3) for row in range(ROWS)],
        "flag": [float(row % 2) for row in range(ROWS)],
        "late": [float(row % 2) for row in range(ROWS)],
    }
    return pl.DataFrame(rows | columns)


def but(values: list, **at: object) -> list:
    """The values with others in some places, such as `_7=inf`."""
    places = {int(name[1:]): value for name, value in at.items()}
    return [places.get(row, value) for row, value in enumerate(values)]


def write(frame: pl.DataFrame, path: Path) -> Path:
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    return path


def quarantine(
    frame: pl.DataFrame, folder: Path, name: str = "t.parquet", data: DataConfig = DATA
) -> list[str]:
    source = Files(str(write(frame, folder / name)))
    source.bind(data)
    update_snapshot(data, source, SnapshotStore(folder / "snapshot"), folder / "index.json")
    kept = folder / "snapshot/batch=2023-01/quarantine.parquet"
    return pl.read_parquet(kept)[REASON].to_list() if kept.exists() else []


LATE, KIND, WORDS = (
    table()["late"].to_list(),
    table()["kind"].to_list(),
    ["yes", "no"] * (ROWS // 2),
)


@pytest.mark.parametrize(
    ("task", "column", "value", "kind"),
    [
        (Task.binary, "late", math.inf, "true/false or 1/0"),
        (Task.binary, "late", 2.0, "true/false or 1/0"),
        (Task.multiclass, "late", -math.inf, "a text or a whole number"),
        (Task.multiclass, "late", 1.5, "a text or a whole number"),
        (Task.regression, "late", math.inf, "a finite number"),
        (Task.binary, "kind", math.inf, "a text or a whole number"),
        (Task.binary, "kind", 0.5, "a text or a whole number"),
        (Task.binary, "flag", math.inf, "true/false or 1/0"),
        (Task.binary, "flag", 3.0, "true/false or 1/0"),
    ],
)
def test_one_value_that_does_not_fit_a_typed_column_sends_its_row_to_quarantine(
    task: Task, column: str, value: float, kind: str, tmp_path: Path
) -> None:
    frame = table(**{column: but(table()[column].to_list(), _7=value)})
    told = quarantine(frame, tmp_path, data=replace(DATA, task=task))
    assert told == [f"{column}: {value} is not {kind} ({tmp_path / 't.parquet'}, row 8)"]


def test_a_missing_number_among_flags_is_missing_and_nothing_else(tmp_path: Path) -> None:
    assert (
        quarantine(table(late=but(LATE, _3=math.nan), flag=but(LATE, _5=math.nan)), tmp_path) == []
    )
    manifest = SnapshotStore(tmp_path / "snapshot").manifest()
    assert manifest.batches[0].rows == ROWS - 1 and manifest.batches[0].unlabelled_rows == 1


@pytest.mark.parametrize("word", ["inf", "-Infinity"])
def test_an_infinity_among_classes_that_are_numbers_is_a_bad_cell_and_changes_no_other(
    word: str, tmp_path: Path
) -> None:
    data = replace(DATA, task=Task.multiclass)
    told = quarantine(
        table(late=but([str(value) for value in LATE], _7=word)), tmp_path, "t.csv", data
    )
    assert told == [f"late: '{word}' is not a class ({tmp_path / 't.csv'}, line 9)"]
    kept = SnapshotStore(tmp_path / "snapshot").read(["2023-01"], ["late"])
    assert set(kept["late"]) == {"0", "1"}


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_slip_among_the_words_of_a_target_goes_to_quarantine(name: str, tmp_path: Path) -> None:
    data = replace(DATA, positive_label="yes")
    told = quarantine(table(late=but(WORDS, _7="nno")), tmp_path, name, data)
    where = "line 9" if name == "t.csv" else "row 8"
    assert told == [f"late: 'nno' is neither yes nor no ({tmp_path / name}, {where})"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            but(WORDS, **{f"_{row}": "perhaps" for row in range(1, 20, 2)}),
            r"holds no \(40 rows: .*, perhaps \(10 rows: ",
        ),
        (
            ["yes"] * (ROWS - 2) + ["no", "nno"],
            r"holds nno \(1 row: .*row 100\), no \(1 row: .*row 99\) beside",
        ),
    ],
)
def test_words_of_which_nothing_tells_what_they_mean_refuse_the_batch_with_their_rows(
    words: list, told: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=told):
        quarantine(table(late=words), tmp_path, data=replace(DATA, positive_label="yes"))


@pytest.mark.parametrize(
    ("name", "where"), [("t.csv", ("line 5", "line 92")), ("t.parquet", ("row 4", "row 91"))]
)
def test_rows_that_share_their_key_are_named_with_their_places(
    name: str, where: tuple[str, str], tmp_path: Path
) -> None:
    frame = table(id=but(list(range(ROWS)), _90=3))
    (tmp_path / "folder").mkdir()
    path = write(frame, tmp_path / "folder" / name.replace("t.", "2023-01."))
    for source in (Files(str(path)), BatchFiles(str(path.parent))):
        source.bind(DATA)
        with pytest.raises(DataError) as refused:
            update_snapshot(
                DATA, source, SnapshotStore(tmp_path / "snapshot"), tmp_path / "index.json"
            )
        assert "2 of its 100 rows share their key, such as {'id': 3} (" in str(refused.value)
        assert all(f"{path}, {one}" in str(refused.value) for one in where)


def test_a_key_that_comes_twice_among_the_labels_is_named_with_its_places(tmp_path: Path) -> None:
    frame = table()
    labels = write(
        pl.concat([frame.select("id", "late"), frame.select("id", "late")[4:5]]),
        tmp_path / "labels.csv",
    )
    source = WithLabels(Files(str(write(frame.drop("late"), tmp_path / "t.csv"))), str(labels))
    source.bind(DATA)
    with pytest.raises(
        DataError, match=r"in 2 rows such as \{'id': 4\} \(.*labels.csv, line 6\), .*line 102\)"
    ):
        source.read("2023-01")


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("make", [lambda: LATE, lambda: [value + 0.5 for value in LATE] + []])
def test_infinite_and_missing_values_of_a_target_say_nothing_about_its_task(
    make: Callable[[], list], odd: float
) -> None:
    def drafted(values: list) -> Task:
        return draft_schema(table(late=values), "late", "when", None, None).task

    assert drafted(but(make(), _7=odd)) is drafted(make())
