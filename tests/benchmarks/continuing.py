"""What it costs, and what it is worth, to go on with a model instead of training it anew: one new
month of the flights.

    python tests/benchmarks/continuing.py            # some minutes on two quiet cores
    python tests/benchmarks/continuing.py --only sgd

For each estimator a base is trained on January to October, as a champion would be. Then November up
to its evaluation window has arrived: `full` trains anew on everything, the others continue. Fit
seconds (medians of `--repeat`), the loss on the evaluation window with its difference to `full`,
and the loss on the evaluation windows of the three months before ("old"), less that of the base:
what the continued model has forgotten.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from retrain.config import Config, compose, feature_types, instantiate
from retrain.data.snapshot import SnapshotStore
from retrain.data.update import update_snapshot
from retrain.data.windows import Window, batches_in, plan_references, plan_windows
from retrain.models.parent import ParentModel
from retrain.models.scoring import Model, score_rows
from retrain.models.training import train

CONF = Path(__file__).parents[2] / "conf"
CASES = {
    "sgd": ("warm_start", "replay"),
    "mlp": ("warm_start", "replay"),
    "lightgbm": ("warm_start", "replay"),
    "hist_gradient_boosting": ("residual", "recalibrate"),
}


def configured(model: str, strategy: str) -> Config:
    return compose(CONF, [f"model={model}", f"strategy={strategy}", "data.as_of=2013-11"])


def measure(model: str, store: SnapshotStore, repeat: int) -> list[list[str]]:
    config = configured(model, "full")
    manifest = store.manifest()
    labelled, time = manifest.labelled, config.data.time_column
    windows = plan_windows(labelled, config.evaluation)
    references = plan_references(labelled, config.evaluation)

    def rows_of(window: Window) -> pl.DataFrame:
        return window.rows(
            store.read([batch.period for batch in batches_in(labelled, window)]), time
        )

    judged, old = (
        rows_of(windows.evaluation),
        pl.concat([rows_of(window) for window in references.values()]),
    )

    def loss(fitted: Model, rows: pl.DataFrame) -> float:
        return score_rows({"model": fitted}, rows, config).loss("model", config)

    border = labelled[-1].first_time
    first = train(config, manifest, store, Window(windows.training.start, border))
    base = ParentModel(Model(first.pipeline, feature_types(config)), border)
    before = loss(base.model, old)
    lines: list[list[str]] = []
    full_seconds, full_loss = 0.0, 0.0
    for strategy in ("full", *CASES[model]):
        chosen = dataclasses.replace(config, strategy=configured(model, strategy).strategy)
        runs = [train(chosen, manifest, store, windows.training, base) for _ in range(repeat)]
        seconds = statistics.median(run.fit_seconds for run in runs)
        fitted = Model(runs[-1].pipeline, feature_types(config))
        new, after = loss(fitted, judged), loss(fitted, old)
        if strategy == "full":
            full_seconds, full_loss = seconds, new
        line = [
            model,
            strategy,
            f"{runs[-1].rows:,}",
            f"{seconds:.2f}",
            f"{seconds / full_seconds:.2f}",
        ]
        lines.append([*line, f"{new:.4f}", f"{new / full_loss - 1:+.2%}", f"{after - before:+.4f}"])
    lines.append(
        [model, "(base)", f"{first.rows:,}", "", "", f"{loss(base.model, judged):.4f}", "", "0"]
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Compare continuing a model with training it anew."
    )
    parser.add_argument("--only", choices=CASES, help="one estimator")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    console = Console(highlight=False, width=140)
    header = [
        "model",
        "strategy",
        "rows",
        "fit s",
        "of full",
        "log loss",
        "to full",
        "old months, to base",
    ]
    table = Table(*header, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    with tempfile.TemporaryDirectory() as folder:
        data = configured("sgd", "full").data
        store = SnapshotStore(Path(folder) / "snapshot")
        update_snapshot(
            data, instantiate(data.source, "data.source"), store, Path(folder) / "index.json"
        )
        for model in [options.only] if options.only else CASES:
            for line in measure(model, store, options.repeat):
                table.add_row(*line)
    console.print(table)


if __name__ == "__main__":
    main()
