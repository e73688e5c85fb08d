"""What no type can say about a config: values that contradict each other, and names that can't be
what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrain.columns import why_reserved
from retrain.errors import ConfigError
from retrain.masking import secret_keys
from retrain.origins import list_choices, option_file

if TYPE_CHECKING:
    from retrain.config import Config, DataConfig, GateConfig, MonitoringConfig

_REFUSED = ":'\"%#?*\\[]"  # in names of experiments and registered models
_LONGEST_TRACKED = 200
# What `retrain backtest` tries, and the folders of `conf/` that hold them.
BACKTESTED = {"strategies": "strategy", "policies": "policy", "gates": "gate"}
Where = Callable[[str], str]


def check_values(config: Config, where: Where, folders: Sequence[Path] | None) -> None:
    """Raises ConfigError for the first thing that does not go together. `folders`: where Hydra
    looks for options; None where it looks into packages too, so that nobody can tell which there
    are."""
    _check_columns(config.data, where)
    _check_tracking(config, where)
    _check_gate(config.gate, where)
    _check_monitoring(config.monitoring, where)
    if folders is not None:
        _check_backtest(config, where, folders)
    _refuse_secrets(config.data, where)


def _check_gate(gate: GateConfig, where: Where) -> None:
    """Raises ConfigError for a check without content: `null` would look like one that is switched
    off."""
    groups = {"gate.checks": gate.checks, "gate.first_champion": gate.first_champion}
    for key, node in (
        (f"{group}.{name}", node) for group, nodes in groups.items() for name, node in nodes.items()
    ):
        if not isinstance(node, Mapping) or not node.get("_target_"):
            primary = key in (
                "gate.checks.primary",
                "gate.first_champion.primary",
                "gate.first_champion.baseline",
            )
            way_out = (
                "It is the check that a challenger has to pass, so it can't be left out: choose "
                "another one with `_target_`."
                if primary
                else f"To switch it off, write `{key}.on_failure=off`."
            )
            raise ConfigError(
                f"{where(key)}: `{key}` is {'null' if node is None else repr(node)}, but must name "
                f"a check with `_target_`. {way_out}"
            )


def _check_monitoring(monitoring: MonitoringConfig, where: Where) -> None:
    both = sorted(
        {str(period).strip() for period in monitoring.hold}
        & {str(one).strip() for one in monitoring.accept}
    )
    if both:
        raise ConfigError(
            f"{where('monitoring.accept')}: {', '.join(both)} stands in both `monitoring.hold` "
            "(takes no part) and `monitoring.accept` (takes part again).",
            hint="take it out of one of them",
        )


def _check_backtest(config: Config, where: Where, folders: Sequence[Path]) -> None:
    for field, group in BACKTESTED.items():
        for name in getattr(config.backtest, field):
            if not any(option_file(folder, group, name).is_file() for folder in folders):
                there = ", ".join(list_choices(folders[0], group))
                raise ConfigError(
                    f"{where(f'backtest.{field}')}: `backtest.{field}` names {name!r}, but there "
                    f"is no {folders[0].name}/{group}/{name}.yaml.",
                    hint=f"choose from {there}, or make that file",
                )


def _refuse_secrets(data: DataConfig, where: Where) -> None:
    """What the config holds gets into git (conf/, params.yaml) and to everyone who may read the
    tracking store."""
    for key in secret_keys(data.source, "data.source"):
        raise ConfigError(
            f"{where(key)}: `{key}` holds a password, key or token, which would get into git and "
            "MLflow.",
            hint="put it into an environment variable: of a database the whole address, named by "
            "`data.source.uri_from_env`; for files those that their file system reads "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_SAS_TOKEN, "
            "FSSPEC_<PROTOCOL>_<OPTION>). Then change the password: it may be known by now.",
        )


def _check_tracking(config: Config, where: Where) -> None:
    """Raises ConfigError for a name that MLflow's registry, its filters or a folder of the local
    store would not take."""
    tracking = config.tracking
    names = {"tracking.registered_model": (tracking.registered_model, "/")}
    names["tracking.experiment"] = tracking.experiment, "/" if tracking.uri_from_env is None else ""
    for key, (name, more) in names.items():
        refused = sorted(
            {
                character
                for character in name
                if character in _REFUSED + more or not character.isprintable()
            }
        )
        if refused or name != name.strip(" .") or len(name) > _LONGEST_TRACKED:
            what = (
                f"holds {' '.join(map(repr, refused))}"
                if refused
                else "is too long, or begins or ends with a blank or a dot"
            )
            raise ConfigError(
                f"{where(key)}: `{key}` is {name!r}, which {what}. Letters, digits, blanks and "
                "most signs are allowed, at most "
                f"{_LONGEST_TRACKED} characters, but none of {' '.join(_REFUSED + more)}. Where it "
                "comes from `data.name`, mend "
                "that, or give it a name of its own in conf/tracking/."
            )


def _check_columns(data: DataConfig, where: Where) -> None:
    """Raises ConfigError for a name that can't be a column's, the target as a feature, and limits
    that no row could keep."""
    columns = {
        "data.time_column": [data.time_column],
        "data.target_column": [data.target_column],
        "data.key_columns": data.key_columns,
        "data.features": data.features,
    }
    for key, names in columns.items():
        for name in names:
            why = why_reserved(name)
            if why:
                raise ConfigError(
                    f"`{key}` names the column {name!r}, but {why}.",
                    hint="rename it at the source",
                )
    if not data.features:
        raise ConfigError(
            f"{where('data.features')}: `data.features` is empty, but must name at least one "
            "column."
        )
    if data.target_column in data.features:
        raise ConfigError(
            f"`data.features` holds the target {data.target_column!r}: the model would be told the "
            "answer."
        )
    if data.target_column == data.time_column:
        raise ConfigError(
            f"{where('data.target_column')}: `data.target_column` and `data.time_column` are both "
            f"{data.time_column!r}: the time orders the rows, and can't be what is predicted.",
            hint="name another column for one of them",
        )
    twice = sorted({name for name in data.key_columns if data.key_columns.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{where('data.key_columns')}: `data.key_columns` names {', '.join(map(repr, twice))} "
            "twice."
        )
    for name, column in data.features.items():
        key, low, high = f"data.features.{name}", column.minimum, column.maximum
        if column.type.name != "numeric" and (low, high) != (None, None):
            raise ConfigError(
                f"{where(key)}: `{key}` has a minimum or maximum, which only numeric columns "
                f"have, and is {column.type.name}.",
                hint="take it away, or make the column numeric",
            )
        if low is not None and high is not None and low > high:
            raise ConfigError(
                f"{where(key)}: `{key}` has the minimum {low:g}, above its maximum "
                f"{high:g}: no row would fit."
            )
