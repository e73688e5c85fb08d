"""A job in a process of its own, in the project's folder and with its code as it is now.

A worker of a cluster goes on from one command to the next and may serve several projects, while
Python imports a module once. So it does no job itself: it keeps processes for that, which know one
project in one state. Locally the same.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import platform
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from retrain.errors import RetrainError
from retrain.own_code import all_code

RETRIES = 3  # of a job whose process died
IDLE_SECONDS = 60  # then a process ends
# Of other versions a model may be another one.
LIBRARIES = ("lightgbm", "numpy", "pandas", "polars", "scikit-learn", "scipy", "skops", "xgboost")
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), "1"
)
# The engine of who starts it, whatever else the project's folder holds.
START = """import sys; sys.path.insert(0, sys.argv[1]); import retrain; sys.path[:] = sys.argv[2:]
from retrain.backtest.worker import main; main()"""

Process = subprocess.Popen[bytes]
_idle: dict[tuple[Path, str], list[Process]] = defaultdict(list)  # by project and its code
_busy: set[Process] = set()


@dataclass(frozen=True)
class Place:
    """The project as the command has it, and as each worker must find it.

    Attributes
    ----------
    root
        The project's folder.
    proof
        A file that the command has just written: who sees it sees the same folder.
    code
        Digest of the engine's and the project's code.
    versions
        Of Python and the libraries that shape a model.
    """

    root: Path
    proof: Path
    code: str
    versions: Mapping[str, str]


def run_apart(place: Place, job: bytes) -> bytes:
    """A pickled pair: whether a job went well, and its result or its error.

    Parameters
    ----------
    job
        A function and its argument, pickled.
    """
    if not place.proof.is_file():
        return _refused(
            f"does not see the project's folder {place.root}.",
            "share it with all workers under the same path (NFS or the like), or leave the cluster "
            "out: `compute=local`",
        )
    idle = _idle[place.root, place.code]
    for _ in range(RETRIES + 1):
        process = idle.pop() if idle else _start(place.root)
        _busy.add(process)
        try:
            pickle.dump((place, job), _pipe(process.stdin))
            _pipe(process.stdin).flush()
            answer: bytes = pickle.load(_pipe(process.stdout))
            idle.append(process)
            return answer
        except (EOFError, OSError, pickle.UnpicklingError):
            process.kill()
            process.wait()
            if process not in _busy:
                break
        finally:
            _busy.discard(process)
    return _refused(
        f"has tried a job {RETRIES + 1} times, and the process died each time, perhaps for lack of "
        "memory. What was trained stays.",
        "run the command again with fewer jobs at a time: `compute.workers=1`",
    )


def stop() -> None:
    """End the processes of this one that are at work; nobody waits for them any more."""
    while _busy:
        _busy.pop().kill()


def libraries() -> dict[str, str]:
    """The versions of Python and of the libraries that are installed here."""
    return {"Python": platform.python_version()} | {name: _version(name) for name in LIBRARIES}


@functools.cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _start(root: Path) -> Process:
    engine, own = Path(__file__).parents[2], root / "src"
    return subprocess.Popen(
        [sys.executable, "-c", START, str(engine), str(own), *sys.path],
        cwd=root,
        env=os.environ | ONE_THREAD,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _refused(what: str, hint: str) -> bytes:
    return pickle.dumps((False, RetrainError(f"{_here()} {what}", hint=hint)))


def _here() -> str:
    return f"The worker on {socket.gethostname()}"


def main() -> None:
    """What the process does: one job after the other, until nobody wants more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print stays out of the answers
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            bored = threading.Timer(IDLE_SECONDS, os._exit, [0])
            bored.start()
            place, job = pickle.load(sys.stdin.buffer)
            bored.cancel()
            pickle.dump(_answer(place, job), answers)
            answers.flush()
    os._exit(0)


def _answer(place: Place, job: bytes) -> bytes:
    try:
        _check(place)
        work, argument = pickle.loads(job)
        return pickle.dumps((True, work(argument)))
    except Exception as error:
        error.add_note(f"{_here()}:\n{traceback.format_exc()}")
        try:
            return pickle.dumps((False, error))
        except Exception:  # some libraries' errors don't travel
            return pickle.dumps((False, RuntimeError(traceback.format_exc())))


def _check(place: Place) -> None:
    """Raises RetrainError where the same job would give another model."""
    here: dict[str, Any] = libraries()
    if other := [name for name, number in place.versions.items() if here[name] != number]:
        differences = [f"{name} {here[name]} and not {place.versions[name]}" for name in other]
        raise RetrainError(
            f"{_here()} has {', '.join(differences)}: its models would be others.",
            hint="install the same on all workers: pip install -c constraints.txt -e .",
        )
    if all_code(place.root) != place.code:
        raise RetrainError(
            f"{_here()} has other code of the engine or of src/ than this command.",
            hint="run the command again if something was edited meanwhile; else install this "
            "project's engine in the workers' environment: pip install -c constraints.txt -e .",
        )
