"""Scoring a file: bad rows are reported and the others scored; nothing of the input is
overwritten."""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import flights

from retrain.commands import predict as command
from retrain.commands import rows_to_score
from retrain.commands.predict import MOST_FAILED, Outputs, score
from retrain.commands.rows_to_score import read_in_parts, read_input
from retrain.commands.scored_files import with_one_format
from retrain.config import ColumnType, Config, feature_types
from retrain.data.reading.dialect import Dialect
from retrain.data.reading.table import load_parts
from retrain.errors import DataError, ModelError
from retrain.models.fitting import build_pipeline, fit
from retrain.models.scoring import Model

ADDED = ["prediction", "prediction_problem", "model_version", "predicted_at"]


@pytest.fixture(scope="module")
def model(config: Config) -> Model:
    short = config.model.estimator | {"max_iter": 3}
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, estimator=short))
    rows = flights("2013-01").drop_nulls("late")
    return Model(fit(build_pipeline(config), rows, config), feature_types(config))


@pytest.fixture
def rows() -> pl.DataFrame:
    return flights("2013-02").head(6).with_columns(pl.col("distance").cast(pl.Float64))


@pytest.fixture
def read_back(
    tmp_path: Path, config: Config, model: Model
) -> Callable[[pl.DataFrame], pl.DataFrame]:
    def through_csv(table: pl.DataFrame) -> pl.DataFrame:
        table.write_csv(tmp_path / "in.csv")
        return score(
            config,
            read_input(config, tmp_path / "in.csv", model.features),
            "in.csv",
            7,
            model,
            Outputs(),
        )

    return through_csv


def put(name: str, row: int, value: object) -> pl.Expr:
    column = pl.col(name).cast(pl.String) if isinstance(value, str) else pl.col(name)
    return pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(column).alias(name)


def test_a_row_that_can_not_be_scored_says_why_and_the_others_are_scored(
    rows: pl.DataFrame, read_back: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    whole = read_back(rows)
    assert (
        whole.columns == [*rows.columns, *ADDED] and whole["prediction_problem"].null_count() == 6
    )
    table = rows.with_columns(put("temp", 1, math.inf), put("distance", 3, "far"))
    scored = read_back(table)
    assert scored["prediction"].is_null().to_list() == [False, True, False, True, False, False]
    problems = scored["prediction_problem"]
    assert problems[1] == "temp: inf is not a finite number"
    assert problems[3] == "distance: 'far' is not a number (in.csv, line 5)"
    others = problems.is_null()
    assert scored["prediction"].filter(others).equals(whole["prediction"].filter(others))


def test_what_the_model_does_not_need_keeps_no_row_from_being_scored(
    rows: pl.DataFrame, read_back: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    table = rows.with_columns(
        late=pl.lit("not yet"),
        flight=pl.lit("?"),
        scheduled_departure=pl.lit("soon"),
        code=pl.lit("007"),
    )
    scored = read_back(table.with_columns(put("dest", 0, "MOON"), put("plane_model", 1, None)))
    assert scored["prediction"].is_between(0, 1).all()
    assert scored["code"].to_list() == ["007"] * 6


def test_a_missing_value_that_the_schema_does_not_allow_is_a_problem_of_its_row(
    rows: pl.DataFrame,
    read_back: Callable[[pl.DataFrame], pl.DataFrame],
    config: Config,
    model: Model,
) -> None:
    table = rows.with_columns(
        put("carrier", 1, None), put("distance", 4, None), put("temp", 2, None)
    )
    for scored in (read_back(table), score(config, table, "in.parquet", 7, model, Outputs())):
        problems = scored["prediction_problem"].to_list()
        assert problems == [None, "carrier: missing", None, None, "distance: missing", None]
        assert scored["prediction"].is_null().arg_true().to_list() == [1, 4]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_line_that_is_cut_off_is_a_problem_of_its_row(
    suffix: str, rows: pl.DataFrame, config: Config, model: Model, tmp_path: Path
) -> None:
    """Cells of other columns than the model's may be left out, such as an empty target at the end,
    or the whole column."""
    path = tmp_path / f"in{suffix}"
    rows = rows.select(pl.exclude("late", "temp"), pl.col("temp"), late=pl.lit(None, pl.String))
    lines = rows.with_columns(put("temp", 5, None)).write_csv().splitlines()
    lines[2] = ",".join(lines[2].split(",")[:3])  # within the columns of the model
    lines[4] = lines[4].rpartition(",")[0]  # before the target
    lines[5] = (
        lines[5].rpartition(",")[0].rpartition(",")[0]
    )  # before the last of the columns of the model
    lines.insert(1, "")
    (gzip.open if suffix.endswith(".gz") else open)(path, "wt").write("\n".join(lines))
    scored = score(config, read_input(config, path, model.features), path.name, 7, model, Outputs())
    why = "it has fewer cells than the header has columns"
    expected = [
        None,
        f"{why} ({path.name}, line 4)",
        None,
        None,
        f"{why} ({path.name}, line 7)",
        None,
    ]
    assert scored["prediction_problem"].to_list() == expected
    assert scored["prediction"].is_null().to_list() == [bool(problem) for problem in expected]


def test_a_file_of_which_nothing_can_be_scored_is_refused(
    rows: pl.DataFrame,
    read_back: Callable[[pl.DataFrame], pl.DataFrame],
    tmp_path: Path,
    config: Config,
    model: Model,
) -> None:
    with pytest.raises(DataError, match=r"None of the 6 rows of in\.csv.*distance: 'far'"):
        read_back(rows.with_columns(distance=pl.lit("far")))
    with pytest.raises(DataError, match=r"`dest` is missing"):
        read_back(rows.drop("dest"))
    (tmp_path / "nothing.csv").write_text("")
    with pytest.raises(DataError, match="without even a header"):
        read_input(config, tmp_path / "nothing.csv", model.features)
    assert read_back(rows.head(0)).is_empty()


def test_a_column_of_the_input_is_never_overwritten(
    config: Config, model: Model, rows: pl.DataFrame
) -> None:
    taken = rows.with_columns(prediction=pl.lit(0.5), model_version=pl.lit("mine"))
    with pytest.raises(DataError, match=r"(?s)`prediction`, `model_version` already.*--prefix"):
        score(config, taken, "in.csv", 7, model, Outputs())
    scored = score(config, taken, "in.csv", 7, model, Outputs("champion_"))
    assert scored.columns == [*taken.columns, *(f"champion_{name}" for name in ADDED)]
    assert (
        scored["prediction"].to_list() == [0.5] * 6
        and scored["champion_prediction"].is_between(0, 1).all()
    )


def test_the_input_file_is_never_overwritten(config: Config, tmp_path: Path) -> None:
    same = tmp_path / "in.csv"
    with pytest.raises(DataError, match="the input itself"):
        command.run(config, argparse.Namespace(input=same, output=same, prefix=""))


class Choosy:
    """Fails on frames with a row that it doesn't like, as estimators do."""

    classes_ = np.array([0, 1])

    def predict_proba(self, frame) -> np.ndarray:
        if (frame["distance"] < 0).any():
            raise ValueError("negative distance")
        return np.tile([0.7, 0.3], (len(frame), 1))


def test_rows_that_only_the_model_knows_to_be_bad_are_found(config: Config) -> None:
    rows = pl.concat([flights("2013-02").head(300)] * 2).with_columns(distance=pl.lit(1.0))
    choosy = Model(Choosy(), feature_types(config))
    scored = score(
        config, rows.with_columns(put("distance", 17, -1.0)), "in.csv", 7, choosy, Outputs()
    )
    assert scored["prediction"].is_null().arg_true().to_list() == [17]
    assert "negative distance" in scored["prediction_problem"][17]
    assert scored["prediction"].drop_nulls().unique().to_list() == [0.3]
    assert len(rows) > MOST_FAILED
    with pytest.raises(ModelError, match="negative distance"):
        score(config, rows.with_columns(distance=pl.lit(-1.0)), "in.csv", 7, choosy, Outputs())


def test_a_flag_or_code_that_is_none_in_a_typed_table_is_a_problem_of_its_row_and_is_kept(
    rows: pl.DataFrame, config: Config, model: Model
) -> None:
    features = model.features | {
        "extra_flag": ColumnType.boolean,
        "extra_code": ColumnType.categorical,
    }
    table = rows.with_columns(extra_flag=pl.lit(1.0), extra_code=pl.lit(2.0))
    table = table.with_columns(put("extra_flag", 1, math.inf), put("extra_code", 3, 2.5))
    scored = score(
        config, table, "in.parquet", 7, dataclasses.replace(model, features=features), Outputs()
    )
    problems = scored["prediction_problem"].to_list()
    assert problems[1] == "extra_flag: inf is not true/false or 1/0"
    assert problems[3] == "extra_code: 2.5 is not a text or a whole number"
    assert scored["prediction"].null_count() == 2 and scored["extra_flag"][1] == math.inf


def test_the_numbers_of_a_column_are_written_in_one_way_and_read_back_as_they_were() -> None:
    table = pl.DataFrame(
        {
            "plain": [0.1, 1.0, 0.25, None],
            "small": [0.1, 1e-05, 1.0, 3.3e-7],
            "tiny": [0.1, 1e-30, 1.0, None],
            "odd": [1e-9, math.inf, math.nan, 0.0],
            "single": pl.Series([0.1, 1e-6, 2.0, None], dtype=pl.Float32),
        }
    )
    written = with_one_format(table).write_csv()
    columns = list(zip(*(line.split(",") for line in written.splitlines()[1:]), strict=True))
    assert columns[1] == ("0.1", "0.00001", "1.0", "0.00000033") and columns[4] == (
        "0.1",
        "0.000001",
        "2.0",
        "",
    )
    for cells in columns:
        assert len({"e" in cell for cell in cells if cell not in ("", "inf", "NaN")}) == 1
    back = pl.read_csv(written.encode())
    assert back.select(pl.exclude("single")).equals(table.select(pl.exclude("single")))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rows.xlsx", "is a workbook.\nhint: save its sheet as CSV"),
        ("folder", "is a folder"),
        ("rows.txt", "must end in"),
    ],
)
def test_what_is_no_table_is_refused_with_the_formats_that_are_read(
    name: str, told: str, tmp_path: Path, config: Config
) -> None:
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_bytes(b"PK")
    options = argparse.Namespace(input=path, output=tmp_path / "out.csv", prefix="")
    for refused in (lambda: command.run(config, options), lambda: load_parts(str(path), Dialect())):
        with pytest.raises(DataError, match=told) as error:
            refused()
        assert ".parquet, .pq, .csv" in str(error.value)
    (tmp_path / "in.csv").write_text("a\n1\n")
    into = argparse.Namespace(input=tmp_path / "in.csv", output=tmp_path / "scored.xlsx", prefix="")
    with pytest.raises(
        DataError,
        match=r"`--output` is scored.xlsx, but must be a file that ends in .parquet or .csv",
    ):
        command.run(config, into)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_file_is_scored_part_by_part_as_it_would_be_at_once(
    suffix: str,
    rows: pl.DataFrame,
    config: Config,
    model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = pl.concat([rows] * 3).with_columns(put("temp", 9, math.inf), put("carrier", 2, None))
    whole = score(config, table, "in", 7, model, Outputs())
    table.write_parquet(tmp_path / "in.parquet")
    monkeypatch.setattr(rows_to_score, "PART", 4)
    monkeypatch.setattr(command, "load_champion", lambda config: (7, model))
    scored = tmp_path / f"scored{suffix}"
    options = argparse.Namespace(input=tmp_path / "in.parquet", output=scored, prefix="")
    command.run(config, options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", scored.name]
    read = pl.read_parquet if suffix == ".parquet" else pl.read_csv
    found = read(scored)
    assert found.columns == whole.columns
    for name in ("prediction", "prediction_problem", "distance"):
        assert found[name].to_list() == pytest.approx(whole[name].to_list(), nan_ok=True)
    table.with_columns(carrier=pl.lit(None, pl.String)).write_parquet(tmp_path / "in.parquet")
    scored.unlink()
    with pytest.raises(DataError, match=r"None of the 18 rows of in\.parquet"):
        command.run(config, options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_a_parquet_file_without_rows_or_damaged_is_told(
    rows: pl.DataFrame, config: Config, model: Model, tmp_path: Path
) -> None:
    path = tmp_path / "in.parquet"
    rows.head(0).write_parquet(path)
    assert [len(part) for part in read_in_parts(config, path, model.features)] == [0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"in\.parquet can't be read"):
        list(read_in_parts(config, path, model.features))


def test_a_separator_inside_quotes_hides_no_row_that_is_cut_off(
    rows: pl.DataFrame, config: Config, model: Model, tmp_path: Path
) -> None:
    lines = rows.select(pl.exclude("temp"), "temp").write_csv().splitlines()
    lines[2] = lines[2].rpartition(",")[0]
    lines[4] = '"a, b' + '"' + lines[4][lines[4].index(",") :]
    (tmp_path / "in.csv").write_text("\n".join(lines))
    found = read_input(config, tmp_path / "in.csv", model.features)
    problems = score(config, found, "in.csv", 7, model, Outputs())["prediction_problem"]
    assert problems.is_not_null().to_list() == [False, True, *[False] * 4]
