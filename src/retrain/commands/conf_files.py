"""Changes of files under `conf/`: made in memory, shown as a diff, written when all are known."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from retrain.report.terminal import printable
from retrain.workspace import write_text

CONF = Path("conf")


def read(files: Mapping[Path, str], path: Path) -> str:
    """The text of a file, as it is already to become."""
    return files[path] if path in files else path.read_text(encoding="utf-8")


def show_and_write(files: Mapping[Path, str]) -> None:
    """Print what changes, and write it."""
    for path, text in files.items():
        old = path.read_text(encoding="utf-8")
        lines = difflib.unified_diff(
            old.splitlines(), text.splitlines(), str(path), str(path), n=1, lineterm=""
        )
        for line in lines:
            print(printable(line))
    for path, text in files.items():
        write_text(path, text)
