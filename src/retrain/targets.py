"""Which classes and functions may be built: those that the project's own configuration names.

What enters the program as a person's configuration (`conf/` with the command line, or the
`params.yaml` made of it) is registered here, name by name, and Hydra builds nothing else. So a name
that comes out of the tracking store, a ledger or a study is never run, whatever it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retrain.errors import ConfigError

# Keys whose value may be the dotted name of a class, function or object.
NAMING = ("_target_", "path", "metric")
LOGGING = ("class", "()")  # the same where Hydra sets up logging
# Their functions change files and processes, and make nothing that a configuration could need.
# Hydra refuses others by itself (`builtins.eval`, `pickle.load`, ...).
_NEVER = ("builtins", "nt", "os", "posix", "shutil", "sys")

_allowed: set[str] = set()


def named_code(node: Any, keys: Sequence[str] = NAMING) -> Iterator[str]:
    """Every dotted name of code in a part of the configuration, at any depth."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in keys and isinstance(value, str):
                yield value
            else:
                yield from named_code(value, keys)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for value in node:
            yield from named_code(value, keys)


def allow(node: Any) -> None:
    """Let what a part of the project's own configuration names be built, in this process."""
    for name in named_code(node):
        parts = name.split(".")  # of a path of files, too, which no name of code is
        if all(map(str.isidentifier, parts)) and parts[0] not in _NEVER:
            _allowed.add(name)


def allowed(node: Any, key: str) -> list[str]:
    """Those names, as Hydra's list of targets that it builds. Raises ConfigError for a node that
    names another."""
    for name in named_code(node, NAMING[:1]):
        if name.partition(".")[0] in _NEVER:
            raise ConfigError(
                f"`{key}` names {name}, which changes files or processes, and is never run from a "
                "configuration.",
                hint="wrap what you need of it in a function of src/project/, and name that",
            )
        if name not in _allowed:
            raise ConfigError(
                f"`{key}` names {name}, which this project's own configuration does not: nothing "
                "else is run.",
                hint="name it in a file under conf/",
            )
    return sorted(_allowed)
