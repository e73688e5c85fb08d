"""conf/: every shipped choice composes, and what does not fit is refused with key, value and file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY, Project

from retrain.config import Config, compose, load_params, to_container, to_yaml
from retrain.errors import ConfigError
from retrain.gate.decision import build_checks

CONF = REPOSITORY / "conf"
CHOICES = [
    (path.parent.name, path.stem)
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.parent.name != "local"
]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_shipped_file_composes(group: str, choice: str) -> None:
    config = compose(CONF, [f"{group}={choice}"])
    for has_incumbent in (True, False):
        assert build_checks(config.gate, has_incumbent)


def test_the_groups_that_a_user_is_promised_are_there() -> None:
    promised = {
        "data": {"flights"},
        "model": {"hist_gradient_boosting", "logistic_regression", "random_forest", "dummy"},
        "strategy": {"full", "sliding_window"},
        "policy": {"always", "never"},
        "gate": {"non_inferiority", "superiority"},
        "tracking": {"local", "server"},
    }
    for group, names in promised.items():
        assert names <= {choice for found, choice in CHOICES if found == group}


def test_for_numbers_what_is_asked_for_on_the_command_line_wins_over_the_models_file() -> None:
    numbers = ["data.task=regression", "data.metric=rmse"]
    shipped = compose(CONF, numbers).model.estimator
    asked = compose(CONF, [*numbers, "model.estimator.min_samples_leaf=7"]).model.estimator
    assert shipped["min_samples_leaf"] == 20
    assert asked == shipped | {"min_samples_leaf": 7}


def test_params_hold_the_whole_config_and_come_back_the_same(
    tmp_path: Path, config: Config
) -> None:
    (tmp_path / "params.yaml").write_text(to_yaml(config))
    assert load_params(tmp_path / "params.yaml") == config


def test_an_address_in_the_environment_does_not_enter_the_config(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:s3cret@db/mlflow")
    assert "s3cret" not in to_yaml(compose(CONF, ["tracking=server"]))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model=nothing", ["model/nothing", "dummy"]),
        ("modle=dummy", ["modle"]),
        ("tracking.experimnt=x", ["tracking.experimnt"]),
        ("+tracking.experimnt=x", ["On the command line", "tracking.experimnt", "'x'"]),
        (
            "evaluation.block_hours=often",
            ["On the command line", "evaluation.block_hours", "'often'"],
        ),
        (
            "evaluation.share_of_newest_batch=1.5",
            ["evaluation.share_of_newest_batch", "1.5", "less than 1"],
        ),
        ("data.period=fortnight", ["data.period", "'fortnight'", "month"]),
        ("seed=1=2=", ["seed"]),
    ],
)
def test_an_override_that_does_not_fit_is_refused(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        compose(CONF, [override])
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (
            "tracking/local.yaml",
            "uri_from_env",
            "uri_form_env",
            ["conf/tracking/local.yaml", "tracking.uri_form_env"],
        ),
        ("config.yaml", "seed: 20130101", "seed: [1]", ["conf/config.yaml", "seed", "[1]"]),
        (
            "data/flights.yaml",
            "minimum: 0, maximum: 1440}   # of",
            "minimun: 0}  # of",
            ["conf/data/flights.yaml", "minimun"],
        ),
        (
            "data/flights.yaml",
            "target_column: late",
            "target_column: carrier",
            ["holds the target"],
        ),
        (
            "gate/shared/guardrails.yaml",
            "refit: true",
            "refit: perhaps",
            ["conf/gate/shared/guardrails.yaml", "gate.refit", "'perhaps'"],
        ),
        ("config.yaml", "seed: 20130101", "seed: {", ["conf", "YAML"]),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_key_and_value(
    tmp_path: Path, file: str, old: str, new: str, words: list[str]
) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    text = (conf / file).read_text()
    assert old in text
    (conf / file).write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as error:
        compose(conf)
    for word in words:
        assert word in str(error.value)


@pytest.fixture
def overlays(tmp_path: Path) -> Path:
    """A project with overlays, right and wrong ones."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf, ignore=shutil.ignore_patterns("local"))
    (conf / "experiment").mkdir(exist_ok=True)
    package = "# @package _global_\n"
    texts = {
        "short": package + "model: {estimator: {max_iter: 7}}\n",
        "bad": package + "seed: -4\n",
        "nothing": "",
        "comment": "# later\n",
        "unpackaged": "seed: 4\n",
        "mixed": package + "defaults:\n  - override /model: [ridge, sgd]\n",
        "broken": package + "seed: [\n",
    }
    for name, text in texts.items():
        (conf / f"experiment/{name}.yaml").write_text(text)
    return conf


@pytest.mark.parametrize("group", ["data", "model", "strategy", "policy", "gate", "tracking"])
def test_of_a_group_one_option_is_chosen_never_a_mixture_of_several(
    overlays: Path, group: str
) -> None:
    options = ",".join(path.stem for path in sorted((overlays / group).glob("*.yaml"))[:2])
    with pytest.raises(
        ConfigError, match=rf"Of `{group}` a list is chosen.*mixture.*\n.*choose one"
    ):
        compose(overlays, [f"{group}=[{options}]"])


def test_several_options_are_found_also_where_a_file_chooses_them(overlays: Path) -> None:
    with pytest.raises(ConfigError, match="Of `model` a list is chosen"):
        compose(overlays, ["experiment=mixed"])
    text = (
        (overlays / "config.yaml")
        .read_text()
        .replace("- strategy: full", "- strategy: [full, recency]")
    )
    (overlays / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="Of `strategy` a list is chosen"):
        compose(overlays)
    assert compose(overlays, ["strategy=full"])


def test_an_overlay_without_content_changes_nothing(overlays: Path) -> None:
    for name in ("nothing", "comment", "[nothing,comment]"):
        assert compose(overlays, [f"experiment={name}"]) == compose(overlays)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("experiment=[short,typo]", ["`experiment=typo` names no file", "short"]),
        ("experiment=[short,bad]", ["In conf/experiment/bad.yaml", "`seed` is -4"]),
        ("experiment=[bad,short]", ["In conf/experiment/bad.yaml", "`seed` is -4"]),
        ("experiment=[short,null]", ["null stands for none", "`experiment=[short]`"]),
        ("experiment=unpackaged", ["conf/experiment/unpackaged.yaml", "# @package _global_"]),
        (
            "experiment=[short,unpackaged]",
            ["conf/experiment/unpackaged.yaml", "# @package _global_"],
        ),
        ("experiment=[short,broken]", ["conf/experiment/broken.yaml", "not valid YAML"]),
        ("+experiment=short", ["`experiment=short`, without `+`"]),
        ("++model=ridge", ["`model=ridge`, without `+`"]),
        ("+local=laptop", ["`local=laptop` names no file"]),
        ("+model=x", ["`model=x` names no file", "ridge"]),
        ("model=", ["`model=` chooses nothing", "ridge"]),
        (
            "gate.first_champion.baseline=null",
            ["gate.first_champion.baseline", "null", "can't be left out"],
        ),
        (
            "gate.checks.churn=null",
            ["gate.checks.churn", "null", "gate.checks.churn.on_failure=off"],
        ),
        ("gate.checks=null", ["gate.first_champion.evidence", "refers to another value"]),
        ("gate.checks.slices.by=[]", ["[]", "at least 1 item"]),
        ("seed=", ["`seed` is ''", "a valid integer"]),
        ("seed=null", ["`seed` is null", "a valid integer"]),
        ("evaluation.minimum_rows=1e3", ["1000.0", "a valid integer"]),
        ("data.features=x", ["data.features", "a valid dictionary"]),
        ("monitoring=x", ["monitoring", "should be a dictionary."]),
        ("data.label_delay=5d", ["+data.label_delay=5d"]),
        ("backtest.strategies=[typo]", ["backtest.strategies", "'typo'", "sliding_window"]),
        ("backtest.policies=[full]", ["backtest.policies", "'full'", "cost_aware"]),
        ("backtest.gates=[]", ["backtest.gates", "at least 1 item"]),
    ],
)
def test_a_mistake_is_explained_in_the_words_of_the_project(
    overlays: Path, override: str, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        compose(overlays, [override])
    for word in [*words, override.partition("=")[0].lstrip("+").partition(".")[0]]:
        assert word in str(error.value)
    assert "\n" not in error.value.message


def test_a_period_is_held_or_released_never_both() -> None:
    with pytest.raises(
        ConfigError, match=r"2013-05 stands in both `monitoring.hold`.*`monitoring.accept`"
    ):
        compose(CONF, ["monitoring.hold=[2013-05,2013-06]", "monitoring.accept=[2013-04,2013-05]"])
    assert compose(CONF, ["monitoring.hold=[2013-05]", "monitoring.accept=[2013-04]"])


def test_one_persons_overlay_wins(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "local").mkdir(exist_ok=True)
    (conf / "local/default.yaml").write_text(
        "# @package _global_\nmodel: {estimator: {max_iter: 7}}\n"
    )
    assert compose(conf).model.estimator["max_iter"] == 7


def test_an_overlay_that_is_named_must_exist(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "experiment").mkdir(exist_ok=True)
    (conf / "experiment/short.yaml").write_text(
        "# @package _global_\nmodel: {estimator: {max_iter: 7}}\n"
    )
    assert compose(conf, ["experiment=short"]).model.estimator["max_iter"] == 7
    assert compose(conf, ["experiment=null"]) == compose(conf)
    with pytest.raises(
        ConfigError,
        match=r"`experiment=shrot` names no file.*conf/experiment/shrot.yaml.*\n.*short",
    ):
        compose(conf, ["experiment=shrot"])
    (conf / "local").mkdir(exist_ok=True)
    (conf / "local/default.yaml").unlink(missing_ok=True)
    assert compose(conf) and compose(conf, ["local=null"])
    with pytest.raises(ConfigError, match="`local=laptop` names no file"):
        compose(conf, ["local=laptop"])


def test_an_overlay_may_lie_where_hydra_is_told_to_look(tmp_path: Path) -> None:
    (tmp_path / "shared/experiment").mkdir(parents=True)
    (tmp_path / "shared/experiment/team.yaml").write_text("# @package _global_\nseed: 5\n")
    found = [f"hydra.searchpath=[file://{tmp_path / 'shared'}]"]
    assert compose(CONF, ["experiment=team", *found]).seed == 5
    with pytest.raises(ConfigError, match="experiment=taem"):
        compose(CONF, ["experiment=taem", *found])


def test_an_overlay_is_named_before_there_is_any(tmp_path: Path) -> None:
    shutil.copytree(CONF, tmp_path / "conf", ignore=shutil.ignore_patterns("experiment", "local"))
    with pytest.raises(ConfigError, match=r"no conf/experiment/short.yaml"):
        compose(tmp_path / "conf", ["experiment=short"])
    with pytest.raises(ConfigError, match="multirun"):
        compose(tmp_path / "conf", ["model=dummy,ridge"])


def test_a_model_trusts_its_own_types_in_its_own_file(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    before = compose(conf)
    own = (conf / "model/ridge.yaml").read_text() + "trusted_types: [my.Ridge, numpy.dtype]\n"
    (conf / "model/mine.yaml").write_text(own)
    for overrides in (["model=mine"], []):  # the champion may be a model that was chosen before
        config = compose(conf, overrides)
        assert set(config.trusted_types) == {*before.trusted_types, "my.Ridge"}
    assert (
        compose(conf, ["model=mine"]).model == compose(conf, ["model=ridge"]).model
    )  # it shapes no model
    assert "my.More" in compose(conf, ["+model.trusted_types=[my.More]"]).trusted_types
    (conf / "model/mine.yaml").write_text(own.replace("[my.Ridge, numpy.dtype]", "my.Ridge"))
    with pytest.raises(
        ConfigError,
        match=r"conf/model/mine.yaml: `model.trusted_types` is 'my.Ridge'.*a valid list",
    ):
        compose(conf)


def test_what_a_person_composes_is_what_the_pipeline_resolves(grown: Project) -> None:
    """Also the digests of the code that it names: what `retrain monitor` says must not differ from what `dvc repro` does."""
    composed = compose(grown.root / "conf")
    resolved = load_params(grown.root / "params.yaml")
    assert to_container(composed) == to_container(resolved)
