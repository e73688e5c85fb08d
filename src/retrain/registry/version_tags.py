"""A version's record as its tags in the registry."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping

from retrain.types import ModelRecord

# MLflow's page of a version hides tags that begin so. Two are needed from some 2,500 batches on: a
# tag holds 100,000 characters.
RECORD_TAG = "mlflow.retrain"
_LONGEST_PART = 90_000


def to_tags(record: ModelRecord) -> dict[str, str]:
    """A few words for people, and all of it as JSON."""
    several = list(dict.fromkeys([*record.batches[:1], *record.batches[-1:]]))
    tags = {
        "role": record.role,
        "batches": f"{' to '.join(several)} ({len(record.batches)})",
        "training_rows": f"{record.rows:,}",
    }
    text = json.dumps(record.content(), separators=(",", ":"))
    for number, start in enumerate(range(0, len(text), _LONGEST_PART)):
        tags[f"{RECORD_TAG}.{number}"] = text[start : start + _LONGEST_PART]
    return tags | ({} if record.refit_of is None else {"refit_of": str(record.refit_of)})


def read_tags(version: int, tags: Mapping[str, str]) -> ModelRecord:
    """The record of a version; empty where somebody else registered it, or it can't be read."""
    numbers = itertools.takewhile(lambda n: f"{RECORD_TAG}.{n}" in tags, itertools.count())
    text = "".join(tags[f"{RECORD_TAG}.{number}"] for number in numbers)
    if not text:
        return _read_single_tags(version, tags)
    try:
        return dataclasses.replace(ModelRecord.read(json.loads(text)), version=version)
    except ValueError:
        return ModelRecord(version, "", "")


def _read_single_tags(version: int, tags: Mapping[str, str]) -> ModelRecord:
    """As earlier versions of this project wrote it: a tag for each field."""

    def several(tag: str) -> list[str]:
        return [part for part in tags.get(tag, "").split(", ") if part]

    batches, original = several("batches"), tags.get("refit_of")
    return ModelRecord(
        version,
        tags.get("trained_from", ""),
        tags.get("trained_until", ""),
        batches,
        dict(zip(batches, several("batch_contents"), strict=False)),
        tags.get("model_sha256", ""),
        tags.get("role", ""),
        int(tags.get("training_rows") or 0),
        tags.get("snapshot", ""),
        tags.get("recipe", ""),
        tags.get("model_digest", ""),
        [int(number) for number in several("continued_from")],
        tags.get("strategy_choice", ""),
        int(original) if original else None,
    )
