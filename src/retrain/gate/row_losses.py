"""Losses of single rows, compared between two models."""

from __future__ import annotations

import numpy as np
import polars as pl

from retrain.columns import own_column
from retrain.gate.compare import to_target
from retrain.gate.estimates import (
    BLOCK,
    CHALLENGER,
    INCUMBENT,
    Estimate,
    jackknife,
    score_column,
)
from retrain.models.block_sums import leave_one_out, mean
from retrain.models.metrics import find_row_loss

REFERENCE, WORSENING = own_column("reference_loss"), own_column("worsening")


def row_losses(rows: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Block, the incumbent's loss, and by how much the challenger's is larger, of each row: no
    column of the data beside them, which may have any name."""
    target, row_loss = to_target(rows), find_row_loss(metric)
    incumbent = row_loss(target, rows[score_column(INCUMBENT)].to_numpy())
    worsening = row_loss(target, rows[score_column(CHALLENGER)].to_numpy()) - incumbent
    return pl.DataFrame({BLOCK: rows[BLOCK], REFERENCE: incumbent, WORSENING: worsening})


def sums_by_block(losses: pl.DataFrame) -> pl.DataFrame:
    """Sums and row counts of each block."""
    return losses.group_by(BLOCK).agg(pl.col(WORSENING, REFERENCE).sum(), pl.len()).sort(BLOCK)


def beyond_margin(
    sums: pl.DataFrame, margin: float, margin_is: str
) -> tuple[Estimate, float, float]:
    """By how much the mean worsening exceeds the margin; that worsening; and the margin in units of
    the loss.

    A relative margin is a share of the incumbent's mean loss on the same rows, and as uncertain as
    that is.
    """
    rows, worsening = sums["len"].to_numpy(), sums[WORSENING].to_numpy()
    allowed = margin * (sums[REFERENCE].to_numpy() if margin_is == "relative" else rows)
    size = rows.sum()
    beyond = jackknife(leave_one_out(mean, np.stack([worsening - allowed, rows]).T))
    return beyond, float(worsening.sum() / size), float(allowed.sum() / size)


def loss_named(metric: str | None) -> str | None:
    """A configured loss. Raises ConfigError when it is not one of single rows."""
    if metric is not None:
        find_row_loss(metric)
    return metric
