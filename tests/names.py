"""Names that columns, levels, classes and files have in the world, to draw from."""

from __future__ import annotations

from hypothesis import strategies as st

# What YAML, OmegaConf, SQL, Markdown, rich, HTML, LaTeX, a path or MLflow would take for something
# else.
LOOK_ALIKES = [
    "on", "No", "null", "~", "yes", "1e3", "000017", "2023_01", "12:30", "0x1F", "-", "???",
    "${data.name}", "\\${a}", "${", "a: b", "# no", "[x]", "{a}", "a, b", "'", '"', "it's",
    'say "x"', "&a", "*a", "!c", "| a", "> b", "%d", "@e", "`f`", "<<", "=", "cust-type",
    "Loan Type", "select", "a = 1", "a; drop table b", "1 OR 1", "size >", "[/b]", "[a,b]", "[red]",
    ":smile:", "**b**", "_i_", "<b>", "&amp;", "</td>", "$x$", "$\\frac", "^2", "{0}", "%s",
    "Price ($)", "C/A+", "a//b", "/a", "a/", "..", "../z", "a\\b", "100 %", "n°", "a\nb",
    "tab\there", " a", "a ", "x" * 300, "Größe", "顧客", "имя", "שם", "😀", "e\u0301", "a\u200bb",
    "\u202ea", "a\u2028b", "_target_", "_args_", "features", "type", "data", "True", "0", "1",
    "nan", "None", "inf",
]  # fmt: skip
# Words of this project, and of the libraries below it.
OWN_WORDS = [
    "window", "block", "target", "challenger", "incumbent", "baseline", "evaluation", "row_number",
    "quarantine_reason", "retrain_period", "retrain_batch", "worsening", "reference_loss", "slice",
    "len", "count", "prediction", "row", "columns", "key", "value", "literal", "index",
    "check_output", "failure_case", "group", "outcome", "mean", "old", "new", "values", "level_0",
    "time", "day", "told", "missing",
]  # fmt: skip


def any_name() -> st.SearchStrategy[str]:
    """A name as somebody may have given it. Not empty: a table has no column without a name."""
    free = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
    return st.sampled_from(LOOK_ALIKES) | st.sampled_from(OWN_WORDS) | free
