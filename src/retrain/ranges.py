"""What a configured value may be, written as its type: `batches: PositiveCount`, `detector:
Literal["k_of_n", "adwin"]`.

The types stand in the dataclasses of `retrain.config` and in the signatures of the classes that a
`_target_` names, also in those of a class of your own. All of them are checked when `conf/` is
composed, before anything is built or read.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from importlib.util import find_spec
from typing import Annotated, Any, NamedTuple, TypeVar

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Strict,
    TypeAdapter,
    ValidationError,
)
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails, PydanticCustomError

from retrain.lazy import hydra

Kind = TypeVar("Kind")


def _whole_number_as_text(value: Any) -> Any:
    """YAML reads 2024 as a number: where a text is meant, it is one. NO or 1e3 can't be told any
    more, and are refused."""
    return str(value) if type(value) is int else value


def like(pattern: str, example: str) -> AfterValidator:
    """Demands of a text that it matches a pattern; the example shows it to a person."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise PydanticCustomError(
                "like", "Input should be like {example}", {"example": example}
            )
        return text

    return AfterValidator(check)


Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Ge(0), Le(10**12)]  # more than any table has rows
PositiveCount = Annotated[int, Strict(), Ge(1), Le(10**12)]
Seed = Annotated[int, Strict(), Ge(0), Le(2**32 - 1)]
Finite = Annotated[float, Strict(), Ge(-sys.float_info.max), Le(sys.float_info.max)]
Positive = Annotated[float, Strict(), Gt(0)]
NonNegative = Annotated[float, Strict(), Ge(0)]
Share = Annotated[float, Strict(), Gt(0), Lt(1)]  # neither nothing nor everything
ShareOrAll = Annotated[float, Strict(), Ge(0), Le(1)]
Confidence = Annotated[float, Strict(), Ge(0.5), Lt(1)]
Text = Annotated[str, Strict(), BeforeValidator(_whole_number_as_text)]
Name = Annotated[str, Strict(), MinLen(1), BeforeValidator(_whole_number_as_text)]
# As long as the calendar allows, counted back from any date that a table may hold.
_DURATION = r"\s*0*(?:[1-9]\d{0,5}h|[1-9]\d{0,4}d|[1-9]\d{0,3}w)\s*"
Duration = Annotated[str, like(_DURATION, "12h, 90d or 8w, of at most 999999h, 99999d or 9999w")]

# What may stand in a node beside the arguments of its class: what the gate makes of a check's
# answer.
BESIDE = {"on_failure", "skip_if_unfit"}


class Misfit(NamedTuple):
    """A configured value outside of what its key may hold."""

    key: str
    problem: str

    def __str__(self) -> str:
        return f"`{self.key}` {self.problem}"


class Arguments(NamedTuple):
    """What a class or function takes by name, with its type; `others`: whether it takes any name
    beside those."""

    types: Mapping[str, Any]
    others: bool


def find_misfits(hint: Any, value: Any, key: str = "") -> list[Misfit]:
    """What in a plain value is not of a type and in its range. Types that say nothing about plain
    values take any."""
    try:
        adapter(hint).validate_python(value)
    except PydanticUserError:
        return []
    except ValidationError as error:
        details = error.errors(include_url=False)
        if len(details) > 1 and typing.get_origin(hint) in (types.UnionType, typing.Union):
            said = " or ".join(dict.fromkeys(one["msg"] for one in details))
            return [Misfit(key, f"is {value!r}: {said}")]
        return [Misfit(_inner(key, one["loc"]), _describe(one)) for one in details]
    return []


def node_misfits(node: Any, key: str = "") -> Iterator[Misfit]:
    """The arguments that do not fit, of a `_target_` node and those inside it. Classes of libraries
    check theirs themselves."""
    if isinstance(node, Mapping):
        taken = arguments(str(node["_target_"])) if "_target_" in node else None
        for name, value in node.items():
            inner = _inner(key, [str(name)])
            found = _argument_misfits(str(name), value, taken, inner) if taken else []
            yield from found or node_misfits(value, inner)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from node_misfits(value, _inner(key, [number]))


def _argument_misfits(name: str, value: Any, taken: Arguments, key: str) -> list[Misfit]:
    if name in taken.types:
        return find_misfits(taken.types[name], value, key)
    if taken.others or name.startswith("_") or name in BESIDE:
        return []
    known = ", ".join(sorted(taken.types)) or "nothing"
    return [Misfit(key, f"is {value!r}, but must be left out: its class takes {known}")]


def _inner(key: str, path: Iterable[int | str]) -> str:
    for part in path:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def _describe(error: ErrorDetails) -> str:
    value = error["input"]
    if error["type"] == "missing":
        return "has no value"
    if error["type"] == "unexpected_keyword_argument":
        return f"(value {value!r}) is not a key that this project knows"
    quotes = ", in quotes where YAML reads it as something else"
    said = re.sub(r" or an instance of \w+", "", error["msg"])  # no class of the engine
    said += quotes if error["type"] == "string_type" else ""
    return f"is {'null' if value is None else repr(value)}: {said}"


@functools.cache
def adapter(hint: type[Kind]) -> TypeAdapter[Kind]:
    """What checks plain values against a type: a section of the configuration, or the type of an
    argument.

    Raises PydanticUserError for a class, which no plain value is.
    """
    strict: ConfigDict = {"strict": True, "allow_inf_nan": False}
    return TypeAdapter(hint, config=None if is_dataclass(hint) else strict)


@functools.cache
def arguments(target: str) -> Arguments | None:
    """What the class or function of a dotted name takes, with what its base classes take where it
    passes `**` on to them.

    None for one of a library, and for what can't be loaded: building it says why.
    """
    found = _load(target)
    hints: dict[str, Any] = {}
    if found is None:
        return None
    for function in _initializers(found) if inspect.isclass(found) else [found]:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # built in
            return Arguments(hints, True)
        for one in parameters:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.name != "self":
                hints.setdefault(one.name, _evaluate(one.annotation, function))
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            return Arguments(hints, False)
    return Arguments(hints, bool(hints))


def _initializers(target: type) -> Iterator[Callable[..., Any]]:
    for base in target.__mro__:
        if base is not object and "__init__" in vars(base):
            yield vars(base)["__init__"]


def _evaluate(annotation: Any, function: Callable[..., Any]) -> Any:
    """An annotation as a type; Any for none, and for one that only type checkers can see."""
    if annotation is inspect.Parameter.empty:
        return Any
    stub = types.SimpleNamespace(__annotations__={"value": annotation})
    try:
        return typing.get_type_hints(
            stub, getattr(function, "__globals__", {}), include_extras=True
        )["value"]
    except (NameError, TypeError):
        return Any


def _silent(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Error getting")


def _load(target: str) -> Callable[..., Any] | None:
    """What a `_target_` names, if it is the project's own: a library can take seconds to import."""
    # It would say in three lines what building says in one.
    logging.getLogger("hydra.utils").addFilter(_silent)
    package = target.partition(".")[0]
    try:
        found = find_spec(package)
        if found is None or (package != "retrain" and "site-packages" in str(found.origin)):
            return None
        loaded: Callable[..., Any] = hydra.utils.get_object(target)
        return loaded
    except (ImportError, ValueError):  # Hydra makes one of these of whatever importing raises
        return None
