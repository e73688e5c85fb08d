"""Jobs for workers to import."""

from __future__ import annotations

import os
import signal
from importlib import import_module
from pathlib import Path


def dies_once(number: int, folder: Path, with_worker: bool = False) -> tuple[int, str]:
    """Takes its process along, or the worker too, the first time that the third job is tried."""
    if number == 2 and not (folder / "died").exists():
        (folder / "died").touch()
        if with_worker:
            os.kill(os.getppid(), signal.SIGKILL)
        os._exit(1)
    return number * number, os.getcwd()


def own_number(module: str) -> int:
    """What a module of the project says."""
    number: int = import_module(module).NUMBER
    return number
