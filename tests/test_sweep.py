"""What sweepers that search are told by a job, and what is refused before any job runs."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from hydra.core.hydra_config import HydraConfig

from retrain.commands import candidate, sweep
from retrain.commands.candidate import Candidate
from retrain.config import compose_raw
from retrain.errors import ConfigError, RetrainError


@pytest.fixture
def as_job(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a launcher calls it: in the project's root, with Hydra's settings and the parent run's id around it."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv(sweep.PARENT, "none")
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before


def value_of_a_job(overrides: list[str], metrics: dict[str, float] | Exception) -> float:
    def train(config: object, parent: str, name: str) -> Candidate:
        if isinstance(metrics, Exception):
            raise metrics
        return Candidate("run", metrics, 1.0)

    raw = compose_raw(Path("conf"), overrides)
    HydraConfig.instance().set_config(raw)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(candidate, "train", train)
        return sweep.job(raw)


@pytest.mark.parametrize(
    ("metric", "value", "told"),
    [("log_loss", 0.4, 0.4), ("roc_auc", 0.8, -0.8), ("f1", 0.6, -0.6), ("brier", 0.2, 0.2)],
)
def test_the_value_of_a_job_is_lower_when_the_model_is_better(
    as_job: None, metric: str, value: float, told: float
) -> None:
    assert value_of_a_job([f"data.metric={metric}"], {metric: value}) == told


class Odd(Exception):
    """One that can't be carried to another process, as some libraries' can't."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def test_a_failed_job_raises_what_every_launcher_can_carry(as_job: None) -> None:
    with pytest.raises(RetrainError, match=r"candidate: Odd: first and second") as error:
        value_of_a_job([], Odd("first", "second"))
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "model.estimator.alpha=interval(0.1,1)",
            ["interval(0.1,1)", "range(...)", "hydra/sweeper=optuna"],
        ),
        ("model=dummy,rigde", ["model=rigde", "dummy", "ridge"]),
        ("model=dummy,choice(a)", ["can't be listed"]),
        ("experiment=shrot,short", ["experiment=shrot", "names no file"]),
        ("experiment=null,short", ["can't choose null", "conf/experiment/none.yaml"]),
        ("strategy=choice(full,ful)", ["strategy=ful", "sliding_window"]),
    ],
)
def test_a_sweep_that_can_not_run_is_refused_before_its_first_job(
    override: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(ConfigError) as error:
        sweep.run([override])
    for word in words:
        assert word in str(error.value)
