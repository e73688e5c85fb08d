"""Typed schema of `conf/`, composition with Hydra, and the errors that say which key in which file
is wrong."""

from __future__ import annotations

import difflib
import enum
import functools
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

from annotated_types import Ge, Gt, Le, Lt, MinLen
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Strict

from retrain.config_checks import check_values
from retrain.errors import ConfigError, RetrainError
from retrain.lazy import hydra
from retrain.origins import (
    OVERLAYS,
    chosen_overlays,
    explain_choice,
    explain_foreign_key,
    explain_plugin,
    find_origin,
    folders_of,
    refuse_missing,
    refuse_several,
    without_null,
)
from retrain.own_code import code_digests, defined_names, own_modules
from retrain.ranges import (
    Count,
    Finite,
    Flag,
    Misfit,
    Name,
    NonNegative,
    PositiveCount,
    Seed,
    Share,
    ShareOrAll,
    Text,
    adapter,
    find_misfits,
    like,
    node_misfits,
)
from retrain.renamed import current_overrides, with_current_names
from retrain.targets import allow, allowed, named_code
from retrain.workspace import PARAMS
from retrain.yaml_text import dump, literal, load, read_as_written

read_as_written()
MOST_SHOWN = 5  # mistakes in one message
Built = TypeVar("Built")
# A table may have one time in several years.
BlockHours = Annotated[int, Strict(), Ge(1), Le(24 * 366 * 100)]
Variable = Annotated[
    str, like(r"[A-Za-z_][A-Za-z0-9_]*", "MLFLOW_TRACKING_URI (the name of a variable)")
]
# One file of `conf/` for each, such as a policy: a `_target_` and its arguments.
Node = dict[str, Any]


class Task(enum.Enum):
    """What is predicted: one of two classes, one of several, or a number."""

    binary = "binary"
    multiclass = "multiclass"
    regression = "regression"


class ColumnType(enum.Enum):
    """How a feature is read, checked and encoded."""

    numeric = "numeric"
    categorical = "categorical"
    boolean = "boolean"
    datetime = "datetime"
    text = "text"
    sparse = "sparse"


class PeriodKind(enum.Enum):
    """Length of a batch: a span of the calendar, or a fixed number of rows."""

    hour = "hour"
    day = "day"
    week = "week"
    month = "month"
    quarter = "quarter"
    rows = "rows"


class Approval(enum.Enum):
    """Who carries out a `promote` verdict: the pipeline itself, or a person with `retrain
    approve`."""

    automatic = "automatic"
    required = "required"


class Event(enum.Enum):
    """What people can be told of."""

    verdict = "verdict"
    drift = "drift"
    hold = "hold"
    decay = "decay"
    failure = "failure"


class Backend(enum.Enum):
    """What runs jobs: processes of this machine, a Dask cluster or a Ray cluster."""

    local = "local"
    dask = "dask"
    ray = "ray"


class _Section:
    """A part of the configuration: keys that it does not know are mistakes."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass
class Column(_Section):
    """The contract of one feature."""

    type: ColumnType
    nullable: Flag = False
    minimum: Finite | None = None
    maximum: Finite | None = None
    levels: Annotated[list[Text], MinLen(1)] | None = None


@dataclass(kw_only=True)
class DataConfig(_Section):
    """Where batches come from and what they must look like."""

    name: Name
    task: Task = Task.binary
    metric: Name = "log_loss"
    source: Node
    period: PeriodKind
    as_of: Text | None = None
    label_delay: Text | None = None
    time_column: Name
    key_columns: Annotated[list[Name], MinLen(1)]
    target_column: Name
    positive_label: Text | None = None
    block_hours: BlockHours = 24
    features: dict[Text, Column]
    maximum_quarantine_share: ShareOrAll = 0.05


@dataclass(kw_only=True)
class ModelConfig(_Section):
    """The recipe of the challenger: how columns are encoded, and the estimator."""

    preprocessing: Node
    estimator: Node
    # Replaces parts of the estimator for that task.
    for_regression: Node = field(default_factory=dict)
    # With fewer rows of the rarest class (for numbers: of half of the rows) later training rows
    # choose the number of iterations.
    choose_iterations_below: Count = 0


@dataclass(kw_only=True)
class EvaluationConfig(_Section):
    """Which rows both models are scored on, and how those are resampled."""

    share_of_newest_batch: Share
    minimum_blocks: PositiveCount
    block_hours: BlockHours | None = None  # null: the data set's
    reference_windows: Count = 0
    minimum_rows: Count = 0
    minimum_rare_rows: Count = 0  # of all classes but the commonest


@dataclass(kw_only=True)
class GateConfig(_Section):
    """The checks that a challenger must pass, by name, and what follows a promotion."""

    checks: Node
    first_champion: Node
    refit: Flag = True
    approval: Approval = Approval.automatic


@dataclass(kw_only=True)
class MonitoringConfig(_Section):
    """What is noticed about a new batch, and what follows."""

    # Of batches in which nothing has changed.
    false_alarm_rate: Annotated[float, Strict(), Gt(0), Lt(0.5)] = 0.05
    hold_anomalies: Flag = True  # a batch that looks broken takes no part until it is accepted
    # Periods of such batches that a person has looked at.
    accept: list[Text] = field(default_factory=list)
    # Later batches that agree with one on hold, and not with the past; null: never.
    accept_after: PositiveCount | None = 3
    hold: list[Text] = field(default_factory=list)  # periods of batches that a person puts on hold


@dataclass(kw_only=True)
class BacktestConfig(_Section):
    """What `retrain backtest` tries with each other, as names of files in `conf/`."""

    strategies: Annotated[list[Name], MinLen(1)]
    policies: Annotated[list[Name], MinLen(1)]
    gates: Annotated[list[Name], MinLen(1)]
    retraining_cost: NonNegative = 0.0  # in units of the loss, over one batch


@dataclass(kw_only=True)
class ComputeConfig(_Section):
    """Where a backtest and the check of the gate train."""

    backend: Backend = Backend.local
    address: Name | None = None  # null: as the backend's own variable says
    workers: PositiveCount | None = None  # jobs at a time; null: as many as there is room for


@dataclass(kw_only=True)
class NotifyConfig(_Section):
    """Who is told, and of what. The address itself never enters the config: it may hold a token."""

    url_from_env: Variable | None = "RETRAIN_NOTIFY_URL"
    command: Text | None = None  # gets the message on its standard input
    events: list[Event] = field(default_factory=lambda: list(Event))


@dataclass(kw_only=True)
class TrackingConfig(_Section):
    """Where MLflow keeps runs and models. The address itself never enters the config: it may hold a
    password."""

    uri_from_env: Variable | None = None
    # Of a database without a server, whose clients write files themselves; a server knows its own.
    artifacts: Text | None = None
    experiment: Name
    registered_model: Name


@dataclass(kw_only=True)
class Config(_Section):
    """Everything under `conf/`."""

    seed: Seed
    data: DataConfig
    model: ModelConfig
    strategy: Node
    policy: Node
    gate: GateConfig
    evaluation: EvaluationConfig
    monitoring: MonitoringConfig = field(default_factory=MonitoringConfig)
    tracking: TrackingConfig
    backtest: BacktestConfig
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    notify: NotifyConfig = field(default_factory=NotifyConfig)
    trusted_types: list[Text]
    # Digests of what `_target_` names, by group; made, not configured.
    code: dict[str, str] = field(default_factory=dict)

    def __setstate__(self, state: Node) -> None:
        """In the process of another worker too, what the project's configuration names may be
        built."""
        self.__dict__.update(state)
        allow(
            [self.data.source, self.model.__dict__, self.gate.__dict__, self.strategy, self.policy]
        )


def compose(conf: Path, overrides: Sequence[str] = ()) -> Config:
    """Compose `conf/config.yaml` with Hydra and check it against the schema.

    Raises ConfigError with the key, the value and the file for anything that does not fit.
    """
    overrides = current_overrides(overrides)
    composed = compose_raw(conf, overrides)
    return check(composed, conf, dict(composed.hydra.runtime.choices), overrides)


def compose_raw(conf: Path, overrides: Sequence[str] = ()) -> DictConfig:
    """What Hydra makes of `conf/config.yaml`, its own settings under `hydra` included. Raises
    ConfigError when it can't."""
    try:
        with hydra.initialize_config_dir(str(conf.resolve())):
            return hydra.compose(
                "config", overrides=without_null(overrides, conf), return_hydra_config=True
            )
    except (
        hydra.errors.HydraException,
        OmegaConfBaseException,
        ValueError,
        TypeError,
    ) as error:
        for group, names in chosen_overlays({}, overrides, conf):
            if not (conf / group).is_dir():
                refuse_missing(group, names, [conf])
        explain_choice(overrides, conf)
        explain_plugin(str(error))
        given = f" (overrides: {' '.join(overrides)})" if overrides else ""
        raise ConfigError(
            f"The configuration can't be composed{given}: {first_lines(error)}"
        ) from error
    except Exception as error:  # Hydra lets the YAML parser's own errors through
        if type(error).__module__.startswith("yaml"):
            raise ConfigError(
                f"A file under {conf.name}/ is not valid YAML: {' '.join(str(error).split())}"
            ) from error
        raise


def parse_overrides(overrides: Sequence[str]) -> list[hydra.core.override_parser.types.Override]:
    """Overrides as Hydra reads them. Raises ConfigError for one that it can't read."""
    try:
        return hydra.core.override_parser.overrides_parser.OverridesParser.create().parse_overrides(
            list(overrides)
        )
    except (
        hydra.errors.HydraException,
        OmegaConfBaseException,
        ValueError,
        TypeError,
    ) as error:
        raise ConfigError(
            f"An override can't be read ({' '.join(overrides)}): {first_lines(error)}"
        ) from error


def swept_values(override: hydra.core.override_parser.types.Override) -> list[str]:
    """The values that a sweep tries. Raises ConfigError for one that Hydra can't list, such as a
    choice inside a list."""
    try:
        return [str(value) for value in override.sweep_string_iterator()]
    except Exception as error:
        raise ConfigError(
            f"`{override.input_line}` can't be listed as a sweep ({first_lines(error)}). Write its "
            "values with commas between them."
        ) from error


def check(
    composed: DictConfig, conf: Path, choices: Mapping[str, Any], overrides: Sequence[str]
) -> Config:
    """Typed form of a composed config. Raises ConfigError naming key, value and file."""
    where = functools.partial(find_origin, conf=conf, overrides=overrides)
    folders = folders_of(conf, _searchpath(composed))
    for group, names in chosen_overlays(choices, overrides, conf) if folders else ():
        refuse_missing(group, names, folders or [])
    refuse_several([one.name for one in fields(Config) if one.name in composed], choices, conf)
    content = _resolved(composed, where)
    _gather_trusted_types(content, conf, where)
    content = with_current_names(content, overrides)
    misfits = [*find_misfits(Config, content), *node_misfits(content)]
    for misfit in misfits:
        explain_foreign_key(misfit.key, conf)
    _refuse_misfits(misfits, where)
    config: Config = adapter(Config).validate_python(content)
    check_values(config, where, folders)
    if config.evaluation.block_hours is None:
        config.evaluation.block_hours = config.data.block_hours
    if config.data.task is Task.regression:
        given = {one.key_or_group for one in parse_overrides(overrides)}
        config.model.estimator |= {
            key: value
            for key, value in config.model.for_regression.items()
            if f"model.estimator.{key}" not in given  # what somebody asks for by name wins
        }
    config.model.for_regression = {}
    plain = to_container(config)
    allow(plain)
    config.code = code_digests(plain, conf.parent)
    return config


def _resolved(composed: DictConfig, where: Callable[[str], str]) -> Node:
    """Plain content without Hydra's part, and without what an overlay file that holds nothing
    leaves behind."""
    empty = [group for group in OVERLAYS if group in composed and composed[group] in ({}, None)]
    kept = OmegaConf.masked_copy(
        composed, [str(key) for key in composed if key not in ("hydra", *empty)]
    )
    try:
        missing = sorted(OmegaConf.missing_keys(kept))
        resolved = OmegaConf.to_container(kept, resolve=True)
    except OmegaConfBaseException as error:
        key = error.full_key or str(error.key)
        raise ConfigError(
            f"{where(key)}: `{key}` refers to another value by `${{...}}`, which can't be found: "
            f"{first_lines(error)}",
            hint="mend the reference, or give that value",
        ) from error
    for key in missing:
        raise ConfigError(f"{where(key)}: `{key}` has no value.", hint="give it one there")
    return cast(Node, resolved)


def _searchpath(composed: DictConfig) -> list[str]:
    """Where Hydra looks beside `conf/`. A job of a sweep is handed its config without Hydra's
    part."""
    found = OmegaConf.select(composed, "hydra.searchpath")
    if found is None and hydra.core.hydra_config.HydraConfig.initialized():
        found = hydra.core.hydra_config.HydraConfig.get().searchpath
    return [str(place) for place in found or []]


def _gather_trusted_types(content: Node, conf: Path, where: Callable[[str], str]) -> None:
    """Add to the one list what models trust in their own files, and what the user's own modules
    that they name define.

    Of all files in conf/model/, not of the chosen one alone: the champion may be a model that was
    chosen before. It leaves `model`, since it shapes no model: a version stays continuable when the
    list grows.
    """
    chosen = content.get("model")
    chosen = chosen if isinstance(chosen, dict) else {}
    trusted = defined_names(own_modules(named_code(chosen), conf.parent))
    listed = chosen.pop("trusted_types", [])
    _refuse_misfits(find_misfits(list[Text], listed, "model.trusted_types"), where)
    trusted += listed
    for path in sorted((conf / "model").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        own = own_modules(re.findall(r"_target_:\s*([\w.]+)", text), conf.parent)
        listed = load(text).get("trusted_types", []) if "trusted_types" in text else []
        misfits = find_misfits(list[Text], listed, "model.trusted_types")
        _refuse_misfits(misfits, f"In {path.relative_to(conf.parent)}")
        trusted += [*listed, *defined_names(own)]
    if isinstance(content.get("trusted_types"), list):
        content["trusted_types"] = list(dict.fromkeys([*content["trusted_types"], *trusted]))


def _refuse_misfits(misfits: Sequence[Misfit], where: Callable[[str], str] | str) -> None:
    """Raises ConfigError that names the places of the first few."""
    if misfits:
        shown = [
            f"{where if isinstance(where, str) else where(misfit.key)}: {misfit}"
            for misfit in misfits[:MOST_SHOWN]
        ]
        more = f" (and {len(misfits) - MOST_SHOWN} more)" if len(misfits) > MOST_SHOWN else ""
        raise ConfigError(f"{'. '.join(shown)}{more}.", hint="mend it there")


def first_lines(error: BaseException) -> str:
    """An error of Hydra or OmegaConf without the lines that only its developers need."""
    noise = (
        "full_key:",
        "object_type",
        "Set the environment variable HYDRA_FULL_ERROR",
    )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not line.startswith(noise))
    text = text.partition(" Config search path:")[0]  # folders of this machine
    return re.sub(r"^\w+ raised while resolving interpolation: ", "", text)


def instantiate(node: Any, key: str, **arguments: Any) -> Any:
    """The object that a `_target_` node describes. Raises ConfigError naming the key."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"`{key}` must name a class with `_target_`, but is {node!r}.")
    known = allowed(node, key)
    misfit = next(node_misfits(node, key), None)
    if misfit is not None:
        raise ConfigError(f"{misfit}. Mend it under conf/ or in the override.")
    try:
        # Lists must arrive as lists: scikit-learn refuses OmegaConf's own, and skops can't store
        # them.
        made = hydra.utils.instantiate(
            literal(dict(node)),
            _convert_="all",
            _partial_=bool(arguments),
            _execution_whitelist_=known,
        )
        return (
            made(**arguments) if arguments else made
        )  # not through OmegaConf, which would interpolate names of columns
    except (hydra.errors.HydraException, TypeError, ValueError) as error:
        cause = error.__cause__ or error
        restricted = re.search(
            r"(?s)Target '(.*?)'.* cannot be authorized by.*?because (.*?)\.\n", str(cause)
        )
        if restricted:
            why = " ".join(restricted[2].split())
            raise ConfigError(
                f"`{key}` names {restricted[1]}, which is never run from a configuration, because "
                f"{why}.",
                hint="wrap what you need of it in a function of src/project/, and name that",
            ) from error
        unknown = re.search(r"Error loading [^\n]*\s*\w+\([\"'](.*)[\"']\)", str(cause))
        if unknown:
            why = _missing(node["_target_"]) or unknown[1]
            raise ConfigError(
                f"`{key}` names {node['_target_']}, which can't be imported: {why}.",
                hint="mend its name, or install its library",
            ) from error
        problem = f"`{key}` ({node['_target_']}) can't be built:"
        if isinstance(cause, RetrainError):
            raise ConfigError(f"{problem} {cause.message}", hint=cause.hint) from error
        abstract = "abstract method" in str(cause)
        raise ConfigError(
            f"{problem} {first_lines(cause)}",
            hint="define that method in the class; is its name misspelt?" if abstract else "",
        ) from error


def _missing(target: str) -> str:
    """That a module has no such name, with the nearest that it has. Empty where there is no such
    module."""
    module, _, name = target.rpartition(".")
    try:
        names = vars(importlib.import_module(module))
    except (ImportError, ValueError):
        return ""
    near = difflib.get_close_matches(name, names, 1)
    return f"{module} has no {name}" + (f"; did you mean {near[0]}?" if near else "")


def build(kind: type[Built], node: Any, key: str) -> Built:
    """The object that a `_target_` node describes. Raises ConfigError naming the key where it is
    none of its kind."""
    made = instantiate(node, key)
    if not isinstance(made, kind):
        raise ConfigError(
            f"`{key}` ({node['_target_']}) is no {kind.__module__}.{kind.__name__}. Name a class "
            "that is one with `_target_`."
        )
    return made


def class_name(node: Mapping[str, Any]) -> str:
    """The class that a `_target_` node names, without its module."""
    return str(node["_target_"]).rpartition(".")[2]


def feature_types(config: Config) -> dict[str, ColumnType]:
    """The configured features with their types, in order."""
    return {name: column.type for name, column in config.data.features.items()}


def to_container(config: Config) -> Node:
    """Plain dictionaries, lists and scalars, as written to `params.yaml`."""
    plain: Node = adapter(Config).dump_python(config, mode="json")
    return plain


def to_yaml(config: Config) -> str:
    return dump(to_container(config))


def load_params(path: Path = PARAMS) -> Config:
    """The config that the `config` stage resolved. Raises ConfigError when it is not there, or of
    no use."""
    if not path.is_file():
        raise ConfigError(f"{path} is missing.", hint="`dvc repro config` makes it from conf/")
    return read_resolved(path.read_text(encoding="utf-8"), str(path))


def read_resolved(text: str, place: str) -> Config:
    """A config that was resolved before, perhaps by an earlier engine. Raises ConfigError when it
    is of no use."""
    content = with_current_names(load(text))
    _refuse_misfits(find_misfits(Config, content), f"In {place}")
    config: Config = adapter(Config).validate_python(content)
    allow(content)
    return config
