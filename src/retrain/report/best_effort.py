"""What is only shown must not fail a stage that has already moved something."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from retrain.masking import mask

log = logging.getLogger("retrain")


@contextlib.contextmanager
def best_effort(what: str) -> Iterator[None]:
    """An error in the block becomes a warning with its cause: the outcome stands, and what shows it
    can be made again."""
    try:
        yield
    except Exception as error:
        cause = next(iter(mask(str(error)).strip().splitlines()), "")
        log.warning(
            "%s could not be shown (%s: %s). What was decided stands. `dvc repro -f -s promote` "
            "shows it again.",
            what,
            type(error).__name__,
            cause[:500],
        )
        log.debug("The traceback:", exc_info=True)
