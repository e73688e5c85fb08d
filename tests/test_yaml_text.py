"""YAML that the program writes comes back as it was, by every reader, and changes nothing else."""

from __future__ import annotations

import copy
import difflib
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from hypothesis import example, given, settings
from hypothesis import strategies as st
from names import LOOK_ALIKES, any_name
from omegaconf import OmegaConf
from ruamel.yaml import YAML

from retrain.commands import project_files
from retrain.config import compose, load_params, to_yaml
from retrain.errors import ConfigError, DataError, RetrainError
from retrain.yaml_text import add, change, comment, entry, inline, literal


@settings(deadline=None, derandomize=True)
@given(any_name() | st.text(max_size=30))
@example("x" * 3000)
@example("\ufeff\x85\u2028\x00")
def test_any_text_is_read_back_by_every_reader(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # half a character, that no file can hold
    line = f"{entry(text, inline(literal([text, text])))}   # {comment(text)}\n"
    for read in (yaml.safe_load, YAML(typ="safe").load):
        assert read(line) == {text: literal([text, text])}
    if text != "???":
        config = OmegaConf.create(read(line))
        assert OmegaConf.to_container(config, resolve=True)[text] == [text, text]


@pytest.mark.parametrize(
    "choice", ["a", "a_much_longer_name_than_before_that_needs_more_room", "on"]
)
def test_choosing_a_data_set_changes_one_line_and_no_comment(choice: str) -> None:
    text = (REPOSITORY / "conf/config.yaml").read_text()
    changed = change(text, "conf/config.yaml", ["defaults", "data"], inline(choice))
    lines = [
        line for line in difflib.ndiff(text.splitlines(), changed.splitlines()) if line[0] in "+-"
    ]
    assert len(lines) == 2 and lines[0].split("#")[1] == lines[1].split("#")[1]
    assert yaml.safe_load(changed)["defaults"][0] == {"data": choice}
    if len(choice) < 20:
        assert lines[0].index("#") == lines[1].index("#")


def test_a_key_that_is_not_there_is_named_with_its_file() -> None:
    with pytest.raises(ConfigError, match=r"conf/config.yaml has no key `defaults.data`"):
        change("defaults: [a]\n", "conf/config.yaml", ["defaults", "data"], "x")
    with pytest.raises(ConfigError, match="not valid YAML"):
        change("a: [\n", "conf/config.yaml", ["a"], "x")


@pytest.mark.parametrize(
    "text",
    [
        "a:\n  b:\n    c: 1   # one\nd: 2\n",
        "a:\n    b:\n        c: [1,\n            2]\n    # below\nd: 2",
        "a: {b: {c: 1}}  # all\nd: 2\n",
        "a:\n  b:\n    c:\n      e: 1\n    f: |\n      text\nd: 2\n",
        "d: 2\na:\n  b:\n    c: 1",
    ],
)
def test_a_new_key_comes_last_and_all_else_stays(text: str) -> None:
    wanted = yaml.safe_load(text)
    wanted["a"]["b"]["new key"] = "yes"
    changed = add(text, "x.yaml", ["a", "b", "new key"], inline("yes"))
    assert yaml.safe_load(changed) == wanted
    lines = changed.replace(', "new key": "yes"', "").splitlines()
    assert [line for line in lines if "new key" not in line] == text.splitlines()
    assert add(changed, "x.yaml", ["a", "b", "new key"], "3") != changed, "given again: replaced"


def test_dvc_watches_files_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(REPOSITORY / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    before = Path("dvc.yaml").read_text()
    for name in ("sales, eu.csv", "sales [v2].csv"):
        Path(name).touch()
        text = project_files.watch([name, "raw/*/x.csv", "data/incoming/*.csv"])[Path("dvc.yaml")]
        deps = yaml.safe_load(text)["stages"]["snapshot"]["deps"]
        assert deps[:3] == ["data/incoming", name, "raw"]
        assert deps[3:] == yaml.safe_load(before)["stages"]["snapshot"]["deps"][1:]
        changed = [
            line
            for line in difflib.ndiff(before.splitlines(), text.splitlines())
            if line[0] in "+-"
        ]
        assert len(changed) == 2
        Path("dvc.yaml").write_text(text)  # the second replaces the first


@pytest.mark.parametrize(
    "name",
    ["../z", "eu/sales:v2", "null", "on", "2023_01", "", "a b", "a.b", ".", "x" * 101, "a'b"],
)
def test_a_data_set_is_not_called_what_a_file_hydra_or_mlflow_would_not_take(name: str) -> None:
    with pytest.raises(DataError, match="begins with a letter"):
        project_files.check_name(name)
    fitted = project_files.fit_data_name(name)
    assert project_files.check_name(fitted) == fitted


@pytest.mark.parametrize("name", ["sales", "sales-eu_2", "Größe", "顧客"])
def test_a_data_set_may_have_any_script(name: str) -> None:
    assert project_files.check_name(name) == name


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    return tmp_path / "conf"


def write_data(conf: Path, **lines: str) -> None:
    text = (conf / "data/files.yaml").read_text()
    for key, value in lines.items():
        text = change(text, "files.yaml", key.split("__"), value)
    (conf / "data/files.yaml").write_text(text)


@pytest.mark.parametrize("period", ["000017", "000000", "000100"])
def test_a_batch_that_is_counted_is_named_as_the_program_writes_it(conf: Path, period: str) -> None:
    write_data(conf, period="rows", as_of=period)
    config = compose(conf, ["data=files", f"monitoring.accept=[{period}]"])
    assert config.data.as_of == period and config.monitoring.accept == [period]


@pytest.mark.parametrize(
    ("written", "read"), [("2023_01", "2023_01"), ("12:30", "12:30"), ("007", "007"), ("42", "42")]
)
def test_a_name_that_looks_like_a_number_stays_as_it_is_written(
    conf: Path, written: str, read: str
) -> None:
    write_data(conf, time_column=written)
    assert compose(conf, ["data=files"]).data.time_column == read


@pytest.mark.parametrize("written", ["on", "NO", "1e3", "1.10"])
def test_a_name_that_can_not_be_told_any_more_is_refused(conf: Path, written: str) -> None:
    write_data(conf, time_column=written)
    with pytest.raises(ConfigError, match=r"data.time_column.*in quotes"):
        compose(conf, ["data=files"])


@pytest.mark.parametrize("name", ["../z", "eu/sales:v2", "it's", "100%", " a", "a.", "x" * 201])
def test_a_registered_model_is_not_called_what_mlflow_would_not_take(conf: Path, name: str) -> None:
    write_data(conf, name=inline(name))
    with pytest.raises(ConfigError, match=r"tracking.registered_model.*data.name"):
        compose(conf, ["data=files"])


@pytest.mark.parametrize("name", ["sales (EU) & more", "Größe", "顧客", "v1.2", "123"])
def test_other_names_of_registered_models_are_taken(conf: Path, name: str) -> None:
    write_data(conf, name=inline(name))
    assert compose(conf, ["data=files"]).tracking.registered_model == name


@settings(deadline=None, derandomize=True, max_examples=30)
@given(any_name())
@example("???")
@example("${data.name}")
@example("\\\\${x}")
def test_the_resolved_config_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    config = copy.deepcopy(CONFIG or _config())
    config.data.time_column = config.data.positive_label = name
    config.data.features = {name: config.data.features["carrier"]}
    config.data.features[name].levels = [name, *LOOK_ALIKES]
    config.gate.checks["slices"]["by"] = [name]
    path = tmp_path_factory.getbasetemp() / "params.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_params(path) == config
    assert YAML(typ="safe").load(path)["data"]["time_column"] == name


CONFIG = None


def _config():
    global CONFIG
    CONFIG = compose(REPOSITORY / "conf")
    return CONFIG


def test_files_are_written_all_or_none(tmp_path: Path) -> None:
    """The second can't be written, since a folder stands in its place."""
    old, new, folder = tmp_path / "config.yaml", tmp_path / "new.yaml", tmp_path / "folder"
    old.write_text("before")
    folder.mkdir()
    with pytest.raises(RetrainError, match="folder"):
        project_files.write_all({old: "after", new: "after", folder: "after"})
    assert old.read_text() == "before" and not new.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "folder"]
