"""A first schema for a table that nobody has described yet: guesses, each with its reason. Pure:
a frame in, a draft out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator

import polars as pl

from retrain.columns import own_column, refuse_reserved
from retrain.config import ColumnType, PeriodKind, Task
from retrain.data.inference.doubts import add_doubts
from retrain.data.inference.draft import Draft, Feature, choose_model
from retrain.data.inference.excel import refuse_serial_dates
from retrain.data.inference.leaks import find_leaks
from retrain.data.inference.periods import (
    batch_keys,
    guess_block_hours,
    guess_period,
    rows_per_batch,
)
from retrain.data.reading.conversions import is_categorical, is_time
from retrain.data.reading.time_column import as_times
from retrain.data.reading.time_formats import EPOCH_UNITS
from retrain.data.reading.times import read_times
from retrain.data.scalars import as_float
from retrain.data.schema import PAIRS
from retrain.data.table_source import ROW_NUMBER
from retrain.errors import DataError

MOST_CLASSES = 50
FEW_LEVELS = 10
LONG_TEXT, MANY_TEXTS = 30, 1000  # characters on average; different ones
MANY_LEVELS = 0.5  # of the rows: a name for each row rather than a category
CLOCK = r"^([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?( ?[AaPp]\.?[Mm]\.?)?$"
LOOKED_AT_FIRST = 20_000
MOST_WITHOUT_TIME = 0.02  # of the rows
_BATCH, _COUNT = own_column("batch"), own_column("count")


def draft_schema(
    table: pl.DataFrame, target: str, time: str, period: PeriodKind | None, time_format: str | None
) -> Draft:
    """Guess a schema. Raises DataError when target or time are not there, or can't be what they
    are said to be."""
    _refuse(table, target, time)
    time_format = time_format or guess_time_format(table[time])
    times, labels = as_times(table[time], time_format).values, finite(table[target])
    known = times.is_not_null()
    infinite = int(table[target].is_infinite().sum()) if labels.dtype.is_float() else 0
    without = len(table) - int(known.sum())
    if without > MOST_WITHOUT_TIME * len(table):
        raise DataError(
            f"{without:,} rows have no `{time}`.",
            hint="fill it in, or leave those rows out",
        )
    given = table[time].filter(known)
    table = table.with_columns(times.alias(time), labels).filter(known)
    task, positive = guess_task(table[target])
    table = table.sort(time, maintain_order=True)
    kind = period or guess_period(table[time])
    per_batch = rows_per_batch(len(table)) if kind is PeriodKind.rows else None
    batch = batch_keys(table, time, kind, per_batch)
    keys = guess_keys(table, batch, target, time)
    draft = Draft(
        task,
        "rmse" if task is Task.regression else "log_loss",
        positive,
        kind,
        per_batch,
        time_format,
        keys,
        guess_block_hours(table[time], kind),
        batches=batch.n_unique(),
        newest_rows=int((batch == batch.max()).sum()),
        numbers_rows=keys[0] not in table.columns,
    )
    for name in table.columns:
        if name not in (target, time):
            _add_feature(draft, table[name], name in keys)
    _leave_out_leaks(draft, table, target, time)
    add_doubts(draft, table, target, batch, given)
    for rows, what in (
        (without, f"rows have no `{time}`: they"),
        (infinite, f"of {len(labels):,} values of `{target}` are infinite: those rows"),
    ):
        draft.unsure += [f"{rows:,} {what} go to quarantine."] if rows else []
    return draft


def _refuse(table: pl.DataFrame, target: str, time: str) -> None:
    for name, option in ((target, "--target"), (time, "--time")):
        if name not in table.columns:
            raise DataError(
                f"`{option} {name}`: the table has no such column. It has "
                f"{', '.join(table.columns[:40])}."
            )
    refuse_reserved(table.columns, "The table")
    if table.is_empty():
        raise DataError("The table has no rows, so there is nothing to train on.")


def _leave_out_leaks(draft: Draft, table: pl.DataFrame, target: str, time: str) -> None:
    kinds = {name: feature.type for name, feature in draft.features.items()}
    leaks = find_leaks(table, kinds, target, time, draft.task, draft.key_columns)
    draft.leaks, draft.unsure = leaks.why, draft.unsure + leaks.doubts
    for name in leaks.why:
        kinds.pop(name)
        draft.features.pop(name)
    if not draft.features:
        note = "hour, weekday, month, ... of the time itself: there is nothing else"
        draft.features[time] = Feature(ColumnType.datetime, False, note)
    draft.model = choose_model(kinds, draft.task)


def finite(target: pl.Series) -> pl.Series:
    """A target without what is no label: no model can learn an infinite amount, and no class is
    one."""
    return target.set(~target.is_finite(), None) if target.dtype.is_float() else target


def guess_task(target: pl.Series) -> tuple[Task, str | None]:
    """The task, and where the target holds two words, the rarer of them as the positive one."""
    known = target.drop_nulls()
    levels = known.n_unique()
    if levels < 2:
        raise DataError(
            f"The target `{target.name}` holds {levels} value(s) only: there is nothing to predict."
        )
    numeric = known.dtype.is_numeric()
    if known.dtype == pl.Boolean or (numeric and known.unique().sort().to_list() == [0, 1]):
        return Task.binary, None
    if levels == 2:
        counts = known.cast(pl.String).value_counts(name=_COUNT).sort(_COUNT, target.name)
        return Task.binary, counts[target.name][0]
    # Whole numbers with many values stand for amounts rather than for classes.
    most = FEW_LEVELS if known.dtype.is_integer() else MOST_CLASSES
    if is_categorical(known.dtype) and levels <= most:
        return Task.multiclass, None
    if numeric:
        return Task.regression, None
    raise DataError(
        f"The target `{target.name}` holds {levels:,} different texts: neither a number nor at "
        f"most {MOST_CLASSES} classes."
    )


def guess_time_format(values: pl.Series) -> str | None:
    """How whole numbers may be meant as times: seconds, milliseconds or microseconds since 1970,
    yyyymmdd, or a year."""
    if not values.dtype.is_numeric():
        return None
    low, high = as_float(values.min()), as_float(values.max())
    ranges = {
        name: (1e8 * unit, 5e9 * unit)
        for name, unit in zip(EPOCH_UNITS, (1, 1e3, 1e6), strict=True)
    }
    if values.dtype.is_integer():
        ranges = {"%Y": (1800, 2200), "%Y%m%d": (1800_01_01, 2200_12_31)} | ranges
    for name, (least, most) in ranges.items():
        if least <= low and high <= most:
            return name
    refuse_serial_dates(values)
    raise DataError(
        f"`--time {values.name}` holds numbers from {low:g} to {high:g}, which are no times that "
        "can be recognized",
        hint="say what they are with --time-format: a strptime format, epoch_s, epoch_ms or "
        "epoch_us",
    )


def guess_keys(table: pl.DataFrame, batch: pl.Series, target: str, time: str) -> list[str]:
    """The columns that tell the rows of a batch apart: one that looks like a key, else the time
    with up to two others."""
    frame = table.with_columns(batch.alias(_BATCH))
    largest = frame.filter(batch == batch.mode().min())
    # Most that are no keys are seen to be none in the first rows of one batch.
    looks = (largest.head(LOOKED_AT_FIRST), largest, frame)
    for names in _possible_keys(table.drop(target, time), time):
        if not any(rows.select(_BATCH, *names).is_duplicated().any() for rows in looks):
            return names
    return [free_name(ROW_NUMBER, table.columns)]


def _possible_keys(others: pl.DataFrame, time: str) -> Iterator[list[str]]:
    names = [
        values.name for values in others if is_categorical(values.dtype) and not values.null_count()
    ]
    named = [name for name in names if re.search("(?i)(^(key|uuid|index)|id)$", name)]
    texts = [name for name in names if name not in named and others.schema[name] == pl.String]
    yield from ([name] for name in (*named, *texts))
    yield [time]
    # Few levels beside the time, such as a place or a device; the columns with the most levels come
    # first.
    likely = sorted(names, key=lambda name: -others[name].n_unique())[:8]
    for count in (1, 2):
        yield from ([time, *some] for some in itertools.combinations(likely, count))


def free_name(wanted: str, taken: Collection[str]) -> str:
    """A name for a new column: the one wanted, with a number where the table has such a column
    itself."""
    names = itertools.chain([wanted], (f"{wanted}_{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _add_feature(draft: Draft, values: pl.Series, is_key: bool) -> None:
    """Sort a column into features and those left out."""
    name, dtype = values.name, values.dtype
    nulls = values.null_count()
    known = values.drop_nulls()
    levels, numeric = known.n_unique(), dtype.is_numeric()
    nullable = bool(nulls) or (dtype.is_float() and bool(values.is_nan().any()))
    missing = f"; {nulls / len(values):.1%} missing" if nullable else ""

    def add(kind: ColumnType, note: str, minimum: float | None = None) -> None:
        draft.features[name] = Feature(kind, nullable, note + missing, minimum)

    if dtype == pl.String and _holds_packs(known.head(1000)):
        add(ColumnType.sparse, "columns with their values, the rest 0")
    elif levels < 2:
        draft.left_out[name] = "it holds one value only" if levels else "it is empty"
    elif dtype == pl.Boolean or (numeric and set(known.unique()) == {0, 1}):
        add(ColumnType.boolean, "true or false")
    elif numeric and is_key and dtype.is_integer() and levels > MANY_LEVELS * len(values):
        draft.left_out[name] = "it names the row"
    elif numeric:
        amounts = known.fill_nan(None) if dtype.is_float() else known
        low, high = as_float(amounts.min()), as_float(known.max())
        add(
            ColumnType.numeric,
            f"{levels:,} values from {low:g} to {high:g}",
            0 if low >= 0 else None,
        )
        if dtype.is_integer() and levels <= FEW_LEVELS:
            draft.unsure.append(
                f"`{name}` holds {levels} whole numbers: numeric, or codes for categories?"
            )
    elif is_time(dtype):
        add(ColumnType.datetime, f"{known.dt.min()} to {known.dt.max()}")
    elif is_categorical(dtype):
        found = _sort_text(draft, known.cast(pl.String), levels)
        add(*found) if found else None
    else:
        draft.left_out[name] = f"its type {dtype} can't be a feature" + (
            ": store minutes after midnight to use it" if dtype == pl.Time else ""
        )


def _holds_packs(known: pl.Series) -> bool:
    """Whether texts are names with their values, several in some: neither times of day nor ratios
    such as 16:9."""
    if not known.str.contains(PAIRS).all() or not known.str.contains(r":.*\s.*:").any():
        return False
    return not known.str.split(" ").explode().drop_nulls().str.contains(CLOCK).all()


def _sort_text(draft: Draft, known: pl.Series, levels: int) -> tuple[ColumnType, str] | None:
    """The type of a column of text, and from what it is guessed; none where it is left out."""
    name, first = known.name, known.head(1000)
    if first.str.contains(CLOCK).all():
        draft.unsure.append(
            f"`{name}` holds times of day as text: as categories, or rather minutes after midnight?"
        )
    length = as_float(known.str.len_chars().mean())
    if levels <= MANY_LEVELS * len(known) and (length <= LONG_TEXT or levels <= MANY_TEXTS):
        common = known.value_counts(sort=True, name=_COUNT).head(3)[name].sort()
        shown = ", ".join(common.str.head(20))
        return ColumnType.categorical, f"{levels:,} levels, such as {shown}"
    if not read_times(first.head(100)).unread.any():
        draft.left_out[name] = "it is text that holds dates: store it as dates to use it"
    elif length > LONG_TEXT and as_float(first.str.contains(" ").mean()) > 0.5:
        return ColumnType.text, f"texts of {length:.0f} characters on average"
    else:
        share = levels / len(known)
        draft.left_out[name] = (
            f"it has a value of its own in {share:.0%} of the rows: a name, no category"
        )
    return None
