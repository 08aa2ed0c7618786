"""docs/codes.md: every error, audit event and reason of the code stands there with its sentence, as it is now."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from prometheus_client import REGISTRY
from sojourn.agent import measuring
from sojourn.endpoints.http1.oauth_responses import http_status
from sojourn.errors import Bug, CannotStart, NoIdentity, SojournError, TooLarge
from sojourn.errors.oauth import Confined, SendAgain
from sojourn.tasktoken import end_reasons

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("codes", ROOT / ".ci" / "codes.py")
assert _spec is not None
assert _spec.loader is not None
codes = importlib.util.module_from_spec(_spec)
sys.modules["codes"] = codes
_spec.loader.exec_module(codes)

NO_CODES = {"ASKER_ENDED"}  # a sentence


@pytest.mark.full
def test_the_page_is_what_the_code_says() -> None:
    """docs/codes.md is what `make codes` makes of the code, and each of its rows has a sentence that is short enough."""
    assert codes.page() == (ROOT / "docs" / "codes.md").read_text()
    assert [] == codes.faults(codes.page())


def test_a_long_cell_and_no_sentence_are_found() -> None:
    """A cell that nobody reads to its end, and a name without a sentence, keep the page from being written."""
    text = f"| Code | Means |\n|---|---|\n| `a` | {'x' * 301}. |\n| `b` | - |\n| `c` | Good, with \\| in it. |\n"
    assert ["docs/codes.md:3: a cell has", "docs/codes.md:4: `b` has no"] == [
        re.match(r"\S+ (?:a cell has|`b` has no)", each)[0] for each in codes.faults(text)
    ]


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("One. Two.", "One."),
        (
            "It breaks a rule of X509-SVID.md, or\nnot (RFC 6749, 5.2).\n\nMore.",
            "It breaks a rule of X509-SVID.md, or not (RFC 6749, 5.2).",
        ),
        ("(client side) One. `b` is more.", "(client side) One."),
    ],
)
def test_the_first_sentence_is_taken(docstring: str, sentence: str) -> None:
    """An error is told by the first sentence of its docstring, with the mark before it, and without numbers for ends."""
    assert sentence == codes.first_sentence(docstring)


class TestErrors:
    @pytest.mark.full
    def test_each_class_with_a_code_is_there(self) -> None:
        """Every error that any module of the agent has defined by now is on the page, under a code that is its own."""
        listed = codes.kinds()
        for kind in codes._below(SojournError):
            if kind.__module__.startswith("sojourn.") and "code" in vars(kind):
                assert kind in listed
        assert len({kind.code for kind in listed}) == len(listed) > 60
        assert "provider_refused" in {kind.code for kind in listed}

    @pytest.mark.parametrize(
        ("kind", "oauth"),
        [
            (NoIdentity, "`invalid_client`, 401"),
            (TooLarge, "`invalid_request`, 413"),
            (Confined, "`access_denied`, 403"),
            (CannotStart, ""),
            (Bug, ""),
            (SendAgain, ""),
        ],
    )
    def test_oauth_is_what_is_answered(self, kind: type[SojournError], oauth: str) -> None:
        """An error has the OAuth error and HTTP status that the token service answers; none has one that is never answered."""
        assert oauth == codes.code_of(kind).oauth
        if oauth:
            assert oauth.endswith(str(http_status(kind)))


class TestReasons:
    def test_each_constant_has_its_sentence(self) -> None:
        """Every reason and every cause has a sentence, and no sentence is of one that is not there."""
        constants = {
            value
            for name, value in vars(end_reasons).items()
            if name.isupper() and isinstance(value, str) and name not in NO_CODES
        }
        assert constants == {*end_reasons.REASONS, *end_reasons.CAUSES}


@pytest.mark.full
class TestMetrics:
    @pytest.mark.full
    def test_what_is_registered_is_there(self) -> None:
        """Every metric that is registered is listed with its kind, labels and help text."""
        listed = {each.name: each for each in codes.metrics()}
        found = 0
        for made in {*REGISTRY._collector_to_names}:
            if not (getattr(made, "_name", "") or "").startswith("sojourn_"):
                continue
            metric = cast("Any", made)
            name = f"{metric._name}_total" if metric._type == "counter" else metric._name
            assert (metric._type, metric._labelnames, metric._documentation) == (
                listed[name].kind,
                listed[name].labels,
                listed[name].text,
            )
            found += 1
        assert found > 15

    def test_gauges_of_the_agent_are_there(self) -> None:
        """Every gauge that the agent serves is listed, and what a collector makes when it is asked is too."""
        listed = {each.name: each for each in codes.metrics()}
        for name, text, _ in measuring.gauges_of(MagicMock(), MagicMock()):
            assert ("gauge", text) == (listed[name].kind, listed[name].text)
        recalls = listed["sojourn_external_recalls_total"]
        assert ("counter", ("provider", "result")) == (recalls.kind, recalls.labels)
