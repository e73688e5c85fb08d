"""Stage `config`: compose `conf/`, check it, write `params.yaml` for the stages that follow."""

from __future__ import annotations

import logging

from retrain.config import Config, instantiate, to_yaml
from retrain.modeling.metrics import find_metric
from retrain.project import PARAMS, write_text
from retrain.promotion.gate import build_questions

log = logging.getLogger("retrain")


def run(config: Config) -> None:
    """Raises ConfigError before any stage has done work on a config that can't be used."""
    for key in ("policy", "strategy"):
        instantiate(getattr(config, key), key)
    for has_incumbent in (True, False):
        for question in build_questions(config.gate, has_incumbent).values():
            if question.check.metric is not None:
                find_metric(question.check.metric)
    text = to_yaml(config)
    if not PARAMS.is_file() or PARAMS.read_text(encoding="utf-8") != text:
        write_text(PARAMS, text)
    log.info("Resolved conf/ into %s.", PARAMS)
