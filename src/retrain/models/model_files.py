"""Model files without pickle: skops, loaded only when every type in the file is on the project's
own list."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from retrain.errors import ModelError
from retrain.lazy import sklearn, skops
from retrain.renamed import all_names

MODEL_FILE = "model.skops"


def unlisted_types(path: Path, trusted: Sequence[str]) -> list[str]:
    """Types in a model file that neither skops nor the list trusts. Nothing of the file is
    executed."""
    return sorted(set(skops.io.get_untrusted_types(file=path)) - set(all_names(trusted)))


def load_model(path: Path, trusted: Sequence[str], sha256: str | None) -> sklearn.pipeline.Pipeline:
    """The Pipeline in a skops file.

    `sha256` is what the registry recorded. Raises ModelError when the file is missing, is not
    skops, is not the registered one, or holds a type that `trusted` does not list. The list inside
    the file is never consulted.
    """
    if not path.is_file():
        raise ModelError(f"The model file {path.name} is gone from {path.parent}.")
    if sha256 is not None and file_digest(path) != sha256:
        raise ModelError(
            f"The model file in {path.parent} is not the one that was registered: its content has "
            "changed."
        )
    if not zipfile.is_zipfile(path):
        raise ModelError(
            f"The model file {path} is not in skops format. Pickled models are refused: loading "
            "one runs its code."
        )
    unlisted = unlisted_types(path, trusted)
    if unlisted:
        raise ModelError(
            f"The model file holds {', '.join(unlisted)}, which neither `trusted_types` in "
            "conf/config.yaml nor that of a file in conf/model/ lists."
        )
    return skops.io.load(path, trusted=all_names(trusted))


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
