"""Our grammar of SPIFFE IDs and trust domains and go-spiffe's agree, byte for byte."""

import pytest
from harness.clients import built
from harness.id_grammar import STRICTER, Verdicts, compare, ours, theirs

pytestmark = pytest.mark.go
COUNT = 20_000


@pytest.fixture(autouse=True, scope="module")
def go_spiffe() -> None:
    built("go")


def test_many_texts() -> None:
    """Of 20,000 texts ours accepts just what go-spiffe does, with the same parts, but for two limits of length."""
    found = compare("sojourn", COUNT)
    assert [] == found.differences
    for verdict in ("IDs accepted", "IDs refused", "trust domains accepted", "trust domains refused"):
        assert found.counted[verdict] > COUNT // 10, f"the texts prove little: {found.counted}"
    for rule in STRICTER:
        assert found.counted[rule] > 0, f"no text shows that {rule}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"spiffe://example.org/a/B", Verdicts((b"example.org", b"/a/B"), (b"example.org", b""))),
        (b"example.org", Verdicts(None, (b"example.org", b""))),
        (b"spiffe://EXAMPLE.org/a", Verdicts(None, None)),
        (b"spiffe://example.org/\xc0\xaf", Verdicts(None, None)),
        (b"", Verdicts(None, None)),
    ],
)
def test_one_text(text: bytes, expected: Verdicts) -> None:
    """Both say the same of texts whose verdict the standard names."""
    assert [expected] == theirs([text])
    assert expected == ours(text)
