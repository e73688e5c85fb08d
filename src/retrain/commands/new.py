"""`retrain new`: write a fresh project that runs on the installed engine."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import retrain
from retrain.errors import DataError, RetrainError

# What of this repository a project is made of. The wheel holds a copy of each (pyproject.toml,
# `force-include`).
TEMPLATE = (
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
    "conf",
    "constraints.txt",
    "data/incoming/.gitkeep",
    "dvc.yaml",
    "src/project",
    "tests/project",
)
PYPROJECT = """\
# Tests and style of this project. The engine, retrain, is an installed package.
[tool.pytest.ini_options]
pythonpath = ["src"]
testpaths = ["tests"]

[tool.ruff]
line-length = 100
"""
README = """\
# {name}

A model that is retrained as labelled data arrives, on the engine retrain {version}.

```bash
dvc repro
```

trains and promotes a first champion; `retrain status` shows who serves and what to do next.
`retrain init FILE --target COLUMN --time COLUMN` chooses your own data.

| | |
|---|---|
| `conf/` | every choice: data, model, strategy (how), policy (when), gate (whether) |
| `src/project/` | your own source, features and extensions, with tests in `tests/project/` |
| `data/incoming/` | one file a batch |
| `dvc.yaml` | the stages |

A newer engine: install its wheel (`pip install -U -c constraints.txt WHEEL`), then
`retrain config && dvc repro`: the stages whose code has changed run once more.
"""


def run(options: argparse.Namespace) -> None:
    """Write the project, with git and DVC set up and a first commit.

    Raises DataError when the folder holds something already, RetrainError when git fails. The
    folder is then as it was before.
    """
    folder = options.folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} is there already and not empty.",
            hint="name a folder that is new or empty",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
        made = Path(scratch) / "project"
        _write(made, folder.name)
        _commit(made)
        made.rename(folder)
    print(f"Made         {folder}, a git repository with DVC")
    print(f"Next         cd {shlex.quote(str(folder))} && dvc repro")


def _template() -> Path:
    """The wheel's copy of the template; in a clone the repository itself."""
    engine = Path(retrain.__file__).resolve().parent
    packed = engine / "template"
    return packed if packed.is_dir() else engine.parents[1]


def _write(made: Path, name: str) -> None:
    ours = shutil.ignore_patterns("__pycache__", "local")  # conf/local/ is one person's
    for part in TEMPLATE:
        source, target = _template() / part, made / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=ours)
        else:
            shutil.copy(source, target)
    text = README.format(name=name, version=retrain.__version__)
    (made / "README.md").write_text(text, encoding="utf-8")
    (made / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")


def _commit(made: Path) -> None:
    known = subprocess.run(["git", "config", "user.email"], capture_output=True, check=False)
    nobody = ["-c", "user.name=retrain", "-c", "user.email=retrain@localhost"]
    identity = [] if known.returncode == 0 else nobody
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "New project"]):
        done = subprocess.run(
            ["git", *identity, *command], cwd=made, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RetrainError(f"`git {command[0]}` failed: {done.stderr.strip()}")
