"""Typed schema of `conf/`, composition with Hydra, and the errors that say which key in which file is wrong."""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le, Lt, MinLen
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from retrain.config_checks import check_values
from retrain.errors import ConfigError
from retrain.origins import (
    OVERLAYS,
    all_choices,
    check_choices,
    chosen_groups,
    explain_addition,
    explain_foreign_key,
    find_origin,
    folders_of,
    refuse_several,
    without_null,
)
from retrain.own_code import code_digests, defined_names, named_code, own_modules
from retrain.ranges import (
    Count,
    Finite,
    Name,
    NonNegative,
    PositiveCount,
    Seed,
    Share,
    ShareOrAll,
    Written,
    describe,
    find_misfits,
    fits,
    node_misfits,
)
from retrain.renamed import current_overrides, with_current_names
from retrain.workspace import PARAMS
from retrain.yaml_text import dump, literal, load, read_as_written

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

read_as_written()
_QUESTION_MARKS = (
    "\ue000???"  # stands for a text `???`, which OmegaConf would take for a missing value
)
MOST_SHOWN = 5  # mistakes in one message
Built = TypeVar("Built")
BlockHours = Annotated[int, Ge(1), Le(24 * 366 * 100)]  # a table may have one time in several years
Variable = Annotated[
    str, Written(r"[A-Za-z_][A-Za-z0-9_]*", "MLFLOW_TRACKING_URI (the name of a variable)")
]


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
    """Who carries out a `promote` verdict: the pipeline itself, or a person with `retrain approve`."""

    automatic = "automatic"
    required = "required"


@dataclass
class Column:
    """The contract of one feature."""

    type: ColumnType = MISSING
    nullable: bool = False
    minimum: Finite | None = None
    maximum: Finite | None = None
    levels: Annotated[list[str], MinLen(1)] | None = None


@dataclass
class DataConfig:
    """Where batches come from and what they must look like."""

    name: Name = MISSING
    task: Task = Task.binary
    metric: Name = "log_loss"
    source: dict[str, Any] = MISSING
    period: PeriodKind = MISSING
    as_of: str | None = None
    label_delay: str | None = None
    time_column: Name = MISSING
    key_columns: Annotated[list[Name], MinLen(1)] = MISSING
    target_column: Name = MISSING
    positive_label: str | None = None
    block_hours: BlockHours = 24
    features: dict[str, Column] = MISSING
    maximum_quarantine_share: ShareOrAll = 0.05


@dataclass
class ModelConfig:
    """The recipe of the challenger: how columns are encoded, and the estimator."""

    preprocessing: dict[str, Any] = MISSING
    estimator: dict[str, Any] = MISSING
    for_regression: dict[str, Any] = field(
        default_factory=dict
    )  # replaces parts of the estimator for that task
    # With fewer rows of the rarest class (for numbers: of half of the rows) later training rows choose the number of iterations.
    choose_iterations_below: Count = 0


@dataclass
class EvaluationConfig:
    """Which rows judge, and how they are resampled."""

    share_of_newest_batch: Share = MISSING
    minimum_blocks: PositiveCount = MISSING
    block_hours: BlockHours | None = None  # null: the data set's
    reference_windows: Count = 0
    minimum_rows: Count = 0
    minimum_rare_rows: Count = 0  # of all classes but the commonest


@dataclass
class GateConfig:
    """The checks that a challenger must pass, by name, and what follows a promotion."""

    checks: dict[str, Any] = MISSING
    first_champion: dict[str, Any] = MISSING
    refit: bool = True
    approval: Approval = Approval.automatic


@dataclass
class MonitoringConfig:
    """What is noticed about a new batch, and what follows."""

    false_alarm_rate: Annotated[float, Gt(0), Lt(0.5)] = (
        0.05  # of batches in which nothing has changed
    )
    hold_anomalies: bool = True  # a batch that looks broken takes no part until it is accepted
    accept: list[str] = field(
        default_factory=list
    )  # periods of such batches that a person has looked at
    # Later batches that agree with one on hold, and not with the past; null: never.
    accept_after: Annotated[int, Ge(1)] | None = 3
    hold: list[str] = field(default_factory=list)  # periods of batches that a person puts on hold


@dataclass
class BacktestConfig:
    """What `retrain backtest` tries with each other, as names of files in `conf/`."""

    strategies: Annotated[list[Name], MinLen(1)] = field(default_factory=list)
    policies: Annotated[list[Name], MinLen(1)] = field(default_factory=list)
    gates: Annotated[list[Name], MinLen(1)] = field(default_factory=list)
    retraining_cost: NonNegative = 0.0  # in units of the loss, over one batch
    workers: PositiveCount | None = None  # null: one for each core


@dataclass
class TrackingConfig:
    """Where MLflow keeps runs and models. The address itself never enters the config: it may hold a password."""

    uri_from_env: Variable | None = None
    experiment: Name = MISSING
    registered_model: Name = MISSING


@dataclass
class Config:
    """Everything under `conf/`."""

    seed: Seed = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    strategy: dict[str, Any] = MISSING
    policy: dict[str, Any] = MISSING
    gate: GateConfig = field(default_factory=GateConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    monitoring: MonitoringConfig = field(default_factory=MonitoringConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    backtest: BacktestConfig = field(default_factory=BacktestConfig)
    trusted_types: list[str] = MISSING
    code: dict[str, str] = field(
        default_factory=dict
    )  # digests of what `_target_` names, by group; made, not configured


def compose(conf: Path, overrides: Sequence[str] = ()) -> Config:
    """Compose `conf/config.yaml` with Hydra and check it against the schema.

    Raises ConfigError with the key, the value and the file for anything that does not fit.
    """
    overrides = current_overrides(overrides)
    composed = compose_raw(conf, overrides)
    return check(composed, conf, OmegaConf.to_container(composed.hydra.runtime.choices), overrides)


def compose_raw(conf: Path, overrides: Sequence[str] = ()) -> DictConfig:
    """What Hydra makes of `conf/config.yaml`, its own settings under `hydra` included. Raises ConfigError when it can't."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    try:
        with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            return hydra_compose(
                "config", overrides=without_null(overrides, conf), return_hydra_config=True
            )
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        check_choices(chosen_groups(overrides, conf), conf)
        explain_addition(overrides, conf)
        given = f" (overrides: {' '.join(overrides)})" if overrides else ""
        unset = getattr(error.__cause__, "full_key", None)
        said = (
            f"no file of {conf.name}/ sets `{unset}`. If that name is right, add it: `+{unset}=...`."
            if unset
            else ""
        )
        raise ConfigError(
            f"The configuration can't be composed{given}: {said or first_lines(error)}"
        ) from error
    except Exception as error:  # Hydra lets the YAML parser's own errors through
        if type(error).__module__.startswith("yaml"):
            raise ConfigError(
                f"A file under {conf.name}/ is not valid YAML: {' '.join(str(error).split())}"
            ) from error
        raise


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them. Raises ConfigError for one that it can't read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(
            f"An override can't be read ({' '.join(overrides)}): {first_lines(error)}"
        ) from error


def swept_values(override: Override) -> list[str]:
    """The values that a sweep tries. Raises ConfigError for one that Hydra can't list, such as a choice inside a list."""
    try:
        return [str(value) for value in override.sweep_string_iterator()]
    except Exception as error:
        raise ConfigError(
            f"`{override.input_line}` can't be listed as a sweep ({first_lines(error)}). Write its values with commas between them."
        ) from error


def check(
    composed: DictConfig, conf: Path, choices: Mapping[str, str], overrides: Sequence[str]
) -> Config:
    """Typed form of a composed config. Raises ConfigError naming key, value and file."""
    choices = all_choices(choices, overrides, conf)
    where = functools.partial(find_origin, conf=conf, choices=choices, overrides=overrides)
    folders = folders_of(conf, _searchpath(composed))
    check_choices(choices, conf, folders)
    refuse_several({group: choices.get(group) for group in _groups()}, conf)
    content = _without_empty_overlays(composed)
    try:
        _gather_trusted_types(content, conf, where)
        plain = with_current_names(OmegaConf.to_container(content, resolve=True), overrides)
        _check_ranges(plain, where)
        config = _typed(plain)
    except (ConfigKeyError, ValidationError, MissingMandatoryValue) as error:
        key = error.full_key or str(error.key)
        value = OmegaConf.select(content, key, throw_on_missing=False)
        if isinstance(error, MissingMandatoryValue):
            what = f"`{key}` has no value"
        elif isinstance(error, ConfigKeyError):
            explain_foreign_key(key, conf, choices)
            what = f"`{key}` (value {value!r}) is not a key that this project knows"
        else:
            what = f"`{key}` has a value that does not fit, {value!r}: {first_lines(error)}"
        raise ConfigError(
            f"{where(key)}: {what}. Mend it there, then run the command again."
        ) from error
    except OmegaConfBaseException as error:
        key = error.full_key or str(error.key)
        raise ConfigError(
            f"{where(key)}: `{key}` refers to another value by `${{...}}`, which can't be found: {first_lines(error)}. Mend the "
            "reference, or give that value."
        ) from error
    check_values(config, where, folders)
    if config.evaluation.block_hours is None:
        config.evaluation.block_hours = config.data.block_hours
    if config.data.task is Task.regression:
        config.model.estimator |= config.model.for_regression
    config.model.for_regression = {}
    config.code = code_digests(to_container(config), conf.parent)
    return config


def _searchpath(composed: DictConfig) -> list[str]:
    """Where Hydra looks beside `conf/`. A job of a sweep is handed its config without Hydra's part."""
    from hydra.core.hydra_config import HydraConfig

    found = OmegaConf.select(composed, "hydra.searchpath")
    if found is None and HydraConfig.initialized():
        found = HydraConfig.get().searchpath
    return [str(place) for place in found or []]


def _gather_trusted_types(content: DictConfig, conf: Path, where: Callable[[str], str]) -> None:
    """Add to the one list what models trust in their own files, and what the user's own modules that they name define.

    Of all files in conf/model/, not of the chosen one alone: the champion may be a model that was chosen before. It leaves
    `model`, since it shapes no model: a version stays continuable when the list grows.
    """
    chosen = OmegaConf.to_container(content).get("model") or {}
    models = [(where("model.trusted_types"), chosen)]
    for path in sorted((conf / "model").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        own = own_modules(re.findall(r"_target_:\s*([\w.]+)", text), conf.parent)
        listed = OmegaConf.load(path) if "trusted_types" in text else {}
        models.append(
            (f"In {path.relative_to(conf.parent)}", {**listed, "own": defined_names(own)})
        )
    trusted = defined_names(own_modules(named_code(chosen), conf.parent))
    for origin, model in models:
        types = model.get("trusted_types")
        types = OmegaConf.to_container(types) if OmegaConf.is_config(types) else types
        if types is not None and not fits(list[str], types):
            raise ConfigError(
                f"{origin}: `model.trusted_types` is {types!r}, but must be {describe(list[str])}. Mend it there."
            )
        trusted += [*(types or []), *model.get("own", [])]
    if "model" in content:
        OmegaConf.set_struct(content, False)
        content.model.pop("trusted_types", None)
    if isinstance(content.get("trusted_types"), ListConfig):
        content.trusted_types = list(dict.fromkeys([*content.trusted_types, *trusted]))


def _check_ranges(content: Mapping[str, Any], where: Callable[[str], str]) -> None:
    """Raises ConfigError for every value outside of its range."""
    misfits = [f"{where(misfit.key)}: {misfit}" for misfit in find_misfits(Config, content)]
    if misfits:
        more = f" (and {len(misfits) - MOST_SHOWN} more)" if len(misfits) > MOST_SHOWN else ""
        raise ConfigError(
            f"{'. '.join(misfits[:MOST_SHOWN])}{more}. Mend it there, then run the command again."
        )


def _groups() -> set[str]:
    """The parts of the config that one file of `conf/` fills: two of them would be merged into one that nobody wrote."""
    return {one.name for one in fields(Config)}


def _without_empty_overlays(composed: DictConfig) -> DictConfig:
    """The config without Hydra's part, and without what an overlay file that holds nothing leaves behind."""
    empty = [group for group in OVERLAYS if group in composed and composed[group] in ({}, None)]
    return OmegaConf.masked_copy(
        composed, [key for key in composed if key not in ("hydra", *empty)]
    )


def first_lines(error: Exception) -> str:
    """An error of Hydra or OmegaConf without the lines that only its developers need."""
    noise = (
        "full_key:",
        "object_type",
        "To append to your config use",
        "Set the environment variable HYDRA_FULL_ERROR",
    )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not line.startswith(noise))
    return re.sub(r"^\w+ raised while resolving interpolation: ", "", text)


def instantiate(node: Any, key: str, **arguments: Any) -> Any:
    """The object that a `_target_` node describes. Raises ConfigError naming the key."""
    from hydra.errors import HydraException
    from hydra.utils import instantiate as hydra_instantiate

    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"`{key}` must name a class with `_target_`, but is {node!r}.")
    misfit = next(node_misfits(node, key), None)
    if misfit is not None:
        raise ConfigError(f"{misfit}. Mend it under conf/ or in the override.")
    try:
        # Lists must arrive as lists: scikit-learn refuses OmegaConf's own, and skops can't store them.
        made = hydra_instantiate(literal(dict(node)), _convert_="all", _partial_=bool(arguments))
        return (
            made(**arguments) if arguments else made
        )  # not through OmegaConf, which would interpolate names of columns
    except (HydraException, TypeError, ValueError) as error:
        cause = error.__cause__ or error
        unknown = re.search(r"Error loading [^\n]*\s*\w+\([\"'](.*)[\"']\)", str(cause))
        if unknown:
            raise ConfigError(
                f"`{key}` names {node['_target_']}, which can't be imported: {unknown[1]}. Mend its name, or install its library."
            ) from error
        raise ConfigError(
            f"`{key}` ({node['_target_']}) can't be built: {first_lines(cause)}"
        ) from error


def build(kind: type[Built], node: Any, key: str) -> Built:
    """The object that a `_target_` node describes. Raises ConfigError naming the key where it is none of its kind."""
    made = instantiate(node, key)
    if not isinstance(made, kind):
        raise ConfigError(
            f"`{key}` ({node['_target_']}) is no {kind.__module__}.{kind.__name__}. Name a class that is one with `_target_`."
        )
    return made


def class_name(node: Mapping[str, Any]) -> str:
    """The class that a `_target_` node names, without its module."""
    return node["_target_"].rsplit(".", 1)[-1]


def feature_types(config: Config) -> dict[str, ColumnType]:
    """The configured features with their types, in order."""
    return {name: column.type for name, column in config.data.features.items()}


def to_container(config: Config) -> dict[str, Any]:
    """Plain dictionaries, lists and scalars, as written to `params.yaml`."""
    return _plain(dataclasses.asdict(config))


def to_yaml(config: Config) -> str:
    return dump(to_container(config))


def load_params(path: Path = PARAMS) -> Config:
    """The config that the `config` stage resolved. Raises ConfigError when it is not there."""
    if not path.is_file():
        raise ConfigError(f"{path} is missing. Run `dvc repro config` to make it from conf/.")
    config = _typed(
        _swap(with_current_names(load(path.read_text(encoding="utf-8"))), MISSING, _QUESTION_MARKS)
    )
    return _swap(config, _QUESTION_MARKS, MISSING)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, enum.Enum) else value


def _typed(content: dict[str, Any]) -> Config:
    """Plain content as it is: what looks like an interpolation is none."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), literal(content)))


def _swap(content: Any, old: str, new: str) -> Any:
    """The content with another text in place of one. OmegaConf takes `???` for a value that is missing."""
    if isinstance(content, dict):
        return {key: _swap(value, old, new) for key, value in content.items()}
    if isinstance(content, list):
        return [_swap(value, old, new) for value in content]
    if is_dataclass(content):
        for one in fields(content):
            setattr(content, one.name, _swap(getattr(content, one.name), old, new))
    return new if isinstance(content, str) and content == old else content
