"""What a Dask cluster costs beside processes of this machine: python tests/benchmarks/clusters.py

Run it in a project whose snapshot is there (`dvc repro snapshot`). Pairs of backtests without any
stored fit: local on two processes, then on a Dask cluster of two workers that runs already. The
seconds are those of the trainings; the ratio is the median over the pairs.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from distributed import LocalCluster

PAIRS = 2
ASKED = ("-m", "policy=always", "strategy=full,sliding_window", "gate=non_inferiority")


def main() -> None:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        on_dask = ("compute=dask", f"compute.address={cluster.scheduler_address}")
        seconds(*on_dask)  # workers import the libraries once
        pairs = [(seconds("compute.workers=2"), seconds(*on_dask)) for _ in range(PAIRS)]
    for local, dask in pairs:
        print(f"local {local:.1f} s, Dask {dask:.1f} s: {dask / local:.2f}")
    print(f"median {statistics.median(dask / local for local, dask in pairs):.2f}")


def seconds(*where: str) -> float:
    """Of the trainings of one backtest."""
    shutil.rmtree("data/.backtest", ignore_errors=True)
    command = [str(Path(sys.executable).with_name("retrain")), "backtest", *ASKED, *where]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads(Path("reports/backtest.json").read_text(encoding="utf-8"))
    return float(found["seconds"]["training"])


if __name__ == "__main__":
    main()
