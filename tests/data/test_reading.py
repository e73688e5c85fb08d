"""Tables as people have them: every way to write the same rows makes the same snapshot, and what
can't be read is told."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from retrain.config import Column, ColumnType, DataConfig, PeriodKind, Task
from retrain.data.inference.schema import draft_schema
from retrain.data.inference.text_columns import Guess, guess_texts, read_and_guess
from retrain.data.periods import parse_period
from retrain.data.reading.casting import cast_flags, cast_numbers, cast_words
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.times import read_times
from retrain.data.schema import REASON
from retrain.data.snapshot import SnapshotStore, content_digest, typed_digest
from retrain.data.source import Source
from retrain.data.sources import BatchFiles, Files, WithLabels
from retrain.data.update import SnapshotChange, update_snapshot
from retrain.errors import ConfigError, DataError

ROWS = 90
DATA = DataConfig(
    name="test",
    source={},
    period=PeriodKind.month,
    time_column="when",
    key_columns=["id"],
    target_column="late",
    features={
        "amount": Column(ColumnType.numeric, nullable=True),
        "zip": Column(ColumnType.categorical),
        "note": Column(ColumnType.categorical, nullable=True),
        "paid": Column(ColumnType.datetime),
    },
)


def records() -> list[dict]:
    """Rows of three months, one every day at a quarter past two in the afternoon."""
    start = datetime(2023, 1, 1, 14, 15)
    return [
        {
            "id": f"{row:05}" if row % 7 else f"K{row}",
            "when": start + timedelta(days=row),
            "amount": None if row == 4 else 1234.5 + row * 10.25 if row % 3 else -0.5,
            "zip": "02139" if row % 2 else "94105",
            "note": ['plain, with "quotes"; and | more', "grün", "two\nlines", None][row % 4],
            "paid": start + timedelta(days=row + 3),
            "late": row % 2 if row != 5 else None,
        }
        for row in range(ROWS)
    ]


def written(
    rows: list[dict],
    separator: str = ",",
    number: Callable[[float], str] = str,
    time: Callable[[datetime], str] = str,
    quoting: int = csv.QUOTE_MINIMAL,
    newline: str = "\n",
    missing: str = "",
) -> str:
    """Rows as one dialect of CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=newline)
    writer.writerow(rows[0])
    for row in rows:
        cells = []
        for value in row.values():
            if isinstance(value, datetime):
                cells.append(time(value))
            elif isinstance(value, float):
                cells.append(number(value))
            else:
                cells.append(missing if value is None else str(value))
        writer.writerow(cells)
    return text.getvalue()


def source_of(guess: Guess, path: Path, data: DataConfig = DATA) -> Source:
    """What `retrain init` would write, bound to the schema."""
    source = Files(str(path), time_format=guess.time_format, **guess.source(data.features))
    source.bind(data)
    return source


def guessed(path: Path, time_format: str | None = None, **said: str) -> Guess:
    dialect = Dialect(said.get("separator"), said.get("decimal"), said.get("encoding"), None)
    return read_and_guess(str(path), dialect, "late", "when", time_format)


def snapshot(source: Source, folder: Path, data: DataConfig = DATA) -> SnapshotChange:
    return update_snapshot(data, source, SnapshotStore(folder / "snapshot"), folder / "index.json")


def contents(source: Source, folder: Path) -> list[str]:
    return [batch.content for batch in snapshot(source, folder).manifest.batches]


def put(
    folder: Path,
    rows: list[dict],
    name: str = "table.csv",
    encoding: str = "utf-8",
    **dialect: object,
) -> Path:
    path = folder / name
    path.write_bytes(written(rows, **dialect).encode(encoding))
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("expected")
    path = put(folder, records())
    source = Files(str(path))
    source.bind(DATA)
    return contents(source, folder)


def with_comma(value: float) -> str:
    return f"{value:.3f}".replace(".", ",")


def in_groups(value: float) -> str:
    return f"{value:,.2f}"


def in_groups_with_comma(value: float) -> str:
    return in_groups(value).translate(str.maketrans(",.", ".,"))


DIALECTS = [
    (separator, number, encoding, quoting, newline)
    for (separator, number), (encoding, quoting, newline) in itertools.product(
        [
            (",", str),
            (",", with_comma),
            (",", in_groups),
            (";", str),
            (";", with_comma),
            (";", in_groups_with_comma),
            ("\t", str),
            ("\t", with_comma),
            ("|", in_groups),
        ],
        [
            ("utf-8", csv.QUOTE_MINIMAL, "\n"),
            ("utf-8-sig", csv.QUOTE_ALL, "\r\n"),
            ("cp1252", csv.QUOTE_MINIMAL, "\r\n"),
            ("utf-16", csv.QUOTE_ALL, "\n"),
        ],
    )
]


@pytest.mark.parametrize(("separator", "number", "encoding", "quoting", "newline"), DIALECTS)
def test_every_dialect_makes_the_same_snapshot(
    separator: str,
    number: Callable[[float], str],
    encoding: str,
    quoting: int,
    newline: str,
    expected: list[str],
    tmp_path: Path,
) -> None:
    dialect = {"separator": separator, "number": number, "quoting": quoting, "newline": newline}
    path = put(tmp_path, records(), encoding=encoding, **dialect)
    assert contents(source_of(guessed(path), path), tmp_path) == expected


TIMES: list[Callable[[datetime], str]] = [
    lambda time: time.isoformat(),
    lambda time: time.strftime("%Y-%m-%d %H:%M"),
    lambda time: time.strftime("%Y-%m-%d %H:%M:%S.000"),
    lambda time: time.strftime("%Y-%m-%d %H:%M:%S UTC"),
    lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ"),
    lambda time: (time + timedelta(hours=2)).strftime("%Y-%m-%d %H:%M:%S+02:00"),
    lambda time: (time - timedelta(hours=5)).strftime("%Y-%m-%d %H:%M:%S -0500"),
    lambda time: time.strftime("%Y/%m/%d %H:%M"),
    lambda time: time.strftime("%d.%m.%Y %H:%M"),
    lambda time: time.strftime("%m/%d/%Y %I:%M %p"),
    lambda time: time.strftime("%d/%m/%Y %H:%M:%S"),
    lambda time: time.strftime("%m/%d/%y %H:%M"),
    lambda time: time.strftime("%d %b %Y %H:%M"),
    lambda time: time.strftime("%b %d, %Y %I:%M %p"),
    lambda time: time.strftime("%d-%b-%Y %H:%M:%S"),
    lambda time: time.strftime("%Y%m%dT%H%M%S"),
    lambda time: time.strftime("%Y%m%d%H%M%S"),
    lambda time: str(int((time - datetime(1970, 1, 1)).total_seconds())),
    lambda time: str(int((time - datetime(1970, 1, 1)).total_seconds()) * 1000),
]


@pytest.mark.parametrize("time", TIMES)
def test_every_way_to_write_times_makes_the_same_snapshot(
    time: Callable[[datetime], str], expected: list[str], tmp_path: Path
) -> None:
    path = put(tmp_path, records(), time=time)
    guess = guessed(path)
    assert not [doubt for doubt in guess.unsure if "when" in doubt]
    assert contents(source_of(guess, path), tmp_path) == expected


@pytest.mark.parametrize(
    ("dates", "first", "doubted"),
    [
        (["01/13/2023", "02/01/2023"], datetime(2023, 1, 13), False),
        (["13/01/2023", "02/01/2023"], datetime(2023, 1, 13), False),
        (["01/01/2023", "02/01/2023", "03/01/2023"], datetime(2023, 1, 1), True),
        (["05/01/2023", "05/01/2023"], datetime(2023, 5, 1), True),
        (["05.01.2023", "06.01.2023"], datetime(2023, 1, 5), True),
        (["03/02/2023", "01/05/2023", "02/08/2023"], datetime(2023, 2, 3), True),  # then in order
    ],
)
def test_day_or_month_first_is_settled_by_the_whole_column_or_doubted(
    dates: list[str], first: datetime, doubted: bool
) -> None:
    read = read_times(pl.Series("when", dates))
    assert read.values[0] == first and bool(read.doubt) == doubted
    assert not read_times(pl.Series("when", dates), day_first=True).doubt


@pytest.mark.parametrize("name", ["%y-%m-%d", "%y/%m/%d %H:%M", "%d/%m/%y", "%m-%d-%y %H:%M"])
def test_a_year_of_two_digits_may_come_first_or_last(name: str) -> None:
    times = [datetime(2023, 1, 1) + timedelta(hours=7 * row) for row in range(1500)]
    read = read_times(pl.Series("when", [time.strftime(name) for time in times]))
    assert (
        read.values.max().date() == times[-1].date() and read.values.min().date() == times[0].date()
    )
    assert not read.doubt


def test_a_year_that_may_be_first_or_last_is_undecided() -> None:
    read = read_times(pl.Series("when", ["05/04/06"] * 3))
    assert read.undecided and read.order.other == "%y/%m/%d" and "year" in read.doubt


def test_times_in_the_future_are_doubted(tmp_path: Path) -> None:
    path = put(tmp_path, [row | {"when": row["when"].replace(year=2923)} for row in records()])
    assert any("in the future, up to 2923" in doubt for doubt in guessed(path).unsure)


def test_dates_that_may_be_either_are_a_doubt_to_init_and_an_error_to_a_snapshot(
    tmp_path: Path,
) -> None:
    rows = [row | {"when": row["when"].replace(day=1 + row["when"].day % 12)} for row in records()]
    path = put(tmp_path, rows, time=lambda time: time.strftime("%m/%d/%Y"))
    guess = guessed(path)
    assert guess.time_format == "%m/%d/%Y"
    (doubt,) = [doubt for doubt in guess.unsure if "`when`" in doubt]
    assert "month-first" in doubt and "--time-format '%d/%m/%Y'" in doubt
    assert guessed(path, time_format="%d/%m/%Y").table["when"][0] == datetime(2023, 2, 1)
    undecided = Files(str(path))
    undecided.bind(DATA)
    with pytest.raises(DataError, match="whether the day or the month comes"):
        undecided.periods()
    assert len(source_of(guess, path).periods()) == 3


def test_what_a_file_is_written_in_is_said_and_lands_in_the_source(tmp_path: Path) -> None:
    path = put(tmp_path, records(), encoding="cp1252", separator=";", number=with_comma)
    guess = guessed(path)
    assert guess.settings == {"separator": ";", "encoding": "cp1252", "decimal": ","}
    assert any("semicolon" in line for line in guess.found) and any(
        "comma" in line for line in guess.found
    )
    assert any("grün" in doubt and "--encoding" in doubt for doubt in guess.unsure)
    wrong = guessed(path, encoding="cp437")
    assert wrong.settings["encoding"] == "cp437" and "grün" not in wrong.table["note"]
    with pytest.raises(DataError, match=r"(?s)is not utf-8: line \d+ .*--encoding"):
        guessed(path, encoding="utf-8")
    for said in ({"separator": ";;"}, {"decimal": "x"}, {"encoding": "klingon"}):
        with pytest.raises(ConfigError, match="--" + next(iter(said))):
            guessed(path, **said)


def test_one_number_with_three_digits_after_its_comma_is_doubted(tmp_path: Path) -> None:
    rows = [row | {"amount": 1.234} for row in records()]
    path = put(tmp_path, rows, separator=";", number=lambda value: f"{value:.3f}".replace(".", ","))
    guess = guessed(path)
    assert guess.table["amount"][0] == 1.234 and any(
        "--decimal ." in doubt for doubt in guess.unsure
    )
    assert guessed(path, decimal=".").table["amount"][0] == 1234


@pytest.mark.parametrize(
    ("texts", "decimal", "numbers"),
    [
        (["$1,234.50", "12 %", "(3)", "-$5", "EUR 7"], ".", [1234.5, 12, -3, -5, 7]),
        (["1 234", "1'234.5", "1e3", "N/A", None], ".", [1234, 1234.5, 1000, None, None]),
        (["1,5", "1.234", "1.234,5", "-3,2 €"], ",", [1.5, 1234, 1234.5, -3.2]),
    ],
)
def test_numbers_as_people_write_them(texts: list, decimal: str, numbers: list) -> None:
    cast = cast_numbers(pl.Series("amount", texts), decimal)
    assert cast.values.to_list() == numbers and cast.fits


def test_what_is_no_number_is_never_made_one() -> None:
    assert (
        cast_numbers(pl.Series("x", ["1,23", "soon", "1.5.2"]), ".").unread.to_list() == [True] * 3
    )
    assert cast_numbers(pl.Series("x", ["1.5", "2,5"]), ",").unread.to_list() == [True, False]


def test_a_comma_that_nobody_explained_makes_no_number() -> None:
    """1,234 is a thousand or one and a bit; with a point after it, it is clear."""
    cast = cast_numbers(pl.Series("amount", ["1,234", "1,234.5", "7"]))
    assert cast.values.to_list() == [None, 1234.5, 7] and "decimal" in cast.kind


def test_labels_are_read_by_their_value() -> None:
    assert cast_flags(pl.Series("late", ["1.0", "0.0", "NaN", "", "N/A"])).values.to_list() == [
        1,
        0,
        None,
        None,
        None,
    ]
    assert cast_flags(pl.Series("late", ["Yes", "no", "TRUE"])).values.to_list() == [
        True,
        False,
        True,
    ]
    assert cast_words(pl.Series("kind", ["2.0", "1", "null", "nan"])).values.to_list() == [
        2,
        1,
        None,
        None,
    ]
    assert cast_words(pl.Series("kind", ["NA", "DE"])).values.to_list() == ["NA", "DE"]


def test_leading_zeros_stay_in_every_file_whatever_comes_later(tmp_path: Path) -> None:
    rows = [row | {"id": row["id"].removeprefix("K")} for row in records()]
    for month in (1, 2, 3):
        part = [row for row in rows if row["when"].month == month]
        if month < 3:
            put(tmp_path, part, f"{month}.csv")
    guess = guessed(tmp_path / "*.csv")
    assert set(guess.table["zip"]) == {"02139", "94105"} and any(
        "02139" in doubt for doubt in guess.unsure
    )
    data = dataclasses.replace(
        DATA, features=DATA.features | {"code": Column(ColumnType.categorical)}
    )
    source = source_of(guess, tmp_path / "*.csv")
    before = contents(source, tmp_path)
    assert {"00001", "00002"} < set(source.read("2023-01")["id"])
    put(tmp_path, [row | {"zip": "K1A"} for row in rows if row["when"].month == 3], "3.csv")
    change = snapshot(source_of(guess, tmp_path / "*.csv"), tmp_path)
    assert [batch.content for batch in change.manifest.batches][
        :2
    ] == before and change.revised == ()
    assert "code" in data.features


def test_a_letter_or_a_fraction_in_a_later_file_revises_no_earlier_batch(tmp_path: Path) -> None:
    rows = [
        row | {"id": row["when"].day, "amount": row["when"].day, "zip": 94105} for row in records()
    ]
    put(tmp_path, [row for row in rows if row["when"].month < 3], "a.csv")
    snapshot(source_of(guessed(tmp_path / "*.csv"), tmp_path / "*.csv"), tmp_path)
    late = [
        row | {"id": f"K{row['id']}", "amount": row["amount"] + 0.5}
        for row in rows
        if row["when"].month == 3
    ]
    put(tmp_path, [row | {"zip": "K1A"} for row in late], "b.csv")
    change = snapshot(source_of(guessed(tmp_path / "*.csv"), tmp_path / "*.csv"), tmp_path)
    assert change.added == ("2023-03",) and change.revised == ()


def test_a_column_that_is_empty_in_the_first_files_is_what_the_later_ones_say(
    tmp_path: Path,
) -> None:
    for month in (1, 2, 3):
        part = [row for row in records() if row["when"].month == month]
        put(
            tmp_path,
            [row | {"amount": row["amount"] if month == 3 else None} for row in part],
            f"{month}.csv",
        )
    guess = guessed(tmp_path / "*.csv")
    assert guess.table.schema["amount"] == pl.Float64
    rows = source_of(guess, tmp_path / "*.csv").read("2023-01")
    assert rows.schema["amount"] == pl.Float64 and rows["amount"].null_count() == len(rows)


def broken_cells(tmp_path: Path, **changes: str) -> tuple[Guess, Path]:
    """The table with one row of March whose cells are others, behind one with a line break."""
    rows: list[dict] = records()
    rows[80] |= changes
    path = put(tmp_path, rows)
    return guessed(path), path


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("amount", "abc", "amount: 'abc' is not a number"),
        ("when", "soon", "when: 'soon' is not a time"),
        ("when", "", "when: missing"),
        ("when", "2023-02-31 10:00", "when: '2023-02-31 10:00' is not a time"),
        ("paid", "N/A?", "paid: 'N/A?' is not a time"),
        ("late", "maybe", "late: 'maybe' is not true/false or 1/0"),
    ],
)
def test_one_bad_cell_sends_its_row_to_quarantine_with_file_line_and_value(
    column: str, value: str, reason: str, tmp_path: Path
) -> None:
    guess, path = broken_cells(tmp_path, **{column: value})
    assert (
        any(f"`{column}`" in doubt and "quarantine" in doubt for doubt in guess.unsure) or not value
    )
    change = snapshot(source_of(guess, path), tmp_path)
    assert [batch.quarantined_rows for batch in change.manifest.batches] == [0, 0, 1]
    kept = pl.read_parquet(tmp_path / "snapshot/batch=2023-03/quarantine.parquet")
    line = 1 + written(records()[:80]).count("\n")
    assert kept[REASON].to_list() == [f"{reason} ({path}, line {line})"]
    assert kept["id"].to_list() == [records()[80]["id"]]


@pytest.mark.parametrize("value", ["inf", "-Infinity", "1e999"])
def test_an_infinite_amount_to_predict_is_a_bad_cell(value: str, tmp_path: Path) -> None:
    rows: list[dict] = [row | {"late": number + 0.5} for number, row in enumerate(records())]
    rows[80] |= {"late": value}
    data, path = dataclasses.replace(DATA, task=Task.regression), put(tmp_path, rows)
    guess = guessed(path)
    drafted = draft_schema(guess.table, "late", "when", None, guess.time_format)
    assert "1 of 90 values of `late` are infinite: those rows go to quarantine." in drafted.unsure
    change = snapshot(source_of(guess, path, data), tmp_path, data)
    assert [batch.quarantined_rows for batch in change.manifest.batches] == [0, 0, 1]
    kept = pl.read_parquet(tmp_path / "snapshot/batch=2023-03/quarantine.parquet")
    line = 1 + written(rows[:80]).count("\n")
    assert kept[REASON].to_list() == [
        f"late: '{value}' is not a finite number ({path}, line {line})"
    ]


def test_a_file_inside_the_project_is_named_from_its_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is stored in the snapshot, which must be the same in every clone."""
    monkeypatch.chdir(tmp_path)
    guess, _ = broken_cells(tmp_path, amount="abc")
    snapshot(source_of(guess, Path("table.csv")), tmp_path)
    kept = pl.read_parquet(tmp_path / "snapshot/batch=2023-03/quarantine.parquet")
    assert "(table.csv, line" in kept[REASON][0]


def test_a_column_of_another_kind_is_refused_with_its_batch_and_cells(tmp_path: Path) -> None:
    path = put(
        tmp_path, [row | {"amount": "abc"} if row["when"].month == 3 else row for row in records()]
    )
    source = Files(str(path))
    source.bind(DATA)
    with pytest.raises(DataError, match=r"Batch 2023-03 is refused.*amount: 'abc' is not a number"):
        snapshot(source, tmp_path)


def test_rows_with_too_many_cells_go_to_quarantine_too(tmp_path: Path) -> None:
    path = put(tmp_path, records())
    lines = path.read_text().split("\n")
    lines[2] += ",more"
    path.write_text("\n".join(lines))
    guess = guessed(path)
    change = snapshot(source_of(guess, path), tmp_path)
    assert [batch.quarantined_rows for batch in change.manifest.batches] == [1, 0, 0]


def test_files_without_rows_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, records(), "a.csv")
    (tmp_path / "b.csv").write_text(written(records()).split("\n")[0] + "\n")
    (tmp_path / "c.csv").write_text("")
    guess = guessed(tmp_path / "*.csv")
    assert len(guess.table) == ROWS and any("b.csv" in doubt for doubt in guess.unsure)
    with caplog.at_level("INFO"):
        assert len(source_of(guess, tmp_path / "*.csv").periods()) == 3
    assert "b.csv has no rows" in caplog.text
    (tmp_path / "a.csv").unlink()
    with pytest.raises(DataError, match="no rows"):
        guessed(tmp_path / "*.csv")


def test_a_batch_file_without_rows_is_no_batch_yet(tmp_path: Path) -> None:
    for month in (1, 2):
        put(
            tmp_path, [row for row in records() if row["when"].month == month], f"2023-0{month}.csv"
        )
    (tmp_path / "2023-03.csv").write_text(written(records()).split("\n")[0] + "\n")

    def update() -> list[str]:
        source = BatchFiles(str(tmp_path))
        source.bind(DATA)
        return [batch.period for batch in snapshot(source, tmp_path / "made").manifest.batches]

    assert update() == ["2023-01", "2023-02"]
    (tmp_path / "2023-02.csv").write_text(written(records()).split("\n")[0] + "\n")
    with pytest.raises(DataError, match="Batch 2023-02 is refused: it has no rows"):
        update()


def test_columns_may_be_in_any_order_and_nullable_ones_missing(
    expected: list[str], tmp_path: Path
) -> None:
    put(tmp_path, records()[:40], "a.csv")
    put(tmp_path, [dict(reversed(row.items())) for row in records()[40:]], "b.csv")
    assert (
        contents(source_of(guessed(tmp_path / "*.csv"), tmp_path / "*.csv"), tmp_path / "made")
        == expected
    )
    put(
        tmp_path, [{k: v for k, v in row.items() if k != "note"} for row in records()[40:]], "b.csv"
    )
    rows = source_of(guessed(tmp_path / "*.csv"), tmp_path / "*.csv").read("2023-03")
    assert rows["note"].null_count() == len(rows)


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,when,a,late\n1,2023-01-01,2,1\n")
    with pytest.raises(DataError, match="more than one column named `a`"):
        guessed(path)


def test_an_open_quote_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('a,when,late\n1,2023-01-01,1\n2,"2023-01-02,0\n3,2023-01-03,0\n')
    with pytest.raises(DataError, match="line 3"):
        guessed(path)


def test_a_file_that_is_written_otherwise_than_the_source_says_is_named(tmp_path: Path) -> None:
    path = put(tmp_path, records(), separator=";")
    source = source_of(guessed(path), path)
    put(tmp_path, records())
    with pytest.raises(DataError, match=r"table.csv separates its columns by ',', not by ';'"):
        source.periods()


def test_spaces_behind_separators_and_empty_cells_at_the_end_of_rows_do_no_harm(
    tmp_path: Path,
) -> None:
    lines = [
        line.replace(",", ", ") + ","
        for line in written([row | {"note": "x"} for row in records()]).splitlines()
    ]
    path = tmp_path / "table.csv"
    path.write_text("\n".join([lines[0].removesuffix(","), *lines[1:]]))
    guess = guessed(path)
    assert guess.table.columns == list(records()[0]) and len(guess.table) == ROWS
    assert set(guess.table["zip"]) == {"02139", "94105"}


def test_whole_numbers_with_a_point_are_classes_as_those_without(tmp_path: Path) -> None:
    rows = [row | {"late": ["2.0", "1", "3"][number % 3]} for number, row in enumerate(records())]
    draft = draft_schema(guessed(put(tmp_path, rows)).table, "late", "when", None, None)
    assert draft.task is Task.multiclass


def test_a_column_with_a_name_of_our_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(
        "__retrain_problem,when,late\n1,2023-01-01,0\n2,2023-01-02,1\n"
    )
    with pytest.raises(DataError, match="__retrain_"):
        guessed(tmp_path / "table.csv")


def test_zips_are_read_whole_without_what_operating_systems_put_in(
    expected: list[str], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "table.csv.zip", "w") as archive:
        archive.writestr("__MACOSX/._a.csv", b"\x00\x05junk")
        archive.writestr("year/.DS_Store", b"junk")
        archive.writestr("year/a.csv", written(records()[:40]))
        archive.writestr("year/B.CSV", written(records()[40:], separator=";"))
    path = tmp_path / "table.csv.zip"
    assert len(guessed(path).table) == ROWS
    assert contents(source_of(guessed(path), path), tmp_path) == expected


@pytest.mark.parametrize("name", ["UPPER.CSV", "Mixed.Csv.GZ", "table.tsv", "table [v2].csv"])
def test_a_file_is_known_by_its_ending_in_capitals_or_not(name: str, tmp_path: Path) -> None:
    content = written(records(), separator="\t" if name.endswith("tsv") else ",").encode()
    if name.endswith("GZ"):
        import gzip

        content = gzip.compress(content)
    (tmp_path / name).write_bytes(content)
    (tmp_path / ".gitkeep").touch()
    (tmp_path / "table.csv.dvc").write_text("outs: []")
    assert len(guessed(tmp_path / name).table) == ROWS
    glob = guessed(tmp_path / "*")
    assert len(glob.table) == ROWS and any("table.csv.dvc" in line for line in glob.found)


def test_json_lines_are_cast_by_the_schema_as_well(tmp_path: Path) -> None:
    lines = [
        json.dumps({k: str(v) if isinstance(v, datetime) else v for k, v in row.items()})
        for row in records()
    ]
    (tmp_path / "table.jsonl").write_text("\n".join(lines))
    rows = source_of(guessed(tmp_path / "table.jsonl"), tmp_path / "table.jsonl").read("2023-01")
    assert rows["when"][0] == datetime(2023, 1, 1, 14, 15) and rows.schema["paid"] == pl.Datetime(
        "us"
    )


def test_labels_of_their_own_are_read_by_the_schema(tmp_path: Path) -> None:
    rows = put(
        tmp_path, [{k: v for k, v in row.items() if k != "late"} for row in records()], "rows.csv"
    )
    labels = [
        {"id": row["id"], "late": ["NaN", "1.0", "0.0"][row["when"].day % 3]} for row in records()
    ]
    labels[0]["late"] = "perhaps"
    source = WithLabels(Files(str(rows)), str(put(tmp_path, labels, "labels.csv")))
    source.bind(DATA)
    batch = snapshot(source, tmp_path).manifest.batches[0]
    assert (batch.rows, batch.unlabelled_rows, batch.quarantined_rows) == (20, 10, 1)


def test_a_positive_label_is_found_by_value(tmp_path: Path) -> None:
    words = ["Yes", "yes ", "no", "NaN"]
    rows = [row | {"late": words[number % 4]} for number, row in enumerate(records())]
    guess = guessed(put(tmp_path, rows))
    assert any("capitals" in doubt for doubt in guess.unsure)
    draft = draft_schema(guess.table, "late", "when", None, None)
    assert draft.task is Task.binary and draft.positive_label == "no"
    data = dataclasses.replace(DATA, positive_label="yes")
    batch = snapshot(
        source_of(guess, tmp_path / "table.csv", data), tmp_path, data
    ).manifest.batches[0]
    assert batch.unlabelled_rows == 7 and batch.target_mean == pytest.approx(16 / 24)


def test_amounts_with_signs_and_times_with_mixed_zones_are_doubted(tmp_path: Path) -> None:
    rows = [
        row | {"amount": f"${100 + n:,}", "when": f"{row['when']}{'Z' if n % 2 else ''}"}
        for n, row in enumerate(records())
    ]
    guess = guessed(put(tmp_path, rows))
    assert guess.table["amount"][0] == 100
    assert any("$100" in doubt for doubt in guess.unsure) and any(
        "UTC" in doubt for doubt in guess.unsure
    )


def test_text_times_of_a_database_are_decided_as_those_of_files_are() -> None:
    guess = Guess(pl.DataFrame({"when": ["01/31/2023", "02/01/2023"]}))
    casts = guess_texts(guess, guess.table, ["when"], Dialect(), "when", None)
    assert casts["when"].values.to_list() == [datetime(2023, 1, 31), datetime(2023, 2, 1)]
    assert guess.time_format == "%m/%d/%Y"


def test_a_digest_is_of_values_not_of_the_types_that_hold_them() -> None:
    as_text = pl.DataFrame({"id": ["2", "10"], "x": [1.0, 2.0], "flag": [1, 0]})
    as_numbers = pl.DataFrame({"id": [10, 2], "x": [2, 1], "flag": [0, 1]})
    assert content_digest(as_text) == content_digest(as_numbers)
    assert content_digest(as_text.with_columns(id=pl.Series(["02", "10"]))) != content_digest(
        as_numbers
    )


def test_the_period_of_a_row_without_a_time_is_that_of_its_neighbour(tmp_path: Path) -> None:
    guess, path = broken_cells(tmp_path, when="")
    assert source_of(guess, path).read("2023-03")["when"].null_count() == 1
    assert parse_period("2023-03", PeriodKind.month).key in source_of(guess, path).periods()


def test_a_bad_cell_corrects_no_other_batch(tmp_path: Path) -> None:
    content = [
        content_of(tmp_path / name, text) for name, text in (("clean", "1.5"), ("bad", "abc"))
    ]
    assert (
        content[0]["2024-01"] == content[1]["2024-01"]
        and content[0]["2024-02"] != content[1]["2024-02"]
    )


def content_of(folder: Path, cell: str) -> dict[str, str]:
    """The content digest of each batch of a table of two months, in which one cell of February is
    given."""
    folder.mkdir()
    rows = [
        f"{number},2024-0{month}-03 10:00,{number % 2},{number}.5"
        for month in (1, 2)
        for number in range(1, 40)
    ]
    rows[-1] = rows[-1].rpartition(",")[0] + f",{cell}"
    (folder / "t.csv").write_text("\n".join(["id,time,target,amount", *rows]) + "\n")
    source = Files(str(folder / "t.csv"))
    data = dataclasses.replace(
        DATA,
        time_column="time",
        target_column="target",
        features={"amount": Column(ColumnType.numeric)},
        maximum_quarantine_share=0.5,
    )
    source.bind(data)
    change = update_snapshot(
        data, source, SnapshotStore(folder / "snapshot"), folder / "index.json"
    )
    return {batch.period: batch.content for batch in change.manifest.batches}


def test_batches_that_earlier_code_wrote_stay_as_they_are(tmp_path: Path) -> None:
    """Their content was a digest of the types that one whole table had."""
    path = put(tmp_path, [row | {"amount": float(row["when"].day)} for row in records()])
    source = source_of(guessed(path), path)
    change = snapshot(source, tmp_path)
    names = sorted({"id", "when", "late", *DATA.features})
    earlier = [
        typed_digest(source.read(batch.period).select(names)) for batch in change.manifest.batches
    ]
    assert earlier != [batch.content for batch in change.manifest.batches]
    store = SnapshotStore(tmp_path / "snapshot")
    batches = [
        dataclasses.replace(batch, content=content)
        for batch, content in zip(change.manifest.batches, earlier, strict=True)
    ]
    store.commit(dataclasses.replace(change.manifest, batches=tuple(batches)))
    (tmp_path / "index.json").unlink()
    again = snapshot(source_of(guessed(path), path), tmp_path)
    assert (
        len(again.read) == 3
        and again.revised == ()
        and [batch.content for batch in again.manifest.batches] == earlier
    )
