"""The command line: `retrain <verb> [hydra overrides]`. Each DVC stage calls the verb that a person would."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import logging
import os
import sys
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from retrain.errors import RetrainError
from retrain.masking import MaskingFormatter, mask

if TYPE_CHECKING:
    from retrain.config import Config

STARTED = datetime.now(UTC)
# verb -> (module, one line, example)
STAGES = {
    "config": (
        "retrain.pipeline.config",
        "compose conf/, check it, write params.yaml",
        "retrain config",
    ),
    "snapshot": (
        "retrain.pipeline.snapshot",
        "bring data/snapshot to what the source holds",
        "retrain snapshot",
    ),
    "monitor": (
        "retrain.pipeline.observe",
        "what the newest batch says, and what the policy would decide",
        "retrain monitor policy=on_drift",
    ),
    "train": (
        "retrain.pipeline.train",
        "train a candidate (in the pipeline: ask the policy, train the challenger)",
        "retrain train model=logistic_regression",
    ),
    "evaluate": (
        "retrain.pipeline.evaluate",
        "compare stored predictions, ask the gate (by hand: shown and counted as a look, not carried out)",
        "retrain evaluate gate=superiority",
    ),
    "promote": (
        "retrain.pipeline.promote",
        "carry out the verdict, finish a half-done move; with a version: let it serve although the gate has not chosen it",
        'retrain promote\n  retrain promote 7 --reason "the gate was wrong about the strike"',
    ),
}
# Who serves is decided by a person: they hold the project's lock as the stages do.
CHOICES = {
    "approve": (
        "retrain.commands.approve",
        "let the candidate serve that waits for approval",
        'retrain approve --reason "looked at the slices"',
    ),
    "rollback": (
        "retrain.commands.rollback",
        "go back to the version that last served",
        'retrain rollback --reason "complaints"\n  retrain rollback --to 2 --reason "complaints"',
    ),
}
QUESTIONS = {
    "backtest": (
        "retrain.commands.backtest",
        "which policy, strategy and gate would have served best on the snapshot's history, and at what cost",
        "retrain backtest\n  retrain backtest -m strategy=full,sliding_window policy=every,on_decay\n  retrain backtest --inject-faults --adopt",
    ),
    "gate-check": (
        "retrain.commands.gate_check",
        "put challengers of known worth before the gate, on the snapshot's history",
        "retrain gate-check --quick\n  retrain gate-check gate=superiority",
    ),
    "reproduce": (
        "retrain.commands.reproduce",
        "train a version again from its recorded commit, snapshot and config, and compare predictions",
        "retrain reproduce 4",
    ),
    "status": (
        "retrain.commands.status",
        "snapshot, champion, last verdict, what to do next",
        "retrain status",
    ),
    "history": (
        "retrain.commands.history",
        "every verdict and every move of the champion; who served when, and why",
        "retrain history\n  retrain history --at 2013-11-15\n  retrain history --jsonl > ledger.jsonl",
    ),
    "predict": (
        "retrain.commands.predict",
        "score a file with the champion",
        "retrain predict new.parquet --output scored.parquet",
    ),
}
INIT = (
    "retrain.commands.init",
    "look at your own data, guess its schema, write conf/data/<name>.yaml",
    "retrain init sales.csv --target amount --time sold_at\n"
    "  retrain init 'data/incoming/*.parquet' --target churned --time day --period week\n"
    '  retrain init DATABASE_URL --query "select * from orders" --target late --time ordered_at',
)
NEW = (
    "retrain.commands.new",
    "write a fresh project into a new folder, on the engine that is installed",
    "retrain new ../sales",
)
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
WITH_VERSION = ("promote", "approve", "reproduce")
SWEEP = (
    "retrain train -m model=hist_gradient_boosting,logistic_regression strategy=full,sliding_window"
)


# Options that Hydra's own command line has, and what to do instead here.
NOT_HERE = {
    "--config-dir": "overlays of your own lie in conf/experiment/: `experiment=<name>`",
    "--config-path": "the configuration is that of the project: change into its folder",
    "--config-name": "overlays of your own lie in conf/experiment/: `experiment=<name>`",
    "--experimental-rerun": "`retrain reproduce VERSION` trains a version again",
    "--hydra-help": "`retrain train --help` lists the choices, `--info` shows where everything comes from",
    "--shell-completion": "there is none",
}
RUNS_HYDRA = {
    "config",
    "snapshot",
    "monitor",
    "train",
    "evaluate",
    "promote",
    "backtest",
    "gate-check",
    "status",
}


class _Parser(argparse.ArgumentParser):
    """Lists the choices in `conf/` below the help of a verb that takes them."""

    def format_help(self) -> str:
        text = super().format_help()
        return text + _list_choices() if self.prog.rpartition(" ")[2] in RUNS_HYDRA else text


def _list_choices() -> str:
    from retrain.workspace import find_root

    try:
        files = sorted((find_root() / "conf").glob("*/*.yaml"))
    except RetrainError:
        return ""
    groups: dict[str, list[str]] = {}
    for path in files:
        groups.setdefault(path.parent.name, []).append(path.stem)
    width = max(map(len, groups), default=0)
    lines = [f"  {name:<{width}}  {', '.join(names)}" for name, names in groups.items()]
    return "\n".join(["", "choices, in conf/, for key=value:", *lines, ""])


def build_parser() -> argparse.ArgumentParser:
    """The parser of every verb. Imports nothing heavy: help must be there at once."""
    parser = _Parser(
        prog="retrain",
        description="Retrain a scikit-learn model when new labelled data arrives, and promote it only if it holds up.",
        epilog="The pipeline runs them all: dvc repro. `retrain <verb> --help` shows an example.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(dest="verb", metavar="verb", required=True)
    for verb, (_, text, example) in (
        {"new": NEW, "init": INIT} | STAGES | CHOICES | QUESTIONS
    ).items():
        examples = f"{example}\n  {SWEEP}" if verb == "train" else example
        one = verbs.add_parser(
            verb,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  {examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an error",
        )
        if verb == "new":
            one.add_argument(
                "folder", type=Path, metavar="DIR", help="a folder that is new or empty"
            )
            continue
        if verb == "init":
            _add_init(one)
            continue
        if verb in RUNS_HYDRA:
            _add_hydra(one)
        if verb == "predict":
            one.add_argument(
                "input", type=Path, help="Parquet or CSV file with the feature columns"
            )
            one.add_argument(
                "--output", type=Path, required=True, help="Parquet or CSV file to write"
            )
            one.add_argument(
                "--prefix", default="", help="of the new columns: prediction, model_version, ..."
            )
        if verb == "history":
            one.add_argument(
                "--at",
                metavar="DATE",
                help="who served at the end of that day (UTC), or at a time, and why",
            )
            one.add_argument("--jsonl", action="store_true", help="the whole ledger as JSON Lines")
        if verb == "gate-check":
            one.add_argument(
                "--quick",
                action="store_true",
                help="three batches, at most 30,000 rows to learn from",
            )
            one.add_argument(
                "--batches",
                type=int,
                default=8,
                metavar="N",
                help="the newest N batches (default: 8)",
            )
        if verb == "reproduce":
            text = "run code and config of which the ledger has no digest"
            one.add_argument("--trust-store", action="store_true", help=text)
        if verb == "rollback":
            one.add_argument(
                "--to", type=int, metavar="VERSION", help="instead of the version that last served"
            )
        if verb in ("promote", "approve", "rollback"):
            one.add_argument("--reason", required=verb == "rollback", help="goes into the ledger")
        if verb == "backtest":
            one.add_argument(
                "--inject-faults",
                action="store_true",
                help="also replay with broken batches: who notices?",
            )
            one.add_argument(
                "--adopt", action="store_true", help="write the recommendation into conf/"
            )
        if verb in ("train", "backtest"):
            one.add_argument(
                "-m",
                "--multirun",
                action="store_true",
                help="sweep: values separated by commas, one job each",
            )
        if verb in WITH_VERSION:
            text = "number of a registered version, then Hydra overrides as in conf/"
            one.add_argument("overrides", nargs="*", metavar="VERSION key=value", help=text)
        else:
            one.add_argument(
                "overrides", nargs="*", metavar="key=value", help="Hydra overrides, as in conf/"
            )
    return parser


def _add_hydra(parser: argparse.ArgumentParser) -> None:
    """What Hydra's own command line offers for looking at a configuration."""
    show = parser.add_argument_group("looking at the configuration")
    kinds = ("job", "hydra", "all")
    show.add_argument(
        "--cfg", "-c", choices=kinds, help="print the configuration that would be used, and stop"
    )
    show.add_argument("--resolve", action="store_true", help="with --cfg: without ${...}")
    show.add_argument("--package", "-p", metavar="KEY", help="with --cfg: this part of it")
    about = "print where it comes from, and stop: all, defaults, defaults-tree, config, plugins, searchpath"
    show.add_argument("--info", "-i", nargs="?", const="all", metavar="WHAT", help=about)


def _add_init(parser: argparse.ArgumentParser) -> None:
    files = (
        "CSV, Parquet or JSON Lines: a path, a glob in quotes, or a URL; with --query, a database"
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help=files)
    parser.add_argument("--target", required=True, metavar="COLUMN", help="what to predict")
    parser.add_argument("--time", required=True, metavar="COLUMN", help="when each row happened")
    kinds = ("hour", "day", "week", "month", "quarter", "rows")
    parser.add_argument("--period", choices=kinds, help="length of a batch (default: guessed)")
    parser.add_argument(
        "--rows-per-batch", type=int, metavar="N", help="with --period rows (default: guessed)"
    )
    formats = "a strptime format, epoch_s, epoch_ms or epoch_us; COLUMN=FORMAT for another column of dates, as often as needed"
    parser.add_argument("--time-format", metavar="FORMAT", action="append", help=formats)
    separator = "of the columns in text files: `;`, `|`, tab, ... (default: found out)"
    parser.add_argument("--separator", metavar="SIGN", help=separator)
    parser.add_argument(
        "--decimal", choices=(".", ","), help="sign before the decimals (default: found out)"
    )
    parser.add_argument(
        "--encoding", help="of text files: utf-8, cp1252, utf-16, ... (default: found out)"
    )
    parser.add_argument("--name", help="of the data set (default: from the file)")
    parser.add_argument(
        "--query", metavar="SQL", help="read what this query returns, from the database FILE"
    )
    parser.add_argument("--force", action="store_true", help="overwrite conf/data/<name>.yaml")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; a user's mistake ends with one paragraph on standard error and exit code 1."""
    options = parse(arguments)
    gc.set_threshold(
        100_000, 20, 20
    )  # loading the libraries makes objects that stay: looking for garbage costs 0.6 s
    sys.stdout, sys.stderr = _Unhurried(sys.stdout), _Unhurried(sys.stderr)
    _log_masked()
    for noisy in ("matplotlib", "mlflow", "alembic", "filelock", "git", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        run(options)
        if (
            not getattr(options, "multirun", False) and options.verb != "backtest"
        ):  # there are workers to send home
            _leave()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        shown = None if options.debug else _as_user_error(error)
        print(typeset(shown) if shown else mask(traceback.format_exc()).rstrip(), file=sys.stderr)
        sys.exit(1)


def typeset(error: RetrainError) -> str:
    """`error: ...`, and the hint in lines of its own, wrapped for a terminal."""
    parts = [f"error: {error.message}"] + ([f"hint: {error.hint}"] if error.hint else [])
    return "\n".join(
        textwrap.fill(part, width=110, break_long_words=False, break_on_hyphens=False)
        for part in parts
    )


class _Unhurried:
    """An output whose reader may leave early, as `head` does: the rest is dropped, and the work goes on to its end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _log_masked() -> None:
    """Log to standard error, without the credentials that a library's message may hold."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MaskingFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _leave() -> None:
    """End a process that has finished its work, without taking MLflow and scikit-learn apart first: that takes a second."""
    if "retrain.registry.store" in sys.modules:
        sys.modules["retrain.registry.store"].settle_local_store()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parsed arguments. Overrides may stand before and after `-m`, which argparse alone does not allow."""
    from retrain.renamed import current_command_line, current_overrides

    parser = build_parser()
    options, rest = parser.parse_known_args(
        current_command_line(sys.argv[1:] if arguments is None else arguments)
    )
    rest = [
        argument for argument in rest if argument not in ("--run", "-r")
    ]  # Hydra's word for one job
    unknown = [argument for argument in rest if argument.startswith("-")]
    for argument in unknown:
        name = argument.partition("=")[0]
        if name in NOT_HERE:
            parser.error(f"`{name}` is Hydra's, and not here: {NOT_HERE[name]}")
        if name in ("-m", "--multirun"):
            parser.error(
                f"only `retrain train` and `retrain backtest` sweep, not `retrain {options.verb}`"
            )
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.verb in ("new", "init"):
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.started_in = Path.cwd()
        return options
    options.overrides += rest
    if (
        getattr(options, "info", None) and "=" in options.info
    ):  # an override that came after a bare --info
        options.overrides.insert(0, options.info)
        options.info = "all"
    options.overrides = current_overrides(options.overrides)
    options.version, options.started = None, STARTED
    if options.verb in WITH_VERSION and options.overrides and options.overrides[0].isdigit():
        options.version = int(options.overrides.pop(0))
    if options.verb == "promote" and (options.version is None) != (options.reason is None):
        parser.error(
            "`retrain promote VERSION` and `--reason` go together: an override is recorded with its reason"
        )
    if options.verb == "reproduce" and options.version is None:
        parser.error("`retrain reproduce` needs the number of a version")
    options.reason = getattr(options, "reason", None) or ""
    return options


def _as_user_error(error: Exception) -> RetrainError | None:
    """What to show instead of a traceback; None for a mistake of the engine itself."""
    if isinstance(error, RetrainError):
        return _with_copy_hint(error)
    # Not imported for this: most commands never load MLflow.
    library = type(error).__module__.split(".")[0]
    first = next(iter(mask(str(error)).strip().splitlines()), type(error).__name__)
    if library in ("hydra", "omegaconf", "antlr4"):
        return RetrainError(
            f"The configuration or an override can't be used: {first}",
            hint="`retrain config --cfg job` shows the configuration",
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
    from retrain.errors import DataError
    from retrain.workspace import in_experiment_copy

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


def run(options: argparse.Namespace) -> None:
    """Dispatch to the verb's module, in the project's root."""
    from retrain.workspace import find_root, project_lock, running_stage

    if options.verb == "predict":
        options.input, options.output = options.input.resolve(), options.output.resolve()
    if options.verb == "new":
        importlib.import_module(NEW[0]).run(options)
        return
    os.chdir(find_root())
    # The package of this very project comes first, also where the environment is another clone's.
    sys.path.insert(0, str(Path("src").resolve()))
    if options.verb == "init":
        importlib.import_module(INIT[0]).run(options)
        return
    if getattr(options, "cfg", None) or getattr(options, "info", None):
        from retrain.commands import show_config

        show_config.run(options)
        return
    if options.verb == "train" and options.multirun:
        from retrain.commands import sweep

        sweep.run(options.overrides)
        return
    if options.verb == "backtest":
        from retrain.commands import backtest

        backtest.run(options)
        return
    _refuse_overrides(options)
    # A verdict is carried out with the configuration that gave it, whatever conf/ has become since.
    carries_out = options.verb == "promote" and options.version is None
    in_stage = running_stage() is not None and options.verb != "config"
    config = _config(options.overrides, in_stage or carries_out)
    if options.verb == "train" and running_stage() is None:
        from retrain.commands import candidate

        candidate.run(config)
    elif options.verb in CHOICES or (options.verb == "promote" and options.version is not None):
        module = (
            "retrain.commands.override" if options.verb == "promote" else CHOICES[options.verb][0]
        )
        with project_lock(options.verb):
            importlib.import_module(module).run(config, options)
    elif options.verb in STAGES:
        with project_lock(options.verb):
            importlib.import_module(STAGES[options.verb][0]).run(config)
    else:
        importlib.import_module(QUESTIONS[options.verb][0]).run(config, options)


def _refuse_overrides(options: argparse.Namespace) -> None:
    """Raises ConfigError where an override would change what a verdict or a waiting version was judged under."""
    from retrain.errors import ConfigError

    if options.verb in ("promote", "approve") and options.overrides:
        raise ConfigError(
            f"`retrain {options.verb}` takes no overrides, and was given {' '.join(options.overrides)}: it carries out what was "
            "decided, as it was decided. Nothing was changed. To change the configuration, edit conf/, then `dvc repro`."
        )


def _config(overrides: Sequence[str], in_stage: bool) -> Config:
    """The config that the pipeline resolved, or for a person the one that `conf/` and the overrides make now."""
    from retrain.config import compose, load_params

    return load_params() if in_stage else compose(Path("conf"), overrides)


if __name__ == "__main__":
    main()
