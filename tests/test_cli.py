from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from retrain.cli import build_parser, parse
from retrain.errors import ConfigError, DataError
from retrain.user_errors import as_user_error, typeset
from retrain.verbs import VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_is_short_and_has_an_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args([verb, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and f"example:\n  retrain {verb}" in text
    assert len(text.splitlines()) < (44 if verb == "init" or VERBS[verb].hydra else 25)
    assert ("sliding_window" in text.partition("choices, in conf/")[2]) == VERBS[verb].hydra


def test_overrides_may_stand_on_both_sides_of_an_option() -> None:
    options = parse(["train", "model=a", "-m", "strategy=b,c", "--debug", "seed=1"])
    assert (options.overrides, options.multirun, options.debug) == (
        ["model=a", "strategy=b,c", "seed=1"],
        True,
        True,
    )
    with pytest.raises(SystemExit):
        parse(["train", "--unknown"])


def retrain(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, in this repository itself: for what changes nothing."""
    command = [sys.executable, "-m", "retrain.cli", *arguments]
    inherited = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=REPOSITORY, env=inherited, capture_output=True, text=True, check=False
    )


def test_hydras_own_options_show_the_configuration_and_then_what_is_wrong_with_it() -> None:
    shown = retrain("train", "--cfg", "job", "-p", "strategy", "strategy=sliding_window")
    assert shown.returncode == 0 and "retrain.models.strategies.SlidingWindow" in shown.stdout
    broken = retrain("train", "--cfg", "job", "seed=-1")
    assert (
        broken.returncode == 1 and "seed: -1" in broken.stdout and "`seed` is -1" in broken.stderr
    )
    about = retrain("train", "--info", "defaults", "model=dummy").stdout
    assert about.count("| model/dummy ") == 1


def test_a_sweep_where_there_is_none_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parse(["train", "--run", "--info", "model=dummy"]).overrides == ["model=dummy"]
    with pytest.raises(SystemExit):
        parse(["evaluate", "-m", "gate=superiority"])
    assert "only `retrain train`" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = (
        "import os, sys; from retrain.cli import main\n"
        "import retrain.commands.show_config as command\n"
        "command.run = lambda options: [print('line', number) for number in range(100_000)]\n"
        "main(['config', '--cfg', 'job']); "
    )
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-c", code],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_store_that_refuses_is_told_apart_from_one_that_does_not_answer() -> None:
    class MlflowException(Exception):
        error_code = "INVALID_PARAMETER_VALUE"

    MlflowException.__module__ = "mlflow.exceptions"
    refused = str(as_user_error(MlflowException("Invalid experiment name: a:b")))
    assert (
        "Invalid experiment name" in refused
        and "tracking.experiment" in refused
        and "answers" not in refused
    )
    MlflowException.error_code = "TEMPORARILY_UNAVAILABLE"
    assert "once the store answers" in str(as_user_error(MlflowException("no connection")))


def test_what_a_copy_of_dvc_lacks_is_named_with_the_way_to_hand_it_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = DataError("The source holds no batch.")
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert as_user_error(missing) is missing
    monkeypatch.setenv("DVC_ROOT", "/somewhere/else")  # as DVC tells a stage of a queued experiment
    assert "--copy-paths" in str(as_user_error(missing))
    assert "--copy-paths" not in str(as_user_error(ConfigError("typo")))


def test_the_way_out_of_an_error_stands_on_a_line_of_its_own() -> None:
    error = ConfigError("`a` is 1 (conf/x.yaml).", hint="set `a` to 2, see https://u:secret@host/")
    shown = typeset(error)
    assert shown.splitlines()[0] == "error: `a` is 1 (conf/x.yaml)."
    assert shown.splitlines()[1].startswith("hint: set `a` to 2") and "secret" not in shown
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # from a worker
    assert typeset(ConfigError("all said")) == "error: all said"


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


HEAVY = {"mlflow", "sklearn", "pandas", "skops", "matplotlib"}


def test_the_command_line_starts_without_any_library() -> None:
    assert not (HEAVY | {"polars", "hydra", "omegaconf", "numpy"}) & imported_by(
        "import retrain.cli"
    )


@pytest.mark.parametrize("stage", ["config", "snapshot", "observe", "evaluate"])
def test_light_stages_import_no_heavy_library(stage: str) -> None:
    assert not HEAVY & imported_by(f"import retrain.pipeline.{stage}")
