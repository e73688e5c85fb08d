"""Where a part of the composed configuration comes from: the command line, or a file under `conf/`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from retrain.errors import ConfigError

OVERLAYS = ("experiment", "local")  # groups that a clone may have no folder for yet
OPTIONAL = {"local": "default"}  # the only file that a group may name before it exists


def folders_of(conf: Path, searchpath: Sequence[str] = ()) -> list[Path] | None:
    """Where Hydra looks for options: `conf/` and its further places. None where one of those is a package, whose content isn't
    known here."""
    if any("://" in place and not place.startswith("file://") for place in searchpath):
        return None
    return [conf, *(Path(place.removeprefix("file://")) for place in searchpath)]


def check_choices(
    choices: Mapping[str, Any], conf: Path, folders: Sequence[Path] | None = ()
) -> None:
    """Raises ConfigError, with the files that there are, for a choice without a file: Hydra skips an `optional` one that is missing.

    `folders`: of `folders_of`. What may lie in a package is taken for there.
    """
    if folders is None:
        return
    for group, chosen in choices.items():
        if group == "hydra" or group.startswith("hydra/"):
            continue
        if isinstance(chosen, (list, tuple)) and any(name in (None, "null") for name in chosen):
            rest = ",".join(str(name) for name in chosen if name not in (None, "null"))
            raise ConfigError(
                f"`{group}=[{','.join('null' if name is None else str(name) for name in chosen)}]`: null stands for none and can't be "
                f"one of several. Write `{group}=[{rest}]`, or `{group}=null` for none."
            )
        for name in _as_list(chosen):
            if (
                name is not None
                and OPTIONAL.get(group) != name
                and not any(
                    option_file(folder, group, name).is_file() for folder in folders or [conf]
                )
            ):
                raise ConfigError(missing_choice(conf, group, name))


def refuse_several(chosen: Mapping[str, Any], conf: Path) -> None:
    """Raises ConfigError for a list of options where only one has a meaning: Hydra merges them into a mixture."""
    for group, names in chosen.items():
        if isinstance(names, (list, tuple)) and (conf / group).is_dir():
            options = [str(name) for name in names]
            given = (
                f"`{group}=[{','.join(options)}]` is a list, and its"
                if options
                else f"Of `{group}` a list is chosen, and its"
            )
            try_each = (
                f" To try each of them: `retrain train --multirun {group}={','.join(options)}`."
                if group in ("model", "strategy") and len(options) > 1
                else ""
            )
            raise ConfigError(
                f"{given} files would be merged into a mixture of them. Choose one: "
                f"`{group}={options[0] if options else list_choices(conf, group)[0]}`.{try_each}"
            )


def chosen_groups(overrides: Sequence[str], conf: Path) -> dict[str, Any]:
    """The groups that overrides choose from, with what they choose: a name, or of `[a,b]` a list of names."""
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    known = {*list_groups(conf), *OVERLAYS}
    return {
        group: _option(name)
        for group, sign, name in pairs
        if group in known
        and sign
        and name != "null"
        and (_is_list(name) or not re.search(r"[,({]", name))
    }


def default_options(conf: Path) -> dict[str, Any]:
    """What the defaults list of `conf/config.yaml` chooses of each group."""
    content = OmegaConf.to_container(OmegaConf.load(conf / "config.yaml"))
    entries = content.get("defaults", []) if isinstance(content, dict) else []
    pairs = (pair for entry in entries if isinstance(entry, dict) for pair in entry.items())
    return {str(group).split()[-1].lstrip("/"): chosen for group, chosen in pairs}


def all_choices(
    recorded: Mapping[str, Any], overrides: Sequence[str], conf: Path
) -> dict[str, Any]:
    """What is chosen of each group. Hydra's record leaves out lists of options, and what `+` adds under a name that is no group.

    Of a list that an overlay chooses only that it is one can be told: it is empty here.
    """
    asked = chosen_groups(overrides, conf)
    for group, chosen in default_options(conf).items():
        if isinstance(chosen, list):
            asked.setdefault(group, chosen)
        elif (
            chosen is not None
            and f"~{group}" not in without_null(overrides, conf)
            and group not in OVERLAYS
        ):
            asked.setdefault(group, [])
    kept = {
        group
        for group, one in recorded.items()
        if group not in asked or (one is not None and group not in OVERLAYS)
    }
    return asked | {group: recorded[group] for group in kept}


def explain_addition(overrides: Sequence[str], conf: Path) -> None:
    """Raises ConfigError for a `+` before a group that `conf/config.yaml` names already."""
    for override in overrides:
        group, _, name = override.lstrip("+").partition("=")
        if override.startswith("+") and group in {*list_groups(conf), *OVERLAYS}:
            raise ConfigError(
                f"`{override}` would add a second choice of `{group}`, which {conf.name}/config.yaml makes already. Write "
                f"`{group}={name}`, without `+`."
            )


def explain_foreign_key(key: str, conf: Path, choices: Mapping[str, Any]) -> None:
    """Raises ConfigError for keys of an overlay that lie under the overlay's own name: it lacks its first line."""
    group = key.partition(".")[0]
    for name in _as_list(choices.get(group)) if group == key else []:
        path = option_file(conf, group, name)
        if path.is_file() and not re.search(
            r"^\s*#\s*@package\s", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            raise ConfigError(
                f"{path.relative_to(conf.parent)} does not begin with the line `# @package _global_`, so its keys stand under "
                f"`{group}` instead of where they belong. Write that line at its top, and its keys as in {conf.name}/config.yaml."
            )


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
    if name == "":
        options = f" Choose one of {', '.join(there)}." if there else ""
        none = f" Write `{group}=null` if none is meant." if group in OVERLAYS else ""
        return f"`{group}=` chooses nothing.{none}{options}"
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
        if path.is_file() and _has(
            OmegaConf.to_container(OmegaConf.load(path), resolve=False), inner
        ):
            return f"In {path.relative_to(conf.parent)}"
    return f"Under {conf.name}/"


def _candidates(key: str, conf: Path, choices: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Files that may have set a key, the last in composition order first, and the key as it is written in them."""
    group, _, inner = key.partition(".")
    for name, chosen in choices.items():
        if name in OVERLAYS and chosen is not None:
            for one in reversed(_as_list(chosen)):
                yield option_file(conf, name, one), key
    yield conf / "config.yaml", key
    if group in choices:
        yield conf / group / f"{choices[group]}.yaml", inner
        for path in sorted((conf / group).glob("*/*.yaml")):
            yield path, inner


def _as_list(chosen: Any) -> list[Any]:
    return list(chosen) if isinstance(chosen, (list, tuple)) else [chosen]


def _is_list(text: str) -> bool:
    return re.fullmatch(r"\[[^\[\]]*\]", text) is not None


def _option(text: str) -> Any:
    """What an override chooses, without quotes."""
    if _is_list(text):
        return [_option(one.strip()) for one in text[1:-1].split(",") if one.strip()]
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def option_file(conf: Path, group: str, name: Any) -> Path:
    """The file of an option in one of Hydra's folders, whether or not it is there."""
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
