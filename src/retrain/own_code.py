"""Digests of the code that DVC's stages depend on: the engine, and what `_target_` entries name."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Groups of the configuration whose `_target_` a stage runs.
GROUPS = ("data", "model", "strategy", "policy", "gate")

# What of the engine a stage runs. A stage of dvc.yaml depends on the digest of these and on no file
# of the engine: so it is one dependency, also when the engine is an installed package.
ENGINE = {
    "snapshot": ("data", "pipeline/snapshot.py"),
    "train": (
        "data/windows.py",
        "models",
        "monitoring",
        "pipeline/observe.py",
        "pipeline/train.py",
        "registry",
    ),
    "evaluate": ("data/windows.py", "gate", "models/metrics.py", "pipeline/evaluate.py"),
    "promote": ("gate", "pipeline/promote.py", "report"),
}


def code_digests(content: Mapping[str, Any], root: Path) -> dict[str, str]:
    """Digests of the code that stages run: the engine's by stage, `_target_` entries' by group.

    A group's digest is empty where its entries name no code of the project. Of the engine it covers
    the module, of any other package below `root` that module, those of the package that it imports,
    and the package's other files. Installed packages are not looked into: `constraints.txt` pins
    them.

    Parameters
    ----------
    content
        The resolved configuration as plain containers.
    root
        The project's root.
    """
    groups = {group: _digest(_files(content.get(group), root), root) for group in GROUPS}
    return groups | {stage: _engine_digest(names) for stage, names in ENGINE.items()}


def _engine_digest(names: Sequence[str]) -> str:
    here = Path(__file__).resolve().parent
    return _digest({file for name in names for file in _python_files(here / name)}, here)


def _python_files(path: Path) -> Iterator[Path]:
    """A module, or all modules and templates of a folder."""
    if path.is_file():
        return iter([path])
    return (file for kind in ("*.py", "*.j2") for file in path.rglob(kind))


def _files(node: Any, root: Path) -> set[Path]:
    return {file for target in set(_targets(node)) for file in _code_of(target, root)}


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` at any depth, and the paths that `hydra.utils.get_object` is given."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ("_target_", "path") and isinstance(value, str):
                yield value
            else:
                yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _code_of(target: str, root: Path) -> list[Path]:
    """The files behind a dotted name, without importing more than the packages above it."""
    package, _, rest = target.partition(".")
    if not rest or not package.isidentifier():
        return []
    found = _origin(package)
    if found is None or not found.is_relative_to(root.resolve()) or _is_installed(found):
        return []
    if found.name != "__init__.py":
        return [found]
    modules = _module_file(found.parent, rest.split("."))
    if package == __name__.partition(".")[0]:
        return modules
    return sorted(_reached(modules, found.parent)) or _all_files(found.parent)


def _reached(modules: list[Path], package: Path) -> set[Path]:
    """These modules, those of their package that they import, and its files that are no modules."""
    reached: set[Path] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        above = module.parent.relative_to(package).parts
        for length in range(len(above) + 1):
            waiting += _module_file(package.joinpath(*above[:length]), ["__init__"])
        for name in _imported(module, package):
            waiting += _module_file(package.parent, name.split("."))
    others = [path for path in _all_files(package) if path.suffix != ".py"]
    return reached.union(others) if reached else set()


def _imported(module: Path, package: Path) -> Iterator[str]:
    """Dotted names that a module imports from its own package, at its top or in a function."""
    place = (package.name, *module.parent.relative_to(package).parts)
    try:
        tree = ast.parse(module.read_bytes())
    except SyntaxError:  # building the class says it better
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(package.name))
        elif isinstance(node, ast.ImportFrom):
            above = place[: len(place) - node.level + 1] if node.level else ()
            source = ".".join([*above, *filter(None, [node.module])])
            if source.partition(".")[0] == package.name:
                yield from (f"{source}.{alias.name}" for alias in node.names)


def _all_files(package: Path) -> list[Path]:
    return sorted(
        path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )


def _is_installed(path: Path) -> bool:
    """Whether a file is of an environment, which may lie in the project: clones differ in it."""
    standard = Path(sysconfig.get_paths()["stdlib"]).resolve()
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or path.is_relative_to(
        standard
    )


def _origin(package: str) -> Path | None:
    """Where a top-level package or module lies; None where building it will fail."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.origin is None:  # a namespace package: a folder without `__init__.py`
        folder = next(iter(spec.submodule_search_locations or ()), None)
        return Path(folder).resolve() / "__init__.py" if folder else None
    return Path(spec.origin).resolve()


def _module_file(folder: Path, parts: list[str]) -> list[Path]:
    """The deepest module that a dotted name below `folder` leads to."""
    for length in range(len(parts), 0, -1):
        place = folder.joinpath(*parts[:length])
        for module in (place.with_suffix(".py"), place / "__init__.py"):
            if module.is_file():
                return [module]
    return []


def _digest(files: set[Path], root: Path) -> str:
    if not files:
        return ""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root.resolve()).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
