"""Only what the project's own configuration names is built."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from conftest import REPOSITORY

from retrain import targets
from retrain.config import Config, compose, instantiate, load_params, to_yaml
from retrain.errors import ConfigError
from retrain.targets import allow


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_allowed", set())


def composed() -> Config:
    return compose(REPOSITORY / "conf", ["model=ridge", "data.task=regression", "data.metric=rmse"])


def test_a_name_that_only_a_store_holds_is_not_run() -> None:
    node = {"_target_": "fractions.Fraction", "numerator": 1}
    composed()
    with pytest.raises(ConfigError, match=r"`model\.estimator` names fractions\.Fraction"):
        instantiate(node, "model.estimator")
    with pytest.raises(ConfigError, match=r"fractions\.Fraction"):
        instantiate({"_target_": "sklearn.linear_model.Ridge", "alpha": node}, "model.estimator")


def test_what_conf_params_or_another_process_names_is_built(tmp_path: Path) -> None:
    config = composed()
    carried = pickle.dumps(copy.deepcopy(config))
    (tmp_path / "params.yaml").write_text(to_yaml(config))
    for bring in (
        composed,
        lambda: load_params(tmp_path / "params.yaml"),
        lambda: pickle.loads(carried),
    ):
        targets._allowed.clear()
        with pytest.raises(ConfigError, match="own configuration does not"):
            instantiate(config.model.estimator, "model.estimator")
        assert type(instantiate(bring().model.estimator, "model.estimator")).__name__ == "Ridge"


@pytest.mark.parametrize(
    "name",
    ["os.remove", "shutil.rmtree", "builtins.eval", "pickle.load", "subprocess.run", "os.system"],
)
def test_no_configuration_runs_what_changes_the_machine(name: str) -> None:
    allow({"_target_": name})
    with pytest.raises(ConfigError, match="never run from a configuration") as error:
        instantiate({"_target_": name}, "policy")
    assert "Hydra" not in str(error.value) and "src/project" in str(error.value)


def test_a_pattern_of_files_allows_no_package() -> None:
    allow({"path": "sklearn.*", "metric": "*"})
    assert targets._allowed == set()
