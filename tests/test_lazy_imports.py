"""Imports inside functions are there for start-up alone, and counted: none comes unnoticed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import retrain
from retrain import lazy

ENGINE = Path(retrain.__file__).parent

# How many a module may have. Libraries come from `retrain.lazy`; what remains are modules of our
# own that are heavy by themselves. A number only ever goes down; wanted are 25 in all.
ALLOWED = {
    "cli.py": 1,
    "models/encodings.py": 2,
    "models/strategies.py": 1,
    "pipeline/config.py": 1,
    "registry/runs.py": 1,
}


def test_a_module_has_no_more_imports_inside_functions_than_listed() -> None:
    found = {
        path.relative_to(ENGINE).as_posix(): imports
        for path in sorted(ENGINE.rglob("*.py"))
        if (imports := list(_inside_functions(path)))
    }
    new = {name: imports for name, imports in found.items() if len(imports) > ALLOWED.get(name, 0)}
    assert not new, "import these at the top of the module, or list them with their reason"


def _inside_functions(path: Path) -> Iterator[str]:
    """`line: statement` of each import below a function's head."""
    nodes = set()
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes |= {
                node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)
            }
    for node in sorted(nodes, key=lambda node: node.lineno):
        yield f"{node.lineno}: {ast.unparse(node)}"


def test_a_lazy_library_loads_when_it_is_used_and_not_before() -> None:
    names = ", ".join(lazy.__all__)
    code = (
        f"import sys; from retrain.lazy import {names}; print(*{set(lazy.__all__)} & "
        "set(sys.modules))"
    )
    assert not _output(code)
    code = (
        "import sys; from retrain.lazy import scipy; scipy.stats; print('scipy.stats' in "
        "sys.modules)"
    )
    assert _output(code) == "True"


def test_a_lazy_library_is_the_library() -> None:
    import polars
    import sklearn.linear_model

    assert lazy.polars.DataFrame is polars.DataFrame
    assert lazy.sklearn.linear_model.Ridge is sklearn.linear_model.Ridge


def test_what_a_lazy_library_lacks_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"sklearn\.linear_modle"):
        _ = lazy.sklearn.linear_modle


def test_mlflow_comes_after_the_functions_that_skops_searches_for() -> None:
    code = """
import sys; from retrain.lazy import mlflow; mlflow.MlflowClient
order = list(sys.modules); print(order.index("scipy.special._ufuncs") < order.index("mlflow"))
"""
    assert _output(code) == "True"


def test_the_gate_takes_no_store_and_no_files_from_the_lazy_libraries() -> None:
    """import-linter sees only that it imports `retrain.lazy`."""
    taken = {
        alias.name
        for path in (ENGINE / "gate").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "retrain.lazy"
        for alias in node.names
    }
    assert taken <= {"numpy", "polars", "scipy", "pydantic"}


def _output(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
