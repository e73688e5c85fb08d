"""The shipped defaults on tables of many kinds, against always taking the freshest model: python
tests/benchmarks/defaults.py

For each table what a user would do: `retrain init` on a Parquet file, and then batch by batch, as
it arrives, what the pipeline does with the configuration that ships: snapshot and monitor, policy
`always`, strategy `full`, the gate with its first champion and its looks, refit. Beside it the
freshest model, refitted on every batch, sound or not, and never asked anything. Both serve the same
batches, on their true rows. Models are trained once and kept under `--work`; losses are those that
the policies watch.

--only NAME ... takes some tables, --work FOLDER keeps packages, projects and models, --show says
what happened at each batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from default_tables import TABLES, Table

REPOSITORY = Path(__file__).parents[2]
WANTED = 0.02  # of the freshest model's loss


@dataclass
class Outcome:
    """A table lived through with the defaults."""

    table: str
    rows: int
    batches: int
    classes: str
    period: str
    aside: bool
    metric: str = ""
    first: int | None = None  # the batch, from 1, after which the first champion serves
    possible: int = 0  # the batch after which one could have
    promotions: int = 0
    held: int = 0  # batches that were on hold when they arrived
    still: int = 0  # batches that are on hold in the end
    default: list[float] = field(default_factory=list)
    freshest: list[float] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    @property
    def difference(self) -> float:
        return (
            float(np.mean(self.default) / np.mean(self.freshest) - 1)
            if self.default
            else float("inf")
        )

    def line(self) -> str:
        cells = [
            self.table + " *" * self.aside,
            f"{self.rows:,}",
            self.batches,
            self.classes,
            self.period,
        ]
        cells += [
            f"{np.mean(values):.4g}" if values else "-" for values in (self.default, self.freshest)
        ]
        first = "none" if self.first is None else f"{self.first} of {self.possible}"
        cells += [f"{self.difference:+.1%}", self.promotions, first, f"{self.held} ({self.still})"]
        return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir(), "retrain_defaults")
    )
    parser.add_argument("--show", action="store_true", help="what happened at each batch")
    parser.add_argument("--replay", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replay:
        os.chdir(options.replay)
        print(json.dumps(dataclasses.asdict(replay(options.only[0]))))
        return
    print(
        "| table | rows | batches | classes | period | default | freshest | difference | promoted "
        "| first | held |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    missed = []
    for name in options.only:
        outcome = run(name, TABLES[name], options.work)
        print(
            outcome.line() if isinstance(outcome, Outcome) else f"| {name} | {outcome} |",
            flush=True,
        )
        if options.show and isinstance(outcome, Outcome):
            print(*(f"    {event}" for event in outcome.events), sep="\n", flush=True)
        if not isinstance(outcome, Outcome) or outcome.difference > WANTED:
            missed.append(name)
    print(f"* had no say. Not within {WANTED:.0%}: {', '.join(missed) or 'none'}")


def run(name: str, table: Table, work: Path) -> Outcome | str:
    """In a fresh copy of the project. A sentence instead of an outcome when a step fails."""
    project = work / "projects" / name
    models = project / "data/.backtest"
    kept = work / "models" / name
    if project.exists():
        shutil.rmtree(project)
    project.mkdir(parents=True)
    shutil.copytree(REPOSITORY / "conf", project / "conf", ignore=shutil.ignore_patterns("local"))
    shutil.copy(REPOSITORY / "dvc.yaml", project)
    shutil.copy(REPOSITORY / ".gitignore", project)
    (project / "data/incoming").mkdir(parents=True)
    kept.mkdir(parents=True, exist_ok=True)
    models.symlink_to(kept.resolve(), target_is_directory=True)
    source = work / "tables" / f"{name}.parquet"
    if not source.is_file():
        source.parent.mkdir(parents=True, exist_ok=True)
        table.make(work / "packages").write_parquet(source)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_WAIT_POLICY": "PASSIVE"}
    environment |= {"DVC_ROOT": str(project), "PYTHONWARNINGS": "ignore"}

    def call(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, check=False
        )

    retrain = str(Path(sys.executable).with_name("retrain"))
    asked = [
        "--target",
        table.target,
        "--time",
        table.time,
        "--name",
        name,
        "--force",
        *table.options,
    ]
    started = call(retrain, "init", str(source.resolve()), *asked)
    if started.returncode:
        return f"init: {started.stderr.strip().splitlines()[-1]}"
    (project / "init.txt").write_text(started.stdout)
    lived = call(
        sys.executable, str(Path(__file__).resolve()), "--replay", str(project), "--only", name
    )
    if lived.returncode:
        return f"replay: {lived.stderr.strip().splitlines()[-1]}"
    return Outcome(**json.loads(lived.stdout.splitlines()[-1]))


def replay(name: str) -> Outcome:
    """In the project's folder: each batch arrives, and the defaults do what they do."""
    from retrain.commands.backtest import CONF
    from retrain.config import compose
    from retrain.data.snapshot import SnapshotStore
    from retrain.workspace import SNAPSHOT

    config = compose(CONF, ["compute.workers=1"])
    manifests = list(arrivals(config))
    newest = manifests[-1]
    batches = [batch for batch in newest.batches if batch.rows]
    classes = {label for batch in batches for label in batch.classes}
    kinds = {"binary": "2", "regression": "number"}
    outcome = Outcome(
        name,
        sum(batch.rows for batch in batches),
        len(batches),
        kinds.get(config.data.task.name, str(len(classes))),
        config.data.period.name,
        TABLES[name].aside,
    )
    summaries = [SnapshotStore(SNAPSHOT).profile(batch) for batch in batches]
    Loop(config, batches, summaries, manifests, outcome).run()
    return outcome


def arrivals(config) -> Iterator:
    """The manifest after each batch, as the snapshot stage would leave it."""
    from retrain.config import instantiate
    from retrain.data.periods import parse_period
    from retrain.data.snapshot import SnapshotStore
    from retrain.data.update import update_snapshot
    from retrain.workspace import SNAPSHOT, SOURCE_INDEX

    source = instantiate(config.data.source, "data.source")
    source.bind(config.data)
    store = SnapshotStore(SNAPSHOT)
    for key in sorted(source.periods(), key=lambda key: parse_period(key, config.data.period)):
        data = dataclasses.replace(config.data, as_of=key)
        change = update_snapshot(data, source, store, SOURCE_INDEX, config.monitoring)
        if change.manifest.get(key).rows:
            yield change.manifest


class Loop:
    """The pipeline's loop on stored models: the champion's place is earned at the gate from the
    first one on."""

    def __init__(self, config, batches, summaries, manifests, trainer, outcome: Outcome) -> None:
        from retrain.backtest.history_view import HistoryView
        from retrain.backtest.model_cache import ModelCache
        from retrain.gate.decision import build_checks
        from retrain.workspace import BACKTEST_CACHE, SNAPSHOT

        self.config, self.batches, self.summaries, self.manifests = (
            config,
            batches,
            summaries,
            manifests,
        )
        self.models, self.outcome = ModelCache(BACKTEST_CACHE, SNAPSHOT), outcome
        self.specs = {which: build_checks(config.gate, which) for which in (False, True)}
        specs = [spec for asked in self.specs.values() for spec in asked.values()]
        self.looked_until: list[datetime] = []  # ends of the evaluation windows that were looked at
        self.history = HistoryView(config, batches, summaries, self.models, specs=specs)
        outcome.metric, outcome.possible = self.history.loss, self.history.first + 1

    def fit(self, known: Sequence, number: int, refit: bool):
        from retrain.backtest.model_cache import FitJob

        job = FitJob(self.config, tuple(known), number, refit, tuple(self.batches))
        self.models.train([job])
        return self.models.get(job)

    def run(self) -> None:
        champion = None  # serving fit, challenger that earned it its place, number
        count, outcome = len(self.batches), self.outcome
        for number in range(count - 1):
            hidden = frozenset(
                b.period for b in self.manifests[number].batches if b.on_hold and b.rows
            )
            newest = self.batches[number]
            outcome.held += newest.period in hidden
            known = [batch for batch in self.batches[: number + 1] if batch.period not in hidden]
            if newest.period not in hidden or (number and hidden != self.hidden):
                champion = self.decide(known, number, champion)
            else:
                why = self.manifests[number].batches[-1].anomalies
                outcome.events.append(f"{newest.period} on hold: {'; '.join(why)[:200]}")
            self.hidden = hidden
            if champion is not None:
                fresh = self.fit(self.batches[: number + 1], number, True)
                outcome.default.append(self.history.losses(champion[0], number + 1).value)
                outcome.freshest.append(self.history.losses(fresh, number + 1).value)
                outcome.events[-1] += (
                    f" -> {outcome.default[-1]:.4g} against {outcome.freshest[-1]:.4g}"
                )
        outcome.still = sum(b.on_hold and b.rows > 0 for b in self.manifests[-1].batches)

    def decide(self, known: Sequence, number: int, champion):
        from retrain.data.windows import plan_windows
        from retrain.errors import DataError, PromotionError
        from retrain.gate.comparison import Verdict
        from retrain.gate.decision import decide

        period = self.batches[number].period
        if not known:
            self.outcome.events.append(f"{period}: no labelled batch takes part")
            return champion
        try:
            window = plan_windows(known, self.config.evaluation).evaluation
        except DataError as error:
            self.outcome.events.append(f"{period}: {str(error)[:120]}")
            return champion
        if champion is not None and len(known) - 1 == self.seen and known[-1].period == self.last:
            self.outcome.events.append(f"{period}: nothing new")
            return champion
        challenger = self.fit(known, number, False)
        incumbent = None
        if champion is not None:
            incumbent = champion[0] if champion[0].until <= window.start else champion[1]
            incumbent = incumbent if incumbent.until <= window.start else None
        comparison = self.compare(known, challenger, incumbent, number, window)
        try:
            decision = decide(comparison, self.specs[incumbent is not None])
            promoted, reason = decision.verdict is Verdict.promote, decision.reason
        except PromotionError as error:
            promoted, reason = False, f"ERROR {error}"
        self.looked_until.append(window.end)
        self.outcome.events.append(f"{period} {'PROMOTED' if promoted else 'kept'}: {reason[:400]}")
        if not promoted:
            return champion
        self.seen, self.last = len(known) - 1, known[-1].period
        self.outcome.promotions += champion is not None
        if champion is None:
            self.outcome.first = number + 1
        return self.fit(known, number, True), challenger

    def compare(self, known: Sequence, challenger, incumbent, number: int, window):
        """As the stages `train` and `evaluate` do, from stored scores."""
        from retrain.backtest.history_view import NOT_MEASURED
        from retrain.config import Task
        from retrain.gate.alpha_spending import unseen_share
        from retrain.gate.estimates import CHALLENGER, INCUMBENT
        from retrain.models.scoring import spread_classes, to_scored
        from retrain.pipeline.predictions import compare_predictions, with_scores

        data, fits = (
            self.config.data,
            {CHALLENGER: challenger} | ({INCUMBENT: incumbent} if incumbent else {}),
        )
        parts, found = [], {name: [] for name in fits}
        for index, batch in enumerate(self.batches[: number + 1]):
            if batch not in known or batch.last_time < window.start:
                continue
            rows = self.history.rows(index)
            inside = window.rows(rows, data.time_column)
            parts.append(inside)
            for name, fit in fits.items():
                times = rows.filter(pl.col(data.time_column) >= fit.until)[data.time_column]
                keep = ((times >= window.start) & (times < window.end)).to_numpy()
                found[name].append(fit.scores(batch.period)[keep])
        rows = pl.concat(parts, how="diagonal_relaxed")
        scores = {name: np.concatenate(values) for name, values in found.items()}
        scored = to_scored(
            self.config, rows, scores, {name: fit.classes for name, fit in fits.items()}
        )
        constant = challenger.baseline
        if data.task is Task.multiclass:
            constant = spread_classes(constant, challenger.classes, scored.classes)
        comparison = compare_predictions(
            self.config,
            with_scores(self.config, rows, scored, constant),
            self.history.metrics,
            scored.classes,
            scored.unknown_classes,
        )
        unseen = unseen_share(self.looked_until, window.start, window.end)
        return dataclasses.replace(
            comparison,
            unseen=unseen,
            look=1 + self.looked_until.count(window.end),
            facts=NOT_MEASURED,
        )


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
