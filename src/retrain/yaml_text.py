"""YAML that is written or changed by the program: every name comes back as it was, and the rest of
a file stays as it is.

Values are quoted wherever one of the readers (Hydra's of YAML 1.1 with numbers of its own, DVC's of
YAML 1.2) could take them for something else. Changes replace the text of single values, so comments
and layout are kept.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

import yaml

from retrain.errors import ConfigError
from retrain.lazy import omegaconf, ruamel

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_\-./]*")
_WORDS = {
    "null",
    "true",
    "false",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
    "nan",
    "inf",
    "none",
    "infinity",
}
_WHOLE_NUMBER = re.compile(r"^-?(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:_[0-9]{3})+)$")
_NUMBER = re.compile(
    r"""^(?:
     [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_TAG = "tag:yaml.org,2002:"
_OTHERWISE = (f"{_TAG}int", f"{_TAG}timestamp")  # tags of which YAML 1.1 finds more than we do
_TRUTH = ("y", "yes", "n", "no", "true", "false", "on", "off")
_LONGEST_KEY = 1000  # longer ones need the explicit form


def inline(value: Any) -> str:
    """A value on one line: texts quoted where they need it, lists and dictionaries in brackets and
    braces."""
    writer = ruamel.yaml.YAML()
    writer.width, writer.default_flow_style, writer.allow_unicode = 2**31 - 1, True, True
    stream = io.StringIO()
    writer.dump(_quoted(value), stream)
    return stream.getvalue().removesuffix("...\n").rstrip("\n")


def entry(key: str, value: str, indent: str = "") -> str:
    """A line, or two for a very long key, of a mapping: `value` is YAML already."""
    text = inline(key)
    if len(text) > _LONGEST_KEY:
        return f"{indent}? {text}\n{indent}: {value}"
    return f"{indent}{text}: {value}"


def literal(value: Any) -> Any:
    """The value with its texts such that OmegaConf interpolates nothing in them."""
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", value)
    return value


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Takes a whole number for one only where its digits come back as they were written, and no
    text for a date; refuses a key that is there twice.

    By YAML 1.1 `000017` is 15, `2023_01` is 202301 and `12:30` is 750: here they are texts.
    `10_000` stays a number, and so does `1e-3`, as OmegaConf has it.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in known if tag not in _OTHERWISE]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key in (key for key, _ in node.value if key.tag == f"{_TAG}str"):
            if key.value in keys:
                where, what = "while constructing a mapping", f"found duplicate key {key.value}"
                raise yaml.constructor.ConstructorError(
                    where, node.start_mark, what, key.start_mark
                )
            keys.add(key.value)
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


_Loader.add_implicit_resolver(f"{_TAG}int", _WHOLE_NUMBER, list("-0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}float", _NUMBER, list("-+0123456789."))


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that a reader could take for a number or a truth value."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        try:
            float(data)
            quoted = True
        except ValueError:
            quoted = data.lower() in _TRUTH
        return self.represent_scalar(f"{_TAG}str", data, style="'" if quoted else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def read_as_written() -> None:
    """Let OmegaConf, and with it Hydra, read files as `load` does."""
    omegaconf.OmegaConf.load = staticmethod(_load_file)  # type: ignore[method-assign, assignment]


def _load_file(file: str | Path | IO[str], **_: Any) -> Any:
    content = load(Path(file).read_text(encoding="utf-8") if isinstance(file, str | Path) else file)
    return omegaconf.OmegaConf.create({} if content is None else content)


def dump(content: Any) -> str:
    """Plain content as OmegaConf writes it, but with texts as they are: `${` is no interpolation
    here."""
    return yaml.dump(
        content, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=_Dumper
    )


def load(text: str | IO[str]) -> Any:
    """The content of a file under `conf/`, and of what `dump` wrote."""
    return yaml.load(text, Loader=_Loader)


def comment(text: str) -> str:
    """A text that may stand behind `#`: on one line, without characters that YAML does not
    allow."""
    return "".join(character for character in re.sub(r"\s+", " ", text) if character.isprintable())


def change(
    text: str, where: str, keys: Sequence[str | int], value: str | Callable[[Any], str]
) -> str:
    """The file `where`, of content `text`, with another value under some keys; a key of a list of
    one-entry mappings finds the mapping that has it. `value` is YAML, or makes it from the present
    value.

    Raises ConfigError naming the file and the key when it isn't there.
    """
    try:
        node = _find(ruamel.yaml.YAML().compose(text), keys)
    except ruamel.yaml.error.YAMLError as error:
        raise ConfigError(
            f"{where} is not valid YAML: {' '.join(str(error).split())}.",
            hint="mend it first",
        ) from error
    if node is None:
        raise ConfigError(
            f"{where} has no key `{'.'.join(map(str, keys))}`, so it can't be changed there.",
            hint="add it first",
        )
    start, end = node.start_mark.index, node.end_mark.index
    old = text[start:end].rstrip()
    end = start + len(old)
    new = value if isinstance(value, str) else value(_plain(node))
    rest = re.match(r" +(?=#)", text[end:])
    if rest:  # a comment stays in its column
        end += len(rest[0])
        new += " " * max(1, len(old) + len(rest[0]) - len(new))
    return text[:start] + new + text[end:]


def add(text: str, where: str, keys: Sequence[str | int], value: str) -> str:
    """The file with another entry, behind the last one of the mapping that the keys lead to; with
    another value where it is there already. Raises ConfigError as `change` does."""
    node = _find(ruamel.yaml.YAML().compose(text), keys[:-1])
    if (
        not isinstance(node, ruamel.yaml.nodes.MappingNode)
        or not node.value
        or any(key.value == keys[-1] for key, _ in node.value)
    ):
        return change(text, where, keys, value)
    key, last = node.value[-1]
    new, end = f"{inline(keys[-1])}: {value}", last.start_mark.index
    end += len(text[end : last.end_mark.index].rstrip())
    if node.flow_style:
        return f"{text[:end]}, {new}{text[end:]}"
    end = len(text) if text.find("\n", end) < 0 else text.find("\n", end)  # behind a comment
    return f"{text[:end]}\n{' ' * key.start_mark.column}{new}{text[end:]}"


def _find(
    node: ruamel.yaml.nodes.Node | None, keys: Sequence[str | int]
) -> ruamel.yaml.nodes.Node | None:
    for key in keys:
        if isinstance(node, ruamel.yaml.nodes.SequenceNode):
            inside = (
                _find(item, [key])
                for item in node.value
                if isinstance(item, ruamel.yaml.nodes.MappingNode)
            )
            node = next((item for item in inside if item is not None), None)
        elif isinstance(node, ruamel.yaml.nodes.MappingNode):
            node = next((item for name, item in node.value if name.value == key), None)
        else:
            return None
    return node


def _plain(node: ruamel.yaml.nodes.Node) -> Any:
    """Texts and lists of them."""
    return [_plain(item) for item in node.value] if isinstance(node.value, list) else node.value


def _quoted(value: Any) -> Any:
    if isinstance(value, dict):
        return {_quoted(key): _quoted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_quoted(item) for item in value]
    if isinstance(value, str) and (not _PLAIN.fullmatch(value) or value.lower() in _WORDS):
        return ruamel.yaml.scalarstring.DoubleQuotedScalarString(value)
    return value
