"""Batches that lie in S3: read like local ones, and errors that say what is wrong."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import polars as pl
import pytest
from servers import ObjectStore

from retrain.data.sources import BatchFiles
from retrain.errors import DataError

FOLDER = "s3://team/batches"
ROWS = pl.DataFrame({"id": [1, 2], "target": [True, None]})


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    import s3fs

    for name, text in object_store.environment.items():
        monkeypatch.setenv(name, text)
    s3fs.S3FileSystem.clear_instance_cache()
    deliver(object_store, "2013-01.csv")
    yield object_store
    s3fs.S3FileSystem.clear_instance_cache()


def deliver(store: ObjectStore, name: str, rows: pl.DataFrame = ROWS) -> None:
    with store.filesystem().open(f"team/batches/{name}", "wb") as file:
        rows.write_csv(file) if name.endswith(".csv") else rows.write_parquet(file)


def test_a_folder_in_s3_is_a_source(bucket: ObjectStore) -> None:
    import s3fs

    source = BatchFiles(f"{FOLDER}/")
    assert source.periods() == ["2013-01"]
    assert source.read("2013-01").select("id", "target").rows() == ROWS.rows()
    first = source.fingerprint("2013-01")
    assert BatchFiles(FOLDER).fingerprint("2013-01") == first
    deliver(bucket, "2013-01.csv", ROWS.head(1))
    deliver(bucket, "2013-02.parquet")
    s3fs.S3FileSystem.clear_instance_cache()  # as in the next command
    source = BatchFiles(FOLDER)
    assert source.periods() == ["2013-01", "2013-02"]
    assert source.fingerprint("2013-01") != first and source.read("2013-01").height == 1
    assert source.read("2013-02").height == 2
    bucket.filesystem().rm("team/batches/2013-02.parquet")


@pytest.mark.parametrize(
    "folder, variable, said",
    [
        ("s3://nobody/batches", {}, "bucket does not exist"),
        ("s3://team/nothing", {}, "is missing"),
        (FOLDER, {"AWS_SECRET_ACCESS_KEY": "an0ther-s3cret"}, "signature"),
    ],
)
def test_what_s3_refuses_is_named(
    bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch, folder: str, variable: dict, said: str
) -> None:
    for name, text in variable.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(DataError) as error:
        BatchFiles(folder).periods()
    assert said in str(error.value) and folder in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_an_s3_server_that_does_not_answer_is_given_up_within_fifteen_seconds(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if how == "hangs":
            listener.listen()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        started = time.monotonic()
        with pytest.raises(DataError, match="does not answer") as error:
            BatchFiles(FOLDER).periods()
    assert time.monotonic() - started < 15 and "AWS_ENDPOINT_URL" in error.value.hint
