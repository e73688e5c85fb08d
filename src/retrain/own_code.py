"""The code that `_target_` names in the configuration: DVC's stages depend on its digest, wherever in the project it lies."""

from __future__ import annotations

import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Groups of the configuration whose `_target_` a stage runs.
GROUPS = ("data", "model", "strategy", "policy", "gate")


def code_digests(content: Mapping[str, Any], root: Path) -> dict[str, str]:
    """Digest by config group of the code in the project that its `_target_` entries name; empty where there is none.

    Of this project's own engine that is the module, of any other package below `root` the whole package, since its
    modules import each other. Installed packages are not looked into: `constraints.txt` pins them.

    Parameters
    ----------
    content
        The resolved configuration as plain containers.
    root
        The project's root.
    """
    return {group: _digest(_files(content.get(group), root), root) for group in GROUPS}


def _files(node: Any, root: Path) -> set[Path]:
    return {file for target in set(_targets(node)) for file in _code_of(target, root)}


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` at any depth, and the paths that `hydra.utils.get_object` and its like are given."""
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
    if package == __name__.partition(".")[0]:
        return _module_file(found.parent, rest.split("."))
    return sorted(
        path
        for path in found.parent.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def _is_installed(path: Path) -> bool:
    """Whether a file is of an environment, which mostly lies in the project's own folder: its files differ from clone to clone."""
    standard = Path(sysconfig.get_paths()["stdlib"]).resolve()
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or path.is_relative_to(
        standard
    )


def _origin(package: str) -> Path | None:
    """Where a top-level package or module lies; None when it can't be found, which building it will say better."""
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
        module = folder.joinpath(*parts[:length]).with_suffix(".py")
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
