"""Digests of the code that DVC's stages depend on: the engine's, and the project's own."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

PACKAGE = __name__.partition(".")[0]
# Keys whose value may be the dotted name of a class, function or object.
NAMING = ("_target_", "path", "metric")

# What of the engine a stage runs. A stage of dvc.yaml depends on the digest of these and on no file
# of the engine: so it is one dependency, also when the engine is an installed package.
ENGINE = {
    "snapshot": ("data", "pipeline/snapshot.py"),
    "train": (
        "data/windows.py",
        "models",
        "monitoring",
        "pipeline/loop.py",
        "pipeline/observe.py",
        "pipeline/predictions.py",
        "pipeline/train.py",
        "registry",
    ),
    "evaluate": (
        "data/windows.py",
        "gate",
        "models/metrics.py",
        "models/scoring.py",
        "pipeline/evaluate.py",
        "pipeline/loop.py",
        "pipeline/predictions.py",
    ),
    "promote": ("gate", "pipeline/loop.py", "pipeline/promote.py", "report"),
}


def code_digests(content: Mapping[str, Any], root: Path) -> dict[str, str]:
    """Digests of the code that stages run: the project's own by config group, the engine's by stage.

    A group's digest is empty where its dotted names lead to no module below `root`. A module counts
    with those that it imports, as far as they lie below `root`; files that are no Python (a table
    that a source looks things up in) count for every module of their folder. Installed packages are
    not looked into: `constraints.txt` pins them.

    Parameters
    ----------
    content
        The resolved configuration as plain containers.
    root
        The project's root.
    """
    data = content.get("data") or {}
    parts = {
        "data": {key: value for key, value in data.items() if key != "metric"},
        "metric": {"metric": data.get("metric")},
        **{group: content.get(group) for group in ("model", "strategy", "policy", "gate")},
    }
    groups = {
        group: _digest(own_modules(named_code(part), root).values(), root)
        for group, part in parts.items()
    }
    return groups | {stage: _engine_digest(names) for stage, names in ENGINE.items()}


def _engine_digest(names: Sequence[str]) -> str:
    here = Path(__file__).resolve().parent
    files = (file for name in names for file in _engine_files(here / name))
    return _digest_of(files, here)


def _engine_files(path: Path) -> Iterator[Path]:
    """A module, or all modules and templates of a folder."""
    if path.is_file():
        return iter([path])
    return (file for kind in ("*.py", "*.j2") for file in path.rglob(kind))


def named_code(node: Any) -> Iterator[str]:
    """Every dotted name of code in a part of the configuration, at any depth."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in NAMING and isinstance(value, str):
                yield value
            else:
                yield from named_code(value)
    elif isinstance(node, list):
        for value in node:
            yield from named_code(value)


def own_modules(names: Iterable[str], root: Path) -> dict[str, Path]:
    """Module name -> file of the code below `root` behind some dotted names, and of what it imports. Imports nothing."""
    found: dict[str, Path] = {}
    waiting = list(names)
    while waiting:
        for module, path in _modules_on_the_way(waiting.pop(), root):
            if module not in found:
                found[module] = path
                waiting += _imports(module, path)
    return found


def defined_names(modules: Mapping[str, Path]) -> list[str]:
    """Dotted names of the classes and functions that some modules define: what a stored model may hold of them."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    return [
        f"{module}.{node.name}"
        for module, path in sorted(modules.items())
        for node in _parsed(path).body
        if isinstance(node, kinds)
    ]


def _modules_on_the_way(name: str, root: Path) -> Iterator[tuple[str, Path]]:
    """The package that a dotted name begins with, those inside it, and the module where the name ends."""
    package, *rest = name.split(".")
    path = _origin(package, root) if package.isidentifier() and package != PACKAGE else None
    if path is None or not path.is_relative_to(root.resolve()) or _is_installed(path):
        return
    if path.is_file():
        yield package, path
    for part in rest if path.name == "__init__.py" else ():
        package, folder = f"{package}.{part}", path.parent / part
        path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        if path.is_file():
            yield package, path
        if not folder.is_dir():
            return


def _imports(module: str, path: Path) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            start = [*(above if node.level else ()), *filter(None, [node.module])]
            yield from (".".join([*start, alias.name]) for alias in node.names)


def _parsed(path: Path) -> ast.Module:
    """A file as syntax tree; an empty one where it can't be parsed: importing it says why."""
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _origin(package: str, root: Path) -> Path | None:
    """Where a top-level package or module lies, None when it can't be found: building it says why.

    The project's `src/` comes first, as on the path of every command: an environment may hold the
    package of another clone under the same name.
    """
    try:
        spec = PathFinder.find_spec(package, [str(root / "src")])
        if spec is None or spec.origin is None:
            spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.origin is None:  # a namespace package: a folder without `__init__.py`
        folder = next(iter(spec.submodule_search_locations or ()), None)
        return Path(folder).resolve() / "__init__.py" if folder else None
    return Path(spec.origin).resolve()


def _is_installed(path: Path) -> bool:
    """Whether a file is of an environment, which often lies in the project's folder and differs from clone to clone."""
    standard = Path(sysconfig.get_paths()["stdlib"]).resolve()
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or path.is_relative_to(
        standard
    )


def _digest(modules: Iterable[Path], root: Path) -> str:
    files = set(modules)
    for folder in {path.parent for path in files}:
        files |= {
            path
            for path in folder.iterdir()
            if path.is_file() and path.suffix not in (".py", ".pyc")
        }
    return _digest_of(files, root)


def _digest_of(files: Iterable[Path], root: Path) -> str:
    """16 hex digits for files by name and content; empty for none."""
    digest, found = hashlib.sha256(), sorted(set(files))
    for path in found:
        digest.update(f"{path.relative_to(root.resolve()).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16] if found else ""
