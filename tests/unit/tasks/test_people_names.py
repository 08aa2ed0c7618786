"""people_names.py: whom a fact is about, where somebody is named, by the pseudonym that is kept."""

import pytest
from fakes.persons import CORP
from sojourn.errors import InvalidInput, NotFound
from sojourn.people.person import is_pseudonym
from sojourn.tasks.people_names import PeopleNames
from sojourn.tasks.pseudonyms import Pseudonyms

PSEUDONYMS = Pseudonyms(b"k" * 32, ["corp"])
NAMES = PeopleNames(PSEUDONYMS, {"corp": CORP, "partner": f"{CORP}/"})
ALICE = PSEUDONYMS.named(CORP, "alice")


@pytest.mark.parametrize("said", ["corp/alice", "corp|alice", f"{CORP}|alice", ALICE])
def test_one_person(said: str) -> None:
    """However somebody is named, facts about them have one pseudonym: the one that their tasks have."""
    assert ALICE == NAMES.pseudonym_of(said) == NAMES.find(said)
    assert is_pseudonym(ALICE)


@pytest.mark.parametrize(
    ("said", "url", "subject"),
    [
        ("corp/auth0|5f7c", CORP, "auth0|5f7c"),
        ("corp|auth0|5f7c", CORP, "auth0|5f7c"),
        ("corp/a/b", CORP, "a/b"),
        ("corp|a/b", CORP, "a/b"),
        ("partner/alice", f"{CORP}/", "alice"),
        (f"{CORP}/|alice", f"{CORP}/", "alice"),
    ],
)
def test_where_one_ends(said: str, url: str, subject: str) -> None:
    """A subject may have bars and slashes; the issuer is one that is configured, byte for byte."""
    assert PSEUDONYMS.named(url, subject) == NAMES.pseudonym_of(said)


@pytest.mark.parametrize(
    "said", ["others/alice", "https://elsewhere.example.org|alice", "Corp/alice", f"{CORP}/x|alice"]
)
def test_nobodys(said: str) -> None:
    """Nobody of an issuer that is not configured is known."""
    with pytest.raises(NotFound):
        NAMES.pseudonym_of(said)
    assert "" == NAMES.find(said)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "alice",
        "corp",
        "corp/",
        "/alice",
        "|alice",
        "corp|",
        "psn_short",
        "corp/spiffe://a/b",
        "psn_typo",
        "corp/alice\n",
        "corp/ alice\u200b",
        "corp/Jose\u0301",
        "corp|Jose\u0301",
        "corp/ \uff33PIFFE://a/b",
        "corp/" + "x" * 600,
    ],
)
def test_no_name(said: str) -> None:
    """What names no issuer or nobody there is refused: a fact about it would be about nobody."""
    with pytest.raises(InvalidInput):
        NAMES.pseudonym_of(said)
    with pytest.raises(InvalidInput):
        NAMES.named(said)


@pytest.mark.parametrize(
    "said", ["alice@example.org/corp", "alice@example.org|corp", "alice@example.org", "corp/alice@example.org\n"]
)
def test_nobody_is_quoted(said: str) -> None:
    """An error quotes nothing of a name that is none, since it goes to the log: somebody may stand in the wrong field."""
    with pytest.raises((InvalidInput, NotFound)) as caught:
        NAMES.pseudonym_of(said)
    assert "alice" not in caught.value.public + caught.value.detail


def test_who_is_named() -> None:
    """Whoever is named is somebody of an issuer, which has its name in the configuration and its `iss`."""
    for said in ("corp/alice", "corp|alice", f"{CORP}|alice"):
        assert ("corp", CORP, "alice") == NAMES.named(said)


def test_as_they_are() -> None:
    """Where records name the people of an issuer as they are, that name is told; of others none is."""
    assert "corp|alice" == NAMES.plain_name(CORP, "alice")
    assert "" == NAMES.plain_name(f"{CORP}/", "alice") == NAMES.plain_name("https://elsewhere.example.org", "alice")
