"""join_string.py: the one text by which an agent joins, which says how the server is known."""

import pytest
from fakes.ca import FakeCa
from sojourn.errors import InvalidInput
from sojourn.spiffe.ids import TrustDomain
from sojourn.upstream.join_string import JoinString, digest_of

ONE, TWO = FakeCa.make().root, FakeCa.make().root


def test_there_and_back() -> None:
    """What was printed is read, with white space around it as a terminal has it."""
    said = JoinString(TrustDomain("example.org"), "43879895-f3b1", digest_of([ONE]))
    assert said == JoinString.parse(f" {said}\n")


def test_the_token_is_not_shown() -> None:
    """What is printed of it by chance has no token."""
    assert "secret" not in repr(JoinString(TrustDomain("example.org"), "secret", digest_of([ONE])))


def test_each_authority_counts() -> None:
    """The digest is of all authorities, in whatever order, and of each whole."""
    assert digest_of([ONE, TWO]) == digest_of([TWO, ONE])
    assert 4 == len({digest_of(each) for each in ([], [ONE], [TWO], [ONE, TWO])})


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "a:4711", f"a:47/11:{64 * '0'}", f"a::{64 * '0'}", f"a:4711:{63 * '0'}", f"a:4711:{64 * 'F'}"),
        *(f"A:4711:{64 * '0'}", f"a:4711:{64 * '0'}:c", f"a:47 11:{64 * '0'}"),
    ],
)
def test_what_is_none(text: str) -> None:
    """Another text is refused, and no part of it is repeated: it may be a token."""
    with pytest.raises(InvalidInput) as caught:
        JoinString.parse(text)
    assert "47" not in caught.value.public
