"""`retrain init`: look at a table, guess its schema, write it to `conf/data/<name>.yaml` and
choose it."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from retrain.commands import raw_files
from retrain.commands.project_files import (
    check_and_write,
    check_name,
    choose,
    chosen,
    fit_data_name,
    fixed_part,
    watch,
)
from retrain.config import PeriodKind
from retrain.data.inference.draft import DEFAULT, Draft
from retrain.data.inference.schema import draft_schema, free_name, guess_task
from retrain.data.inference.text_columns import Guess, guess_dates, guess_time, read_and_guess
from retrain.data.inference.wide_tables import find_target_copies
from retrain.data.reading.dialect import Dialect
from retrain.data.sources import ROW_NUMBER, read_query
from retrain.data.sparse_columns import MANY_COLUMNS, numeric_columns, to_sparse
from retrain.errors import DataError
from retrain.masking import holds_secret
from retrain.report.terminal import printable
from retrain.yaml_text import comment, entry, inline, literal

CONF = Path("conf")
URI = re.compile(r"^[a-z0-9+]+://")


def run(options: argparse.Namespace) -> None:
    """Raises DataError when the table can't be read or `conf/data/<name>.yaml` is there already."""
    paths = [_portable(path, options.started_in) for path in options.files]
    name = check_name(options.name) if options.name else _name(paths, options.query)
    path = CONF / "data" / f"{name}.yaml"
    if path.exists() and not options.force:
        raise DataError(
            f"{path} is there already. Choose another name with --name, or overwrite it with "
            "--force."
        )
    time_format, date_formats = split_formats(options.time_format or [], options.time)
    source, guess = _read(paths, options, time_format, date_formats)
    wide = len(guess.table.columns)
    source, table, told = _with_sparse_column(source | guess.source, guess.table, options)
    period = PeriodKind[options.period] if options.period else None
    draft = draft_schema(
        table, options.target, options.time, period, guess.time_format or time_format
    )
    draft.unsure[:0] = guess.unsure
    if period is PeriodKind.rows and options.rows_per_batch:
        draft.rows_per_batch = options.rows_per_batch
    draft.leaks |= dict.fromkeys(
        told, "it alone tells the target almost perfectly: on `source.leave_out`"
    )
    local = [] if options.query else [given for given in paths if not URI.match(given)]
    choices = {"data": name}
    if draft.model is not None and chosen("model") == DEFAULT:
        choices["model"] = draft.model.name
    files = {path: to_yaml(name, source, draft, options.target, options.time)} | choose(choices)
    files |= {} if options.query else watch(local)
    check_and_write(files, draft, options.target, options.time)
    unwatched = [] if options.query else [given for given in paths if URI.match(given)]
    _report(path, len(table), wide, draft, guess.found, unwatched, options)
    kept = raw_files.keep(fixed_part(given) for given in local)
    for number, line in enumerate(kept):
        print(f"{'Kept' if not number else '':<13}{line}")
    print(f"Next         look through {path}, then `dvc repro`")


def _with_sparse_column(
    source: dict, table: pl.DataFrame, options: argparse.Namespace
) -> tuple[dict, pl.DataFrame, list[str]]:
    """Thousands of numeric columns as one packed column, and which of them were left out since they
    tell the target."""
    names = numeric_columns(table, {options.target, options.time})
    names = [name for name in names if name.lower() != "id" and not name.lower().endswith("_id")]
    if len(names) <= MANY_COLUMNS or options.target not in table.columns:
        return source, table, []
    target = table[options.target]
    told = find_target_copies(table, names, target, guess_task(target)[0])
    node = {
        "_target_": "retrain.data.sparse_columns.SparseColumns",
        "source": source,
        "leave_out": told,
    }
    packed = [name for name in names if name not in told]
    into = free_name("columns", {*table.columns} - {*packed})
    node |= {"into": into} if into != "columns" else {}
    return node, to_sparse(table.drop(told), packed, into), told


def split_formats(given: Sequence[str], time: str) -> tuple[str | None, dict[str, str]]:
    """The format of the time column, and those of other columns, of `FORMAT` and
    `COLUMN=FORMAT`."""
    formats: dict[str, str] = {}
    for text in given:
        column, _, written = text.rpartition("=")
        formats[column or time] = written
    return formats.pop(time, None), formats


def _read(
    paths: list[str],
    options: argparse.Namespace,
    time_format: str | None,
    date_formats: dict[str, str],
) -> tuple[dict, Guess]:
    """The node of the source without what it takes from the rest of the schema, and the whole
    table."""
    _refuse_secrets(paths, options.query)
    dialect = Dialect(options.separator, options.decimal, options.encoding, None, date_formats)
    if not options.query:
        node = {
            "_target_": "retrain.data.sources.Files",
            "paths": paths[0] if len(paths) == 1 else paths,
        }
        guess = read_and_guess(paths, dialect, options.target, options.time, time_format)
        _refuse_unknown(guess, date_formats)
        return node, guess
    address = paths[0]
    uri = os.environ.get(address) if not URI.match(address) else address
    if not uri:
        raise DataError(
            f"{address} is neither the address of a database nor an environment variable that "
            "holds one. "
            "With --query, name one of them in place of the files."
        )
    where = {"uri": uri} if uri == address else {"uri_from_env": address}
    guess = Guess(read_query(uri, options.query))
    guess_dates(guess, date_formats)
    _refuse_unknown(guess, date_formats)
    guess_time(guess, options.time, time_format)
    return {"_target_": "retrain.data.sources.SqlQuery", "query": options.query, **where}, guess


def _refuse_unknown(guess: Guess, date_formats: dict[str, str]) -> None:
    for name in (name for name in date_formats if name not in guess.date_formats):
        raise DataError(
            f"`--time-format {name}={date_formats[name]}`: the table has no column `{name}` of "
            "text. It has "
            f"{', '.join(guess.table.columns[:40])}."
        )


def _refuse_secrets(paths: Sequence[str], query: str | None) -> None:
    """Addresses are written to conf/data/, which git keeps and MLflow shows."""
    for path in filter(holds_secret, paths):
        way_out = (
            "Put it into an environment variable, and name that instead: retrain init DATABASE_URL "
            "--query ..."
            if query
            else "Leave it out of the address, and give it to the file system through the "
            "environment variables that it reads: "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_SAS_TOKEN, "
            "FSSPEC_<PROTOCOL>_<OPTION>. A signed link "
            "ends one day: download the file instead."
        )
        raise DataError(
            f"The address {path} holds a password, key or token, which must not get into a file. "
            f"{way_out}"
        )


def _portable(path: str, started_in: Path) -> str:
    """A local path seen from the project's root if it lies inside, else absolute; a URL or a
    variable's name as it is."""
    if URI.match(path) or (
        "/" not in path and "." not in path and not (started_in / path).exists()
    ):
        return path
    absolute = Path(os.path.abspath(started_in / path))
    root = Path.cwd()
    return str(absolute.relative_to(root)) if absolute.is_relative_to(root) else str(absolute)


def _name(paths: Sequence[str], query: str | None) -> str:
    """A name for data set, experiment and model, from the first file or folder."""
    stem = "query" if query else Path(paths[0].split("://")[-1]).name.split(".")[0]
    if not query and not Path(paths[0]).is_file() and any(sign in stem for sign in "*?["):
        stem = Path(paths[0].split("://")[-1]).parent.name
    return fit_data_name(stem)


def to_yaml(name: str, source: dict, draft: Draft, target: str, time: str) -> str:
    """The schema as YAML, each guess with its comment."""
    others = {
        "binary": "roc_auc, brier",
        "multiclass": "macro_f1, roc_auc, brier",
        "regression": "mae, r2, pinball_0.9",
    }[draft.task.name]
    node = dict(source)
    table = node
    if "source" in node:  # of packed columns
        table = node["source"] = dict(node["source"])
    if draft.rows_per_batch:
        table["rows_per_batch"] = draft.rows_per_batch
    if draft.time_format:
        table["time_format"] = draft.time_format
    if draft.numbers_rows:
        table["number_rows"] = draft.key_columns[0] if draft.key_columns != [ROW_NUMBER] else True
    lines = [
        "# Guessed by `retrain init` from the data: check it, mend it, keep it. It is the schema "
        "of every batch to come.",
        entry("name", inline(literal(name))),
        f"task: {draft.task.name:<15}# binary, multiclass or regression",
        f"metric: {draft.metric:<13}# what the gate's primary check compares; also {others}, any "
        "scorer of scikit-learn",
        "source:",
        *(entry(key, inline(literal(value)), "  ") for key, value in node.items()),
        f"period: {draft.period.name:<13}# of a batch: hour, day, week, month, quarter, or rows "
        "(source.rows_per_batch)",
        "as_of: null          # the newest batch to use; null for all that there are",
        "label_delay: null    # e.g. 30d: labels come so much later than their row; younger "
        "batches neither train nor judge",
        entry("time_column", inline(literal(time))),
        f"{entry('key_columns', inline(literal(draft.key_columns)))}   # what makes a row unique "
        "within its batch",
        entry("target_column", inline(literal(target))),
    ]
    if draft.positive_label is not None:
        label = entry("positive_label", inline(literal(draft.positive_label)))
        lines.append(f"{label}   # this value of the target counts as true")
    lines += [
        f"block_hours: {draft.block_hours:<8}# rows of one block of time move together, and are "
        "resampled together",
        "maximum_quarantine_share: 0.05   # a batch with more broken rows than this is refused as "
        "a whole",
        "# A row that breaks a rule below goes to quarantine. More rules: minimum, maximum, "
        "levels: [a, b].",
        "features:",
    ]
    for column, feature in draft.features.items():
        rule = f"type: {feature.type.name}" + (", nullable: true" if feature.nullable else "")
        rule += f", minimum: {feature.minimum:g}" if feature.minimum is not None else ""
        lines.append(entry(column, f"{{{rule}}}   # {comment(feature.note)}", "  "))
    if time not in draft.features:
        lines.append(
            f"#  {inline(time)}: {{type: datetime}}   # hour, weekday, month, ... of the time "
            "itself"
        )
    if draft.leaks:
        lines.append(
            "# Suspected of telling the answer, so left out. Put back what is known when one "
            "predicts:"
        )
        lines += [f"#  {inline(column)}:   # {comment(why)}" for column, why in draft.leaks.items()]
    if draft.left_out:
        lines.append("# Left out:")
        lines += [
            f"#  {inline(column)}:   # {comment(why)}" for column, why in draft.left_out.items()
        ]
    return "\n".join(lines) + "\n"


def _report(
    path: Path,
    rows: int,
    columns: int,
    draft: Draft,
    told: list[str],
    unwatched: list[str],
    options: argparse.Namespace,
) -> None:
    size = f"{draft.rows_per_batch:,} rows" if draft.rows_per_batch else draft.period.name
    kinds: dict[str, int] = {}
    for feature in draft.features.values():
        kinds[feature.type.name] = kinds.get(feature.type.name, 0) + 1
    print(f"Read         {rows:,} rows, {columns:,} columns")
    for number, how in enumerate(told):
        print(printable(f"{'Format' if not number else '':<13}{how}"))
    print(f"Task         {draft.task.name}: predict `{options.target}`, compare by {draft.metric}")
    print(
        f"Batches      one a {size}: {draft.batches} so far, the newest with {draft.newest_rows:,} "
        "rows"
    )
    if draft.model is not None:
        present, better = chosen("model"), draft.model.name
        kept = "" if present == better else f" as before; {better} may do better"
        print(f"Model        {present}{kept}: {draft.model.why}")
    print(f"Key          {', '.join(draft.key_columns)} within a batch")
    print(f"Features     {', '.join(f'{count} {kind}' for kind, count in kinds.items()) or 'none'}")
    for title, notes in (("Suspicious", draft.leaks), ("Left out", draft.left_out)):
        for number, (column, why) in enumerate(notes.items()):
            print(printable(f"{title if not number else '':<13}`{column}`: {why}"))
    for number, doubt in enumerate(draft.unsure):
        print(printable(f"{'Not sure' if not number else '':<13}{doubt}"))
    if options.query or unwatched:
        print(
            "Not watched  DVC can't see when the source changes: `dvc repro -f snapshot` reads it "
            "again."
        )
    print(f"Written      {path}, chosen in {CONF / 'config.yaml'}")
