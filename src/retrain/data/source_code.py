"""A digest of all the code that a source runs: of its class and those above it, and of the sources
inside it."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from retrain.data import reading
from retrain.data.sources import Source


def source_code(source: Source, node: Any) -> str:
    """Changes when a file does that defines the source, one inside it, or something else that its
    config `node` names."""
    classes = {kind for inner in _sources(source, set()) for kind in type(inner).__mro__}
    code = {path for part in (*classes, *_named(node)) if (path := _file(part)) is not None}
    code |= set(Path(reading.__file__).parent.glob("*.py"))  # what all sources read with
    digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in code)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _sources(value: Any, seen: set[int]) -> Iterator[Source]:
    """The source and all those that it holds as attributes, also in lists and dictionaries."""
    if id(value) in seen or not isinstance(value, Source | dict | list | tuple):
        return
    seen.add(id(value))
    if isinstance(value, Source):
        yield value
        parts: Iterable[Any] = getattr(value, "__dict__", {}).values()
    else:
        parts = value.values() if isinstance(value, dict) else value
    for part in list(parts):
        yield from _sources(part, seen)


def _named(node: Any) -> Iterator[Any]:
    """What the `_target_`s of a config node name, whether or not the source keeps it."""
    if isinstance(node, dict):
        if (
            isinstance(node.get("_target_"), str)
            and (found := _import(node["_target_"])) is not None
        ):
            yield found
        node = list(node.values())
    if isinstance(node, list | tuple):
        for part in node:
            yield from _named(part)


def _import(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except (ImportError, ValueError):
        return None  # such as a method of a class: the source that it made is looked at itself


def _file(part: Any) -> Path | None:
    """Where a class or function is defined; None for built-in ones and those typed into a
    prompt."""
    try:
        path = Path(inspect.getfile(part))
    except (TypeError, OSError):
        return None
    return path if path.is_file() else None
