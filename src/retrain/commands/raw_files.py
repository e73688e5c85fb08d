"""Raw files of one's own: DVC keeps them, so that git doesn't, and a second clone has them too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from retrain.lazy import sqlalchemy

INCOMING = Path("data/incoming")
PLACEHOLDER = INCOMING / ".gitkeep"


def keep(paths: Iterable[Path]) -> list[str]:
    """Put files or folders that lie in the project under DVC; returns a line for each, on what was
    done or why not.

    Anything in `data/incoming` stands for that whole folder, so that the next file there is kept as
    well. What git or DVC keeps already is left alone.
    """
    root = Path.cwd()
    relative = [path.relative_to(root) if path.is_relative_to(root) else path for path in paths]
    inside = [path for path in relative if not path.is_absolute() and path != Path()]
    targets = dict.fromkeys(INCOMING if path.is_relative_to(INCOMING) else path for path in inside)
    if not targets or not Path(".dvc").is_dir():
        return []
    return [line for target in targets if (line := _keep(target))]


def leave_out(database: str) -> list[str]:
    """Keep a database that is a file in the project out of git; a line on that.

    Not under DVC: it goes on changing, and a checkout would put an older one in its place.
    """
    file = sqlalchemy.engine.make_url(database).database
    path = Path(os.path.abspath(file)) if file else Path("/")
    if not path.is_file() or not path.is_relative_to(Path.cwd()):
        return []
    inside = path.relative_to(Path.cwd()).as_posix()
    if _git("ls-files", "--", inside):
        return [f"{inside} is in git, and stays there"]
    if not _git("check-ignore", "--", inside) and Path(".git").exists():
        with Path(".gitignore").open("a", encoding="utf-8") as ignored:
            ignored.write("/" + re.sub(r"[\\\[\]*?# ]", r"\\\g<0>", inside) + "*\n")
    return [f"{inside} not by git, nor by DVC since it goes on changing: bring it to each clone"]


def _keep(target: Path) -> str | None:
    if target.with_name(f"{target.name}.dvc").is_file():
        return None
    tracked = [name for name in _git("ls-files", "-z", "--", str(target)).split("\0") if name]
    if any(name != PLACEHOLDER.as_posix() for name in tracked):
        return f"{target} is in git, and stays there"
    if target == INCOMING:
        _git("rm", "-q", "--cached", "--ignore-unmatch", "--", str(PLACEHOLDER))
        PLACEHOLDER.unlink(missing_ok=True)
    result = subprocess.run(
        [sys.executable, "-m", "dvc", "add", "-q", "--", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        why = " ".join(result.stderr.split()).removeprefix("ERROR: ") or "dvc add failed"
        return (
            f"{target} is not kept by DVC ({why}): keep it out of git yourself, and bring it to "
            "each clone"
        )
    return f"{target} by DVC, not git: `dvc push` shares it"


def _git(*arguments: str) -> str:
    """What git prints; nothing when it fails, as outside a repository."""
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return result.stdout if result.returncode == 0 else ""
