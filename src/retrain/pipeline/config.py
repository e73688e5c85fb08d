"""Stage `config`: compose `conf/`, check it, write `params.yaml` for the stages that follow."""

from __future__ import annotations

import logging

import yaml

from retrain.config import Config, build, to_container, to_yaml
from retrain.data.periods import parse_delay, parse_period
from retrain.errors import ConfigError, DataError
from retrain.gate.decision import build_checks
from retrain.models.metrics import SHOWN, find_metric, fits_task
from retrain.models.strategy import Strategy
from retrain.monitoring.policy import Policy
from retrain.workspace import PARAMS, write_text
from retrain.yaml_text import load

log = logging.getLogger("retrain")


def run(config: Config) -> None:
    """Raises ConfigError before any stage has done work on a config that can't be used."""
    build(Policy, config.policy, "policy")
    build(Strategy, config.strategy, "strategy").check(config)
    task, metric = config.data.task, config.data.metric
    find_metric(metric, task)
    if not fits_task(metric, task):
        raise ConfigError(
            f"`data.metric` is {metric}, which says nothing about {task.name} (`data.task`).",
            hint=f"choose one of {', '.join(SHOWN[task])}, or a scorer of scikit-learn, in "
            "conf/data/",
        )
    parse_delay(config.data.label_delay)
    _check_periods(config)
    for has_incumbent in (True, False):
        build_checks(config.gate, has_incumbent, config.data)
    if _model_changed(config):
        from retrain.models.fitting import build_pipeline

        build_pipeline(config)
    text = to_yaml(config)
    if not PARAMS.is_file() or PARAMS.read_text(encoding="utf-8") != text:
        write_text(PARAMS, text)
    log.info("Resolved conf/ into %s.", PARAMS)


def _model_changed(config: Config) -> bool:
    """Whether the model has to be looked at again. That imports its library, the longest part."""
    try:
        known = load(PARAMS.read_text(encoding="utf-8"))
        of_model = [known["model"], known["code"], known["data"]["task"]]
    except (OSError, UnicodeError, yaml.YAMLError, LookupError, TypeError):
        return True  # missing, damaged, or of an earlier version
    wanted = to_container(config)
    return of_model != [wanted["model"], wanted["code"], wanted["data"]["task"]]


def _check_periods(config: Config) -> None:
    named = [("data.as_of", config.data.as_of)] if config.data.as_of is not None else []
    named += [("monitoring.accept", period) for period in config.monitoring.accept]
    named += [("monitoring.hold", period) for period in config.monitoring.hold]
    for key, period in named:
        try:
            parse_period(str(period), config.data.period)
        except DataError as error:
            raise ConfigError(
                f"`{key}` names no batch (`data.period` is {config.data.period.name}): {error}"
            ) from error
