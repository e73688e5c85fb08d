"""The models of a replay: each trained once, whatever policies and gates are tried with it, and kept by content.

A fit is stored under a key that stands for all that shapes it: recipe, training rows, the model that it continues; beside others
of the same key that were asked about other rows. What is stored is never changed: an interrupted backtest goes on where it was, a
second one trains nothing, and two at a time don't disturb each other.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrain.backtest.corruptions import Corruption
from retrain.config import Config, Task, build, feature_types
from retrain.data.manifest import Batch
from retrain.data.profiles import sample_rows
from retrain.data.schema import Schema
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, Windows, batches_in, plan_windows
from retrain.errors import DataError
from retrain.models.fitting import known_classes, predict
from retrain.models.model_files import MODEL_FILE, load_model
from retrain.models.scoring import Model
from retrain.models.strategy import ParentModel, Strategy
from retrain.models.training import fit as fit_recipe
from retrain.models.training import with_selected_strategy
from retrain.monitoring.cache import Cache
from retrain.monitoring.drift import PAIRS
from retrain.workspace import atomic_write

INFO, KNOWN = "fit.json", "known.npz"


@dataclass(frozen=True)
class FitJob:
    """One model to train: on what was known when `batches[-1]` was the newest, without its evaluation window, or with it
    (`refit`); some batches may be corrupted. It predicts what lies after its training rows in `predicts`."""

    config: Config
    batches: tuple[Batch, ...]  # labelled ones, oldest first
    number: int  # of the newest, among all of the history
    refit: bool
    predicts: tuple[Batch, ...]
    corruptions: dict[str, Corruption] = field(default_factory=dict)  # by period
    base: str | None = None  # key of the model to continue
    keep_model: bool = False
    serves: bool = True  # only such a model is asked about rows that it has learnt from

    @functools.cached_property
    def windows(self) -> Windows:
        return plan_windows(self.batches, self.config.evaluation)

    @property
    def window(self) -> Window:
        """The time that the training rows lie in."""
        windows = self.windows
        return (
            Window(windows.training.start, windows.evaluation.end)
            if self.refit
            else windows.training
        )

    @property
    def sampled(self) -> list[Batch]:
        """The newest batches that it knows, on whose sample rows it is asked as well where it serves."""
        return [batch for batch in self.batches if batch.first_time < self.window.end][-PAIRS - 1 :]

    @property
    def training_batches(self) -> Sequence[Batch]:
        """The batches that the strategy asks for."""
        strategy = build(Strategy, self.config.strategy, "strategy")
        known = batches_in(self.batches, self.window)
        return known if strategy.continues else strategy.select(known)

    @functools.cached_property
    def key(self) -> str:
        """Stands for all that shapes the model, and what it is asked."""
        config = self.config
        strategy = build(Strategy, config.strategy, "strategy")
        shaping = [Schema(config.data).digest, config.data.metric, dataclasses.asdict(config.model)]
        shaping += [config.seed, code_digest()]
        if (
            type(strategy).fit is not Strategy.fit
        ):  # others only choose rows, and the same rows give the same model
            shaping.append(config.strategy)
        told = [
            [batch.period, batch.content, str(self.corruptions.get(batch.period, ""))]
            for batch in self.sampled
        ]
        rows = [
            [batch.period, batch.content, str(self.corruptions.get(batch.period, ""))]
            for batch in self.training_batches
        ]
        text = json.dumps(
            [shaping, rows, told, self.window.end.isoformat(), self.base],
            sort_keys=True,
            default=str,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class CachedFit:
    """A trained model of a replay, and where its predictions lie. `baseline` has shape (1,) or (classes,)."""

    key: str
    number: int
    until: datetime
    seconds: float
    rows: int
    classes: tuple[str, ...]
    baseline: NDArray
    folder: Path

    def scores(self, period: str) -> NDArray:
        """What it predicts for the rows of a batch from `until` on: float64 of shape (rows,), or (rows, classes) with several."""
        return np.load(self.folder / f"{period}.npy")

    def settle(self, config: Config) -> Config:
        """The config with the strategy that `best_of` chose, for the refit."""
        return with_selected_strategy(
            config, json.loads((self.folder / INFO).read_text(encoding="utf-8"))["choice"]
        )

    def scores_of_known(self) -> dict[str, NDArray]:
        """What it predicts for the sample rows of the newest batches that it has learnt from, and of later ones whose sample holds
        rows without a label; by period."""
        with np.load(self.folder / KNOWN) as stored:
            return dict(stored)


class ModelCache:
    """Trains models, several at a time, and gives them."""

    def __init__(self, cache: Path, snapshot: Path) -> None:
        self.cache, self.snapshot = cache, snapshot
        self.trained, self.seconds = 0, 0.0
        self.remembered = Cache(cache / "rows.json")  # which pairs of batches can be told apart
        self.known: dict[tuple[str, int, bool, bool], CachedFit] = {}

    def stored(self, job: FitJob) -> CachedFit | None:
        """A fit of the job's key that was asked at least what this one asks."""
        for folder in sorted((self.cache / job.key).glob("[!.]*")):
            fit = self._answering(job, folder)
            if fit is not None:
                return fit
        return None

    @staticmethod
    def _answering(job: FitJob, folder: Path) -> CachedFit | None:
        try:
            info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        later = later_batches(job)
        wanted = [f"{batch.period}.npy" for batch in later]
        wanted += [KNOWN] * job.serves + [MODEL_FILE] * job.keep_model
        if not all((folder / name).is_file() for name in wanted):
            return None
        if any(info["contents"].get(batch.period) != batch.content for batch in later):
            return None  # a batch that it predicts has been revised
        return CachedFit(
            job.key,
            job.number,
            job.window.end,
            info["seconds"],
            info["rows"],
            tuple(info["classes"]),
            np.array(info["baseline"]),
            folder,
        )

    def get(self, job: FitJob) -> CachedFit | None:
        """None if it hasn't been trained yet."""
        name = (job.key, len(job.predicts), job.keep_model, job.serves)
        if name not in self.known:
            found = self.stored(job)
            if found is None:
                return None
            self.known[name] = found
        return dataclasses.replace(self.known[name], number=job.number)

    def scores_of_corrupted(
        self, fit: CachedFit, config: Config, batch: Batch, corruption: Corruption
    ) -> NDArray:
        """What a model predicts for the rows of a batch as they arrived, from `until` on. The model must have been kept."""
        stands_for = hashlib.sha256(f"{corruption} {batch.content}".encode()).hexdigest()[:16]
        path = fit.folder / f"{batch.period}~{stands_for}.npy"
        if not path.is_file():
            pipeline = load_model(fit.folder / MODEL_FILE, config.trusted_types, None)
            rows = read_batch(config, self.snapshot, batch, corruption)
            rows = Window(fit.until, datetime.max).rows(rows, config.data.time_column)
            told = predict(pipeline, rows, feature_types(config), fit.classes)
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.asarray(told, dtype=np.float64))
        return np.load(path)

    def missing(self, jobs: Sequence[FitJob]) -> list[FitJob]:
        """Those that are to be trained, the largest first."""
        missing: dict[str, FitJob] = {}
        for job in jobs:
            if (
                self.stored(job) is None
            ):  # of those with the same model, one that is asked all that any of them asks
                known = missing.get(job.key)
                missing[job.key] = job if known is None else _asking_both(job, known)
        return sorted(missing.values(), key=lambda job: -job.number)

    def train(self, missing: Sequence[FitJob], workers: int, tick: Callable[[int], None]) -> None:
        """Train `workers` at a time, each with one thread. `tick` is told how many are done."""
        from joblib import Parallel, delayed, parallel_config

        started = time.perf_counter()
        work = (delayed(carry_out)(job, self.cache, self.snapshot) for job in missing)
        with parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=1):
            done = Parallel(return_as="generator_unordered")(work)
            for count, _ in enumerate(done, start=1):
                tick(count)
        self.trained += len(missing)
        self.seconds += time.perf_counter() - started


@functools.cache
def code_digest() -> str:
    """Stands for the code that makes a model of rows, and the libraries under it: a fit of other code is another fit."""
    from importlib.metadata import version

    from retrain import models
    from retrain.backtest import corruptions
    from retrain.data import profiles

    files = [
        *sorted(Path(models.__file__).parent.glob("*.py")),
        Path(corruptions.__file__),
        Path(profiles.__file__),
    ]
    return hashlib.sha256(
        b"".join([version("scikit-learn").encode(), *(file.read_bytes() for file in files)])
    ).hexdigest()


def _asking_both(one: FitJob, other: FitJob) -> FitJob:
    """A job that asks one model what two jobs ask it."""
    return dataclasses.replace(
        max(one, other, key=lambda job: len(job.predicts)),
        keep_model=one.keep_model or other.keep_model,
        serves=one.serves or other.serves,
    )


def later_batches(job: FitJob) -> list[Batch]:
    """The batches that a job's model predicts: those with rows from the end of its training rows on."""
    return [batch for batch in job.predicts if batch.last_time >= job.window.end]


@functools.lru_cache(maxsize=4)
def _store(snapshot: Path) -> SnapshotStore:
    return SnapshotStore(snapshot)


@functools.lru_cache(maxsize=64)
def _read(snapshot: Path, period: str, columns: tuple[str, ...], content: str) -> pl.DataFrame:
    return _store(snapshot).read([period], columns)


def read_batch(
    config: Config, snapshot: Path, batch: Batch, corruption: Corruption | None = None
) -> pl.DataFrame:
    """The labelled rows of a batch, corrupted if so asked, with the columns of the contract."""
    rows = _read(snapshot, batch.period, tuple(Schema(config.data).columns), batch.content)
    return rows if corruption is None else corruption.apply(rows, config)


def carry_out(job: FitJob, cache: Path, snapshot: Path) -> None:
    """Train, predict, store; all or nothing."""
    config = job.config

    def read(batch: Batch) -> pl.DataFrame:
        return read_batch(config, snapshot, batch, job.corruptions.get(batch.period))

    known = batches_in(job.batches, job.window)
    training = fit_recipe(
        config, known, job.window, read, _load_parent(job, cache), with_levels=False
    )
    model = Model(training.pipeline, feature_types(config))
    classes = known_classes(training.pipeline) if config.data.task is Task.multiclass else []
    later = later_batches(job)

    def told(rows: pl.DataFrame) -> NDArray:
        # In full precision: of a probability of 1 - 1e-9 nothing is left in single precision, and its log loss is another one.
        return np.asarray(predict(model.pipeline, rows, model.features, classes), dtype=np.float64)

    (cache / job.key).mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=cache / job.key, prefix=".unfinished-"))
    try:
        for batch in later:
            rows = read_batch(config, snapshot, batch)
            np.save(
                folder / f"{batch.period}.npy",
                told(Window(job.window.end, datetime.max).rows(rows, config.data.time_column)),
            )
        if job.serves:
            asked = {
                batch.period: batch
                for batch in (*job.sampled, *(batch for batch in later if batch.unlabelled_rows))
            }
            samples = [
                read_sample(config, snapshot, batch, job.corruptions.get(batch.period))
                for batch in asked.values()
            ]
            borders = np.cumsum([len(sample) for sample in samples])[:-1]
            parts = np.split(told(pl.concat(samples, how="diagonal_relaxed")), borders)
            np.savez(folder / KNOWN, **dict(zip(asked, parts, strict=True)))
        if job.keep_model:
            import skops.io

            skops.io.dump(training.pipeline, folder / MODEL_FILE)
        info = {
            "seconds": training.fit_seconds,
            "rows": training.rows,
            "classes": classes,
            "baseline": np.atleast_1d(training.baseline).tolist(),
            "contents": {batch.period: batch.content for batch in later},
            "choice": training.choice,
            "until": job.window.end.isoformat(),
        }
        (folder / INFO).write_text(json.dumps(info), encoding="utf-8")
        folder.rename(folder.with_name(folder.name.removeprefix(".unfinished-")))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_sample(
    config: Config, snapshot: Path, batch: Batch, corruption: Corruption | None = None
) -> pl.DataFrame:
    """Some rows of a batch as the monitor sees them, corrupted if so asked."""
    if corruption is None:
        return _store(snapshot).sample(batch)
    rows = read_batch(config, snapshot, batch, corruption)
    return sample_rows(rows, rows.clear(), config.data)


def _load_parent(job: FitJob, cache: Path) -> ParentModel | None:
    if job.base is None:
        return None
    folder = next(path.parent for path in sorted((cache / job.base).glob(f"[!.]*/{MODEL_FILE}")))
    info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    pipeline = load_model(folder / MODEL_FILE, job.config.trusted_types, None)
    return ParentModel(
        Model(pipeline, feature_types(job.config)), datetime.fromisoformat(info["until"])
    )


def first_number(config: Config, batches: Sequence[Batch]) -> int:
    """The first batch after which there is a champion. Raises DataError when the history is too short for a replay."""
    for number in range(len(batches) - 1):
        try:
            plan_windows(batches[: number + 1], config.evaluation)
        except DataError:
            continue
        return number
    raise DataError(
        "The history is too short to be replayed: a champion, and a batch that it serves, are needed. Let more batches arrive, or lower "
        "`evaluation.minimum_blocks`."
    )


def reach_of_windows(config: Config, batches: Sequence[Batch], first: int) -> int:
    """Over how many earlier batches an evaluation window reaches back at most."""
    reach = 0
    for number in range(first, len(batches)):
        start = plan_windows(batches[: number + 1], config.evaluation).evaluation.start
        reach = max(reach, sum(batch.last_time >= start for batch in batches[:number]))
    return reach
