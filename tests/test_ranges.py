"""Every configured number has a range, every name a list: one that nobody checked would switch something off in silence."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import math
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt
from conftest import REPOSITORY

import retrain
from project import features
from retrain.config import Config, compose, instantiate, to_container
from retrain.data.source import Source
from retrain.errors import ConfigError
from retrain.gate.check import Check
from retrain.models.strategy import Strategy
from retrain.monitoring.policy import Policy
from retrain.origins import list_choices, list_groups
from retrain.pipeline import config as stage
from retrain.ranges import Misfit, Name, arguments, find_misfits, node_misfits
from retrain.targets import allow

CONF = REPOSITORY / "conf"
BASES = (Policy, Strategy, Check, Source)
# Arguments of an encoding that are names of columns come from `data.features`.
COLUMNS = {"categorical", "numeric", "datetime", "text", "sparse"}


def unchecked(hint: Any) -> Iterator[Any]:
    """The numbers of a type that have no lower bound."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated and inner[0] in (int, float):
        if not any(isinstance(demand, (Ge, Gt)) for demand in inner[1:]):
            yield hint
    elif typing.is_typeddict(hint):
        for one in typing.get_type_hints(hint, include_extras=True).values():
            yield from unchecked(one)
    elif origin is not Literal and (inner or hint in (int, float)):
        yield from (
            [hint] if hint in (int, float) else (found for one in inner for found in unchecked(one))
        )


def shipped_classes() -> list[type]:
    for module in pkgutil.walk_packages(retrain.__path__, "retrain."):
        if module.name.split(".")[1] in ("monitoring", "models", "gate", "data"):
            importlib.import_module(module.name)

    def below(base: type) -> Iterator[type]:
        for one in base.__subclasses__():
            yield one
            yield from below(one)

    return sorted({one for base in BASES for one in below(base)}, key=lambda one: one.__name__)


@pytest.mark.parametrize(
    "target", [*shipped_classes(), features.ordinal, features.one_hot, features.one_hot_periodic]
)
def test_every_number_that_a_shipped_class_takes_has_a_range(target: Any) -> None:
    taken = arguments(f"{target.__module__}.{target.__qualname__}")
    assert taken is not None
    for name, hint in taken.types.items():
        assert not list(unchecked(hint)), name
        assert hint is not Any or name in COLUMNS, f"{name} has no type"


def test_every_number_of_the_config_itself_has_a_range() -> None:
    def walk(schema: type) -> Iterator[tuple[str, Any]]:
        for name, hint in typing.get_type_hints(schema, include_extras=True).items():
            inner = [
                one
                for one in (hint, *typing.get_args(hint))
                if inspect.isclass(one) and dataclasses.is_dataclass(one)
            ]
            if inner:
                yield from walk(inner[0])
            elif not (inspect.isclass(hint) and issubclass(hint, enum.Enum)):
                yield f"{schema.__name__}.{name}", hint

    assert not [key for key, hint in walk(Config) if list(unchecked(hint))]


def numbers(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the numbers of a plain tree stand."""
    if isinstance(content, dict):
        for name, one in content.items():
            yield from numbers(one, (*path, name))
    elif isinstance(content, list):
        for place, one in enumerate(content):
            yield from numbers(one, (*path, place))
    elif type(content) in (int, float):
        yield path


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copied = dict(content) if isinstance(content, dict) else list(content)
    copied[path[0]] = replaced(content[path[0]], path[1:], value)
    return copied


FILES = [
    ("config", ""),
    *((group, name) for group in list_groups(CONF) for name in list_choices(CONF, group)),
]


@pytest.mark.parametrize(("group", "name"), FILES)
def test_no_number_of_a_shipped_file_can_be_anything(group: str, name: str) -> None:
    """Estimators are left out: scikit-learn and the boosting libraries check their parameters themselves."""
    content = to_container(compose(CONF, [f"{group}={name}"] if name else []))
    content["model"]["estimator"] = {}
    others = list_groups(CONF)
    varied = {
        key: one for key, one in content.items() if key == group or (not name and key not in others)
    }

    def misfits(content: dict[str, Any]) -> list[Misfit]:
        return [*find_misfits(Config, content), *node_misfits(content)]

    assert not misfits(content)
    for path in numbers(varied):
        for wrong in (math.nan, math.inf, -math.inf, True, "5", "many", -1e300):
            if path[:2] == ("data", "features") and wrong == -1e300:
                continue  # a limit of a column may be any number
            found = misfits(replaced(content, path, wrong))
            open_ended = wrong == -1e300 and path[-1] in ("limit", "missing_value")
            assert found or open_ended, f"{path} may be {wrong!r}"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "policy=on_drift policy.families=[feature]",
            ["policy.families[0]", "'features', 'target', 'predictions' or 'whole rows'"],
        ),
        ("policy=on_drift policy.families=[]", ["policy.families", "[]"]),
        (
            "policy=on_drift policy.maximum_age_batches=0",
            ["policy.maximum_age_batches", "0", "greater than or equal to 1"],
        ),
        (
            "policy=on_drift policy.cooldown_batches=-1",
            ["policy.cooldown_batches", "-1", "greater than or equal to 0"],
        ),
        ("policy=cost_aware +policy.budget.retrainings=4", ["policy.budget.batches", "no value"]),
        (
            "policy=cost_aware policy.budget={retrainings:0,batches:3}",
            ["policy.budget.retrainings", "greater than or equal to 1"],
        ),
        ("policy=cost_aware policy.retraining_cost=-1", ["policy.retraining_cost", "-1"]),
        (
            "policy=on_decay policy.tolerance=0.5",
            ["policy.tolerance", "0.5", "greater than or equal to 1"],
        ),
        ("policy=on_decay policy.delta=1", ["policy.delta", "less than 1"]),
        ("policy=on_decay policy.detector=adwim", ["policy.detector", "'adwim'", "adwin"]),
        ("policy=any_of policy.policies.decay.k=0", ["policy.policies.decay.k", "0"]),
        ("policy=any_of +policy.policies.decay.k=true", ["policy.policies.decay.k", "True"]),
        ("policy=every policy.batches=2.5", ["policy.batches", "2.5", "integer"]),
        ("strategy=recency strategy.half_life=0", ["strategy.half_life", "greater than 0"]),
        ("strategy=recency strategy.half_life=inf", ["strategy.half_life", "inf"]),
        (
            "strategy=best_of strategy.validation_share=1",
            ["strategy.validation_share", "less than 1"],
        ),
        (
            "strategy=sliding_window strategy.batches=null strategy.duration=0d",
            ["strategy.duration", "90d"],
        ),
        (
            "strategy=sliding_window strategy.batches=null strategy.duration=99999999999d",
            ["strategy.duration", "99999d"],
        ),
        (
            "gate.checks.slices.minimum_rows=0",
            ["gate.checks.slices.minimum_rows", "greater than or equal to 1"],
        ),
        (
            "gate.checks.primary.margin_is=relativ",
            ["gate.checks.primary.margin_is", "'relative' or 'absolute'"],
        ),
        (
            "gate.checks.primary.confidence=95",
            ["gate.checks.primary.confidence", "95", "less than 1"],
        ),
        (
            "evaluation.minimum_rows=1" + 30 * "0",
            ["evaluation.minimum_rows", "less than or equal to"],
        ),
        ("seed=-1", ["seed", "-1", "greater than or equal to 0"]),
        ("policy=every +policy.cooldown=2", ["policy.cooldown", "left out", "cooldown_batches"]),
        ("+strategy.batches=3", ["strategy.batches", "takes nothing"]),
        ("+gate.checks.primary.margn=0.1", ["gate.checks.primary.margn", "margin_is"]),
        ("compute.workers=0", ["compute.workers", "0"]),
        ("compute.backend=spark", ["compute.backend", "spark"]),
        ("backtest.retraining_cost=nan", ["backtest.retraining_cost", "nan"]),
        ("evaluation.minimum_blocks=0", ["evaluation.minimum_blocks", "0"]),
        ("data.maximum_quarantine_share=5", ["data.maximum_quarantine_share", "5"]),
        ("data.key_columns=[]", ["data.key_columns", "at least 1 item"]),
        ("data.key_columns=[flight,flight]", ["data.key_columns", "'flight'", "twice"]),
        ("data.target_column=scheduled_departure", ["data.target_column", "data.time_column"]),
        ("data.features.temp.minimum=999", ["data.features.temp", "999", "140"]),
        ("+data.features.carrier.minimum=1", ["data.features.carrier", "only numeric"]),
        (
            "tracking.uri_from_env=http://user:pw@host",
            ["tracking.uri_from_env", "name of a variable"],
        ),
    ],
)
def test_a_value_that_would_switch_something_off_is_refused_with_key_value_and_range(
    override: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        compose(CONF, override.split())
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("policy=on_decay policy.k=4", ["policy.k", "4", "3"]),
        ("policy=cost_aware policy.budget={retrainings:9,batches:3}", ["policy.budget", "9", "3"]),
        ("gate.checks.primary.margin=5", ["margin", "500%"]),
        ("gate.checks.primary.margin=.99", ["margin", "at most 0.5"]),
        (
            "gate.checks.primary.margin=1e308 gate.checks.primary.margin_is=absolute",
            ["margin", "absolute"],
        ),
        ("+data.label_delay=99999999999d", ["data.label_delay", "five digits"]),
        ("data.as_of=9999-12", ["data.as_of", "9999-12"]),
        ("data.as_of=2013-13", ["data.as_of", "2013-13", "2013-01"]),
        ("monitoring.accept=[2013-1]", ["monitoring.accept", "2013-1"]),
        ("monitoring.hold=[2013-1]", ["monitoring.hold", "2013-1"]),
        (
            "policy={_target_:retrain.models.strategies.Full}",
            ["policy", "Full", "no retrain.monitoring.policy.Policy"],
        ),
        (
            "strategy={_target_:retrain.monitoring.policies.Always}",
            ["strategy", "Always", "Strategy"],
        ),
        (
            "strategy._target_=retrain.models.strategies.Nope",
            ["strategy", "Nope", "can't be imported"],
        ),
        (
            "strategy._target_=retrain.models.strategies.Ful",
            ["retrain.models.strategies has no Ful; did you mean Full?"],
        ),
        (
            "gate.checks.churn._target_=nope.Churn",
            ["gate.checks.churn", "nope.Churn", "can't be imported"],
        ),
        (
            "model.estimator._target_=sklearn.ensemble.Nope",
            ["model.estimator", "sklearn.ensemble.Nope", "can't be imported"],
        ),
        ("model.estimator._target_=nope.Model", ["model.estimator", "nope.Model", "install"]),
        (
            "~model.estimator +model.estimator={_target_:sklearn.preprocessing.StandardScaler}",
            ["model.estimator", "StandardScaler", "`predict`"],
        ),
        (
            "~model.preprocessing +model.preprocessing={_target_:sklearn.linear_model.Ridge}",
            ["model.preprocessing"],
        ),
        ("model.estimator.max_iter=-1", ["`model.estimator.max_iter`", "-1", "conf/model/"]),
        ("model.estimator.learning_rate=fast", ["`model.estimator.learning_rate`", "'fast'"]),
        ("+model.estimator.nope=1", ["model.estimator", "nope"]),
        (
            "model=logistic_regression ~model.estimator +model.estimator={_target_:sklearn.calibration.CalibratedClassifierCV,"
            "estimator:{_target_:sklearn.linear_model.LogisticRegression,C:-1}}",
            ["`model.estimator.estimator.C`", "-1"],
        ),
    ],
)
def test_values_that_contradict_each_other_end_the_config_stage(
    override: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(CONF, override.split())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        stage.run(config)
    assert not list(tmp_path.iterdir())
    for word in words:
        assert word in str(error.value)


def test_a_model_that_has_not_changed_is_not_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs the import of its library."""
    monkeypatch.chdir(tmp_path)
    stage.run(compose(CONF))
    code = (
        "import sys; from pathlib import Path; from retrain.config import compose; from retrain.pipeline import config\n"
        f"config.run(compose(Path({str(CONF)!r}), sys.argv[1:])); print('sklearn' in sys.modules)"
    )
    for override, imported in (("seed=5", "False"), ("model.estimator.max_iter=5", "True")):
        command = [sys.executable, "-c", code, override]
        assert (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
            == imported
        )


def test_the_file_that_holds_the_value_is_named(tmp_path: Path) -> None:
    import shutil

    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    path = conf / "policy/on_drift.yaml"
    path.write_text(path.read_text().replace("families: null", "families: [feature]"))
    with pytest.raises(
        ConfigError, match=r"conf/policy/on_drift.yaml: `policy.families\[0\]` is 'feature'"
    ):
        compose(conf, ["policy=on_drift"])
    (conf / "local").mkdir()
    (conf / "local/default.yaml").write_text("# @package _global_\nseed: -1\n")
    with pytest.raises(ConfigError, match=r"In conf/local/default.yaml: `seed` is -1"):
        compose(conf)


def test_a_class_of_ones_own_is_checked_by_the_types_that_it_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_policies.py").write_text(
        "from retrain.monitoring.policy import Policy\nfrom retrain.ranges import PositiveCount\n\n"
        "class Mine(Policy):\n"
        "    def __init__(self, patience: PositiveCount, **limits):\n        super().__init__(**limits)\n"
        "    def decide(self, context): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "my_policies.Mine", "patience": 0, "cooldown_batches": 1.5}
    assert [misfit.key for misfit in node_misfits(node, "policy")] == [
        "policy.patience",
        "policy.cooldown_batches",
    ]
    allow(node)
    with pytest.raises(ConfigError, match=r"policy\.patience"):
        instantiate(node, "policy")


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (Annotated[int, Ge(1), Le(3)], [1, 3], [0, 4, 2.0, "2", True, None]),
        (Annotated[float, Gt(0), Lt(1)], [0.5, 1e-9], [0, 1, math.nan, "0.5", False]),
        (list[Literal["a", "b"]] | None, [None, ["a"], []], ["a", ["c"], [1]]),
        (str | list[str], ["a", ["a", "b"]], [None, {"a": 1}, [None]]),
        (Name, ["a", 5], ["", 1.5, True, None]),
        (Source, [{"_target_": "x"}, 5], []),
    ],
)
def test_types_are_strict_about_plain_values(hint: Any, right: list[Any], wrong: list[Any]) -> None:
    assert not any(find_misfits(hint, value) for value in right)
    assert all(find_misfits(hint, value) for value in wrong)
