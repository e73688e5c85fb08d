"""The models of a replay: each trained once, whatever policies and gates are tried with it.

A fit is stored under digests of all that shapes the model (recipe, training rows, the model that it
continues) and of all rows that it is asked to predict. What is stored is never changed: an
interrupted backtest goes on where it was, a second one trains nothing, and two at a time don't
disturb each other.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from retrain import __version__
from retrain.backtest.compute import run_jobs
from retrain.backtest.corruptions import Corruption
from retrain.config import ComputeConfig, Config, Task, build, feature_types
from retrain.data.manifest import Batch
from retrain.data.profiles import sample_rows
from retrain.data.schema import Schema
from retrain.data.snapshot import SnapshotStore
from retrain.data.windows import Window, Windows, batches_in, plan_windows
from retrain.errors import ModelError
from retrain.lazy import rich, skops
from retrain.models.block_sums import Array
from retrain.models.fitting import known_classes, predict
from retrain.models.model_files import MODEL_FILE, load_model
from retrain.models.parent import ParentModel
from retrain.models.scoring import Model
from retrain.models.strategy import Strategy
from retrain.models.training import fit
from retrain.monitoring.cache import Cache
from retrain.monitoring.drift import PAIRS
from retrain.workspace import atomic_write

INFO, SAMPLES = "fit.json", "known.npz"
VISIBLE_SECONDS = 60


@dataclass(frozen=True)
class FitJob:
    """One model to train, and what it is to predict.

    Attributes
    ----------
    batches
        The labelled batches that were known, oldest first.
    number
        That of the newest of them in the whole history.
    refit
        Whether the evaluation window of the newest batch is trained on too.
    predicts
        The batches to predict, from the end of the training rows on.
    corruptions
        How batches arrived corrupted, by period.
    parent
        `model` of the job to continue.
    keep_model
        Whether the model itself is stored, to be continued or asked about other rows.
    serves
        Whether the drift of its predictions is measured: it then predicts samples of what it was
        trained on.
    """

    config: Config
    batches: tuple[Batch, ...]
    number: int
    refit: bool
    predicts: tuple[Batch, ...]
    corruptions: Mapping[str, Corruption] = field(default_factory=dict)
    parent: str | None = None
    keep_model: bool = False
    serves: bool = True

    @functools.cached_property
    def windows(self) -> Windows:
        return plan_windows(self.batches, self.config.evaluation)

    @property
    def window(self) -> Window:
        """The time that the training rows lie in."""
        training, evaluation = self.windows.training, self.windows.evaluation
        return Window(training.start, evaluation.end) if self.refit else training

    @property
    def training_batches(self) -> Sequence[Batch]:
        """The batches that the strategy asks for."""
        strategy = build(Strategy, self.config.strategy, "strategy")
        known = batches_in(self.batches, self.window)
        return known if strategy.continues else strategy.select(known)

    @property
    def later(self) -> list[Batch]:
        """The batches to predict."""
        return [batch for batch in self.predicts if batch.span[1] >= self.window.end]

    @property
    def sampled(self) -> list[Batch]:
        """Batches whose sample rows are predicted: the newest ones trained on, and later ones of
        which some rows have no label."""
        if not self.serves:
            return []
        known = [batch for batch in self.batches if batch.span[0] < self.window.end]
        unlabelled = [batch for batch in self.later if batch.unlabelled_rows]
        return list({batch.period: batch for batch in (*known[-PAIRS - 1 :], *unlabelled)}.values())

    @functools.cached_property
    def model(self) -> str:
        """Stands for all that shapes the model."""
        config = self.config
        chooses_rows_only = type(build(Strategy, config.strategy, "strategy")).fit is Strategy.fit
        return _digest(
            Schema(config.data).digest,
            config.data.metric,
            dataclasses.asdict(config.model),
            config.seed,
            [config.code.get(part) for part in ("train", "model")],
            [__version__, version("scikit-learn")],
            None if chooses_rows_only else [config.strategy, config.code.get("strategy")],
            self._contents(self.training_batches),
            self.window.end.isoformat(),
            self.parent,
        )

    @functools.cached_property
    def folder(self) -> str:
        """Where the fit is stored below the cache: by the model, and by what it predicts."""
        later = [[batch.period, batch.content] for batch in self.later]
        asked = _digest(later, self._contents(self.sampled), self.keep_model)
        return f"{self.model}/{asked}"

    def _contents(self, batches: Iterable[Batch]) -> list[list[str]]:
        return [
            [batch.period, batch.content, str(self.corruptions.get(batch.period, ""))]
            for batch in batches
        ]


@dataclass(frozen=True)
class CachedFit:
    """A trained model of a replay; `folder` holds its predictions.

    `until` is the end of its training rows; `baseline`, the best constant for them, has shape (1,)
    or (classes,); `choice` is the strategy that was selected of several.
    """

    model: str
    number: int = field(compare=False)
    until: datetime = field(compare=False)
    seconds: float = field(compare=False)
    classes: Sequence[str] = field(compare=False)
    baseline: Array = field(compare=False)
    choice: str = field(compare=False)
    folder: Path = field(compare=False)

    def scores(self, period: str) -> Array:
        """Predictions for the rows of a batch from `until` on, shape (rows,) or (rows, classes)."""
        scores: Array = np.load(self.folder / f"{period}.npy")
        return scores

    def sample_scores(self) -> dict[str, Array]:
        """Predictions for the sample rows of `FitJob.sampled`, by period."""
        with np.load(self.folder / SAMPLES) as stored:
            return dict(stored)


class ModelCache:
    """Trains models, several at a time, and gives them."""

    def __init__(self, cache: Path, snapshot: Path) -> None:
        self.cache, self.snapshot = cache, snapshot
        self.trained, self.seconds = 0, 0.0
        self.remembered = Cache(cache / "rows.json")  # which pairs of batches can be told apart
        self.known: dict[str, CachedFit] = {}

    def get(self, job: FitJob) -> CachedFit | None:
        """None if it hasn't been trained yet."""
        folder = self.cache / job.folder
        if job.folder not in self.known:
            if not folder.is_dir():
                return None
            info = json.loads((folder / INFO).read_text(encoding="utf-8"))
            info |= {"baseline": np.array(info["baseline"]), "until": job.window.end}
            self.known[job.folder] = CachedFit(job.model, job.number, folder=folder, **info)
        return dataclasses.replace(self.known[job.folder], number=job.number)

    def train(self, jobs: Iterable[FitJob]) -> None:
        """Train what no earlier backtest has left behind, the largest first."""
        missing = {job.folder: job for job in jobs if not (self.cache / job.folder).is_dir()}
        if not missing:
            return
        started = time.perf_counter()
        ordered = sorted(missing.values(), key=lambda job: -job.number)
        work = functools.partial(
            train_and_store, cache=self.cache.resolve(), snapshot=self.snapshot.resolve()
        )
        apart = [  # a job is on its worker already: it uses no cluster itself
            dataclasses.replace(
                job, config=dataclasses.replace(job.config, compute=ComputeConfig())
            )
            for job in ordered
        ]
        done = run_jobs(work, apart, ordered[0].config.compute)
        for number, _ in rich.progress.track(done, "Training", total=len(ordered), transient=True):
            _await(self.cache / ordered[number].folder)
        self.trained += len(missing)
        self.seconds += time.perf_counter() - started

    def scores_of_corrupted(
        self, fit: CachedFit, config: Config, batch: Batch, corruption: Corruption
    ) -> Array:
        """Predictions for the rows of a batch as they arrived, from `until` on, by a kept model."""
        stands_for = _digest(str(corruption), batch.content)
        path = fit.folder / f"{batch.period}~{stands_for}.npy"
        if not path.is_file():
            pipeline = load_model(fit.folder / MODEL_FILE, config.trusted_types, None)
            rows = read_batch(config, self.snapshot, batch, corruption)
            rows = Window(fit.until, datetime.max).rows(rows, config.data.time_column)
            scores = predict(pipeline, rows, feature_types(config), fit.classes)
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, scores)
        found: Array = np.load(path)
        return found


def train_and_store(job: FitJob, cache: Path, snapshot: Path) -> None:
    """Train, predict, store; all or nothing."""
    config = job.config

    def read(batch: Batch) -> pl.DataFrame:
        return read_batch(config, snapshot, batch, job.corruptions.get(batch.period))

    known = batches_in(job.batches, job.window)
    fitted = fit(config, known, job.window, read, _load_parent(job, cache))
    several = config.data.task is Task.multiclass
    classes = known_classes(fitted.pipeline) if several else []

    def predicted(rows: pl.DataFrame) -> Array:
        # Kept in full precision: of a probability of 1 - 1e-9 single precision leaves nothing, and
        # the log loss is another one.
        return predict(fitted.pipeline, rows, feature_types(config), classes)

    folder = cache / job.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
    try:
        for batch in job.later:
            rows = read_batch(config, snapshot, batch)
            rows = Window(job.window.end, datetime.max).rows(rows, config.data.time_column)
            np.save(unfinished / f"{batch.period}.npy", predicted(rows))
        if job.serves:
            samples = [
                read_sample(config, snapshot, batch, job.corruptions.get(batch.period))
                for batch in job.sampled
            ]
            borders = np.cumsum([len(sample) for sample in samples])[:-1]
            scores = predicted(pl.concat(samples, how="diagonal_relaxed"))
            periods = [batch.period for batch in job.sampled]
            parts: dict[str, Any] = dict(zip(periods, np.split(scores, borders), strict=True))
            np.savez(unfinished / SAMPLES, **parts)
        if job.keep_model:
            skops.io.dump(fitted.pipeline, unfinished / MODEL_FILE)
        info = {
            "seconds": fitted.fit_seconds,
            "classes": classes,
            "baseline": np.atleast_1d(fitted.baseline).tolist(),
            "choice": fitted.choice,
            "until": job.window.end.isoformat(),
        }
        (unfinished / INFO).write_text(json.dumps(info), encoding="utf-8")
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another backtest was first
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _await(folder: Path) -> None:
    """Shared file systems show what other machines wrote after a while. Raises ModelError where it
    doesn't come."""
    for _ in range(VISIBLE_SECONDS):
        if folder.is_dir():
            return
        time.sleep(1)
    raise ModelError(
        f"A worker has stored a model in {folder}, but it is not there.",
        hint="share the project's folder with all workers under the same path",
    )


def _load_parent(job: FitJob, cache: Path) -> ParentModel | None:
    if job.parent is None:
        return None
    path = next((cache / job.parent).glob(f"[!.]*/{MODEL_FILE}"))
    until = datetime.fromisoformat(json.loads(path.with_name(INFO).read_text())["until"])
    pipeline = load_model(path, job.config.trusted_types, None)
    return ParentModel(Model(pipeline, feature_types(job.config)), until)


def read_batch(
    config: Config, snapshot: Path, batch: Batch, corruption: Corruption | None = None
) -> pl.DataFrame:
    """The labelled rows of a batch, perhaps corrupted, with the columns of the schema."""
    rows = _read(snapshot, batch.period, tuple(Schema(config.data).columns), batch.content)
    return rows if corruption is None else corruption.apply(rows, config)


def read_sample(
    config: Config, snapshot: Path, batch: Batch, corruption: Corruption | None = None
) -> pl.DataFrame:
    """Some rows of a batch as the monitor sees them, perhaps corrupted."""
    if corruption is None:
        return _store(snapshot).sample(batch)
    rows = read_batch(config, snapshot, batch, corruption)
    return sample_rows(rows, rows.clear(), config.data)


@functools.lru_cache(maxsize=4)
def _store(snapshot: Path) -> SnapshotStore:
    return SnapshotStore(snapshot)


@functools.lru_cache(maxsize=64)
def _read(snapshot: Path, period: str, columns: tuple[str, ...], content: str) -> pl.DataFrame:
    return _store(snapshot).read([period], columns)


def _digest(*content: object) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
