"""`--cfg` and `--info`: Hydra's own view of the configuration that a command would use."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from retrain.config import compose, first_lines
from retrain.errors import ConfigError
from retrain.lazy import hydra, omegaconf

CONF = Path("conf")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def run(options: argparse.Namespace) -> None:
    """Print it even where it does not fit, then raise ConfigError that says what does not."""
    if options.info is not None and options.info not in INFO:
        raise ConfigError(f"`--info {options.info}` is not known. There are: {', '.join(INFO)}.")
    flags = ["--info", options.info] if options.info else ["--cfg", options.cfg]
    flags += ["--package", options.package] if options.package else []
    flags += ["--resolve"] if options.resolve else []
    # Hydra reads its arguments from the command line only, and without this ends the process
    # itself, with a traceback.
    sys.argv = [f"retrain {options.verb}", *flags, *options.overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    logging.getLogger().handlers.clear()  # Hydra brings its own, and would say everything twice
    try:
        hydra.main(config_path=str(CONF.resolve()), config_name="config")(lambda _: None)()
    except (
        hydra.errors.HydraException,
        omegaconf.errors.OmegaConfBaseException,
        ValueError,
    ) as error:
        compose(CONF, options.overrides)  # knows more about what is wrong, mostly
        raise ConfigError(f"Hydra can't show this: {first_lines(error)}") from error
    sys.stdout.flush()
    compose(CONF, options.overrides)
