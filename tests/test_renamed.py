"""What people wrote for an earlier version works, with one warning that says what to write now."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import REPOSITORY

from retrain import (
    Check,
    CheckResult,
    Comparison,
    Decision,
    Outcome,
    Policy,
    PolicyContext,
    renamed,
)
from retrain.cli import parse
from retrain.commands.backtest import adopt
from retrain.config import compose, load_params, to_yaml
from retrain.errors import ConfigError
from retrain.gate.decision import gate_digest

CONF = REPOSITORY / "conf"


@pytest.fixture
def old_conf(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    """conf/ with the keys of the version before."""
    renamed._warn.cache_clear()
    caplog.set_level(logging.WARNING, "retrain")
    shutil.copytree(CONF, tmp_path / "conf")
    for file, new, old in (
        ("policy/cost_aware.yaml", "prior_staleness_rate", "prior_ageing"),
        ("gate/shared/guardrails.yaml", "resource:", "figure:"),
    ):
        path = tmp_path / "conf" / file
        path.write_text(path.read_text().replace(new, old))
    return tmp_path / "conf"


def test_old_keys_in_files_are_read_as_todays_and_named_once(
    old_conf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = compose(old_conf, ["policy=cost_aware"])
    today = compose(CONF, ["policy=cost_aware"])
    assert (config.policy, config.gate) == (today.policy, today.gate)
    assert caplog.text.count("`policy.prior_ageing` is called `policy.prior_staleness_rate`") == 1
    assert "gate.checks.latency.resource" in caplog.text


@pytest.mark.parametrize("key", ["policy.prior_ageing", "policy.prior_staleness_rate"])
@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_old_and_new_keys_of_an_override_fit_old_and_new_files(
    old_conf: Path, key: str, sign: str
) -> None:
    if sign == "+":
        (old_conf / "policy/cost_aware.yaml").write_text(
            "_target_: retrain.monitoring.policies.CostAware\nretraining_cost: 0.1\n"
        )
    for conf in (old_conf, CONF) if sign != "+" else (old_conf,):
        config = compose(conf, ["policy=cost_aware", f"{sign}{key}=0.5"])
        assert config.policy["prior_staleness_rate"] == 0.5
        assert "prior_ageing" not in config.policy


def test_old_keys_are_found_at_any_depth(old_conf: Path) -> None:
    node = "{_target_: retrain.monitoring.policies.CostAware, retraining_cost: 1, prior_ageing: 2}"
    (old_conf / "policy/both.yaml").write_text(
        f"_target_: retrain.monitoring.policies.AnyOf\npolicies: {{cost: {node}}}\n"
    )
    config = compose(old_conf, ["policy=both"])
    assert config.policy["policies"]["cost"]["prior_staleness_rate"] == 2


def test_a_key_is_not_set_under_both_of_its_names(old_conf: Path) -> None:
    path = old_conf / "policy/cost_aware.yaml"
    path.write_text(path.read_text() + "prior_staleness_rate: 1\n")
    with pytest.raises(ConfigError, match=r"take `policy.prior_ageing` away"):
        compose(old_conf, ["policy=cost_aware"])


def test_a_gate_of_the_version_before_is_the_same_gate(old_conf: Path, tmp_path: Path) -> None:
    """A second look at the same rows counts as one, whatever its keys are called now."""
    assert gate_digest(compose(old_conf), True) == gate_digest(compose(CONF), True)
    written = renamed.with_original_names(compose(CONF).gate.checks, "gate.checks")
    assert written["latency"]["figure"] == "latency_one_row_ms"
    text = to_yaml(compose(CONF)).replace("resource:", "figure:")
    (tmp_path / "params.yaml").write_text(text)
    assert load_params(tmp_path / "params.yaml") == compose(CONF)


def test_old_options_of_the_command_line_work(caplog: pytest.LogCaptureFixture) -> None:
    renamed._warn.cache_clear()
    with caplog.at_level(logging.WARNING, "retrain"):
        assert parse(["backtest", "--drills"]).inject_faults
        assert parse(["monitor", "policy.prior_ageing=1"]).overrides == [
            "++policy.prior_staleness_rate=1"
        ]
    assert "`--drills` is called `--inject-faults` now" in caplog.text


def test_adopting_writes_to_a_file_that_still_has_the_old_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf/policy/cost_aware.yaml"
    text = file.read_text().replace("prior_staleness_rate", "prior_ageing")
    file.write_text(text.replace("prior_value_of_data", "prior_learning"))
    forecast = SimpleNamespace(staleness_rate=0.5, value_of_data=0.25)
    names = SimpleNamespace(policy="cost_aware", strategy="full", gate="superiority")
    result: Any = SimpleNamespace(recommended=names, forecast=forecast, retraining_cost=0.125)
    adopt(result)
    policy = compose(tmp_path / "conf").policy
    assert (policy["prior_staleness_rate"], policy["prior_value_of_data"]) == (0.5, 0.25)


def test_a_method_of_ones_own_class_may_keep_its_old_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("WARNING", logger="retrain"):

        class Mine(Policy):
            def want(self, context: PolicyContext) -> Decision:
                return Decision(True, "always")

        class Own(Check):
            def judge(self, comparison: Comparison) -> CheckResult:
                return CheckResult(Outcome.passed, "always")

    assert "Mine.decide" in caplog.text and "Own.evaluate" in caplog.text
    assert Mine().decide(None).retrain and Own().evaluate(None).outcome is Outcome.passed  # type: ignore[abstract, arg-type]


def test_a_key_that_moved_to_another_section_is_read_from_its_old_one(old_conf: Path) -> None:
    path = old_conf / "config.yaml"
    path.write_text(path.read_text().replace("backtest:\n", "backtest:\n  workers: 3\n"))
    assert compose(old_conf).compute.workers == 3
    assert compose(old_conf, ["backtest.workers=2"]).compute.workers == 2
    with pytest.raises(ConfigError, match=r"`backtest.workers` and `compute.workers`"):
        local = old_conf / "compute/local.yaml"
        local.write_text(local.read_text().replace("workers: null", "workers: 4"))
        compose(old_conf)
