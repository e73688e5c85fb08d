"""The comparison of two models on ten million rows, with all guardrails: seconds and peak memory,
predictions given.

    python tests/benchmarks/large.py
    python tests/benchmarks/large.py --rows 1000000

Synthetic rows of thirty days with three categories (5, 50 and 300 levels), a number, and a fifth as
many reference rows. The functions are those that the stage `evaluate` calls, and the gate is the
shipped one.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import time
from pathlib import Path

import numpy as np
import polars as pl

from retrain.config import compose
from retrain.gate.compare import compare
from retrain.gate.decision import build_checks, decide
from retrain.gate.estimates import (
    BASELINE,
    BLOCK,
    CHALLENGER,
    EVALUATION,
    INCUMBENT,
    TARGET,
    WINDOW,
    score_column,
)

CONF = Path(__file__).parents[2] / "conf"
DAYS = 30


def simulate(rows: int, seed: int, window: str) -> pl.DataFrame:
    """Predictions with a block and features, as `evaluate` has them before it compares."""
    random = np.random.default_rng(seed)
    logit = random.normal(-1.3, 1.0, rows)
    levels = {"few": 5, "some": 50, "many": 300}
    features = {
        name: pl.Series(random.integers(0, count, rows)).cast(pl.String)
        for name, count in levels.items()
    }
    models = {
        score_column(name): 1 / (1 + np.exp(-(logit + random.normal(0, noise, rows))))
        for name, noise in ((CHALLENGER, 0.3), (INCUMBENT, 0.35))
    }
    return pl.DataFrame(
        {
            WINDOW: pl.repeat(window, rows, eager=True),
            BLOCK: np.arange(rows) * DAYS // rows,
            TARGET: (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8),
            **models,
            score_column(BASELINE): pl.repeat(0.25, rows, eager=True),
            **features,
            "number": random.normal(0, 1, rows),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the comparison of two models on many rows.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    gate = compose(CONF).gate
    gate.checks["slices"]["by"] = ["few", "some", "many", "number"]
    specs = build_checks(gate, has_incumbent=True)
    judged, reference = simulate(rows, 1, EVALUATION), simulate(rows // 5, 2, "2013-01")
    before, started = peak_memory(), time.perf_counter()
    comparison = compare(judged, [CHALLENGER, INCUMBENT, BASELINE])
    compared = time.perf_counter()
    facts = {"latency_one_row_ms": 1.0, "model_megabytes": 1.0}
    comparison = dataclasses.replace(
        comparison, facts=facts, classes=["0", "1"], rows_judged=judged, reference_rows=reference
    )
    record = decide(comparison, specs)
    ended = time.perf_counter()
    for name, check in record.checks.items():
        print(f"{check.outcome:<15}{name}: {check.reason}")
    print(
        f"\n{rows:,} rows: intervals {compared - started:.1f} s, guardrails {ended - compared:.1f} "
        "s, ",
        end="",
    )
    print(
        f"together {ended - started:.1f} s; peak memory {peak_memory():.2f} GB, of which "
        f"{before:.2f} were there before"
    )


def peak_memory() -> float:
    """Largest resident memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
