"""`retrain init`: look at a table, guess its schema, write it to `conf/data/<name>.yaml` and
choose it."""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from retrain.data.inference.dialect import Guess
from retrain.data.inference.draft import DEFAULT, Draft
from retrain.data.inference.leaks import ALONE
from retrain.data.inference.schema import draft_schema, finite, free_name, guess_task
from retrain.data.inference.text_columns import guess_texts, read_and_guess
from retrain.data.inference.wide_tables import find_target_copies
from retrain.data.reading.dialect import Dialect
from retrain.data.sources import read_query
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
            f"{path} is there already.",
            hint="choose another name with --name, or overwrite it with --force",
        )
    time_format, date_formats = split_formats(options.time_format or [], options.time)
    source, guess = _read(paths, options, time_format, date_formats)
    columns = len(guess.table.columns)
    wrapper, table = _with_sparse_column(guess.table, options)
    period = PeriodKind[options.period] if options.period else None
    time_format = guess.time_format or time_format
    draft = draft_schema(table, options.target, options.time, period, time_format)
    draft.unsure[:0] = guess.unsure
    if period is PeriodKind.rows and options.rows_per_batch:
        draft.rows_per_batch = options.rows_per_batch
    leaky = wrapper.get("leave_out", [])
    draft.leaks |= dict.fromkeys(leaky, f"{ALONE} almost perfectly: on `source.leave_out`")
    source |= guess.source(draft.features) | draft.source
    node = wrapper | {"source": source} if wrapper else source
    local = [] if options.query else [given for given in paths if not URI.match(given)]
    choices = {"data": name}
    if draft.model is not None and chosen("model") == DEFAULT:
        choices["model"] = draft.model.name
    files = {path: to_yaml(name, node, draft, options.target, options.time)} | choose(choices)
    files |= {} if options.query else watch(local)
    check_and_write(files, draft, options.target, options.time)
    sections = _sections(draft, options.target) | {
        "Not watched": [
            "DVC can't see when the source changes: `dvc repro -f snapshot` reads it again."
        ]
        if len(local) < len(paths)
        else [],
        "Written": [f"{path}, chosen in {CONF / 'config.yaml'}"],
        "Kept": raw_files.leave_out(os.environ.get(paths[0], paths[0]))
        if options.query
        else raw_files.keep(fixed_part(given) for given in local),
        "Next": [f"look through {path}, then `dvc repro`"],
    }
    read = {"Read": [f"{len(table):,} rows, {columns:,} columns"], "Format": guess.found}
    for title, lines in (read | sections).items():
        for number, line in enumerate(lines):
            print(printable(f"{title if not number else '':<13}{line}"))


def _with_sparse_column(
    table: pl.DataFrame, options: argparse.Namespace
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Thousands of numeric columns as one sparse column, and the source that makes it; nothing, and
    the table as it is, where there are fewer."""
    names = numeric_columns(table, {options.target, options.time})
    names = [name for name in names if name.lower() != "id" and not name.lower().endswith("_id")]
    if len(names) <= MANY_COLUMNS or options.target not in table.columns:
        return {}, table
    target = finite(table[options.target])
    leaky = find_target_copies(table, names, target, guess_task(target)[0])
    packed = [name for name in names if name not in leaky]
    into = free_name("columns", {*table.columns} - {*packed})
    wrapper = {
        "_target_": "retrain.data.sparse_columns.SparseColumns",
        "leave_out": leaky,
        "into": into,
    }
    return wrapper, to_sparse(table.drop(leaky), packed, into)


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
) -> tuple[dict[str, Any], Guess]:
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
            "holds one.",
            hint="with --query, name one of them in place of the files",
        )
    where = {"uri": uri} if uri == address else {"uri_from_env": address}
    table = read_query(uri, options.query)
    guess = Guess(table)
    texts = [name for name in (*date_formats, options.time) if table.schema.get(name) == pl.String]
    casts = guess_texts(guess, table, texts, dialect, options.time, time_format)
    guess.table = table.with_columns(cast.values.alias(name) for name, cast in casts.items())
    _refuse_unknown(guess, date_formats)
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


def to_yaml(name: str, node: dict[str, Any], draft: Draft, target: str, time: str) -> str:
    """The schema as YAML, each guess with its comment."""
    others = {
        "binary": "roc_auc, brier",
        "multiclass": "macro_f1, roc_auc, brier",
        "regression": "mae, r2, pinball_0.9",
    }[draft.task.name]
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
        "batches take part in neither training nor evaluation",
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
    leaks = (
        "# Suspected of telling the answer, so left out. Put back what is known when one predicts:"
    )
    for title, notes in ((leaks, draft.leaks), ("# Left out:", draft.left_out)):
        lines += [title] * bool(notes)
        lines += [f"#  {inline(column)}:   # {comment(why)}" for column, why in notes.items()]
    return "\n".join(lines) + "\n"


def _sections(draft: Draft, target: str) -> dict[str, list[str]]:
    """What the terminal shows of a draft, by title."""
    size = f"{draft.rows_per_batch:,} rows" if draft.rows_per_batch else draft.period.name
    kinds = Counter(feature.type.name for feature in draft.features.values())
    model = []
    if draft.model is not None:
        present, better = chosen("model"), draft.model.name
        kept = "" if present == better else f" as before; {better} may do better"
        model = [f"{present}{kept}: {draft.model.why}"]
    return {
        "Task": [f"{draft.task.name}: predict `{target}`, compare by {draft.metric}"],
        "Batches": [
            f"one a {size}: {draft.batches} so far, the newest with {draft.newest_rows:,} rows"
        ],
        "Model": model,
        "Key": [f"{', '.join(draft.key_columns)} within a batch"],
        "Features": [", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"],
        "Suspicious": [f"`{column}`: {why}" for column, why in draft.leaks.items()],
        "Left out": [f"`{column}`: {why}" for column, why in draft.left_out.items()],
        "Not sure": draft.unsure,
    }
