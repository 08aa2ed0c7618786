"""The limits, each of which is set once."""

import ast
from collections import Counter
from pathlib import Path

import pytest
import sojourn
from harness.trees import tree_of


@pytest.mark.parametrize("name", ["limits.py", "operating_limits.py"])
def test_once(name):
    """No limit is set twice: the second would count, whatever the first says."""
    tree = tree_of(Path(sojourn.__file__).parent / name)
    assigned = [each.targets[0] for each in tree.body if isinstance(each, ast.Assign)]
    annotated = [each.target for each in tree.body if isinstance(each, ast.AnnAssign)]
    names = Counter(ast.unparse(each) for each in (*assigned, *annotated))
    assert len(names) > 10
    assert [] == [each for each, count in names.items() if count > 1]
