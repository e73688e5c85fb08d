"""Proof, before anything is compared, that a model was trained on none of the rows that are to
judge it."""

from __future__ import annotations

from collections.abc import Mapping

from retrain.errors import PromotionError
from retrain.types import ModelRecord


def check_holdout(name: str, model: ModelRecord, first_row: str, batches: Mapping[str, str]) -> str:
    """A sentence that says why the model can't have seen the evaluation rows.

    `first_row` is the time of the first of them (ISO 8601), `batches` the content digests of the
    batches that they lie in, by period. Raises PromotionError when it can't be shown, with the
    reason: a model would be praised for its memory.
    """
    who = f"The {name} (version {model.version})"
    hint = (
        "nothing was compared; `dvc repro -f -s train` repeats the comparison, `retrain history` "
        "shows which version was trained on what"
    )
    if not model.trained_until or not model.contents:
        raise PromotionError(
            f"{who} has no record of the rows that it was trained on, so it can't be shown that it "
            "has not seen the evaluation rows. Only versions that this project has registered, "
            "with "
            "their tags as they were, can be compared.",
            hint=hint,
        )
    if model.trained_until > first_row:
        raise PromotionError(
            f"{who} was trained on rows up to {model.trained_until}, and the evaluation rows start "
            f"at {first_row}: it has seen some of them.",
            hint=hint,
        )
    split = []
    for period, content in batches.items():
        for trained, digest in model.contents.items():
            if digest == content and trained != period:
                raise PromotionError(
                    f"{who} was trained on batch {trained}, whose rows are those of batch "
                    f"{period}, byte for byte: the evaluation rows are copies.",
                    hint="nothing was compared; mend the batch at its source, then `dvc repro`",
                )
        if period in model.contents:
            # Of a revised batch the rows' times still show it, but no longer that they are the same
            # rows.
            split.append(
                period if model.contents[period] == content else f"{period} (revised since)"
            )
    part = (
        f", of {', '.join(split)} only the part before"
        if split
        else ", none of which holds an evaluation row"
    )
    return (
        f"trained on {len(model.contents)} batch(es){part}; its last row is before "
        f"{model.trained_until}, and the first "
        f"evaluation row is of {first_row}"
    )
