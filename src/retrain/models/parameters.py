"""Whether what the config builds is a part of a model, and takes the parameters it was given,
before any row is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from retrain.errors import ConfigError
from retrain.lazy import sklearn


def check_part(part: Any, key: str, abilities: Sequence[str]) -> None:
    """Raises ConfigError for an object that lacks an ability (`fit`, `predict`), and for a
    parameter that scikit-learn refuses.

    Other libraries look at their parameters only when they fit.
    """
    lacking = [
        name for name in (*abilities, "get_params") if not callable(getattr(part, name, None))
    ]
    if lacking or isinstance(part, type):
        kind = "an estimator" if "predict" in abilities else "an encoding"
        what = part if isinstance(part, type) else type(part)
        raise ConfigError(
            f"`{key}` ({what.__module__}.{what.__qualname__}) is no {kind.removeprefix('an ')} of "
            f"scikit-learn: it has no {', '.join(f'`{name}`' for name in lacking or abilities)}.",
            hint=f"name {kind} with `_target_`, as the files in conf/model/ do",
        )
    _check_parameters(part, key)


def _check_parameters(part: Any, key: str) -> None:
    if isinstance(part, (list, tuple)):  # of named parts: ("scale", StandardScaler())
        for number, one in enumerate(part):
            _check_parameters(one, f"{key}[{number}]")
    if isinstance(part, type) or not hasattr(part, "get_params"):
        return
    if hasattr(
        part, "_parameter_constraints"
    ):  # not what other libraries derive from scikit-learn's classes
        try:
            part._validate_params()
        except sklearn.utils._param_validation.InvalidParameterError as error:
            named = re.match(r"The '(\w+)' parameter", str(error))
            raise ConfigError(
                f"`{key}{f'.{named[1]}' if named else ''}`: {error} Mend it in conf/model/ or in "
                "the override."
            ) from error
    for name, value in part.get_params(deep=False).items():
        _check_parameters(value, f"{key}.{name}")
