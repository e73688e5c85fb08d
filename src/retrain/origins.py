"""Where a part of the composed configuration comes from: the command line, or a file under
`conf/`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from retrain.errors import ConfigError
from retrain.lazy import hydra
from retrain.yaml_text import load

OVERLAYS = ("experiment", "local")  # groups that a clone may have no folder for yet
# Extras of pyproject.toml that bring Hydra's sweepers and launchers.
EXTRAS = {
    "joblib": "parallel",
    "optuna": "search",
    "ray": "ray",
    "submitit_local": "slurm",
    "submitit_slurm": "slurm",
}
OPTIONAL = {"local": "default"}  # the only file that a group may name before it exists


def folders_of(conf: Path, searchpath: Sequence[str] = ()) -> list[Path] | None:
    """Where Hydra looks for options: `conf/` and its further places. None where one of those is a
    package, whose content isn't known here."""
    if any("://" in place and not place.startswith("file://") for place in searchpath):
        return None
    return [conf, *(Path(place.removeprefix("file://")) for place in searchpath)]


def refuse_missing(group: str, names: Sequence[str], folders: Sequence[Path]) -> None:
    """Raises ConfigError for a choice without a file: of an `optional` group Hydra skips one that
    is missing."""
    conf = folders[0]
    for name in names:
        if OPTIONAL.get(group) != name and not any(
            option_file(folder, group, name).is_file() for folder in folders
        ):
            there = ", ".join(list_choices(conf, group))
            raise ConfigError(
                f"`{group}={name}` names no file: there is no {conf.name}/{group}/{name}.yaml.",
                hint=f"{f'choose one of {there}, or ' if there else ''}make that file",
            )


def chosen_overlays(
    choices: Mapping[str, Any], overrides: Sequence[str], conf: Path
) -> Iterator[tuple[str, list[str]]]:
    """The overlays that are chosen, as often as they are. Of lists, and of what `+` adds, Hydra
    keeps no record."""
    for entry in load((conf / "config.yaml").read_text(encoding="utf-8")).get("defaults", []):
        for key, chosen in entry.items() if isinstance(entry, dict) else ():
            if key.split()[-1] in OVERLAYS and isinstance(chosen, list):
                yield key.split()[-1], chosen
    for override in overrides:
        group, _, chosen = override.lstrip("+").partition("=")
        if group in OVERLAYS and chosen != "null":
            names = chosen.strip("[]").split(",")
            yield group, [name.strip().strip("\"'") for name in names]
    for group in OVERLAYS:
        if choices.get(group) is not None:
            yield group, [choices[group]]


def refuse_several(groups: Sequence[str], choices: Mapping[str, Any], conf: Path) -> None:
    """Raises ConfigError for a list of options where only one has a meaning: Hydra merges them, and
    keeps no record."""
    for group in groups:
        if (conf / group).is_dir() and choices.get(group) is None:
            raise ConfigError(
                f"Of `{group}` a list is chosen, and its files would be merged into a mixture of "
                "them.",
                hint=f"choose one of {', '.join(list_choices(conf, group))}; `retrain train -m "
                f"{group}=a,b` tries each of several",
            )


def explain_choice(overrides: Sequence[str], conf: Path) -> None:
    """Raises ConfigError for a choice on the command line that Hydra can't make."""
    for override in overrides:
        group, _, chosen = override.lstrip("+").partition("=")
        if group not in {*list_groups(conf), *OVERLAYS}:
            continue
        names = [name.strip().strip("\"'") for name in chosen.strip("[]").split(",")]
        if chosen == "":
            raise ConfigError(
                f"`{override}` chooses nothing.",
                hint=f"choose one of {', '.join(list_choices(conf, group))}",
            )
        if "null" in names:
            rest = ",".join(name for name in names if name != "null")
            raise ConfigError(
                f"`{override}`: null stands for none, and can't be one of several.",
                hint=f"write `{group}=[{rest}]`, or `{group}=null`",
            )
        if not chosen.startswith("{"):
            refuse_missing(group, names, [conf])
        if override.startswith("+"):
            raise ConfigError(
                f"`{override}` would add a second choice of `{group}`, which "
                f"{conf.name}/config.yaml makes already.",
                hint=f"write `{group}={chosen}`, without `+`",
            )


def explain_plugin(message: str) -> None:
    """Raises ConfigError where Hydra misses a sweeper or launcher that an extra installs."""
    found = re.search(r"hydra/(sweeper|launcher)/(\w+)", message)
    if found and found[2] in EXTRAS:
        raise ConfigError(
            f"`hydra/{found[1]}={found[2]}` is not installed. No job was run.",
            hint=f"pip install -c constraints.txt -e '.[{EXTRAS[found[2]]}]'",
        )


def explain_foreign_key(key: str, conf: Path) -> None:
    """Raises ConfigError for keys of an overlay that lie under the overlay's own name: it lacks its
    first line."""
    if key in OVERLAYS:
        files = ", ".join(
            str(path.relative_to(conf.parent))
            for path in sorted((conf / key).glob("*.yaml"))
            if not re.search(r"(?m)^\s*#\s*@package\s", path.read_text(encoding="utf-8"))
        )
        raise ConfigError(
            f"{files or f'A file of {conf.name}/{key}/'} does not begin with the line "
            f"`# @package _global_`, so its keys stand under `{key}` instead of where they belong.",
            hint=f"write that line at its top, and its keys as in {conf.name}/config.yaml",
        )


def without_null(overrides: Sequence[str], conf: Path) -> list[str]:
    """`experiment=null` as Hydra takes it: a group is taken away with `~`, and one without a folder
    isn't there."""
    written = []
    for override in overrides:
        group, _, name = override.lstrip("+").partition("=")
        if name != "null" or group not in {*list_groups(conf), *OVERLAYS}:
            written.append(override)
        elif list_choices(conf, group):
            written.append(f"~{group}")
    return written


def list_choices(conf: Path, group: str) -> list[str]:
    """The names that a group offers, those in folders of it (parts for other files) left out."""
    return sorted(path.stem for path in (conf / group).glob("*.yaml"))


def list_groups(conf: Path) -> list[str]:
    """The folders of `conf/` that hold choices."""
    return sorted({path.parent.name for path in conf.glob("*/*.yaml")})


def find_origin(key: str, conf: Path, overrides: Sequence[str]) -> str:
    """The place that set `key`: the command line, or the last file in composition order that has
    it."""
    groups = {*list_groups(conf), *OVERLAYS}
    for override in overrides:
        given = override.lstrip("+~").partition("=")[0]
        if given == key or (key.startswith((f"{given}.", f"{given}[")) and given not in groups):
            return f"On the command line, `{override}`"
    running = hydra.core.global_hydra.GlobalHydra.instance()
    in_job = running.is_initialized()  # of a sweep, whose Hydra reads the same folder
    with nullcontext() if in_job else hydra.initialize_config_dir(str(conf.resolve())):
        loader = hydra.core.global_hydra.GlobalHydra.instance().config_loader()
        composed = loader.compute_defaults_list(
            "config", without_null(overrides, conf), hydra.types.RunMode.RUN
        )
    for file in reversed(composed.defaults):
        path = conf / f"{file.config_path}.yaml"
        package = f"{file.package}." if file.package else ""
        inner = key.removeprefix(package)
        of_package = path.is_file() and key.startswith(package)
        if of_package and _has(load(path.read_text(encoding="utf-8")), inner):
            return f"In {path.relative_to(conf.parent)}"
    return f"Under {conf.name}/"


def option_file(conf: Path, group: str, name: Any) -> Path:
    """The file of an option in one of Hydra's folders, whether or not it is there."""
    return conf / group / f"{str(name).removesuffix('.yaml')}.yaml"


def _has(content: Any, key: str) -> bool:
    for part in re.split(r"[.\[]", key.replace("]", "")):
        if isinstance(content, dict) and part in content:
            content = content[part]
        elif isinstance(content, list) and part.isdigit() and int(part) < len(content):
            content = content[int(part)]
        else:
            return False
    return True
