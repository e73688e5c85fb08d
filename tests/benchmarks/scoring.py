"""Seconds of CPU and memory that `retrain predict` takes on a large Parquet file, against a script
that loads the same model and scores the file at once.

    python tests/benchmarks/scoring.py PROJECT [ROWS]     # a project of the flights with a champion
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import polars as pl

from project.source import NycFlights

BARE = """
import json, sys
from pathlib import Path
import polars as pl, skops.io, yaml
folder, source, target = sys.argv[1:]
said = yaml.safe_load((Path(folder) / "MLmodel").read_text())
trusted = said["flavors"]["sklearn"]["skops_trusted_types"]
model = skops.io.load(Path(folder) / "model.skops", trusted=trusted)
rows = pl.read_parquet(source)
columns = [
    pl.col(column["name"]).cast(pl.String if column["type"] == "string" else pl.Float64)
    for column in json.loads(said["signature"]["inputs"])
]
scores = model.predict_proba(rows.select(columns).to_pandas())[:, 1]
rows.with_columns(prediction=pl.Series(scores)).write_parquet(target)
"""


def main(project: Path, count: int) -> None:
    source = NycFlights(weather_lag_hours=3)
    year = pl.concat([source.read(period) for period in source.periods()]).drop("late")
    given = project / "data/to_score.parquet"
    pl.concat([year] * (count // len(year) + 1)).head(count).write_parquet(given)
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias("flights", "champion")
    model = mlflow.artifacts.download_artifacts(version.source)
    scored = project / "data/scored.parquet"
    commands = {
        "retrain predict": ["retrain", "predict", str(given), "--output", str(scored)],
        "bare script": [sys.executable, "-c", BARE, model, str(given), str(scored)],
    }
    try:
        for name, command in [*commands.items()] * 2:
            measure(name, command, project)
    finally:
        given.unlink()
        scored.unlink(missing_ok=True)


def measure(name: str, command: list[str], project: Path) -> None:
    started, process = time.monotonic(), os.fork()
    if not process:
        done = subprocess.run(command, cwd=project, check=False, stderr=subprocess.DEVNULL)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        took = used.ru_utime + used.ru_stime
        print(
            f"{name}: {took:.0f} s of CPU, {time.monotonic() - started:.0f} s, "
            f"peak {used.ru_maxrss / 1024:,.0f} MB",
            flush=True,
        )
        os._exit(done.returncode)
    assert os.waitpid(process, 0)[1] == 0


if __name__ == "__main__":
    given_rows = int(sys.argv[2]) if len(sys.argv) > 2 else 3_000_000
    main(Path(sys.argv[1]).resolve(), given_rows)
