"""Stage `config`: compose `conf/`, check it, write `params.yaml` for the stages that follow."""

from __future__ import annotations

import logging

from retrain.config import Config, instantiate, to_yaml
from retrain.project import PARAMS, write_text
from retrain.promotion.gate import build_checks

log = logging.getLogger("retrain")


def run(config: Config) -> None:
    """Raises ConfigError before any stage has done work on a config that can't be used."""
    for key in ("policy", "strategy"):
        instantiate(getattr(config, key), key)
    for has_incumbent in (True, False):
        build_checks(config.gate, has_incumbent)
    text = to_yaml(config)
    if not PARAMS.is_file() or PARAMS.read_text(encoding="utf-8") != text:
        write_text(PARAMS, text)
    log.info("Resolved conf/ into %s.", PARAMS)
