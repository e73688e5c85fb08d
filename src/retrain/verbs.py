"""What the command line offers: every verb with its module, its words and its options, as data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from retrain.verb_options import (
    FRESH,
    INIT,
    REASON,
    SWEEP,
    VERSION,
    Option,
    at_least_one,
    option,
)


class Verb(NamedTuple):
    """One verb of `retrain`.

    `module`: whose `run` is called. `hydra`: it composes the whole configuration, so that its help
    lists the choices and `--cfg` shows them. `alone`: `run` takes the options and no configuration.
    `locks`: no other retraining may be at work.
    """

    module: str
    about: str
    example: str
    options: tuple[Option, ...] = ()
    overrides: str = "key=value"
    hydra: bool = False
    alone: bool = False
    locks: bool = False


VERBS = {
    "new": Verb(
        "retrain.commands.new",
        "write a fresh project into a new folder, on the engine that is installed",
        "retrain new ../sales",
        (option("folder", type=Path, metavar="DIR", help="a folder that is new or empty"),),
        overrides="",
        alone=True,
    ),
    "init": Verb(
        "retrain.commands.init",
        "look at your own data, guess its schema, write conf/data/<name>.yaml",
        "retrain init sales.csv --target amount --time sold_at\n"
        "  retrain init 'data/incoming/*.parquet' --target churned --time day --period week\n"
        '  retrain init DATABASE_URL --query "select * from orders" --target late '
        "--time ordered_at",
        INIT,
        overrides="",
        alone=True,
    ),
    "config": Verb(
        "retrain.pipeline.config",
        "compose conf/, check it, write params.yaml",
        "retrain config",
        hydra=True,
        locks=True,
    ),
    "snapshot": Verb(
        "retrain.pipeline.snapshot",
        "bring data/snapshot to what the source holds",
        "retrain snapshot",
        hydra=True,
        locks=True,
    ),
    "monitor": Verb(
        "retrain.pipeline.observe",
        "what the newest batch says, and what the policy would decide",
        "retrain monitor policy=on_drift",
        hydra=True,
        locks=True,
    ),
    "train": Verb(
        "retrain.pipeline.train",
        "train a candidate (in the pipeline: ask the policy, train the challenger)",
        "retrain train model=logistic_regression\n  retrain train -m "
        "model=hist_gradient_boosting,logistic_regression strategy=full,sliding_window",
        (SWEEP, FRESH),
        hydra=True,
        locks=True,
    ),
    "evaluate": Verb(
        "retrain.pipeline.evaluate",
        "compare stored predictions, ask the gate (by hand: shown and counted as a look, not "
        "carried out)",
        "retrain evaluate gate=superiority",
        hydra=True,
        locks=True,
    ),
    "promote": Verb(
        "retrain.pipeline.promote",
        "carry out the verdict, finish a half-done move; with a version: let it serve although "
        "the gate has not chosen it",
        'retrain promote\n  retrain promote 7 --reason "the gate was wrong about the strike"',
        (REASON,),
        overrides=VERSION,
        hydra=True,
        locks=True,
    ),
    # Who serves is decided by a person: they hold the project's lock as the stages do.
    "approve": Verb(
        "retrain.commands.manual_promotion",
        "let the candidate serve that waits for approval",
        'retrain approve --reason "looked at the slices"',
        (REASON,),
        overrides=VERSION,
        locks=True,
    ),
    "rollback": Verb(
        "retrain.commands.manual_promotion",
        "go back to the version that last served",
        'retrain rollback --reason "complaints"\n  retrain rollback --to 2 --reason "complaints"',
        (
            option(
                "--to", type=int, metavar="VERSION", help="instead of the version that last served"
            ),
            option("--reason", required=True, help="goes into the ledger"),
        ),
        locks=True,
    ),
    "backtest": Verb(
        "retrain.commands.backtest",
        "which policy, strategy and gate would have served best on the snapshot's history, and at "
        "what cost",
        "retrain backtest\n"
        "  retrain backtest -m strategy=full,sliding_window policy=every,on_decay\n"
        "  retrain backtest --inject-faults --adopt",
        (
            option(
                "--inject-faults",
                action="store_true",
                help="also replay with broken batches: who notices?",
            ),
            option("--adopt", action="store_true", help="write the recommendation into conf/"),
            SWEEP,
        ),
        hydra=True,
        alone=True,
    ),
    "gate-check": Verb(
        "retrain.commands.gate_check",
        "put challengers of known worth before the gate, on the snapshot's history",
        "retrain gate-check --quick\n  retrain gate-check gate=superiority",
        (
            option(
                "--quick",
                action="store_true",
                help="three batches, at most 30,000 rows to learn from",
            ),
            option(
                "--batches",
                type=int,
                default=8,
                metavar="N",
                help="the newest N batches (default: 8)",
            ),
        ),
        hydra=True,
    ),
    "adopt": Verb(
        "retrain.commands.adopt",
        "write the choices of a candidate into conf/, for `dvc repro` and the gate",
        "retrain adopt 53a9b0f3...",
        (option("run", metavar="RUN_ID", help="of a finished candidate, in MLflow"),),
        overrides="",
        locks=True,
    ),
    "reproduce": Verb(
        "retrain.commands.reproduce",
        "train a version again from its recorded commit, snapshot and config, and compare "
        "predictions",
        "retrain reproduce 4",
        (
            option(
                "--trust-store",
                action="store_true",
                help="run code and config of which the ledger has no digest",
            ),
        ),
        overrides=VERSION,
    ),
    "status": Verb(
        "retrain.commands.status",
        "snapshot, champion, last verdict, what to do next",
        "retrain status\n  retrain status --fail-if-refused",
        (
            option(
                "--fail-if-refused",
                action="store_true",
                help="end with 3 where the gate did not let the newest challenger pass",
            ),
        ),
        hydra=True,
    ),
    "history": Verb(
        "retrain.commands.history",
        "every verdict and every move of the champion; who served when, and why",
        "retrain history\n  retrain history --at 2013-11-15\n  retrain history --verify\n  "
        "retrain history --jsonl > ledger.jsonl",
        (
            option(
                "--at",
                metavar="DATE",
                help="who served at the end of that day (UTC), or at a time, and why",
            ),
            option("--jsonl", action="store_true", help="the whole ledger as JSON Lines"),
            option(
                "--verify",
                action="store_true",
                help="check that no entry was changed since it was written",
            ),
        ),
    ),
    "gc": Verb(
        "retrain.commands.gc",
        "list models, runs and files that nothing needs any more; with --yes, delete them",
        "retrain gc\n  retrain gc --keep 20 --days 90 --yes",
        (
            option("--yes", action="store_true", help="delete them"),
            option(
                "--keep",
                type=at_least_one,
                default=10,
                metavar="N",
                help="the last N versions that served stay whole (default: 10)",
            ),
            option(
                "--days",
                type=at_least_one,
                default=30,
                metavar="D",
                help="nothing younger than D days goes (default: 30)",
            ),
            option(
                "--commits",
                type=at_least_one,
                metavar="N",
                help="DVC's cache keeps what the last N commits of each branch name (default: all)",
            ),
        ),
        overrides="",
        locks=True,
    ),
    "move-store": Verb(
        "retrain.commands.move_store",
        "copy the local store, with ledger and models, into a database that a team shares",
        "retrain move-store --artifacts s3://bucket/mlflow\n  "
        "retrain move-store --artifacts s3://bucket/mlflow --artifacts-as mlflow-artifacts:",
        (
            option(
                "--to",
                metavar="VARIABLE",
                default="MLFLOW_TRACKING_URI",
                help="of the environment, holds the database's address (default: "
                "MLFLOW_TRACKING_URI)",
            ),
            option("--artifacts", metavar="ADDRESS", help="copy mlruns/ there (default: it stays)"),
            option(
                "--artifacts-as",
                metavar="ADDRESS",
                help="what clients know it by; `mlflow-artifacts:` for a server that keeps the "
                "artifacts",
            ),
        ),
        overrides="",
        locks=True,
    ),
    "ui": Verb(
        "retrain.commands.ui",
        "start MLflow's pages on this machine and say where retrainings and versions are",
        "retrain ui\n  retrain ui --port 5001 --open",
        (
            option("--port", type=int, default=5000, help="default: 5000"),
            option("--open", action="store_true", help="open the first page in the browser"),
        ),
    ),
    "predict": Verb(
        "retrain.commands.predict",
        "score a file with the champion",
        "retrain predict new.parquet --output scored.parquet",
        (
            option("input", type=Path, help="Parquet or CSV file with the feature columns"),
            option("--output", type=Path, required=True, help="Parquet or CSV file to write"),
            option(
                "--prefix", default="", help="of the new columns: prediction, model_version, ..."
            ),
        ),
    ),
}
