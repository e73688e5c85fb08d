"""What the project's conveniences cost, against the same work done by one plain script.

    python tests/benchmarks/run.py                          # everything, about 10 minutes on two
    cores python tests/benchmarks/run.py --only no_op --only help python tests/benchmarks/run.py
    --repeat 5 --threads 1   # steadier, on a machine that has other work

Every row measures two commands in turn, in one sitting on one machine, and reports the median of
their ratios (or differences): absolute seconds say little, since a busy neighbour doubles them.
Each repetition works in a fresh copy of the project as it was at the start, code and all; one more,
first, is not counted. Ends with 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[2]
SCRIPT = "tests/benchmarks/plain_script.py"
FLIGHTS = "conf/data/flights.yaml"
SWEEP = [
    "model=hist_gradient_boosting",
    "model.estimator.max_iter=10,20",
    "model.estimator.min_samples_leaf=20,50,100,200",
    "strategy=sliding_window",
    "strategy.batches=2",
]
ROWS_A_BATCH = 20_000
SHORT_COMMAND_REPEATS = 5  # commands of less than a second are measured more often


@dataclass(frozen=True)
class Usage:
    """What a command took. `peak` is the resident memory of its largest process, in the system's
    own unit."""

    seconds: float
    peak: int


@dataclass(frozen=True)
class Pair:
    """The project's command and what it is measured against."""

    ours: float
    other: float

    @property
    def ratio(self) -> float:
        return self.ours / self.other

    @property
    def added(self) -> float:
        return self.ours - self.other


class Runner:
    """Runs commands with the tools of this environment, and keeps their output for when one
    fails."""

    def __init__(self, folder: Path, code: Path, threads: int | None) -> None:
        self.log = folder / "output.log"
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("MLFLOW_", "DVC_"))
        }
        self.environment = inherited | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(code),  # so that an edit meanwhile can't reach the measurement
            "DVC_SITE_CACHE_DIR": str(folder / "dvc"),  # else a trace of every copy stays behind
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        if threads is not None:
            self.environment["OMP_NUM_THREADS"] = str(threads)

    def __call__(self, folder: Path, *command: str) -> Usage:
        """Raises RuntimeError with the end of the output when the command fails."""
        with self.log.open("wb") as output:
            started = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=folder, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
            # The usage of a child includes that of its own children that it waited for: dvc's
            # stages count.
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            text = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"`{' '.join(command)}` ended with {process.returncode}:\n{text}")
        return Usage(seconds, usage.ru_maxrss)


class Repetition:
    """A fresh copy of the project, and a folder in which the plain script does the same."""

    def __init__(self, original: Path, folder: Path, run: Runner) -> None:
        self.run, self.project, self.plain = run, folder / "project", folder / "plain"
        self.plain.mkdir()
        shutil.copytree(original, self.project)
        identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@example.com"]
        for command in (
            ["init", "-q"],
            ["add", "-A"],
            ["commit", "-qm", "start"],
        ):  # DVC needs a commit
            subprocess.run(["git", *identity, *command], cwd=self.project, check=True)

    def script(self, *arguments: str) -> Usage:
        return self.run(self.plain, "python", str(self.project / SCRIPT), *arguments)

    @cached_property
    def first_run(self) -> tuple[Usage, Usage]:
        """The first champion, from nothing. What the other measurements of this repetition start
        from."""
        return self.run(self.project, "dvc", "repro"), self.script("--through", "2013-10")

    def time_first_run(self) -> list[Pair]:
        ours, other = self.first_run
        return [Pair(ours.seconds, other.seconds)]

    def peak_memory(self) -> list[Pair]:
        ours, other = self.first_run
        return [Pair(ours.peak, other.peak)]

    def time_sweep(self) -> list[Pair]:
        _ = self.first_run
        ours = self.run(self.project, "retrain", "train", "-m", *SWEEP)
        return [Pair(ours.seconds, self.script("--through", "2013-10", "--sweep", "8").seconds)]

    def time_no_op(self) -> list[Pair]:
        _ = self.first_run
        return self._short(self.project, ["dvc", "repro"], ["dvc", "status"])

    def time_new_month(self) -> list[Pair]:
        _ = self.first_run
        config = self.project / FLIGHTS
        config.write_text(
            config.read_text(encoding="utf-8").replace("as_of: 2013-10", "as_of: 2013-11"), "utf-8"
        )
        ours = self.run(self.project, "dvc", "repro")
        return [Pair(ours.seconds, self.script("--through", "2013-11").seconds)]

    def time_help(self) -> list[Pair]:
        return self._short(self.project, ["retrain", "--help"], ["python", "-c", "pass"])

    def time_new_batch(self) -> list[Pair]:
        """One batch more, after 119 and after 11 that are there already. The source holds files for
        all of them."""
        seconds = []
        for batches in (120, 12):
            months = write_batches(self.project / "data/incoming", batches)
            shutil.rmtree(self.project / "data/snapshot", ignore_errors=True)
            for as_of in months[-2:]:
                usage = self.run(
                    self.project, "retrain", "snapshot", "data=files", f"data.as_of={as_of}"
                )
            if len(list((self.project / "data/snapshot").glob("batch=*"))) != batches:
                raise RuntimeError(
                    f"The snapshot does not hold the {batches} batches that were to be measured."
                )
            seconds.append(usage.seconds)
        return [Pair(*seconds)]

    def _short(self, folder: Path, ours: Sequence[str], other: Sequence[str]) -> list[Pair]:
        return [
            Pair(self.run(folder, *ours).seconds, self.run(folder, *other).seconds)
            for _ in range(SHORT_COMMAND_REPEATS)
        ]


def copy_project(target: Path) -> None:
    """The files that git would commit, with compiled code."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    compileall.compile_dir(target / "src", quiet=1)


def write_batches(folder: Path, count: int) -> list[str]:
    """Monthly files that fit conf/data/files.yaml, the same rows in each; returns their keys,
    oldest first."""
    shutil.rmtree(folder)
    folder.mkdir()
    months = [datetime(2014 + number // 12, 1 + number % 12, 1) for number in range(count)]
    keys = [f"{month:%Y-%m}" for month in months]
    rows = pl.int_range(ROWS_A_BATCH, eager=True)
    for key, month in zip(keys, months, strict=True):
        batch = pl.DataFrame(
            {
                "time": pl.select(month + rows * timedelta(minutes=2)).to_series(),
                "id": rows,
                "amount": (rows * 7919 % 1000).cast(pl.Float64),
                "country": pl.Series(["nl", "de", "fr", "it"]).gather(rows % 4),
                "returning": rows % 3 == 0,
                "target": rows * 31 % 10 < 3,
            }
        )
        batch.write_parquet(folder / f"{key}.parquet")
    return keys


@dataclass(frozen=True)
class Row:
    """One line of the table. `limit` is for the ratio, or for the added seconds where
    `by_difference`."""

    title: str
    measure: Callable[[Repetition], list[Pair]]
    limit: float
    unit: str = "s"
    by_difference: bool = False

    def figure(self, pairs: Sequence[Pair]) -> list[float]:
        return [pair.added if self.by_difference else pair.ratio for pair in pairs]


# In the order in which they are measured: each leaves the project as the next one expects it.
ROWS = {
    "first_run": Row(
        "first `dvc repro`, from nothing / plain script", Repetition.time_first_run, 1.5
    ),
    "memory": Row(
        "peak memory of the same, largest process", Repetition.peak_memory, 2.5, unit="MB"
    ),
    "no_op": Row("`dvc repro` with nothing to do / `dvc status`", Repetition.time_no_op, 1.5),
    "sweep": Row("sweep of 8 small trials / plain loop", Repetition.time_sweep, 1.3),
    "new_month": Row("one new month, `dvc repro` / plain script", Repetition.time_new_month, 1.5),
    "help": Row(
        "`retrain --help` - `python -c pass`", Repetition.time_help, 0.3, by_difference=True
    ),
    "new_batch": Row("the 120th batch of a snapshot / the 12th", Repetition.time_new_batch, 1.5),
}


def measure(
    names: Sequence[str], repeat: int, threads: int | None, console: Console
) -> dict[str, list[Pair]]:
    """All pairs by row. The first repetition fills the caches of files and bytecode and is thrown
    away."""
    pairs: dict[str, list[Pair]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        original = Path(temporary) / "original"
        copy_project(original)
        for number in range(repeat + 1):
            folder = Path(temporary) / str(number)
            folder.mkdir()
            repetition = Repetition(original, folder, Runner(folder, original / "src", threads))
            for name in names:
                what = f"{number} of {repeat}" if number else "warm-up"
                with console.status(f"{what}: {ROWS[name].title}"):
                    found = ROWS[name].measure(repetition)
                if number:
                    pairs[name] += found
            shutil.rmtree(folder)
    return pairs


def missed(name: str, pairs: Sequence[Pair]) -> bool:
    return statistics.median(ROWS[name].figure(pairs)) > ROWS[name].limit


def table_row(name: str, pairs: Sequence[Pair]) -> list[str]:
    """Medians, with the range of the figure that the limit is for."""
    row = ROWS[name]
    divisor = 1.0 if row.unit == "s" else (1e6 if sys.platform == "darwin" else 1e3)
    ours, other, added = (
        statistics.median(getattr(pair, key) for pair in pairs) / divisor
        for key in ("ours", "other", "added")
    )
    digits = 2 if row.unit == "s" else 0
    figures, form = row.figure(pairs), "{:.2f} s" if row.by_difference else "{:.2f}"
    return [
        row.title,
        *(f"{value:.{digits}f} {row.unit}" for value in (ours, other)),
        f"{added:+.{digits}f} {row.unit}",
        form.format(statistics.median(figures)),
        f"{form.format(min(figures))} to {form.format(max(figures))}",
        form.format(row.limit),
        "[red]missed[/red]" if missed(name, pairs) else "met",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the project costs.")
    parser.add_argument("--repeat", type=int, default=3, help="counted repetitions (default: 3)")
    parser.add_argument(
        "--only", action="append", choices=ROWS, help="measure this row (may be repeated)"
    )
    parser.add_argument(
        "--threads", type=int, help="OpenMP threads of both sides (default: all cores)"
    )
    options = parser.parse_args()
    names = [name for name in ROWS if not options.only or name in options.only]
    console = Console(highlight=False)
    pairs = measure(names, options.repeat, options.threads, console)
    header = ["measured", "project", "against", "added", "figure", "range", "limit", ""]
    table = Table(*header, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_row(*table_row(name, pairs[name]))
    Console(highlight=False, width=max(console.width, 150)).print(table)
    sys.exit(1 if any(missed(name, pairs[name]) for name in names) else 0)


if __name__ == "__main__":
    main()
