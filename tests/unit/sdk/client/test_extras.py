"""Libraries that only a part of the SDK needs: whoever misses one is told what to install, and that is there."""

import ast
import tomllib
from pathlib import Path

import pytest
from harness.trees import nodes_of
from sojourn.errors import FailedPrecondition
from sojourn.sdk.client.extras import extra

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[4]


def test_what_is_missing() -> None:
    """The error names the library and the extra that brings it."""
    with (
        pytest.raises(FailedPrecondition, match=r"this needs nowhere_to_be, .* pip install './sojourn\[http\]'"),
        extra("http"),
    ):
        import nowhere_to_be  # noqa: F401


def test_each_extra_exists() -> None:
    """An extra that an error or a guide names is one of the package's."""
    named = set()
    for path in (ROOT / "agent" / "sojourn").rglob("*.py"):
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "extra":
                named |= {each.value for each in node.args if isinstance(each, ast.Constant)}
    there = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    assert {"http", "mcp"} <= named <= there
