"""What is left when the project is killed at any moment, and whether the next run puts it right.

    python tests/benchmarks/kills.py                        # 200 kills, about an hour on two quiet
    cores python tests/benchmarks/kills.py --kills 30 --jobs 2 python tests/benchmarks/kills.py
    --only rollback --kills 0 --aimed 20

Each kill works in a fresh copy of a small project: a command runs, and at a moment drawn uniformly
over the time that it takes undisturbed, SIGKILL goes to its whole process group. Then, before
anything can mend it, the ledger must read as one line of history, its champion must load and score,
the alias must be the ledger's champion or the one before, and no file may be half-written. The next
run must end well and leave alias and ledger in agreement, with exactly one move more than before:
the killed command's, made once. That next run is the same command; where a person's choice is in
the ledger already, asking for it twice would be a second choice, and it is `dvc repro`.

`--aimed` adds kills in the first tenth of a second after the ledger entry, which uniform moments
rarely meet. Ends with 1 when anything was left wrong; the copies in which it was are kept. Linux
only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import Project, flights, make_project

from retrain.config import compose
from retrain.data.manifest import read_manifest
from retrain.errors import DataError, RetrainError
from retrain.registry.entries import OVERRIDE, ROLLBACK, VERDICT, Entry
from retrain.registry.store import Store
from retrain.registry.versions import load_version
from retrain.workspace import SOURCE_INDEX

PR_SET_CHILD_SUBREAPER = 36
MODEL = "slice"
NEW_MONTH, JUDGED, SERVED = "new month", "judged", "served"  # projects to start from
AIMED_SECONDS = 0.1
TIMEOUT_SECONDS = 600
CHECKS = ("ledger", "champion", "alias", "files", "converged")


@dataclass(frozen=True)
class Scenario:
    """A command to kill, the project that it starts from, and the kind of ledger entry that it
    writes."""

    command: tuple[str, ...]
    start: str
    kind: str
    share: float  # of all kills

    @property
    def next_command(self) -> tuple[str, ...]:
        """What a person runs who finds the entry in the ledger."""
        return self.command if self.kind == VERDICT else ("dvc", "repro")


SCENARIOS = {
    "repro": Scenario(("dvc", "repro"), NEW_MONTH, VERDICT, 0.4),
    "promote": Scenario(("retrain", "promote"), JUDGED, VERDICT, 0.3),
    "rollback": Scenario(("retrain", "rollback", "--reason", "complaints"), SERVED, ROLLBACK, 0.15),
    "override": Scenario(
        ("retrain", "promote", "3", "--reason", "no refit"), SERVED, OVERRIDE, 0.15
    ),
}


@dataclass
class Kill:
    """Where a kill landed, and what was wrong afterwards, by check."""

    scenario: str
    aimed: bool
    landed: str = ""
    seconds: float = 0.0
    problems: dict[str, str] = field(default_factory=dict)
    litter: int = 0  # temporary files that the next run left lying

    @contextlib.contextmanager
    def check(self, name: str) -> Iterator[None]:
        """Note what a check finds instead of ending the measurement with it."""
        try:
            yield
        except (AssertionError, RetrainError, sqlite3.Error, ValueError, OSError) as error:
            self.problems.setdefault(name, f"{type(error).__name__}: {error}"[:1500])


class Commands:
    """Runs commands with the tools of this environment and the code as it was at the start."""

    def __init__(self, folder: Path) -> None:
        code = folder / "code"
        shutil.copytree(Path(__file__).parents[2] / "src", code)
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("MLFLOW_", "DVC_"))
        }
        self.environment = inherited | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(code),  # so that an edit meanwhile can't reach the measurement
            "PYTHONUNBUFFERED": "1",  # the last line says where a kill landed
            "DVC_SITE_CACHE_DIR": str(folder / "dvc"),
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    def start(self, project: Project, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=project.root,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __call__(self, project: Project, command: Sequence[str], log: Path) -> float:
        """Seconds that a command takes. Raises AssertionError with the end of its output when it
        fails or hangs."""
        started = time.perf_counter()
        process = self.start(project, command, log)
        try:
            status: int | str = process.wait(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            kill_group(process)
            status = f"a kill after {TIMEOUT_SECONDS} s"
        assert status == 0, (
            f"`{' '.join(command)}` ended with {status}: {log.read_text(errors='replace')[-1200:]}"
        )
        return time.perf_counter() - started


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and its children, and wait for all of them: DVC takes a zombie for a
    living owner of its lock."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with contextlib.suppress(ChildProcessError):  # orphans come to us, see `adopt_orphans`
        while True:
            os.waitpid(-process.pid, 0)


def adopt_orphans() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Remains:
    """A project as it lies there, read without its own commands: those would mend it first."""

    def __init__(self, project: Project) -> None:
        self.root, self.database = project.root, project.root / "mlflow.db"

    def _ask(self, query: str) -> list[tuple]:
        with contextlib.closing(sqlite3.connect(self.database, timeout=20)) as connection:
            return connection.execute(query).fetchall()

    def length(self) -> int:
        """Number of ledger entries, while others write."""
        return self._ask("select count(*) from params where key like 'seq-%'")[0][0]

    def history(self) -> list[Entry]:
        """The ledger. Raises AssertionError when it is not one line of history."""
        assert self._ask("pragma quick_check") == [("ok",)], "the database is damaged"
        found = self._ask(
            "select key, value, run_uuid from params where key like 'seq-%' order by key"
        )
        assert len({run for _, _, run in found}) == 1, "there are several ledgers"
        assert [key for key, _, _ in found] == [
            f"seq-{number:06d}" for number in range(len(found))
        ], "there is a gap"
        entries = [
            Entry(**json.loads(text), seq=number) for number, (_, text, _) in enumerate(found)
        ]
        champion = None
        for entry in entries:
            assert entry.previous == champion, (
                f"entry {entry.seq} does not follow on the one before"
            )
            champion = entry.champion
        return entries

    def alias(self) -> int:
        found = self._ask(
            f"select version from registered_model_aliases where name = '{MODEL}' and alias = "
            "'champion'"
        )
        assert len(found) == 1, "there is no alias"
        return int(found[0][0])

    def score(self, version: int, trusted_types: list[str], rows: pl.DataFrame) -> None:
        """Load a version, checked against the registry, and score some rows. Raises ModelError or
        AssertionError."""
        from mlflow import MlflowClient

        from retrain.models.fitting import predict

        store = Store(MlflowClient(f"sqlite:///{self.database}"), MODEL, MODEL, self.root)
        model = load_version(store, version, trusted_types, [])
        scores = predict(model.pipeline, rows, model.features)
        assert len(scores) == len(rows) and all(0 < score < 1 for score in scores)

    def read_files(self, complete: bool) -> None:
        """Read all that is there; the whole snapshot where it must be `complete`."""
        for path in sorted(self.root.glob("reports/*.json")):
            json.loads(path.read_text(encoding="utf-8"))
        for path in self.root.glob("reports/*.parquet"):
            pl.read_parquet(path)
        manifest = read_manifest(self.root / "data/snapshot")
        for batch in manifest.batches if complete else ():
            for name, sha256 in batch.files.items():
                path = self.root / f"data/snapshot/batch={batch.period}" / name
                if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                    raise DataError(f"{path} is not what the manifest says")

    def litter(self) -> int:
        """Temporary files and folders that nobody will clean up, beside the results."""
        found = [
            path
            for folder in ("reports", "data", "data/snapshot")
            for path in (self.root / folder).glob(".*.*")
        ]
        return sum(path.name != SOURCE_INDEX.name for path in found)


@dataclass(frozen=True)
class Bench:
    """What all kills share: where to work, the projects to start from, and how long each command
    takes undisturbed."""

    folder: Path
    run: Commands
    starts: dict[str, Project]
    trusted_types: list[str]
    rows: pl.DataFrame
    seconds: dict[str, float]

    def attempt(self, number: int, name: str, aimed: bool, seed: int) -> Kill:
        """One kill, drawn again while the command had ended before its moment. A copy with problems
        is kept."""
        draw, scenario = random.Random(seed), SCENARIOS[name]
        for repeat in range(100):
            kill, folder = Kill(name, aimed), self.folder / f"{number}-{name}-{repeat}"
            folder.mkdir()
            project = self.starts[scenario.start].copy(folder / "project")
            before = len(Remains(project).history())
            process = self.run.start(project, scenario.command, folder / "killed.log")
            kill.seconds = _wait(process, Remains(project), before, aimed, draw, self.seconds[name])
            if process.poll() is None:
                kill_group(process)
                if process.returncode == -signal.SIGKILL:
                    self._examine(kill, project, before, folder)
                    if not kill.problems:
                        shutil.rmtree(folder)
                    return kill
            shutil.rmtree(folder)
        raise RuntimeError(f"`{' '.join(scenario.command)}` always ends before it can be killed.")

    def _examine(self, kill: Kill, project: Project, before: int, folder: Path) -> None:
        """Look at what is left, run the next command, and look again."""
        scenario, remains = SCENARIOS[kill.scenario], Remains(project)
        entries: list[Entry] = []
        with kill.check("ledger"):
            entries = remains.history()
        written = len(entries) > before
        kill.landed = _landed(
            (folder / "killed.log").read_text(errors="replace"), scenario, written
        )
        if not entries:
            return
        with kill.check("champion"):
            remains.score(entries[-1].champion, self.trusted_types, self.rows)
        with kill.check("alias"):
            expected = (entries[-1].champion, entries[-1].previous)
            assert remains.alias() in expected, (
                f"the alias is {remains.alias()}, the ledger ends with {entries[-1]}"
            )
        with kill.check("files"):
            remains.read_files(complete=False)
        with kill.check("converged"):
            self.run(
                project, scenario.next_command if written else scenario.command, folder / "next.log"
            )
            entries = remains.history()
            assert remains.alias() == entries[-1].champion, (
                f"the alias is {remains.alias()}, the ledger ends with {entries[-1]}"
            )
            moves = [entry.kind for entry in entries[before:] if entry.moved]
            assert moves == [scenario.kind], f"the champion has moved by {moves or 'nothing'}"
            remains.score(entries[-1].champion, self.trusted_types, self.rows)
        with kill.check("files"):
            remains.read_files(complete=True)
        kill.litter = remains.litter()


def _wait(
    process: subprocess.Popen[bytes],
    remains: Remains,
    before: int,
    aimed: bool,
    draw: random.Random,
    seconds: float,
) -> float:
    """Until the moment to kill; returns how long that was."""
    started = time.perf_counter()
    if not aimed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=draw.uniform(0, seconds))
        return time.perf_counter() - started
    while process.poll() is None and remains.length() == before:
        time.sleep(0.001)
    time.sleep(draw.uniform(0, AIMED_SECONDS))
    return time.perf_counter() - started


def _landed(output: str, scenario: Scenario, written: bool) -> str:
    """The stage or step that was at work."""
    stages = [
        line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")
    ]
    step = stages[-1] if stages else "before the first stage"
    if scenario.command[0] == "retrain":
        steps = {"Refitting with": "refit", "loads and scores": "tried out"}
        step = next((step for words, step in steps.items() if words in output), "loading")
    return "after the ledger entry" if written else step


def prepare(folder: Path, run: Commands) -> dict[str, Project]:
    """The projects that kills start from: a new month has arrived, was judged, was promoted."""
    first = make_project(folder / "first")
    first.arrive("2013-01", "2013-02", "2013-03")
    run(first, ["dvc", "repro"], folder / "log")
    starts = {NEW_MONTH: first}
    first.arrive("2013-04")
    first.edit("conf/data/slice.yaml", "2013-03", "2013-04")
    starts[JUDGED] = first.copy(folder / "judged")
    run(starts[JUDGED], ["dvc", "repro", "evaluate"], folder / "log")
    starts[SERVED] = starts[JUDGED].copy(folder / "served")
    run(starts[SERVED], ["dvc", "repro"], folder / "log")
    assert [entry.moved for entry in Remains(starts[SERVED]).history()] == [True, True]
    return starts


def undisturbed(
    folder: Path, run: Commands, starts: dict[str, Project], name: str, jobs: int
) -> float:
    """Seconds that a command takes, the longest of as many at once as there will be."""
    scenario = SCENARIOS[name]
    copies = [
        starts[scenario.start].copy(folder / f"undisturbed-{name}-{job}") for job in range(jobs)
    ]
    with ThreadPoolExecutor(jobs) as pool:
        seconds = list(
            pool.map(
                lambda copy: run(copy, scenario.command, copy.root.with_suffix(".log")), copies
            )
        )
    for copy in copies:
        shutil.rmtree(copy.root)
    return max(seconds)


def plan(names: Sequence[str], kills: int, aimed: int) -> list[tuple[str, bool]]:
    """Which command each kill is for, and whether it is aimed: in the scenarios' shares, in
    turn."""
    total = sum(SCENARIOS[name].share for name in names)
    planned = []
    for count, is_aimed in ((kills, False), (aimed, True)):
        queues = [
            (step / SCENARIOS[name].share, name, is_aimed)
            for name in names
            for step in range(1, math.ceil(count * SCENARIOS[name].share / total) + 1)
        ]
        planned += [(name, flag) for _, name, flag in sorted(queues)[:count]]
    return planned


def measure(
    options: argparse.Namespace, names: Sequence[str], folder: Path, console: Console
) -> list[Kill]:
    run = Commands(folder)
    with console.status("preparing the projects"):
        starts = prepare(folder, run)
    with console.status("measuring the commands undisturbed"):
        seconds = {name: undisturbed(folder, run, starts, name, options.jobs) for name in names}
    console.print(
        "undisturbed:", ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    )
    trusted = list(compose(starts[NEW_MONTH].root / "conf").trusted_types)
    bench = Bench(folder, run, starts, trusted, flights("2013-04").head(20), seconds)
    draw = random.Random(options.seed)
    with ThreadPoolExecutor(options.jobs) as pool:
        tasks = [
            pool.submit(bench.attempt, number, name, aimed, draw.getrandbits(32))
            for number, (name, aimed) in enumerate(plan(names, options.kills, options.aimed))
        ]
        done = track(
            as_completed(tasks),
            "killing",
            len(tasks),
            console=console,
            disable=not console.is_terminal,
        )
        return [task.result() for task in done]


def show(kills: Sequence[Kill], console: Console) -> None:
    header = [
        "command",
        "kills",
        "ledger consistent",
        "champion valid",
        "alias",
        "files whole",
        "converged",
        "landed",
    ]
    table = Table(*header, box=None, pad_edge=False, padding=(0, 2, 0, 0))

    def row(title: str, chosen: Sequence[Kill], landed: Callable[[Kill], str]) -> None:
        good = [str(sum(check not in kill.problems for kill in chosen)) for check in CHECKS]
        places = Counter(map(landed, chosen)).most_common()
        table.add_row(
            title, str(len(chosen)), *good, ", ".join(f"{place} {count}" for place, count in places)
        )

    for aimed in (False, True):
        for name, scenario in SCENARIOS.items():
            chosen = [kill for kill in kills if kill.scenario == name and kill.aimed is aimed]
            if chosen:
                title = (
                    " ".join(scenario.command).replace(" --reason", "").removesuffix(" no refit")
                )
                row(title + (" (aimed)" if aimed else ""), chosen, lambda kill: kill.landed)
    row("all", kills, lambda kill: "as above")
    console.print(table)
    console.print(
        f"temporary files that were left after the next run: {sum(kill.litter for kill in kills)}"
    )
    for kill in kills:
        for check, text in kill.problems.items():
            console.print(
                f"{kill.scenario}, after {kill.seconds:.2f} s, {kill.landed}: {check}: {text}",
                markup=False,
                style="red",
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill the project's commands at random moments.")
    parser.add_argument("--kills", type=int, default=200, help="at random moments (default: 200)")
    parser.add_argument(
        "--aimed",
        type=int,
        default=0,
        help="more of them, just after the ledger entry (default: 0)",
    )
    parser.add_argument(
        "--only", action="append", choices=SCENARIOS, help="kill this command (may be repeated)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="kills at the same time (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args()
    adopt_orphans()
    console = Console(highlight=False, width=max(Console().width, 160))
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    kills = measure(
        options,
        [name for name in SCENARIOS if not options.only or name in options.only],
        folder,
        console,
    )
    show(kills, console)
    failed = any(kill.problems for kill in kills)
    if failed:
        console.print(f"The copies of the project that have problems are in {folder}.")
    else:
        shutil.rmtree(folder)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
