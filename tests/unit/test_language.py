"""How the code speaks: the rules of CONTRIBUTING.md, "Words", that a program can see."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.trees import nodes_of

ROOT = Path(__file__).parents[2]
FILES = [
    path
    for folder in ("agent/sojourn", "attestors/sojourn_attestors")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "_pb" not in path.parts and "migrations" not in path.parts
]
# A sentence that begins so has no subject that acts, and its noun stands behind it: "Of what is none, …".
SUBJECTLESS = re.compile(r"(?:^|[.:;] )(Of (?:what|whom|whose|those|these|one|the|an?|all|each|such|several|its)\b)")


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings and comments that stand above the line, whole, each with its line."""
    text = path.read_text()
    for node in nodes_of(path):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            said = ast.get_docstring(node)
            if said:
                for paragraph in said.split("\n\n"):
                    yield getattr(node, "lineno", 1), " ".join(paragraph.split())
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip():
            yield token.start[0], token.string.lstrip("# ")


def found_in(path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {text[:80]}" for line, text in sentences(path) if SUBJECTLESS.search(text)
    ]


def test_no_sentence_begins_with_of() -> None:
    """No docstring and no comment of the product has a sentence that begins with "Of what" or its like."""
    assert len(FILES) > 400
    assert [] == [each for path in FILES for each in found_in(path)]


@pytest.mark.parametrize(
    "text", ['"""Of what was kept."""\n', '"""It counts. Of those it is said."""\n', "# Of one that has ended\nx = 1\n"]
)
def test_one_is_found(tmp_path: Path, text: str) -> None:
    """Such a sentence is found at the beginning of a text and within it."""
    path = tmp_path / "a.py"
    path.write_text(text)
    assert [1] == [line for line, said in sentences(path) if SUBJECTLESS.search(said)]
