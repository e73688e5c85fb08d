"""A first schema for a table that nobody has described yet: guesses, each with its reason. Pure:
a frame in, a draft out."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

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
from retrain.data.reading.conversions import is_categorical, to_times
from retrain.data.reading.time_column import parse_times
from retrain.data.reading.times import EPOCH_UNITS
from retrain.data.schema import PAIRS
from retrain.data.sources import ROW_NUMBER
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
    for name, option in ((target, "--target"), (time, "--time")):
        if name not in table.columns:
            raise DataError(
                f"`{option} {name}`: the table has no such column. It has "
                f"{', '.join(table.columns[:40])}."
            )
    refuse_reserved(table.columns, "The table")
    if table.is_empty():
        raise DataError("The table has no rows, so there is nothing to train on.")
    if table.schema[target].is_float():
        table = table.with_columns(table[target].fill_nan(None))
    time_format = time_format or guess_time_format(table[time])
    given, times = table[time], parse_times(table[time], time_format)
    without = times.null_count()
    if without > MOST_WITHOUT_TIME * len(table):
        raise DataError(f"{without:,} rows have no `{time}`. Fill it in, or leave those rows out.")
    table, given = (
        table.with_columns(times).filter(times.is_not_null()),
        given.filter(times.is_not_null()),
    )
    infinite = infinite_values(table[target])
    if infinite.any():
        table, given = table.filter(~infinite), given.filter(~infinite)
        if table[target].drop_nulls().n_unique() < 2:
            raise DataError(
                f"The target `{target}` holds no two finite numbers: there is nothing to predict."
            )
    task, positive = guess_task(table[target])
    table = table.sort(time, maintain_order=True)
    kind = period or guess_period(table[time])
    per_batch = rows_per_batch(len(table)) if kind is PeriodKind.rows else None
    batch = batch_keys(table, time, kind, per_batch)
    metric = "rmse" if task is Task.regression else "log_loss"
    draft = Draft(
        task,
        metric,
        positive,
        kind,
        per_batch,
        time_format,
        [],
        guess_block_hours(table[time], kind),
    )
    draft.batches, draft.newest_rows = batch.n_unique(), int((batch == batch.max()).sum())
    draft.key_columns = guess_keys(table, batch, target, time)
    draft.numbers_rows = draft.key_columns[0] not in table.columns
    for name in table.columns:
        if name not in (target, time):
            _add_feature(draft, table[name], name in draft.key_columns)
    kinds = {name: feature.type for name, feature in draft.features.items()}
    leaks = find_leaks(table, kinds, target, time, task, draft.key_columns)
    draft.leaks, draft.unsure = leaks.why, draft.unsure + leaks.doubts
    draft.features = {
        name: feature for name, feature in draft.features.items() if name not in leaks.why
    }
    if not draft.features:
        draft.features[time] = Feature(
            ColumnType.datetime,
            False,
            "hour, weekday, month, ... of the time itself: there is nothing else",
        )
    draft.model = choose_model(
        {name: feature.type for name, feature in draft.features.items()}, task
    )
    add_doubts(draft, table, target, batch, given)
    if without:
        draft.unsure.append(f"{without:,} rows have no `{time}`: they go to quarantine.")
    if infinite.any():
        draft.unsure.append(
            f"{infinite.sum():,} of {len(infinite):,} values of `{target}` are infinite: those "
            "rows go to quarantine."
        )
    return draft


def infinite_values(target: pl.Series) -> pl.Series:
    """Which values are infinite: no model can learn such an amount, and no class is one."""
    if not target.dtype.is_float():
        return pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(target))
    return target.is_infinite().fill_null(False)


def guess_task(target: pl.Series) -> tuple[Task, str | None]:
    """The task, and where the target holds two words, the rarer of them as the positive one."""
    known = target.filter(~infinite_values(target)).drop_nulls()
    known = known.drop_nans() if known.dtype.is_float() else known
    values = known.unique().sort()
    if len(values) < 2:
        raise DataError(
            f"The target `{target.name}` holds {len(values)} value(s) only: there is nothing to "
            "predict."
        )
    if known.dtype == pl.Boolean or (known.dtype.is_numeric() and values.to_list() == [0, 1]):
        return Task.binary, None
    if len(values) == 2:
        counts = known.cast(pl.String).value_counts(name=_COUNT).sort(_COUNT, target.name)
        return Task.binary, counts[target.name][0]
    if (
        is_categorical(known.dtype)
        and len(values) <= MOST_CLASSES
        and not _counts_something(known, values)
    ):
        return Task.multiclass, None
    if known.dtype.is_numeric():
        return Task.regression, None
    raise DataError(
        f"The target `{target.name}` holds {len(values):,} different texts: neither a number nor "
        f"at most {MOST_CLASSES} classes."
    )


def _counts_something(known: pl.Series, values: pl.Series) -> bool:
    """Whole numbers with many values stand for amounts rather than for classes."""
    return known.dtype.is_integer() and len(values) > FEW_LEVELS


def guess_time_format(values: pl.Series) -> str | None:
    """How whole numbers may be meant as times: seconds, milliseconds or microseconds since 1970,
    yyyymmdd, or a year."""
    if not values.dtype.is_numeric():
        return None
    low, high = float(values.min()), float(values.max())
    if low >= 1800 and high <= 2200 and values.dtype.is_integer():
        return "%Y"
    if low >= 1800_01_01 and high <= 2200_12_31 and values.dtype.is_integer():
        return "%Y%m%d"
    for name, unit in zip(EPOCH_UNITS, (1, 1e3, 1e6), strict=True):
        if 1e8 * unit <= low and high <= 5e9 * unit:
            return name
    refuse_serial_dates(values)
    raise DataError(
        f"`--time {values.name}` holds numbers from {low:g} to {high:g}, which are no times that "
        "can be recognized. "
        "Say what they are with --time-format: a strptime format, epoch_s, epoch_ms or epoch_us."
    )


def guess_keys(table: pl.DataFrame, batch: pl.Series, target: str, time: str) -> list[str]:
    """The columns that tell the rows of a batch apart: one that looks like a key, else the time
    with up to two others."""
    frame = table.with_columns(batch.alias(_BATCH))
    largest = frame.filter(batch == batch.mode().min())
    # Most that are no keys are seen to be none in the first rows of one batch.
    looks = (largest.head(LOOKED_AT_FIRST), largest, frame)

    def unique(names: Sequence[str]) -> bool:
        return not any(rows.select(_BATCH, *names).is_duplicated().any() for rows in looks)

    names = [
        name
        for name, dtype in table.schema.items()
        if name not in (target, time) and (is_categorical(dtype)) and not table[name].null_count()
    ]
    named = [
        name
        for name in names
        if name.lower() in ("id", "key", "uuid", "index") or name.lower().endswith(("_id", "id"))
    ]
    for name in [
        *named,
        *(name for name in names if name not in named and table.schema[name] == pl.String),
    ]:
        if unique([name]):
            return [name]
    if unique([time]):
        return [time]
    # Few levels beside the time, such as a place or a device; the columns with the most levels come
    # first.
    likely = sorted(names, key=lambda name: -frame[name].n_unique())[:8]
    for count in (1, 2):
        for others in itertools.combinations(likely, count):
            if unique([time, *others]):
                return [time, *others]
    return [free_name(ROW_NUMBER, table.columns)]


def free_name(wanted: str, taken: Collection[str]) -> str:
    """A name for a new column: the one wanted, with a number where the table has such a column
    itself."""
    names = itertools.chain([wanted], (f"{wanted}_{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _add_feature(draft: Draft, values: pl.Series, is_key: bool) -> None:
    """Sort a column into features and those left out."""
    name, known = values.name, values.drop_nulls()
    if values.dtype == pl.String and _holds_packs(known.head(1000)):
        draft.features[name] = Feature(
            ColumnType.sparse, bool(values.null_count()), "columns with their values, the rest 0"
        )
        return
    nullable = bool(values.null_count()) or (
        values.dtype.is_float() and bool(values.is_nan().any())
    )
    levels = known.n_unique()
    if levels < 2:
        draft.left_out[name] = "it holds one value only" if levels else "it is empty"
        return
    missing = f"; {values.null_count() / len(values):.1%} missing" if nullable else ""
    dtype = values.dtype
    if dtype == pl.Boolean or (
        dtype.is_numeric() and levels == 2 and known.min() == 0 and known.max() == 1
    ):
        draft.features[name] = Feature(ColumnType.boolean, nullable, f"true or false{missing}")
    elif dtype.is_numeric():
        if is_key and dtype.is_integer() and levels > MANY_LEVELS * len(values):
            draft.left_out[name] = "it names the row"
            return
        low, high = known.fill_nan(None).min() if dtype.is_float() else known.min(), known.max()
        note = f"{levels:,} values from {low:g} to {high:g}{missing}"
        draft.features[name] = Feature(ColumnType.numeric, nullable, note, 0 if low >= 0 else None)
        if dtype.is_integer() and levels <= FEW_LEVELS:
            draft.unsure.append(
                f"`{name}` holds {levels} whole numbers: numeric, or codes for categories?"
            )
    elif isinstance(dtype, pl.Datetime) or dtype == pl.Date:
        draft.features[name] = Feature(
            ColumnType.datetime, nullable, f"{known.min()} to {known.max()}{missing}"
        )
    elif is_categorical(dtype):
        _add_text(draft, values.cast(pl.String), nullable, levels, missing)
    elif dtype == pl.Time:
        draft.left_out[name] = "it holds times of day: store minutes after midnight to use it"
    else:
        draft.left_out[name] = f"its type {dtype} can't be a feature"


def _holds_packs(known: pl.Series) -> bool:
    """Whether texts are names with their values, several in some: neither times of day nor ratios
    such as 16:9."""
    if not known.str.contains(PAIRS).all() or not known.str.contains(r":.*\s.*:").any():
        return False
    return not known.str.split(" ").explode().drop_nulls().str.contains(CLOCK).all()


def _add_text(draft: Draft, values: pl.Series, nullable: bool, levels: int, missing: str) -> None:
    name, known = values.name, values.drop_nulls()
    if known.head(1000).str.contains(CLOCK).all():
        draft.unsure.append(
            f"`{name}` holds times of day as text: as categories, or rather minutes after midnight?"
        )
    length = known.str.len_chars().mean()
    if levels > MANY_LEVELS * len(known) or (length > LONG_TEXT and levels > MANY_TEXTS):
        dates = _as_times(known)
        if dates is not None:
            draft.left_out[name] = "it is text that holds dates: store it as dates to use it"
        elif length > LONG_TEXT and known.head(1000).str.contains(" ").mean() > 0.5:
            note = f"texts of {length:.0f} characters on average{missing}"
            draft.features[name] = Feature(ColumnType.text, nullable, note)
        else:
            draft.left_out[name] = (
                f"it has a value of its own in {levels / len(known):.0%} of the rows: a name, no "
                "category"
            )
        return
    common = known.value_counts(sort=True, name=_COUNT).head(3)[name].sort().to_list()
    note = f"{levels:,} levels, such as {', '.join(str(level)[:20] for level in common)}{missing}"
    draft.features[name] = Feature(ColumnType.categorical, nullable, note)


def _as_times(known: pl.Series) -> pl.Series | None:
    try:
        return to_times(known.head(100).str.to_datetime())
    except pl.exceptions.PolarsError:
        return None
