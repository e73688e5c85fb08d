"""Names of earlier versions. Read for one version more, with a warning that says what to write now.

`TARGETS`: classes and functions in a `_target_` or a list of trusted types; a prefix ends with a
dot. `KEYS`: keys of the configuration, in files and overrides; `**` stands for any keys between.
`COMMAND_LINE`: verbs and options.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retrain.errors import ConfigError

TARGETS = {
    "retrain.data.sparse_columns.PackedColumns": "retrain.data.sparse_columns.SparseColumns",
    "retrain.data.flights.": "project.source.",
    "retrain.modeling.preprocessing.ordinal": "project.features.ordinal",
    "retrain.modeling.preprocessing.one_hot": "project.features.one_hot",
    "retrain.modeling.": "retrain.models.",
    "retrain.promotion.checks.Limit": "retrain.gate.checks.MetricLimit",
    "retrain.promotion.guardrails.Deterioration": "retrain.gate.guardrails.NoProvenHarm",
    "retrain.promotion.guardrails.Floor": "retrain.gate.guardrails.BaselineFloor",
    "retrain.promotion.guardrails.Budget": "retrain.gate.guardrails.ResourceLimit",
    "retrain.promotion.": "retrain.gate.",
}
KEYS = {
    "monitoring.hold_back": "monitoring.hold_anomalies",
    "monitoring.release": "monitoring.accept",
    "gate.**.figure": "gate.**.resource",
    "policy.**.prior_ageing": "policy.**.prior_staleness_rate",
    "policy.**.prior_learning": "policy.**.prior_value_of_data",
    "backtest.workers": "compute.workers",
}
# Of a batch in the manifest of a snapshot.
BATCH_FIELDS = {
    "suspicions": "anomalies",
    "beside": "compared_with",
    "released": "accepted",
    "ordered": "held_by_hand",
    "accepted": "confirmed_by",
}
COMMAND_LINE = {"--drills": "--inject-faults"}
_OVERRIDE = re.compile(r"(?P<sign>[+~]*)(?P<key>[^=]+)(?P<rest>=.*)?", re.DOTALL)
log = logging.getLogger("retrain")


def current_name(name: str) -> str:
    """What a class or function is called now; the name itself where it was not renamed."""
    for old, new in TARGETS.items():
        if name == old or (old.endswith(".") and name.startswith(old)):
            return new + name[len(old) :]
    return name


def original_name(name: str) -> str:
    """What a class or function was called first: digests of recipes stay what they were."""
    for old, new in TARGETS.items():
        if name == new or (new.endswith(".") and name.startswith(new)):
            return old + name[len(new) :]
    return name


def all_names(names: Iterable[str]) -> list[str]:
    """Types that a model file may hold, under every name that they have had."""
    return list(
        dict.fromkeys(
            each
            for name in names
            for each in (current_name(name), original_name(current_name(name)))
        )
    )


def current_command_line(arguments: Sequence[str]) -> list[str]:
    """The arguments with today's verbs and options."""
    for argument in arguments:
        if argument in COMMAND_LINE:
            _warn(argument, COMMAND_LINE[argument])
    return [COMMAND_LINE.get(argument, argument) for argument in arguments]


def current_overrides(overrides: Sequence[str]) -> list[str]:
    """Overrides with today's keys. `++` sets those also where a file in `conf/` has the old key."""
    return [_current_override(override) for override in overrides]


def with_current_names(content: Any, given: Sequence[str] = ()) -> Any:
    """A resolved configuration with today's keys and classes. Warns of those that are older ones.

    Parameters
    ----------
    content
        Plain containers.
    given
        Overrides, as of `current_overrides`: they win over a file that has the old key.

    Raises
    ------
    ConfigError
        Where the files set both an old key and the one that replaces it.
    """
    set_by_hand = {override.lstrip("+~").partition("=")[0] for override in given}
    moved: dict[str, tuple[Any, str]] = {}  # to another section

    def visit(node: Any, path: str) -> Any:
        if isinstance(node, list):
            return [visit(value, path) for value in node]
        if not isinstance(node, Mapping):
            return _current_class(node, path.rpartition(".")[2])
        renamed = {}
        for name, value in node.items():
            key = f"{path}.{name}" if path else str(name)
            now = _replaced(key, KEYS)
            if now != key:
                _warn(key, now)
                section, _, name = now.rpartition(".")
                if section != path:
                    moved[now] = value, key
                    continue
                if name in node and now in set_by_hand:
                    continue
                if name in node:
                    raise _both(key, now)
            renamed[name] = visit(value, key)
        return renamed

    found = visit(content, "")
    for now, (value, old) in moved.items():
        section, _, name = now.rpartition(".")
        if found.setdefault(section, {}).get(name) is None:
            found[section][name] = value
        elif now not in set_by_hand and value is not None:
            raise _both(old, now)
    return found


def _both(old: str, now: str) -> ConfigError:
    return ConfigError(
        f"`{old}` and `{now}` are both set under conf/, and are one key.",
        hint=f"take `{old}` away: that is its old name",
    )


def with_original_names(content: Any, path: str = "") -> Any:
    """Plain configuration below `path` as the first version would have written it, for digests."""
    if isinstance(content, list):
        return [with_original_names(value, path) for value in content]
    if not isinstance(content, Mapping):
        return content
    originals = {new: old for old, new in KEYS.items()}
    written = {}
    for name, value in content.items():
        key = f"{path}.{name}" if path else str(name)
        if name == "_target_" and isinstance(value, str):
            written[name] = original_name(value)
        else:
            original = _replaced(key, originals)
            written[name if original == key else original.rpartition(".")[2]] = with_original_names(
                value, key
            )
    return written


def renamed_method(owner: type, old: str, new: str) -> None:
    """Call a class's own method `new` where it still has the old name."""
    if old in vars(owner) and new not in vars(owner):
        _warn(f"{owner.__name__}.{old}", f"{owner.__name__}.{new}")
        setattr(owner, new, vars(owner)[old])


def written_name(key: str, content: Mapping[str, Any]) -> str:
    """What a file that holds a node calls a key of it, given from the root: by its old name if it
    still has that."""
    old = _replaced(key, {new: old for old, new in KEYS.items()}).rpartition(".")[2]
    return old if old in content else key.rpartition(".")[2]


def _current_override(override: str) -> str:
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return override
    sign, key, rest = match["sign"], match["key"], match["rest"] or ""
    now = _replaced(key, KEYS)
    if now != key:
        _warn(key, now)
    elif not any(_pattern(new).fullmatch(key) for new in KEYS.values()):
        return override
    return f"{sign or '++'}{now}{rest}"


def _current_class(value: Any, key: str) -> Any:
    if not isinstance(value, str) or key not in ("_target_", "path"):
        return value
    now = current_name(value)
    if now != value:
        _warn(value, now)
    return now


def _replaced(key: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        match = _pattern(old).fullmatch(key)
        if match:
            return new.replace(".**.", match[1]) if "**" in old else new
    return key


@functools.cache
def _pattern(key: str) -> re.Pattern[str]:
    return re.compile(re.escape(key).replace(r"\.\*\*\.", r"(\.(?:[^.]+\.)*)"))


@functools.cache
def _warn(old: str, new: str) -> None:
    """Once for each name."""
    log.warning(
        "`%s` is called `%s` now. Write that: the old name goes in the next version.", old, new
    )
