"""What a configured value may be, written as its type: `batches: PositiveCount`, `detector: Literal["k_of_n", "adwin"]`.

The types stand in the dataclasses of `retrain.config` and in the signatures of the classes that a `_target_` names, also in
those of a class of your own. All of them are checked when `conf/` is composed, before anything is built or read.
"""

from __future__ import annotations

import enum
import functools
import inspect
import logging
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Literal, Union

from annotated_types import Ge, Gt, Le, Lt, MinLen
from omegaconf import MISSING


@dataclass(frozen=True)
class Written:
    """A text has to match a pattern; `like` shows it to a person."""

    pattern: str
    like: str


Count = Annotated[int, Ge(0)]
PositiveCount = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
Finite = Annotated[float, Ge(-sys.float_info.max), Le(sys.float_info.max)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Gt(0), Lt(1)]  # neither nothing nor everything
ShareOrAll = Annotated[float, Ge(0), Le(1)]
Confidence = Annotated[float, Ge(0.5), Lt(1)]
Name = Annotated[str, MinLen(1)]
# As long as the calendar allows, counted back from any date that a table may hold.
_DURATION = r"\s*0*(?:[1-9]\d{0,5}h|[1-9]\d{0,4}d|[1-9]\d{0,3}w)\s*"
Duration = Annotated[str, Written(_DURATION, "12h, 90d or 8w, of at most 999999h, 99999d or 9999w")]


# What may stand in a node beside the arguments of its class: what the gate makes of a check's answer.
BESIDE = {"on_failure", "skip_if_unfit"}


@dataclass(frozen=True)
class Misfit:
    """A configured value outside of what its key may hold."""

    key: str
    value: Any
    demand: str

    def __str__(self) -> str:
        written_out = (
            isinstance(self.value, float)
            and self.value.is_integer()
            and "whole number" in self.demand
        )
        as_number = f" (write {self.value:.0f}, without `.` or `e`)" if written_out else ""
        said = "null" if self.value is None else repr(self.value)
        return f"`{self.key}` is {said}, but must be {self.demand}{as_number}"


def find_misfits(schema: type, content: Mapping[str, Any], key: str = "") -> Iterator[Misfit]:
    """Every value that does not fit, of a dataclass given as plain content and of all `_target_` nodes inside it."""
    hints = _hints(schema)
    for field in fields(schema):
        if field.name in content:
            inner = f"{key}.{field.name}" if key else field.name
            yield from _field_misfits(hints[field.name], content[field.name], inner)


def node_misfits(node: Any, key: str) -> Iterator[Misfit]:
    """As `find_misfits`, for a `_target_` node and those inside it. Classes of libraries check their arguments themselves."""
    if isinstance(node, Mapping):
        target = _load(node["_target_"]) if "_target_" in node else None
        hints = parameters(target) if target is not None else {}
        known = taken(target) if target is not None else None
        for name, value in node.items():
            if (
                known is not None
                and name not in known
                and not name.startswith("_")
                and name not in BESIDE
            ):
                takes = (
                    f"{target.__name__} takes {', '.join(sorted(known))}"
                    if known
                    else f"{target.__name__} takes nothing"
                )
                yield Misfit(f"{key}.{name}", value, f"left out: {takes}")
            elif name in hints and not fits(hints[name], value):
                yield Misfit(f"{key}.{name}", value, describe(hints[name]))
            else:
                yield from node_misfits(value, f"{key}.{name}")
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from node_misfits(value, f"{key}[{number}]")


@functools.cache
def taken(target: Callable[..., Any]) -> frozenset[str] | None:
    """The names that a class or function takes, None when it takes any."""
    names: set[str] = set()
    for function in _initializers(target) if inspect.isclass(target) else [target]:
        try:
            found = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return None
        names |= {
            one.name for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        }
        if not any(one.kind is one.VAR_KEYWORD for one in found):
            return frozenset(names - {"self"})
    return None if names else frozenset()


@functools.cache
def parameters(target: Callable[..., Any]) -> dict[str, Any]:
    """The types of what a class or function takes by name, those of its base classes included where it passes `**` on to them."""
    hints: dict[str, Any] = {}
    for function in _initializers(target) if inspect.isclass(target) else [target]:
        try:
            taken = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # built in
            break
        for one in taken:
            if (
                one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
                and one.annotation is not one.empty
            ):
                hints.setdefault(one.name, _evaluate(one.annotation, function))
        if not any(one.kind is one.VAR_KEYWORD for one in taken):
            break
    return hints


def fits(hint: Any, value: Any) -> bool:
    """Whether a plain value is of a type and in its range. True for types that say nothing about plain values."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return fits(inner[0], value) and all(_meets(value, demand) for demand in inner[1:])
    if origin in (Union, types.UnionType):
        return any(fits(one, value) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if typing.is_typeddict(hint):
        known = _hints(hint)
        return (
            isinstance(value, Mapping)
            and set(value) == set(known)
            and all(fits(known[name], value[name]) for name in known)
        )
    if origin in (list, Sequence):
        return isinstance(value, (list, tuple)) and all(fits(inner[0], one) for one in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(inner[1], one) for one in value.values())
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return isinstance(value, hint) or value in hint.__members__
    if is_dataclass(hint):
        return isinstance(value, Mapping)
    if hint in (int, float, str, bool, type(None)):
        return _is_plain(hint, value)
    return True


def describe(hint: Any) -> str:
    """What a type demands, in words that go after "must be"."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated and typing.get_origin(inner[0]) in (list, Sequence):
        several = (
            " that is not empty" if any(isinstance(demand, MinLen) for demand in inner[1:]) else ""
        )
        return f"a list{several}, each {describe(typing.get_args(inner[0])[0])}"
    if origin is Annotated:
        finite = inner[1:] == typing.get_args(Finite)[1:]
        demands = [] if finite else [_say(demand) for demand in inner[1:]]
        said = " and ".join(filter(None, demands)).replace(" and of ", " and ")
        return " ".join(filter(None, [describe(inner[0]), said]))
    if origin in (Union, types.UnionType):
        said = sorted((describe(one) for one in inner), key=lambda text: text == "null")
        return (", or " if any(" or " in one or "," in one for one in said) else " or ").join(said)
    if origin is Literal:
        return ("one of " if len(inner) > 1 else "") + ", ".join(map(str, inner))
    if typing.is_typeddict(hint):
        known = _hints(hint)
        return " and ".join(f"`{name}:` {describe(one)}" for name, one in known.items())
    if origin in (list, Sequence):
        return f"a list, each {describe(inner[0])}"
    if origin in (dict, Mapping):
        return "keys with values" + (f", each {describe(inner[1])}" if inner[1] is not Any else "")
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return f"one of {', '.join(hint.__members__)}"
    if is_dataclass(hint):
        return f"keys with values ({', '.join(one.name for one in fields(hint))})"
    names = {
        int: "a whole number",
        float: "a finite number",
        str: "a text (in quotes where YAML would read it as something else)",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(hint, getattr(hint, "__name__", str(hint)))


@functools.cache
def _hints(schema: Any) -> dict[str, Any]:
    return typing.get_type_hints(schema, include_extras=True)


def _field_misfits(hint: Any, value: Any, key: str) -> Iterator[Misfit]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint) and isinstance(value, Mapping):
        yield from find_misfits(hint, value, key)
    elif origin is dict and is_dataclass(inner[1]) and isinstance(value, Mapping):
        for name, one in value.items():
            yield from _field_misfits(inner[1], one, f"{key}.{name}")
    elif value != MISSING:  # of those OmegaConf says that they are missing
        if not fits(hint, value):
            yield Misfit(key, value, describe(hint))
        else:
            yield from node_misfits(value, key)


def _is_plain(kind: type, value: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if (
        kind is str
    ):  # YAML reads 2024 as a number: where a text is meant, it is one; but NO or 1e3 can't be told any more
        return type(value) in (str, int)
    return type(value) is kind


def _meets(value: Any, demand: Any) -> bool:
    if isinstance(demand, Ge):
        return value >= demand.ge
    if isinstance(demand, Gt):
        return value > demand.gt
    if isinstance(demand, Le):
        return value <= demand.le
    if isinstance(demand, Lt):
        return value < demand.lt
    if isinstance(demand, MinLen):
        return len(str(value) if isinstance(value, int) else value) >= demand.min_length
    return not isinstance(demand, Written) or bool(re.fullmatch(demand.pattern, str(value)))


def _say(demand: Any) -> str:
    if isinstance(demand, MinLen):
        return (
            "that is not empty"
            if demand.min_length == 1
            else f"with at least {demand.min_length} values"
        )
    if isinstance(demand, Written):
        return f"like {demand.like}"
    words = {
        Ge: "of at least {0.ge}",
        Gt: "above {0.gt}",
        Le: "of at most {0.le}",
        Lt: "below {0.lt}",
    }
    return words[type(demand)].format(demand) if type(demand) in words else ""


def _initializers(target: type) -> Iterator[Callable[..., Any]]:
    for base in target.__mro__:
        if base is not object and "__init__" in vars(base):
            yield vars(base)["__init__"]


def _evaluate(annotation: Any, function: Callable[..., Any]) -> Any:
    """An annotation as a type; Any for one that only type checkers can see."""
    stub = types.SimpleNamespace(__annotations__={"value": annotation})
    try:
        return typing.get_type_hints(
            stub, getattr(function, "__globals__", {}), include_extras=True
        )["value"]
    except (NameError, TypeError):
        return Any


def _silent(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Error getting")


@functools.cache
def _load(target: Any) -> Callable[..., Any] | None:
    """What a `_target_` names, if it is the project's own; None for a library's, which can take seconds to import, and for what
    can't be loaded: building it says why."""
    from hydra.utils import get_object

    logging.getLogger("hydra.utils").addFilter(
        _silent
    )  # it would say in three lines what building says in one
    package = str(target).partition(".")[0]
    try:
        found = find_spec(package)
        if found is None or (package != "retrain" and "site-packages" in str(found.origin)):
            return None
        return get_object(str(target))
    except (ImportError, ValueError):  # Hydra makes one of these of whatever importing raises
        return None
