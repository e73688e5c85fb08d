"""The command line: `retrain <verb> [hydra overrides]`. Each DVC stage calls the verb that a person
would."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from retrain.errors import ConfigError, RetrainError
from retrain.masking import MaskingFormatter, mask
from retrain.renamed import current_command_line, current_overrides
from retrain.user_errors import as_user_error, typeset
from retrain.verb_options import DEBUG, OVERRIDES, SHOWN, VERSION, Option
from retrain.verbs import VERBS
from retrain.workspace import find_root, project_lock, running_stage

if TYPE_CHECKING:
    from retrain.config import Config

STARTED = datetime.now(UTC)
WITH_WORKERS = ("backtest", "gate-check")


class _Parser(argparse.ArgumentParser):
    """Lists the choices in `conf/` below the help of a verb that takes them."""

    def format_help(self) -> str:
        verb = VERBS.get(self.prog.rpartition(" ")[2])
        return super().format_help() + (_list_choices() if verb and verb.hydra else "")


def _list_choices() -> str:
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
        description=(
            "Retrain a scikit-learn model when new labelled data arrives, and promote it only if "
            "it holds up."
        ),
        epilog="The pipeline runs them all: dvc repro. `retrain <verb> --help` shows an example.",
    )
    parser.set_defaults(
        cfg=None,
        info=None,
        multirun=False,
        fresh=False,
        version=None,
        reason=None,
        overrides=[],
        debug=False,
    )
    _add(parser, DEBUG)
    verbs = parser.add_subparsers(dest="verb", metavar="verb", required=True)
    for name, verb in VERBS.items():
        one = verbs.add_parser(
            name,
            help=verb.about,
            description=verb.about[0].upper() + verb.about[1:] + ".",
            epilog=f"example:\n  {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add(one, Option(DEBUG.flags, DEBUG.settings | {"default": argparse.SUPPRESS}))
        if verb.hydra:
            _add(one.add_argument_group("looking at the configuration"), *SHOWN)
        _add(one, *verb.options)
        if verb.overrides:
            numbered = "number of a registered version, then " if verb.overrides == VERSION else ""
            one.add_argument(
                "overrides", nargs="*", metavar=verb.overrides, help=numbered + OVERRIDES
            )
    return parser


def _add(parser: argparse._ActionsContainer, *options: Option) -> None:
    for flags, settings in options:
        parser.add_argument(*flags, **settings)


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
        if not options.multirun and options.verb not in WITH_WORKERS:  # who are sent home
            _leave()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        shown = None if options.debug else as_user_error(error)
        print(typeset(shown) if shown else mask(traceback.format_exc()).rstrip(), file=sys.stderr)
        if running_stage() is not None:
            importlib.import_module("retrain.report.notify").tell_failure(options.verb, error)
        sys.exit(1)


class _Unhurried:
    """An output whose reader may leave early, as `head` does: the rest is dropped, and the work
    goes on to its end."""

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
    """End a process that has finished its work, without taking MLflow and scikit-learn apart first:
    that takes a second."""
    if "retrain.registry.store" in sys.modules:
        sys.modules["retrain.registry.store"].settle_local_store()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parsed arguments. Overrides may stand before and after `-m`, which argparse alone does not
    allow."""
    parser = build_parser()
    given = current_command_line(sys.argv[1:] if arguments is None else arguments)
    options, rest = parser.parse_known_args(given)
    verb = VERBS[options.verb]
    rest = [one for one in rest if one not in ("--run", "-r")]  # Hydra's word for one job
    unknown = [one for one in rest if one.startswith("-") or not verb.overrides]
    if {"-m", "--multirun"} & {*unknown}:
        parser.error(
            f"only `retrain train` and `retrain backtest` sweep, not `retrain {options.verb}`"
        )
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.overrides += rest
    if options.info and "=" in options.info:  # an override that came after a bare --info
        options.overrides.insert(0, options.info)
        options.info = "all"
    options.overrides = current_overrides(options.overrides)
    if verb.overrides == VERSION and options.overrides and options.overrides[0].isdigit():
        options.version = int(options.overrides.pop(0))
    if options.verb == "promote" and (options.version is None) != (options.reason is None):
        parser.error(
            "`retrain promote VERSION` and `--reason` go together: an override is recorded with "
            "its reason"
        )
    if options.verb == "reproduce" and options.version is None:
        parser.error("`retrain reproduce` needs the number of a version")
    options.reason = options.reason or ""
    options.started, options.started_in = STARTED, Path.cwd()
    return options


def run(options: argparse.Namespace) -> None:
    """Dispatch to the verb's module, in the project's root."""
    verb = VERBS[options.verb]
    if options.verb == "predict":
        options.input, options.output = options.input.resolve(), options.output.resolve()
    if options.verb != "new":
        os.chdir(find_root())
        # The package of this very project comes first, also where the environment is another
        # clone's.
        sys.path.insert(0, str(Path("src").resolve()))
    if options.cfg or options.info:
        _call("retrain.commands.show_config", options)
    elif options.verb == "train" and options.multirun:
        _call("retrain.commands.sweep", options.overrides, options.fresh)
    elif verb.alone:
        _call(verb.module, options)
    elif options.verb == "train" and running_stage() is None:
        _call("retrain.commands.candidate", _config(options), options.overrides)
    elif options.verb == "promote" and options.version is not None:
        with project_lock(options.verb):
            _call("retrain.commands.manual_promotion", _config(options), options)
    else:
        with project_lock(options.verb) if verb.locks else contextlib.nullcontext():
            both = verb.module.startswith("retrain.commands")
            _call(verb.module, _config(options), *([options] if both else []))


def _call(module: str, *arguments: Any) -> None:
    importlib.import_module(module).run(*arguments)


def _config(options: argparse.Namespace) -> Config:
    """The configuration that the pipeline resolved, or for a person the one that `conf/` and the
    overrides make now.

    Raises ConfigError where an override would change what a verdict was reached under, or a version
    waits under.
    """
    from retrain import config

    if options.verb in ("promote", "approve") and options.overrides:
        raise ConfigError(
            f"`retrain {options.verb}` takes no overrides, and was given "
            f"{' '.join(options.overrides)}: it carries out "
            "what was decided, as it was decided. Nothing was changed.",
            hint="to change the configuration, edit conf/, then `dvc repro`",
        )
    # A verdict is carried out with the configuration that gave it, whatever conf/ has become since.
    carries_out = options.verb == "promote" and options.version is None
    if carries_out or (running_stage() is not None and options.verb != "config"):
        return config.load_params()
    return config.compose(Path("conf"), options.overrides)


if __name__ == "__main__":
    main()
