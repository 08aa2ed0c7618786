"""pairwise.py, and what a task's type lets a service know of the person that the task is for."""

import re
from pathlib import Path

import pytest
from fakes.clock import FakeClock
from fakes.persons import made_for
from fakes.task_room import ISSUER, Room
from fakes.task_types import TICKETS, WIKI, task_type
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import CannotStart, InvalidPolicy, StoreFailed
from sojourn.tasks.pairwise import PAIRWISE_KEY, PairwiseNames
from sojourn.tasktoken.person_claims import PersonClaims

ALICE = PersonClaims("https://login.example.org", "alice", 1795800000, "urn:example:mfa", ("pwd",))
BOB = ALICE._replace(subject="bob")
PEOPLE = '{need = "optional"}'


def ceiling(**tell: str) -> str:
    """Two resources, and what each is told."""
    said = {name: f', tell = "{each}"' for name, each in tell.items()}
    return (
        f'[{{resource = "{TICKETS}", actions = ["ticket:read"]{said.get("tickets", "")}}},'
        f' {{resource = "{WIKI}", actions = ["page:read"]{said.get("wiki", "")}}}]'
    )


TYPES = {
    "triage": task_type(ceiling=ceiling(), person=PEOPLE),
    "pairwise": task_type("pairwise", ceiling=ceiling(tickets="pairwise", wiki="pairwise"), person=PEOPLE),
    "silent": task_type("silent", ceiling=ceiling(tickets="nothing", wiki="subject"), person=PEOPLE),
}


@pytest.fixture
def names(tmp_path: Path) -> PairwiseNames:
    return PairwiseNames(tmp_path / PAIRWISE_KEY)


@pytest.fixture
async def room(names: PairwiseNames):
    async with Room(FakeClock(), TYPES).running() as running:
        running.engine.issuing._names = names
        yield running


async def token(room: Room, kind: str, person: PersonClaims | None = ALICE, resource: str = TICKETS):
    return await room.engine.token(made_for(await room.begin(kind), person), resource, ())


class TestTell:
    async def test_the_subject(self, room: Room) -> None:
        """A resource is told whose `sub` it is, as their issuer has it, unless the type says otherwise."""
        for kind, resource in (("triage", TICKETS), ("silent", WIKI)):
            assert ALICE == (await token(room, kind, resource=resource)).person

    async def test_nothing(self, room: Room) -> None:
        """A resource that is told nothing sees the token of a workload, with no claim more than that has."""
        for_alice, for_nobody = await token(room, "silent"), await token(room, "silent", None)
        assert (None, str(for_alice.spiffe_id)) == (for_alice.person, for_alice.claims["sub"])
        assert for_nobody.claims.keys() == for_alice.claims.keys()

    async def test_a_name_for_each(self, room: Room) -> None:
        """A person has one name at one resource, another at the next, and nobody else has it."""
        found = [
            (await token(room, "pairwise", person, resource)).subject
            for person, resource in ((ALICE, TICKETS), (ALICE, WIKI), (BOB, TICKETS), (ALICE, TICKETS))
        ]
        assert found[0] == found[3]
        assert 3 == len(set(found))
        assert all(re.fullmatch("[A-Za-z0-9_-]{43}", each) for each in found)

    async def test_who_gives_the_name(self, room: Room) -> None:
        """The issuer of such a name is the agent, and the person's own issuer and subject are nowhere in the token."""
        given = await token(room, "pairwise")
        assert given.person == ALICE._replace(issuer=ISSUER, subject=given.subject)
        assert not any(each in str(given.claims) for each in ("alice", ALICE.issuer))

    async def test_no_person(self, room: Room) -> None:
        """Of a task that is for nobody, nobody is told, whatever the type says."""
        assert (await token(room, "pairwise", None)).person is None


class TestNames:
    async def test_a_later_run(self, names: PairwiseNames, tmp_path: Path) -> None:
        """The next run of the agent gives the same names: its key lies in a file that is its own alone."""
        await names.prepare()
        later = PairwiseNames(tmp_path / PAIRWISE_KEY)
        await later.prepare()
        assert names.name(TICKETS, ALICE, ISSUER) == later.name(TICKETS, ALICE, ISSUER)
        assert 0o600 == (tmp_path / PAIRWISE_KEY).stat().st_mode & 0o777

    async def test_another_key(self, names: PairwiseNames, tmp_path: Path) -> None:
        """With another key everybody has another name."""
        other = PairwiseNames(tmp_path / "other.key")
        await names.prepare()
        await other.prepare()
        assert names.name(TICKETS, ALICE, ISSUER) != other.name(TICKETS, ALICE, ISSUER)

    async def test_no_key(self, names: PairwiseNames, tmp_path: Path) -> None:
        """Without a key nobody is named, and a folder that takes none is said."""
        with pytest.raises(StoreFailed):
            names.name(TICKETS, ALICE, ISSUER)
        with pytest.raises(StoreFailed):
            await PairwiseNames(tmp_path / "missing" / PAIRWISE_KEY).prepare()

    @pytest.mark.parametrize(("content", "mode"), [(b"short", 0o600), (b"k" * 32, 0o644)], ids=["short", "readable"])
    def test_a_key_that_is_none(self, tmp_path: Path, content: bytes, mode: int) -> None:
        """A key that others could have read, or that is damaged, is refused when the agent starts."""
        path = tmp_path / PAIRWISE_KEY
        path.write_bytes(content)
        path.chmod(mode)
        with pytest.raises(CannotStart):
            PairwiseNames(path)

    @examples(100)
    @given(st.lists(st.tuples(*[st.sampled_from(["a", "b", "ab", 'a"', "a,b", '","'])] * 3), unique=True, min_size=2))
    def test_no_two_are_one(self, tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, str, str]]) -> None:
        """Where one text ends and the next begins does not matter: another resource, issuer or subject, another name."""
        path = tmp_path_factory.getbasetemp() / "names.key"
        path.write_bytes(b"k" * 32)
        path.chmod(0o600)
        names = PairwiseNames(path)
        found = [names.name(audience, PersonClaims(issuer, subject), ISSUER) for audience, issuer, subject in said]
        assert len(said) == len({each.subject for each in found})


class TestTypes:
    def test_unknown(self) -> None:
        """A word that says nothing is refused when the type is read."""
        with pytest.raises(InvalidPolicy, match="tell"):
            task_type(ceiling=ceiling(tickets="all"), person=PEOPLE)

    def test_twice(self) -> None:
        """One resource is told one thing of a person, in however many tables it stands."""
        twice = ", ".join(
            f'{{resource = "{TICKETS}", actions = ["{action}"], tell = "{tell}"}}'
            for action, tell in (("ticket:read", "subject"), ("ticket:write", "nothing"))
        )
        with pytest.raises(InvalidPolicy, match="different things"):
            task_type(ceiling=f"[{twice}]", person=PEOPLE)

    def test_nobody_to_tell_of(self) -> None:
        """A type whose tasks are for nobody tells nobody of a person: a word on it is a slip of the pen."""
        with pytest.raises(InvalidPolicy, match="has no \\[person\\]"):
            task_type(ceiling=ceiling(tickets="nothing"))

    def test_at_a_provider(self) -> None:
        """A provider's credentials are its own: nothing is told there."""
        with pytest.raises(InvalidPolicy, match="provider"):
            task_type(ceiling=f'[{{resource = "{TICKETS}", actions = ["a:b"], provider = "corp", tell = "nothing"}}]')
