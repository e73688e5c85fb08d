"""What `retrain init` changes in a project, made and checked in full before anything is written."""

from __future__ import annotations

import itertools
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from retrain.config import build, compose
from retrain.data.inference.draft import Draft
from retrain.data.source import Source
from retrain.errors import ConfigError, DataError
from retrain.workspace import SNAPSHOT, write_text
from retrain.yaml_text import change, inline, load

CONF, PIPELINE = Path("conf"), Path("dvc.yaml")
GLOB = re.compile(r"[*?\[]")
# Of a data set: also the name of a file, a choice on Hydra's command line, an experiment and a
# registered model.
_NAME = re.compile(r"[^\W\d_][\w\-]{0,99}")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "none"}
_OWN = ("src/", "conf", "data/incoming")  # what the snapshot depends on whatever the data set


def check_name(name: str) -> str:
    """A data set's name as a person gave it. Raises DataError with what is allowed."""
    if not _NAME.fullmatch(name) or name.lower() in _WORDS:
        raise DataError(
            f"`--name {name}` can't be a data set's name, which is that of a file, of an "
            "experiment and of a registered model in MLflow, too: it begins with a letter, goes "
            "on with letters, digits, _ and -, has at most 100 characters, and is none of YAML's "
            f"words ({', '.join(sorted(_WORDS))}).",
            hint=f"for instance: --name {fit_data_name(name)}",
        )
    return name


def fit_data_name(stem: str) -> str:
    """A name like that of a file."""
    name = re.sub(r"[^a-z0-9_]+", "_", stem.lower()).strip("_")[:60]
    return name if _NAME.fullmatch(name) and name not in _WORDS else f"data_{name}".rstrip("_")


def chosen(group: str) -> str | None:
    """What the defaults of conf/config.yaml name for a group."""
    listed = (load(_read(CONF / "config.yaml")) or {}).get("defaults") or []
    return next((one[group] for one in listed if isinstance(one, dict) and group in one), None)


def choose(choices: Mapping[str, str]) -> dict[Path, str]:
    """conf/config.yaml with other choices. Raises ConfigError when its defaults choose nothing for
    one of the groups."""
    path = CONF / "config.yaml"
    text = _read(path)
    for group, choice in choices.items():
        text = change(text, str(path), ["defaults", group], inline(choice))
    return {path: text}


def watch(paths: Sequence[str]) -> dict[Path, str]:
    """dvc.yaml with local files, or the folders of globs, as dependencies of the stage
    `snapshot`.

    Raises DataError for a glob over a folder that holds the snapshot: nothing can depend on that.
    """
    watched = [str(fixed_part(path)) for path in paths]
    for path, part in zip(paths, watched, strict=True):
        if SNAPSHOT.is_relative_to(part):
            raise DataError(
                f"`{path}` takes files of {'the project' if part == '.' else f'`{part}`'} itself, "
                "in which the pipeline writes: DVC can't watch that. Nothing was changed.",
                hint="move them into a folder of their own: mkdir -p raw && mv "
                f"{path} raw/ && retrain init 'raw/{Path(path).name}' ...",
            )
    watched = [path for path in dict.fromkeys(watched) if not path.startswith("data/incoming")]

    def with_watched(present: list[str]) -> str:
        own = [path for path in present if path.startswith(_OWN)]
        place = own.index("data/incoming") + 1 if "data/incoming" in own else 0
        # What looks like one of DVC's own variables is escaped.
        added = [path.replace("${", "\\${") for path in watched]
        return inline([*own[:place], *added, *own[place:]])

    return {
        PIPELINE: change(
            _read(PIPELINE), str(PIPELINE), ["stages", "snapshot", "deps"], with_watched
        )
    }


def fixed_part(path: str) -> Path:
    """A file, or the folder above the first part of a glob that is a pattern. What is there is no
    pattern."""
    if Path(path).exists():
        return Path(path)
    return Path(*itertools.takewhile(lambda part: not GLOB.search(part), Path(path).parts))


def check_and_write(files: Mapping[Path, str], draft: Draft, target: str, time: str) -> None:
    """Write files, all or none: first a copy of conf/ with them must be read as what was meant.

    Raises ConfigError when it is not, and then nothing has been changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / CONF.name
        shutil.copytree(CONF, conf)
        for path, text in files.items():
            if path.is_relative_to(CONF):
                (conf / path.relative_to(CONF)).write_text(text, encoding="utf-8")
        config = compose(conf)
    data = config.data
    read = [
        data.target_column,
        data.time_column,
        data.key_columns,
        data.positive_label,
        list(data.features),
    ]
    if read != [target, time, draft.key_columns, draft.positive_label, list(draft.features)]:
        raise ConfigError(
            "The names of these columns can't be written so that the configuration reads them "
            "back. Nothing was changed.",
            hint="rename the columns at the source, or in a query",
        )
    build(Source, data.source, "data.source").bind(data)
    write_all(files)


def write_all(files: Mapping[Path, str]) -> None:
    """Write all files or none: those already written get their old content back."""
    before: dict[Path, str | None] = {}
    try:
        for path, text in files.items():
            old = _read(path) if path.is_file() else None
            write_text(path, text)
            before[path] = old
    except BaseException:
        for path, old in before.items():
            if old is None:
                path.unlink()
            else:
                write_text(path, old)
        raise


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
