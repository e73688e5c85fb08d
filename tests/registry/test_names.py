"""Names from the data, as MLflow takes them, and as a terminal, Markdown and HTML show them."""

from __future__ import annotations

import logging

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

from retrain.masking import MaskingFormatter
from retrain.registry.names import LONGEST, fit_name, fit_text
from retrain.report.best_effort import best_effort
from retrain.report.formatting import escape_markdown, markdown_table
from retrain.report.terminal import print_table, printable

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.sampled_from(
    [
        "",
        ".",
        "..",
        "../z",
        "/a",
        "a/",
        "a//b",
        "C/A+",
        "Price ($)",
        "100 %",
        "a\nb",
        " a ",
        "Größe",
        "顧客",
        "x" * 300,
    ]
)


@settings(deadline=None, derandomize=True)
@given(TEXT)
@example("\u2028")
def test_mlflow_takes_every_fitted_name(name: str) -> None:
    for prefix in ("", "distance/", "gate/classes/rows_of_class_"):
        fitted = fit_name(prefix + name)
        assert len(fitted) <= LONGEST and fitted.startswith(prefix)
        for validate in (_validate_metric_name, _validate_param_name, _validate_tag_name):
            validate(fitted)


@settings(deadline=None, derandomize=True)
@given(st.lists(TEXT, unique=True, max_size=20))
@example(["a ($)", "a (%)", "a/./b", "a/b", "a//b", "x" * 300, "x" * 301])
def test_fitted_names_stay_apart_and_do_not_depend_on_each_other(names: list[str]) -> None:
    assert len({fit_name(f"p/{name}") for name in names}) == len(names)


@pytest.mark.parametrize(
    "name", ["log_loss/challenger", "distance/cust-type", "p/Größe und Länge", "a/b", "a.b"]
)
def test_a_name_that_fits_stays_as_it_is_and_others_stay_readable(name: str) -> None:
    assert fit_name(name) == name
    assert fit_name("distance/Price ($)").startswith(
        "distance/Price (_)".replace("(", "_").replace(")", "_")
    )


def test_a_run_is_named_on_one_line_that_the_store_can_hold() -> None:
    assert fit_text("a\n b") == "a b" and len(fit_text("x" * 1000)) == LONGEST


@pytest.mark.parametrize("text", ["[/b]", "[a,b]", "[red]x", ":smile:", "[link=file:///]x[/link]"])
def test_a_terminal_shows_names_as_they_are(text: str, capsys: pytest.CaptureFixture) -> None:
    print_table([text, "n"], [[text, "1"]], width=80, title=text)
    assert capsys.readouterr().out.count(text) == 3


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture) -> None:
    print_table(["a"], [["x\x1b[2Jy\nz\u202e"]], width=80)
    assert "x\\x1b[2Jy\\nz\\u202e" in capsys.readouterr().out
    assert printable("Größe 顧客 100 %") == "Größe 顧客 100 %"


def test_markdown_shows_names_as_they_are() -> None:
    assert escape_markdown("a|b <b> `c`\n[d](e)") == "a\\|b &lt;b&gt; \\`c\\` \\[d\\](e)"
    assert markdown_table(["x|y"], [["1\n2"]]) == ["| x\\|y |", "| --- |", "| 1 2 |"]


def test_what_is_only_shown_warns_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), best_effort("The report"):
        raise ValueError("no room left\nmore")
    assert "The report could not be shown (ValueError: no room left)" in caplog.text
    with pytest.raises(KeyboardInterrupt), best_effort("The report"):
        raise KeyboardInterrupt


def test_control_characters_do_not_reach_the_terminal_through_a_log_line() -> None:
    record = logging.LogRecord(
        "retrain", logging.INFO, "", 0, "level %s\nnext", ("a\x1b[2Jb\r",), None
    )
    assert MaskingFormatter("%(message)s").format(record) == "level a\\x1b[2Jb\\r\nnext"


def test_a_name_that_is_too_long_for_a_table_goes_on_in_the_next_line(
    capsys: pytest.CaptureFixture,
) -> None:
    print_table(["metric", "value"], [["project.own." + "x" * 150, "1"]], width=80)
    shown = capsys.readouterr().out
    assert "…" not in shown and shown.count("x") == 150
