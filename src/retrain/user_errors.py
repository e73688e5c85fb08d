"""Errors as a person sees them."""

from __future__ import annotations

import textwrap

from retrain.errors import DataError, RetrainError, first_line
from retrain.workspace import in_experiment_copy

# What an MLflow server answers when asking again won't help.
REFUSALS = {
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_LIMIT_EXCEEDED",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "NOT_IMPLEMENTED",
}


def typeset(error: RetrainError) -> str:
    """`error: ...`, and the hint in lines of its own, wrapped for a terminal."""
    parts = [f"error: {error.message}"] + ([f"hint: {error.hint}"] if error.hint else [])
    return "\n".join(
        textwrap.fill(part, width=110, break_long_words=False, break_on_hyphens=False)
        for part in parts
    )


def as_user_error(error: Exception) -> RetrainError | None:
    """What to show instead of a traceback; None for a mistake of the engine itself."""
    if isinstance(error, RetrainError):
        return _with_copy_hint(error)
    # Not imported for this: most commands never load MLflow.
    library = type(error).__module__.split(".")[0]
    first = first_line(error)
    if library in ("hydra", "omegaconf", "antlr4"):
        return RetrainError(
            f"The configuration or an override can't be used: {first}",
            hint="`retrain config --cfg job` shows the configuration",
        )
    if library in ("botocore", "boto3", "s3transfer"):
        return RetrainError(
            f"The store of models and artifacts failed: {first} What was finished stays.",
            hint="check AWS_ENDPOINT_URL, the credentials in the environment, and that the bucket "
            "exists; then run the command again",
        )
    if library not in ("mlflow", "sqlalchemy", "sqlite3", "filelock"):
        return None
    if getattr(error, "error_code", "") in REFUSALS:
        return RetrainError(
            f"The tracking store refused what it was given: {first} Running the command again "
            "would end the same way. What was finished stays.",
            hint="if it names an experiment or a model, change `tracking.experiment` or "
            "`tracking.registered_model` in conf/tracking/; if rights, ask whoever runs the "
            "server; `--debug` shows where it happened",
        )
    return RetrainError(
        f"The tracking store failed: {first} What was finished stays.",
        hint="run the command again once the store answers",
    )


def _with_copy_hint(error: RetrainError) -> RetrainError:
    """In a copy of the project that DVC made for an experiment: what git ignores is missing."""
    try:
        if not isinstance(error, DataError) or not in_experiment_copy():
            return error
    except RetrainError:
        return error
    return DataError(
        f"{error.message} This is a copy of the project that DVC made for an experiment, and it "
        "holds what git and DVC hold.",
        hint=f"{error.hint + '; or ' if error.hint else ''}hand over files that git ignores one by "
        "one: `dvc exp run --temp $(printf -- '--copy-paths %s ' data/incoming/*)`, also with "
        "`--queue`; let DVC keep them (`dvc add`); or run the experiment in the project itself, "
        "without `--temp` and `--queue`",
    )
