"""Where a part of the composed configuration comes from: the command line, or a file under `conf/`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from retrain.errors import ConfigError

OVERLAYS = ("experiment", "local")  # groups that a clone may have no folder for yet
OPTIONAL = {"local": "default"}  # the only file that a group may name before it exists


def check_choices(choices: Mapping[str, Any], conf: Path, searchpath: Sequence[str] = ()) -> None:
    """Raises ConfigError, with the files that there are, for a choice without a file: Hydra skips an `optional` one that is missing.

    `searchpath`: Hydra's further places. What may lie in a package is taken for there.
    """
    if any("://" in place and not place.startswith("file://") for place in searchpath):
        return
    folders = [conf, *(Path(place.removeprefix("file://")) for place in searchpath)]
    for group, chosen in choices.items():
        if group == "hydra" or group.startswith("hydra/"):
            continue
        for name in chosen if isinstance(chosen, (list, tuple)) else [chosen]:
            if (
                name is not None
                and OPTIONAL.get(group) != name
                and not any(_file(folder, group, name).is_file() for folder in folders)
            ):
                raise ConfigError(missing_choice(conf, group, name))


def chosen_groups(overrides: Sequence[str], conf: Path) -> dict[str, str]:
    """The groups that overrides choose from, with what they choose."""
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    known = {*list_groups(conf), *OVERLAYS}
    return {group: name for group, _, name in pairs if group in known and name not in ("", "null") and "," not in name}


def without_null(overrides: Sequence[str], conf: Path) -> list[str]:
    """`experiment=null` as Hydra takes it: a group is taken away with `~`, and one without a folder isn't there."""
    written = []
    for override in overrides:
        group, _, name = override.lstrip("+").partition("=")
        if name != "null" or group not in {*list_groups(conf), *OVERLAYS}:
            written.append(override)
        elif list_choices(conf, group):
            written.append(f"~{group}")
    return written


def missing_choice(conf: Path, group: str, name: str) -> str:
    """The message for a choice that has no file."""
    there = list_choices(conf, group)
    ways_out = f"Choose one of {', '.join(there)}, or make" if there else "Make"
    return f"`{group}={name}` names no file: there is no {conf.name}/{group}/{name}.yaml. {ways_out} that file."


def list_choices(conf: Path, group: str) -> list[str]:
    """The names that a group offers, those in folders of it (parts for other files) left out."""
    return sorted(path.stem for path in (conf / group).glob("*.yaml"))


def list_groups(conf: Path) -> list[str]:
    """The folders of `conf/` that hold choices."""
    return sorted({path.parent.name for path in conf.glob("*/*.yaml")})


def find_origin(key: str, conf: Path, choices: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """The place that set `key`: the command line, or the last file in composition order that has it."""
    for override in overrides:
        given = override.lstrip("+~").split("=")[0]
        if given == key or (key.startswith((f"{given}.", f"{given}[")) and given not in choices):
            return f"On the command line, `{override}`"
    for path, inner in _candidates(key, conf, choices):
        if path.is_file() and _has(OmegaConf.to_container(OmegaConf.load(path), resolve=False), inner):
            return f"In {path.relative_to(conf.parent)}"
    return f"Under {conf.name}/"


def _candidates(key: str, conf: Path, choices: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Files that may have set a key, the last in composition order first, and the key as it is written in them."""
    group, _, inner = key.partition(".")
    for name, chosen in choices.items():
        if name in OVERLAYS and chosen is not None:
            for one in chosen if isinstance(chosen, (list, tuple)) else [chosen]:
                yield _file(conf, name, one), key
    yield conf / "config.yaml", key
    if group in choices:
        yield conf / group / f"{choices[group]}.yaml", inner
        for path in sorted((conf / group).glob("*/*.yaml")):
            yield path, inner


def _file(conf: Path, group: str, name: Any) -> Path:
    return conf / group / f"{str(name).removesuffix('.yaml')}.yaml"


def _has(content: Any, key: str) -> bool:
    for part in key.replace("[", ".").replace("]", "").split("."):
        if isinstance(content, dict) and part in content:
            content = content[part]
        elif isinstance(content, list) and part.isdigit() and int(part) < len(content):
            content = content[int(part)]
        else:
            return False
    return True
