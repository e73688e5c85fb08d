"""The whole local store, row by row, into another database: numbers of versions, ids of runs, and
with them the ledger stay what they are.

MLflow has no way of its own (`mlflow migrate-filestore` reads folders; exporting and importing runs
and models gives them new ids, which the ledger does not know).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retrain.errors import StoreError
from retrain.lazy import fsspec, sqlalchemy
from retrain.masking import mask
from retrain.registry.shared_stores import check_server, is_web, prepare_database
from retrain.registry.store import PATH_COLUMNS

_ROWS_AT_ONCE = 1000
_MADE_BY_MLFLOW = {"alembic_version", "workspaces"}  # in every new database


def copy_files(root: Path, artifacts: str) -> None:
    """Copy `mlruns/` to a folder of any file system that fsspec knows. Again is no harm."""
    filesystem, path = fsspec.url_to_fs(artifacts)
    filesystem.makedirs(path, exist_ok=True)
    for child in root.iterdir():
        if child.is_dir():
            filesystem.put(f"{child}/", f"{path.rstrip('/')}/{child.name}/", recursive=True)


def copy_database(source: str, target: str, old_root: str, new_root: str) -> int:
    """Copy all rows in one transaction; returns how many.

    Parameters
    ----------
    source, target
        Addresses of databases. The target may hold experiments and models of other names.
    old_root, new_root
        What addresses of artifacts begin with, here and there.

    Raises
    ------
    StoreError
        If the target holds something under the same name. Nothing is changed there then.
    """
    if is_web(target):
        raise StoreError(
            "The rows have to be written to a database, and this is the address of a server.",
            hint="Give the address of the database that the server itself uses.",
        )
    check_server(target)
    prepare_database(target)
    create = sqlalchemy.create_engine
    try:
        with create(source).connect() as rows, create(target).begin() as written:
            return _copy(rows, written, old_root, new_root)
    except sqlalchemy.exc.IntegrityError as error:
        raise StoreError(
            "The target holds an experiment, run or model of the same name already: "
            f"{mask(str(error.orig)).splitlines()[0]} Nothing was changed there.",
            hint="Choose an empty database, or other names in conf/tracking/.",
        ) from error


def _copy(
    rows: sqlalchemy.Connection, written: sqlalchemy.Connection, old_root: str, new_root: str
) -> int:
    metadata = sqlalchemy.MetaData()
    metadata.reflect(written)
    newest = written.execute(sqlalchemy.text("select max(experiment_id) from experiments")).scalar()
    count, present = 0, set(sqlalchemy.inspect(rows).get_table_names())
    for table in metadata.sorted_tables:
        if table.name in _MADE_BY_MLFLOW or table.name not in present:
            continue
        paths = [column for name, column in PATH_COLUMNS if name == table.name]
        found = rows.execute(table.select()).mappings()
        for part in found.partitions(_ROWS_AT_ONCE):
            moved = [
                _moved(dict(row), newest or 0, paths, old_root, new_root)
                for row in part
                # MLflow's own experiment is there.
                if table.name not in ("experiments", "experiment_tags") or row["experiment_id"]
            ]
            if moved:
                written.execute(table.insert(), moved)
                count += len(moved)
    _set_counters(written, metadata)
    return count


def _moved(
    values: dict[str, Any], newest: int, paths: list[str], old_root: str, new_root: str
) -> dict[str, Any]:
    """A row as it is in the target, whose experiments have numbers up to `newest`."""
    if values.get("experiment_id"):
        values["experiment_id"] += newest
    for column in paths:
        path = values[column] or ""
        if path.startswith(old_root):
            values[column] = new_root + path.removeprefix(old_root)
    return values


def _set_counters(written: sqlalchemy.Connection, metadata: sqlalchemy.MetaData) -> None:
    """Let PostgreSQL number what comes next behind what was copied."""
    if written.dialect.name != "postgresql":
        return
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is not None:
            counter = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
            newest = f"(select max({column.name}) from {table.name})"
            written.execute(sqlalchemy.text(f"select setval({counter}, {newest})"))
