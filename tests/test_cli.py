from __future__ import annotations

import subprocess
import sys

import pytest

from retrain.cli import QUESTIONS, STAGES, build_parser, parse


@pytest.mark.parametrize("verb", [*STAGES, *QUESTIONS])
def test_help_of_every_verb_is_short_and_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args([verb, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and f"example:\n  retrain {verb}" in text and len(text.splitlines()) < 25


def test_overrides_may_stand_on_both_sides_of_an_option() -> None:
    options = parse(["train", "model=a", "-m", "strategy=b,c", "--debug", "seed=1"])
    assert (options.overrides, options.multirun, options.debug) == (["model=a", "strategy=b,c", "seed=1"], True, True)
    with pytest.raises(SystemExit):
        parse(["train", "--unknown"])


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


HEAVY = {"mlflow", "sklearn", "pandas", "skops", "matplotlib"}


def test_the_command_line_starts_without_any_library() -> None:
    assert not (HEAVY | {"polars", "hydra", "omegaconf", "numpy"}) & imported_by("import retrain.cli")


@pytest.mark.parametrize("stage", ["config", "snapshot", "monitor", "evaluate"])
def test_light_stages_import_no_heavy_library(stage: str) -> None:
    assert not (HEAVY | {"pandera"}) & imported_by(f"import retrain.stages.{stage}")
