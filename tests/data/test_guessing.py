"""What `retrain init` says of marks for missing values and of dates, and what it writes so that
later files are read the same way."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from retrain.commands.init import split_formats
from retrain.config import Column, ColumnType, DataConfig, PeriodKind
from retrain.data.inference.dialect import Guess
from retrain.data.inference.schema import draft_schema
from retrain.data.inference.text_columns import read_and_guess
from retrain.data.reading.dialect import Dialect
from retrain.data.sources import Files
from retrain.errors import ConfigError, DataError

ROWS = 60
START = datetime(2023, 1, 1)


def guessed(path: Path, date_formats: dict[str, str] | None = None, **columns: list) -> Guess:
    times = [START + timedelta(days=row) for row in range(ROWS)]
    rows = {
        "id": [f"K{row}" for row in range(ROWS)],
        "when": times,
        "late": [row % 2 for row in range(ROWS)],
    }
    pl.DataFrame(rows | columns).write_csv(path)
    return read_and_guess(str(path), Dialect(date_formats=date_formats or {}), "late", "when", None)


@pytest.mark.parametrize("mark", ["?", "NA", ".", "-", "NaT"])
@pytest.mark.parametrize("values", [["0", "1"], ["1.5", "2.5"], ["true", "false"]])
def test_marks_that_are_read_as_missing_labels_are_said(
    mark: str, values: list[str], tmp_path: Path
) -> None:
    few = [mark if row < 6 else values[row % 2] for row in range(ROWS)]
    guess = guessed(tmp_path / "few.csv", late=few)
    assert f"`late` is missing where it says `{mark}` (6 of 60 values)" in guess.found
    assert guess.table["late"].null_count() == 6 and not guess.unsure
    many = [mark if row < 15 else values[row % 2] for row in range(ROWS)]
    doubt = (
        f"25% of the values of `late` are missing, since they say `{mark}`: does that stand for a "
        "missing value?"
    )
    assert doubt in guessed(tmp_path / "many.csv", late=many).unsure


def test_marks_in_other_columns_are_said_together_and_empty_cells_are_not(tmp_path: Path) -> None:
    one = ["?" if row < 3 else str(row) for row in range(ROWS)]
    other = [None if row < 30 else row for row in range(ROWS)]
    guess = guessed(tmp_path / "t.csv", one=one, other=other, third=one)
    assert (
        "missing: `one` where it says `?` (3 of 60 values), `third` where it says `?` (3 of 60 "
        "values)" in guess.found
    )
    assert not guess.unsure


UNDECIDED = ["05/04/06", "04/05/06", "05/06/04"] * (ROWS // 3)


def test_dates_that_may_begin_with_a_year_of_two_digits_are_doubted_with_the_way_out(
    tmp_path: Path,
) -> None:
    guess = guessed(tmp_path / "t.csv", paid=UNDECIDED)
    (doubt,) = guess.unsure
    assert (
        "no value tells whether the day, the month or the year comes first: read as %m/%d/%y"
        in doubt
    )
    assert "but %y/%m/%d is possible too" in doubt and "--time-format 'paid=%y/%m/%d'" in doubt
    assert guess.source(["paid"]) == {"date_formats": {"paid": "%m/%d/%y"}}


def test_a_format_that_is_said_for_one_column_is_that_of_every_later_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    guess = guessed(path, {"paid": "%y/%m/%d"}, paid=UNDECIDED)
    assert "`paid` is %y/%m/%d, as you said" in guess.found and not guess.unsure
    assert guess.table["paid"][0] == datetime(2005, 4, 6)
    data = DataConfig(
        name="test",
        source={},
        period=PeriodKind.month,
        time_column="when",
        key_columns=["id"],
        target_column="late",
        features={"paid": Column(ColumnType.datetime)},
    )
    source = Files(str(path), **guess.source(data.features))
    source.bind(data)
    assert source.read("2023-01")["paid"][0] == datetime(2005, 4, 6)
    undecided = Files(str(path))
    undecided.bind(data)
    with pytest.raises(
        DataError, match=r"(?s)the year comes first.*`date_formats: \{column: ...\}` for another"
    ):
        undecided.periods()
    for name in ("when", "late", "nowhere"):
        wrong = Files(str(path), date_formats={name: "%y/%m/%d"})
        wrong.bind(data)
        with pytest.raises(ConfigError, match=f"date_formats` names `{name}`"):
            wrong.periods()


def test_a_format_is_written_only_for_a_date_that_is_a_feature(tmp_path: Path) -> None:
    """The schema refuses that of another column."""
    guess = guessed(tmp_path / "t.csv", paid=UNDECIDED)
    assert guess.source(["paid"]) and not guess.source(["amount"])


def test_digits_are_dates_where_a_format_says_so_and_a_format_that_fits_nothing_is_refused(
    tmp_path: Path,
) -> None:
    guess = guessed(
        tmp_path / "t.csv", {"paid": "%y%m%d"}, paid=[230101 + row % 20 for row in range(ROWS)]
    )
    assert guess.table["paid"][0] == datetime(2023, 1, 1)
    with pytest.raises(DataError, match=r"holds no dates as `--time-format paid=%d\.%m\.%Y` says"):
        guessed(tmp_path / "t.csv", {"paid": "%d.%m.%Y"}, paid=UNDECIDED)


def test_formats_of_several_columns_are_told_apart_by_their_names() -> None:
    assert split_formats(["%d.%m.%Y", "paid on=%y-%m-%d", "a=b=%Y"], "when") == (
        "%d.%m.%Y",
        {"paid on": "%y-%m-%d", "a=b": "%Y"},
    )
    assert split_formats(["when=%Y"], "when") == ("%Y", {}) and split_formats([], "when") == (
        None,
        {},
    )


@pytest.mark.parametrize("half", [0, 0.5])
def test_serial_dates_of_excel_are_recognized(half: float, tmp_path: Path) -> None:
    numbers = [41275 + row + half for row in range(ROWS)]
    hint = "look like dates of Excel .*: 2013-01-01 (?s:.*)give the column a date format in Excel"
    with pytest.raises(DataError, match=hint):
        guessed(tmp_path / "t.csv", when=numbers)
    typed = pl.DataFrame({"when": numbers, "late": [row % 2 for row in range(ROWS)]})
    with pytest.raises(DataError, match=hint):
        draft_schema(typed, "late", "when", None, None)
