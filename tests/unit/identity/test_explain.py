"""explain.py: why a process has what it has."""

import pytest
from fakes.registrations import NODE, OTHER_NODE, entry, selectors
from sojourn.attestation.attestor import Attested
from sojourn.identity.explain import EntryVerdict, Need, conclusion, needs, verdicts
from sojourn.limits import EXPLAINED_ENTRIES

HELD = selectors("unix:uid:1000", "unix:gid:1000")
HIT = entry("/hit")
MISS = entry("/miss", "unix:uid:1000", "unix:path:/bin/web")
FAR = entry("/far", parent_id=OTHER_NODE)
OVER = entry("/over", expires_at=1)


BETTER = entry("/better", "docker:label:a")
UNSURE = EntryVerdict(BETTER, "cannot_tell", ("docker:label:a",))


def attested(**changes):
    fields = {"selectors": HELD, "withheld": {}, "failures": {}, "at": 0.0}
    return Attested(**{**fields, **changes})


def test_verdicts():
    """First what matches, then what matches and is not served here, then the nearest misses with what they lack."""
    assert [
        EntryVerdict(HIT, "matched"),
        EntryVerdict(FAR, "other_parent"),
        EntryVerdict(OVER, "expired"),
        EntryVerdict(MISS, "missing_selectors", ("unix:path:/bin/web",)),
    ] == verdicts([MISS, OVER, FAR, HIT], [HIT], [], attested(), [NODE])


def test_a_hint_that_is_taken():
    """An entry that loses its hint to another gives nothing, and is told so."""
    old, young = entry("/old", hint="h", created_at=1), entry("/young", hint="h", created_at=2)
    first = entry("/first", hint="h", created_at=3, priority=1)
    assert [EntryVerdict(old, "matched"), EntryVerdict(young, "hint_taken")] == verdicts(
        [young, old], [old, young], [], attested(), [NODE]
    )
    assert ["/first", "/old", "/young"] == [
        each.entry.spiffe_id.path for each in verdicts([young, old, first], [first, old, young], [], attested(), [NODE])
    ]


def test_misses_are_limited():
    """No more than some of the misses are shown."""
    misses = [entry(f"/n{number}", f"x:{number}") for number in range(EXPLAINED_ENTRIES + 5)]
    assert EXPLAINED_ENTRIES == len(verdicts(misses, [], [], attested(), [NODE]))


@pytest.mark.parametrize(
    ("found", "state", "says"),
    [
        ([EntryVerdict(HIT, "matched")], {}, "the process has 1 identity: spiffe://example.org/hit"),
        ([EntryVerdict(HIT, "matched"), EntryVerdict(OVER, "matched")], {}, "2 identities"),
        ([], {}, "there are no entries"),
        ([], {"failures": {"docker": "is down"}}, "attestor docker could not tell, but no entry that might match asks"),
        (
            [EntryVerdict(HIT, "matched")],
            {"failures": {"docker": "is down"}},
            "/hit; attestor docker could not tell, but no",
        ),
        (
            [EntryVerdict(FAR, "other_parent")],
            {"failures": {"a": "x", "b": "y"}},
            "another node (its parent is not this agent); attestors a, b",
        ),
        (
            [EntryVerdict(HIT, "matched")],
            {"failures": {"docker": "is down"}, "carried": {"docker": 1.0}},
            "the process has 1",
        ),
        (
            [EntryVerdict(HIT, "matched"), UNSURE],
            {"failures": {"docker": "is down", "k8s": "too"}},
            "could not tell (docker: is down),",
        ),
        (
            [EntryVerdict(HIT, "matched"), UNSURE],
            {"failures": {"docker": "is down"}},
            "proved so far: spiffe://example.org/hit",
        ),
        (
            [UNSURE],
            {"failures": {"docker": "is down"}},
            "entry for spiffe://example.org/better would match if it said docker:label:a.",
        ),
        ([UNSURE, UNSURE], {"failures": {"docker": "is down"}}, "docker:label:a, and 1 more entries might match"),
        ([EntryVerdict(OVER, "expired")], {}, "has expired"),
        ([EntryVerdict(FAR, "other_parent")], {}, "another node"),
        ([EntryVerdict(MISS, "missing_selectors", ("unix:path:/bin/web",))], {}, "also asks for unix:path:/bin/web"),
        (
            [EntryVerdict(MISS, "missing_selectors", ("unix:path:/bin/web",))],
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
    said = conclusion([EntryVerdict(HIT, "matched")], attested(), "a process with these selectors has")
    assert said.startswith("a process with these selectors has 1 identity: spiffe://example.org/hit")


def test_what_cannot_be_told():
    """What might match stands behind what does, with what is missing, and is no miss."""
    found = verdicts([MISS, BETTER, HIT], [HIT], [BETTER], attested(failures={"docker": "down"}), [NODE])
    assert [
        EntryVerdict(HIT, "matched"),
        UNSURE,
        EntryVerdict(MISS, "missing_selectors", ("unix:path:/bin/web",)),
    ] == found


class TestNeeds:
    """What an attestor that could not tell would have had to say."""

    def test_for_what_might_match(self):
        """For the first entry that might match, whichever others are near."""
        both = entry("/both", "docker:label:a", "docker:label:b", "unix:uid:1000")
        state = attested(failures={"docker": "down"})
        assert {"docker": Need(both, ("docker:label:a", "docker:label:b"))} == needs(
            [BETTER, both], [both, BETTER], state
        )

    def test_for_the_nearest(self):
        """If none might, for the one that lacks the fewest, with what it lacks beside."""
        near = entry("/near", "docker:label:a", "unix:uid:1")
        far = entry("/far-off", "docker:label:a", "unix:uid:1", "unix:gid:1")
        state = attested(failures={"docker": "down"})
        assert {"docker": Need(near, ("docker:label:a",), ("unix:uid:1",))} == needs([far, MISS, near], [], state)

    def test_of_each(self):
        """Each attestor has its own, and one that nobody asks for anything has none."""
        mixed = entry("/mixed", "docker:label:a", "k8s:ns:a")
        state = attested(failures={"docker": "down", "k8s": "down", "systemd": "down"})
        assert {
            "docker": Need(mixed, ("docker:label:a",), ("k8s:ns:a",)),
            "k8s": Need(mixed, ("k8s:ns:a",), ("docker:label:a",)),
        } == needs([mixed], [mixed], state)

    def test_of_a_kind(self):
        """A kind of selectors that alone could not be told has its own."""
        named = entry("/named", "unix:user:web", "unix:uid:1")
        assert {"unix:user": Need(named, ("unix:user:web",), ("unix:uid:1",))} == needs(
            [named], [], attested(failures={"unix:user": "slow"})
        )

    def test_not_of_what_holds(self):
        """A process whose earlier answer holds needs nothing."""
        assert {} == needs([BETTER], [], attested(failures={"docker": "down"}, carried={"docker": 1.0}))


def test_another_nodes_entry_with_an_expiry():
    """An entry of another node that has not expired is another node's, whatever its expiry."""
    later = entry("/later", parent_id=OTHER_NODE, expires_at=2**50)
    assert [EntryVerdict(later, "other_parent")] == verdicts([later], [], [], attested(), [NODE])
