"""A year of weekly retrainings by `dvc repro`, with all that happens in one; then: is everything
consistent, and has a retraining stayed as quick, and the store as small, as at the start?

    python tests/benchmarks/year.py              # 60 weeks, about an hour beside other work
    python tests/benchmarks/year.py --folder DIR # kept; goes on where it ended

Every fourth flight of 2013; the weeks after its last are the first ones again, 52 weeks later.
What happens: EVENTS. After each week all is committed, as the documentation says, and every
thirteenth week `retrain gc --yes` tidies up (`--no-gc`: never). Ends with 1 when anything is wrong.

Commands are forked from a server that has imported the libraries (tests/forked.py), which leaves
out what is the same every week: about four fifths of the seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import psutil
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import forked
from conftest import TARGET, TIME, Project, make_project
from kills import Commands, adopt_orphans, kill_group

from project.source import NycFlights

FIRST_WEEKS = 3  # arrive together
EVENTS = {
    12: "labels flipped: on hold",
    20: "corrects the labels of week 17",
    24: "a third of the rows broken: refused, then mended",
    30: "rollback",
    35: "override",
    40: "schema: a new column, filled in for all weeks, and a new level",
    45: "killed while it trains",
}
NEW_COLUMN, NEW_LEVEL = "visib", "SWF"
MEASURED = {
    "mlflow.db": "mlflow.db",
    "mlruns": "mlruns",
    "DVC's cache": ".dvc/cache",
    "snapshot": "data/snapshot",
    "git": ".git",
}


def weekly_flights(every: int) -> dict[str, pl.DataFrame]:
    """Batches by key, oldest first: 52 whole weeks, then the first ones again a year later."""
    source = NycFlights(weather_lag_hours=3)
    rows = pl.concat([source.read(month) for month in source.periods()]).gather_every(every)
    again = rows.with_columns(pl.col(TIME).dt.offset_by("52w"))
    last = rows[TIME].max()
    rows = pl.concat([rows, again.filter(pl.col(TIME) > last)]).sort(TIME)
    weeks = rows.with_columns(week=pl.col(TIME).dt.strftime("%G-W%V")).partition_by(
        "week", as_dict=True, maintain_order=True, include_key=False
    )
    return {str(key[0]): batch for key, batch in weeks.items()}


class Year:
    """A project that gets its weeks one by one."""

    def __init__(self, folder: Path, every: int, gc: bool) -> None:
        self.folder, self.gc = folder, gc
        shutil.rmtree(folder / "code", ignore_errors=True)
        self.real, self.run = Commands(folder), Commands.__new__(Commands)
        self.run.environment = self.real.environment | {"PATH": forked_path(self.real)}
        self.weeks = weekly_flights(every)
        self.keys = list(self.weeks)
        self.new_schema = False
        self.results = folder / "weeks.jsonl"
        self.project = Project(folder / "project")
        if not self.project.root.exists():
            self.project.root.mkdir()
            self.prepare()

    def prepare(self) -> None:
        make_project(self.project.root)
        conf = self.project.root / "conf"
        data = OmegaConf.load(conf / "data/slice.yaml")
        data.update(name="year", period="week", as_of=None)
        del data.features[NEW_COLUMN]
        OmegaConf.save(data, conf / "data/year.yaml")
        self.project.edit("conf/config.yaml", "- data: slice ", "- data: year ")
        self.project.edit("conf/config.yaml", "hist_gradient_boosting ", "logistic_regression ")
        self.project.edit("conf/config.yaml", "- strategy: full ", "- strategy: sliding_window ")
        self.project.edit("conf/strategy/sliding_window.yaml", "batches: 3 ", "batches: 8 ")
        self.command("dvc", "config", "core.autostage", "false")
        self.commit("start")

    def commit(self, message: str) -> None:
        identity = ["-c", "user.name=year", "-c", "user.email=year@example.com"]
        for command in (["add", "-A"], [*identity, "commit", "-q", "--allow-empty", "-m", message]):
            subprocess.run(["git", *command], cwd=self.project.root, check=True)

    def command(self, *command: str) -> str:
        """Run one; its output. Raises AssertionError when it fails."""
        log = self.folder / "command.log"
        try:
            self.run(self.project, command, log)
        finally:
            with (self.folder / "all.log").open("a") as everything:
                everything.write(f"$ {' '.join(command)}\n{log.read_text(errors='replace')}\n")
        return log.read_text(errors="replace")

    def deliver(self, number: int, change: Callable[[pl.DataFrame], pl.DataFrame] | None = None):
        """Write the file of a week, numbered from 1."""
        key = self.keys[number - 1]
        batch = self.weeks[key]
        if not self.new_schema:
            batch = batch.drop(NEW_COLUMN)
        elif number >= 40:
            some = (pl.col("origin") == "LGA") & (pl.col("flight") % 7 == 0)
            level = pl.when(some).then(pl.lit(NEW_LEVEL)).otherwise("origin").alias("origin")
            batch = batch.with_columns(level)
        path = self.project.root / f"data/incoming/{key}.parquet"
        (change(batch) if change else batch).write_parquet(path)

    def week(self, number: int) -> dict[str, object]:
        """All that happens in one week; what it cost."""
        event = getattr(self, f"week_{number}", None)
        before = cpu_seconds()
        seconds = event() if event else self.usual(number)
        cpu = cpu_seconds() - before
        self.commit(f"week {number}")
        sizes = {name: size(self.project.root / path) for name, path in MEASURED.items()}
        return {"week": number, "seconds": seconds, "cpu": cpu, **sizes}

    def usual(self, number: int) -> float:
        self.deliver(number)
        return self.repro()

    def repro(self) -> float:
        started = time.perf_counter()
        self.command("dvc", "repro")
        return time.perf_counter() - started

    def week_12(self) -> float:
        self.deliver(12, lambda rows: rows.with_columns(~pl.col(TARGET)))
        seconds = self.repro()
        assert "on hold" in self.command("retrain", "status"), "the flipped labels were believed"
        return seconds

    def week_20(self) -> float:
        self.deliver(
            17, lambda rows: rows.with_columns(late=pl.col(TARGET) & (pl.col("flight") % 50 > 0))
        )
        return self.usual(20)

    def week_24(self) -> float:
        missing = pl.when(pl.int_range(pl.len()) % 3 == 0).then(None).otherwise("carrier")
        self.deliver(24, lambda rows: rows.with_columns(missing.alias("carrier")))
        try:
            self.command("dvc", "repro")
        except AssertionError as error:
            assert "is refused" in str(error), error
        else:
            raise AssertionError("a batch with a third of its rows broken was taken")
        return self.usual(24)

    def week_30(self) -> float:
        seconds = self.usual(30)
        self.command("retrain", "rollback", "--reason", "complaints")
        return seconds

    def week_35(self) -> float:
        seconds = self.usual(35)
        serves = self.entries()[-1]["champion"]
        other = next(e["challenger"] for e in reversed(self.entries()) if e["challenger"] != serves)
        self.command("retrain", "promote", str(other), "--reason", "the gate was wrong")
        return seconds

    def week_40(self) -> float:
        self.new_schema = True
        for number in range(1, 41):
            self.deliver(number)
        path = self.project.root / "conf/data/year.yaml"
        data = OmegaConf.load(path)
        data.features.origin.levels.append(NEW_LEVEL)
        data.features[NEW_COLUMN] = {
            "type": "numeric",
            "nullable": True,
            "minimum": 0,
            "maximum": 20,
        }
        OmegaConf.save(data, path)
        return self.repro()

    def week_45(self) -> float:
        self.deliver(45)
        process = self.real.start(self.project, ["dvc", "repro"], self.folder / "killed.log")
        while "'train'" not in (self.folder / "killed.log").read_text(errors="replace"):
            time.sleep(0.1)
        time.sleep(random.uniform(0, 8))
        kill_group(process)
        return self.repro()

    def entries(self) -> list[dict]:
        lines = self.command("retrain", "history", "--jsonl").splitlines()
        return [line for line in map(json.loads, lines) if line["kind"] != "look"]

    def done(self) -> list[dict]:
        if not self.results.exists():
            return []
        return [json.loads(line) for line in self.results.read_text().splitlines()]

    def live(self, weeks: int, console: Console) -> None:
        done = [week["week"] for week in self.done()]
        self.new_schema = bool(done) and done[-1] >= 40
        for number in range((done or [FIRST_WEEKS - 1])[-1] + 1, weeks + 1):
            if number == FIRST_WEEKS:
                for first in range(1, FIRST_WEEKS):
                    self.deliver(first)
            found = self.week(number)
            if self.gc and number % 13 == 0:
                self.age(days=13 * 7)
                started = time.perf_counter()
                found["gc"] = self.command("retrain", "gc", "--yes")
                found["gc_seconds"] = time.perf_counter() - started
            with self.results.open("a") as file:
                file.write(json.dumps(found) + "\n")
            console.print(f"week {number}: {found['seconds']:.1f} s", EVENTS.get(number, ""))

    def age(self, days: int) -> None:
        """Let all models be older, as they would be."""
        earlier = "update logged_models set creation_timestamp_ms = creation_timestamp_ms - ?"
        database = sqlite3.connect(self.project.root / "mlflow.db")
        with contextlib.closing(database), database:
            database.execute(earlier, [days * 24 * 3600 * 1000])

    def check(self, console: Console) -> None:
        """Raises AssertionError where the end is not consistent."""
        console.print(self.command("retrain", "history", "--verify"))
        entries = self.entries()
        kinds = [entry["kind"] for entry in entries]
        assert kinds.count("rollback") == kinds.count("override") == 1, kinds
        status = self.command("retrain", "status")
        champion = entries[-1]["champion"]
        assert f"version {champion}," in status, status
        assert self.command("dvc", "repro").count("didn't change, skipping") == 5
        assert "is reproduced" in self.command("retrain", "reproduce", str(champion))
        moved = [entry for entry in entries if entry["champion"] != entry["previous"]]
        at = self.command("retrain", "history", "--at", moved[0]["time"])
        assert f"version {moved[0]['champion']}," in at, at
        self.command("retrain", "rollback", "--reason", "at the end of the year")


def forked_path(commands: Commands) -> str:
    """The search path on which `retrain` and `dvc` are forked, with the commands' own code."""
    at_start = {k: v for k, v in commands.environment.items() if k.startswith(forked.AT_START)}
    os.environ.update(at_start)
    os.environ[forked.FOLDER] = tempfile.mkdtemp(prefix=f"{os.getpid()}-")
    return f"{forked.folder()}{os.pathsep}{commands.environment['PATH']}"


def cpu_seconds() -> float:
    """Of all processes that have ended."""
    processes = [psutil.Process(), *psutil.Process().children()]
    times = [process.cpu_times() for process in processes]
    return sum(time.children_user + time.children_system for time in times)


def size(path: Path) -> int:
    """Bytes of a file or of all below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())


def show(weeks: Sequence[dict], console: Console) -> None:
    header = ["weeks", "seconds", "of CPU", *(f"{name}, MB" for name in MEASURED)]
    table = Table(*header, box=None, pad_edge=False)
    for start in range(FIRST_WEEKS, weeks[-1]["week"] + 1, 13):
        quarter = [week for week in weeks if start <= week["week"] < start + 13]
        usual = [week for week in quarter if week["week"] not in EVENTS]
        figures = [
            f"{statistics.median(week[key] for week in usual):.1f}" for key in ("seconds", "cpu")
        ]
        sizes = [f"{quarter[-1][name] / 1e6:.1f}" for name in MEASURED]
        table.add_row(f"{quarter[0]['week']} to {quarter[-1]['week']}", *figures, *sizes)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="A year of weekly retrainings.")
    parser.add_argument("--weeks", type=int, default=60)
    parser.add_argument("--every", type=int, default=4, help="of so many flights one (default: 4)")
    parser.add_argument("--folder", type=Path, help="to keep it in, and to go on from")
    parser.add_argument("--no-gc", action="store_true")
    options = parser.parse_args()
    adopt_orphans()
    console = Console(highlight=False, width=160)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="year-"))
    folder.mkdir(exist_ok=True, parents=True)
    year = Year(folder, options.every, not options.no_gc)
    year.live(options.weeks, console)
    show(year.done(), console)
    year.check(console)
    if not options.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
