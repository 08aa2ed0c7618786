"""explain.py: why a process has what it has."""

import pytest
from fakes.registrations import NODE, OTHER_NODE, entry, selectors
from sojourn.attestation.attestor import Attested
from sojourn.identity.explain import Verdict, conclusion, verdicts
from sojourn.limits import EXPLAINED_ENTRIES

HELD = selectors("unix:uid:1000", "unix:gid:1000")
HIT = entry("/hit")
MISS = entry("/miss", "unix:uid:1000", "unix:path:/bin/web")
FAR = entry("/far", parent_id=OTHER_NODE)
OVER = entry("/over", expires_at=1)


def attested(**changes):
    fields = {"selectors": HELD, "withheld": {}, "failures": {}, "at": 0.0}
    return Attested(**{**fields, **changes})


def test_verdicts():
    """First what matches, then what matches and is not served here, then the nearest misses with what they lack."""
    assert [
        Verdict(HIT, "matched"),
        Verdict(FAR, "other_parent"),
        Verdict(OVER, "expired"),
        Verdict(MISS, "missing_selectors", ("unix:path:/bin/web",)),
    ] == verdicts([MISS, OVER, FAR, HIT], [HIT], attested(), [NODE])


def test_a_hint_that_is_taken():
    """An entry that loses its hint to another gives nothing, and is told so."""
    old, young = entry("/old", hint="h", created_at=1), entry("/young", hint="h", created_at=2)
    first = entry("/first", hint="h", created_at=3, priority=1)
    assert [Verdict(old, "matched"), Verdict(young, "hint_taken")] == verdicts(
        [young, old], [old, young], attested(), [NODE]
    )
    assert ["/first", "/old", "/young"] == [
        each.entry.spiffe_id.path for each in verdicts([young, old, first], [first, old, young], attested(), [NODE])
    ]


def test_misses_are_limited():
    """No more than some of the misses are shown."""
    misses = [entry(f"/n{number}", f"x:{number}") for number in range(EXPLAINED_ENTRIES + 5)]
    assert EXPLAINED_ENTRIES == len(verdicts(misses, [], attested(), [NODE]))


@pytest.mark.parametrize(
    ("found", "state", "says"),
    [
        ([Verdict(HIT, "matched")], {}, "the process has 1 identity: spiffe://example.org/hit"),
        ([Verdict(HIT, "matched"), Verdict(OVER, "matched")], {}, "2 identities"),
        ([], {}, "there are no entries"),
        ([], {"failures": {"docker": "is down"}}, "docker could not tell"),
        ([Verdict(OVER, "expired")], {}, "has expired"),
        ([Verdict(FAR, "other_parent")], {}, "another node"),
        ([Verdict(MISS, "missing_selectors", ("unix:path:/bin/web",))], {}, "also asks for unix:path:/bin/web"),
        (
            [Verdict(MISS, "missing_selectors", ("unix:path:/bin/web",))],
            {"withheld": {"unix:path": "no capability", "unix:sha256": "other"}},
            "unix:path could not be proved: no capability",
        ),
    ],
)
def test_conclusion(found, state, says):
    """The conclusion says what the process gets, or what is missing and why it could not be proved."""
    assert says in conclusion(found, attested(**state))
    assert "sha256" not in conclusion(found, attested(**state))


def test_who_would_have_it():
    """The conclusion about selectors speaks of no process."""
    said = conclusion([Verdict(HIT, "matched")], attested(), "a process with these selectors has")
    assert said.startswith("a process with these selectors has 1 identity: spiffe://example.org/hit")


def test_failures_do_not_hide_a_match():
    """A process that has an identity has it, although an attestor could not tell."""
    assert "1 identity" in conclusion([Verdict(HIT, "matched")], attested(failures={"docker": "down"}))


def test_another_nodes_entry_with_an_expiry():
    """An entry of another node that has not expired is another node's, whatever its expiry."""
    later = entry("/later", parent_id=OTHER_NODE, expires_at=2**50)
    assert [Verdict(later, "other_parent")] == verdicts([later], [], attested(), [NODE])
