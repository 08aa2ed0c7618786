"""tasktoken/request_record.py: what a record may have of a request is short, printable, and no value of a query."""

import string

import pytest
from fakes.tasktokens import issue
from hypothesis import given
from hypothesis import strategies as st
from sojourn.limits import PARAMS_PER_TASK, SERVED_NAME_MAX, SERVED_QUERY_NAMES, SERVED_TARGET_MAX
from sojourn.tasktoken.request_record import Served, compared

PLAIN = set(string.printable) - set(string.whitespace)
TEXT = st.text(st.characters(exclude_categories=()), max_size=500)


@given(TEXT, TEXT, TEXT, st.lists(TEXT, max_size=5))
def test_whatever_is_said(action: str, method: str, target: str, compared: list[str]) -> None:
    """Of whatever is said comes printable ASCII within the limits, and what was made of it once stays so."""
    made = Served.of(action, method, target, compared)
    assert len(made.action) <= SERVED_NAME_MAX
    assert len(made.method) <= SERVED_NAME_MAX
    assert len(made.target) <= SERVED_TARGET_MAX
    assert set(made.action + made.method + made.target) <= PLAIN
    assert made == Served.of(made.action, made.method, made.target, made.compared)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/orders/O-1", "/orders/O-1"),
        ("/orders/O-1?", "/orders/O-1?"),
        ("/orders?key=s3cret&note=a%20b&plain", "/orders?key&note&plain"),
        ("/a?b?c=s3cret", "/a?b?c"),
        ("/a b\x00\u00e9", "/a%20b%00%C3%A9"),
    ],
)
def test_names_of_the_query_alone(target: str, expected: str) -> None:
    """The path is told as it was sent, and of the query each name without its value."""
    assert expected == Served.of("", "GET", target).target


def test_many_names() -> None:
    """Of a query with many names so many are told."""
    made = Served.of("", "GET", "/a?" + "&".join(f"n{each}=v" for each in range(100)))
    assert SERVED_QUERY_NAMES == made.target.count("n")


def test_what_is_not_known() -> None:
    """What is not known is left out of records."""
    assert {"action": None, "method": None, "target": None} == Served().record()


def test_names_without_end():
    """Names of parameters are as short as a task's are, and as few, whoever tells of them."""
    told = ["x" * 100_000, *(f"n{each}" for each in range(10_000))]
    made = Served.of("", "GET", "/", told, told)
    for names in (made.compared, made.unchecked):
        assert len(names) <= PARAMS_PER_TASK
        assert max(map(len, names)) <= SERVED_NAME_MAX


@pytest.mark.parametrize(
    ("byte", "told"), [("!", "!"), ("~", "~"), (" ", "%20"), ("\x7f", "%7F"), ("\ud800", "%ED%A0%80")]
)
def test_what_can_be_printed(byte: str, told: str) -> None:
    """All that a request line may have is told as it is, from ! to ~, and all else as its escape."""
    assert f"/{told}" == Served.of("", "", f"/{byte}").target


class TestParams:
    TOKEN = issue(params={"ticket": "T-1", "level": 42, "urgent": True})

    def test_of_a_record(self) -> None:
        """A record has the values that were compared, names what the request does not have, and nothing of no task."""
        served = Served(compared=("level", "other"), unchecked=("urgent", "another"))
        assert {"params": {"level": 42}, "unchecked": ["urgent"]} == served.params(self.TOKEN)
        assert {"params": {}, "unchecked": None} == Served().params(self.TOKEN)

    def test_what_was_compared(self) -> None:
        """Compared is what both the token and the request have."""
        assert ("ticket", "urgent") == compared(self.TOKEN, {"urgent": False, "ticket": "x", "other": 1})
