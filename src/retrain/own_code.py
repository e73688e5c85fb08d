"""Digests of the code that DVC's stages depend on: the engine's, and the project's own."""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrain import MODULE_OF
from retrain.targets import named_code

PACKAGE = __name__.partition(".")[0]
Nodes = Callable[[ast.AST], Iterator[ast.AST]]

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
        "pipeline/plan.py",
        "pipeline/policy_context.py",
        "pipeline/predictions.py",
        "pipeline/stores.py",
        "pipeline/train.py",
        "registry",
    ),
    "evaluate": (
        "data/windows.py",
        "gate",
        "models/block_sums.py",
        "models/metric.py",
        "models/metrics",
        "models/scoring.py",
        "pipeline/evaluate.py",
        "pipeline/loop.py",
        "pipeline/predictions.py",
    ),
    "promote": ("gate", "pipeline/loop.py", "pipeline/promote.py", "report"),
}


def code_digests(content: Mapping[str, Any], root: Path) -> dict[str, str]:
    """Digests of the code that stages run: the project's own by config group, the engine's by
    stage.

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
    return groups | {stage: engine_digest(names) for stage, names in ENGINE.items()}


def engine_digest(names: tuple[str, ...]) -> str:
    """Digest of some modules and folders of the engine, by their paths in it."""
    return _engine_digest(names, Path(__file__).resolve().parent)


@functools.cache  # the process goes on with the code that it has loaded
def _engine_digest(names: tuple[str, ...], here: Path) -> str:
    files = (file for name in names for file in _engine_files(here / name))
    return digest_files(files, here)


@functools.cache  # the same
def all_code(root: Path) -> str:
    """Digest of the whole engine and of the project's own modules in `root`/src: whether another
    process runs the same."""
    here, own = Path(__file__).resolve().parent, root.resolve() / "src"
    engine = [path for path in here.rglob("*.py") if "template" not in path.relative_to(here).parts]
    project = [path for path in own.rglob("*.py") if not path.is_relative_to(own / PACKAGE)]
    return f"{digest_files(engine, here)} {digest_files(project, own)}"


def _engine_files(path: Path) -> Iterator[Path]:
    """A module, or all modules and templates of a folder."""
    if path.is_file():
        return iter([path])
    return (file for kind in ("*.py", "*.j2") for file in path.rglob(kind))


def own_modules(names: Iterable[str], root: Path) -> dict[str, Path]:
    """Module name -> file of the code below `root` behind some dotted names, and of what it
    imports. Imports nothing."""
    folders = _folders(root)
    return _modules(names, lambda top: () if top == PACKAGE else folders, ast.walk)


def modules_to_load(names: Iterable[str], root: Path) -> dict[str, Path]:
    """The same of all that runs where classes and functions of these names are imported: with the
    engine's, and without what is imported for type checkers alone."""
    folders, engine = _folders(root), [Path(__file__).resolve().parents[1]]
    return _modules(names, lambda top: engine if top == PACKAGE else folders, _running)


def imported_packages(modules: Mapping[str, Path]) -> set[str]:
    """The top names of what some modules import when they run, the standard library's left out."""
    imported = (name for item in modules.items() for name in _imports(*item, _running))
    own = {name.partition(".")[0] for name in modules}
    return {name.partition(".")[0] for name in imported} - own - sys.stdlib_module_names


def _modules(
    names: Iterable[str], folders: Callable[[str], Sequence[Path]], nodes: Nodes
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        name = MODULE_OF.get(
            name.removeprefix(f"{PACKAGE}."), name
        )  # where `from retrain import` looks
        for module, path in _modules_on_the_way(name, folders(name.partition(".")[0])):
            if module not in found:
                found[module] = path
                waiting += _imports(module, path, nodes)
    return found


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, without what stands below `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not typing_only:
            yield node
            yield from _running(node)


def defined_names(modules: Mapping[str, Path]) -> list[str]:
    """Dotted names of the classes and functions that some modules define: what a stored model may
    hold of them."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    return [
        f"{module}.{node.name}"
        for module, path in sorted(modules.items())
        for node in _parsed(path).body
        if isinstance(node, kinds)
    ]


def _modules_on_the_way(name: str, folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The packages that a dotted name goes through, and the module where it ends."""
    parts = name.split(".")
    for place in folders if all(parts) else ():
        if not (place / parts[0]).is_dir() and not (place / f"{parts[0]}.py").is_file():
            continue
        for number, part in enumerate(parts, start=1):
            folder = place / part
            path = folder / "__init__.py" if folder.is_dir() else place / f"{part}.py"
            if path.is_file():
                yield ".".join(parts[:number]), path
            if not folder.is_dir():
                return
            place = folder
        return


def _folders(root: Path) -> list[Path]:
    """Where the project's own modules are imported from, `src/` first as on the path of every
    command.

    Nothing of an environment, which often lies in the project's folder and differs from clone to
    clone, and nothing of another clone that is installed in it.
    """
    standard = Path(sysconfig.get_paths()["stdlib"]).resolve()
    folders = dict.fromkeys(Path(entry).resolve() for entry in [str(root / "src"), *sys.path])
    return [
        folder
        for folder in folders
        if folder.is_relative_to(root.resolve())
        and not {"site-packages", "dist-packages"} & {*folder.parts}
        and not folder.is_relative_to(standard)
    ]


def _imports(module: str, path: Path, nodes: Nodes) -> Iterator[str]:
    """The dotted names that a module imports, wherever in it."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes(_parsed(path)):
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


def _digest(modules: Iterable[Path], root: Path) -> str:
    files = set(modules)
    for folder in {path.parent for path in files}:
        files |= {
            path
            for path in folder.iterdir()
            if path.is_file() and path.suffix not in (".py", ".pyc")
        }
    return digest_files(files, root)


def digest_files(files: Iterable[Path], root: Path) -> str:
    """16 hex digits for files by name and content; empty for none."""
    digest, found = hashlib.sha256(), sorted(set(files))
    for path in found:
        digest.update(f"{path.relative_to(root.resolve()).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16] if found else ""
