"""The whole pipeline on a hundred million rows of 20 columns: seconds and peak memory of every
step, and whether a batch costs more when there is more history.

    python tests/benchmarks/hundred_million.py FOLDER                       # 20 batches of 5 million
    python tests/benchmarks/hundred_million.py FOLDER --rows 100000 --batches 6   # a first look

It needs about 200 bytes of disk a row in FOLDER, which must not exist. The project in it is that of
`retrain new`, with `conf/data` by `retrain init`, one file a batch (`BatchFiles`), and `model=sgd`:
`strategy=streaming` where many batches have come, and `warm_start` for one. At the end boosting on a
sample of a million rows (`strategy=sample`) challenges it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time as clock
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import psutil

NUMBERS, SHOPS = 13, 2000


def write_batch(folder: Path, month: int, rows: int) -> Path:
    """A month of purchases, drawn from its number: 13 numbers, 4 categories, a key, a time, a
    target that depends on some of them, on the shop and on the day."""
    draw, year, number = np.random.default_rng(month), 2020 + (month - 1) // 12, (month - 1) % 12
    start = datetime(year, number + 1, 1)
    end = datetime(year + (number + 1) // 12, (number + 1) % 12 + 1, 1)
    second = np.sort(draw.integers(0, int((end - start).total_seconds()), rows))
    numbers = draw.standard_normal((NUMBERS, rows), dtype=np.float32)
    levels = {"city": 40, "device": 5, "plan": 12, "shop": SHOPS}
    codes = {name: draw.integers(0, count, rows) for name, count in levels.items()}
    shop = np.random.default_rng(0).standard_normal(SHOPS) * 0.3
    day = draw.standard_normal(32) * 0.15
    score = 0.8 * numbers[0] - 0.5 * numbers[1] * numbers[2] + 0.3 * (codes["city"] % 7 == 0)
    score += shop[codes["shop"]] + day[second // 86_400] + 0.02 * month - 1.2
    table = pl.DataFrame(
        {
            "order": np.arange(rows) + month * 100_000_000,
            "time": second * 1_000_000 + pl.Series([start]).dt.timestamp("us")[0],
            **{f"x{place}": values for place, values in enumerate(numbers)},
            **{name: pl.Series(values).cast(pl.String) for name, values in codes.items()},
            "bought": (draw.random(rows) < 1 / (1 + np.exp(-score))).astype(np.int8),
        }
    ).with_columns(pl.col("time").cast(pl.Datetime("us")))
    path = folder / f"{year}-{number + 1:02d}.parquet"
    table.write_parquet(path)
    return path


def measure(project: Path, *command: str) -> tuple[float, float, dict[str, float]]:
    """Seconds of a command, CPU seconds of it and its children, and the largest resident memory in
    GB of each process."""
    started, peaks, used = clock.perf_counter(), dict[str, float](), dict[int, float]()
    output = (project / "output.txt").open("a")
    process = psutil.Popen(command, cwd=project, stdout=output, stderr=output)
    while process.poll() is None:
        for child in (process, *process.children(recursive=True)):
            try:
                verb = " ".join(Path(part).name for part in child.cmdline()[1:3])
                size, spent = child.memory_info().rss / 1e9, child.cpu_times()
                peaks[verb] = max(size, peaks.get(verb, 0))
                used[child.pid] = spent.user + spent.system
            except psutil.Error:
                continue
        clock.sleep(0.05)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed: see {project / 'output.txt'}")
    return clock.perf_counter() - started, sum(used.values()), peaks


def show(what: str, seconds: float, used: float, peaks: dict[str, float]) -> None:
    largest = sorted(peaks.items(), key=lambda peak: -peak[1])[:3]
    peak = ", ".join(f"{verb} {size:.2f}" for verb, size in largest)
    print(f"{what:<44}{seconds:8.1f} s{used:8.1f} s of CPU   GB: {peak}", flush=True)


def choose(project: Path, **chosen: str) -> None:
    """Another file of a group in conf/config.yaml."""
    path = project / "conf/config.yaml"
    text = path.read_text()
    for group, name in chosen.items():
        text = re.sub(rf"- {group}: \w+", f"- {group}: {name}", text)
    path.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=5_000_000, help="of a batch")
    parser.add_argument("--batches", type=int, default=20, help="seven or more")
    options = parser.parse_args()
    project, incoming = options.folder.resolve(), options.folder.resolve() / "data/incoming"
    subprocess.run(["retrain", "new", str(project)], check=True, stdout=subprocess.DEVNULL)
    incoming.mkdir(parents=True, exist_ok=True)
    first = write_batch(incoming, 1, options.rows)
    asked = ("--target", "bought", "--time", "time", "--name", "shop", "--period", "month")
    given = str(first.relative_to(project))
    show("retrain init on the first batch", *measure(project, "retrain", "init", given, *asked))
    schema = project / "conf/data/shop.yaml"
    node = (
        "source:\n  _target_: retrain.data.sources.BatchFiles\n  folder: data/incoming\n"
        "key_columns: [order]\n"
    )
    text = re.sub(r"key_columns: .*\n", "", schema.read_text())
    schema.write_text(re.sub(r"source:\n(  .*\n)+", node, text))
    choose(project, model="sgd")
    done = 1
    for last in (2, 3, 4, options.batches - 2, options.batches - 1, options.batches):
        for month in range(done + 1, last + 1):
            write_batch(incoming, month, options.rows)
        strategy = "warm_start" if last == done + 1 and last > 2 else "streaming"
        choose(project, strategy=strategy)
        title = f"dvc repro, {last - done} new after {done if last > 2 else 0}, {strategy}"
        done = last
        show(title, *measure(project, "dvc", "repro"))
        if last == 4:
            tried = ("backtest.strategies=[streaming,sample]", "backtest.policies=[always,never]")
            command = ("retrain", "backtest", *tried, "compute.workers=1")
            show("retrain backtest, 4 batches", *measure(project, *command))
    show("dvc repro, nothing new", *measure(project, "dvc", "repro"))
    show("retrain monitor", *measure(project, "retrain", "monitor"))
    newest = str(sorted(incoming.glob("*.parquet"))[-1])
    scored = ("predict", newest, "--output", "scores.parquet")
    show("retrain predict, the newest batch", *measure(project, "retrain", *scored))
    choose(project, model="hist_gradient_boosting", strategy="sample")
    show("dvc repro, boosting on a sample", *measure(project, "dvc", "repro"))
    print(f"{options.batches * options.rows:,} rows in {options.batches} batches")


if __name__ == "__main__":
    main()
