"""Of a template's placeholder more may be attested than is known just now: then it is not filled in."""

from contextlib import closing

import pytest
from fakes.attestations import FakeAttestor
from fakes.identity_room import Room
from fakes.registrations import NODE, selectors
from sojourn.attestation.process import Process
from sojourn.attestation.service import Attestation
from sojourn.errors import AttestationFailed, NoIdentity
from sojourn.identity.custom_claims import JwtClaims
from sojourn.identity.entries import registration
from sojourn.identity.templates import parse_id
from sojourn.limits import ATTESTATION_FRESH_SECONDS


def fleet(path, claims=None, **more):
    return registration(
        {
            "id": "fleet",
            "spiffe_id": parse_id(f"spiffe://example.org{path}"),
            "parent_id": NODE,
            "selectors": selectors("unix:uid:1000"),
            "jwt_claims": JwtClaims.parse(claims or {}),
            **more,
        }
    )


@pytest.fixture(params=[fleet("/g/{unix.supplementary_group}"), fleet("/g/a", {"of": "{unix.supplementary_group}"})])
def room(request, tmp_path):
    made = Room(tmp_path, [request.param])
    yield made
    made.close()


async def test_a_failing_attestor_gives_nothing_more(room):
    """Of two values of which one cannot be told, the other does not pass for the only one."""
    room.attestor.values |= {"supplementary_group:a"}
    room.attestor.untold = {"supplementary_group": "the name of 4002 could not be looked up in time"}
    with pytest.raises(AttestationFailed, match="could not be looked up in time"):
        await room.identities.of(room.peer)
    with pytest.raises(AttestationFailed, match="could not be looked up in time"):
        async with room.stream():
            pass
    room.attestor.untold = {}
    assert ["spiffe://example.org/g/a"] == [str(each.spiffe_id) for each in await room.identities.of(room.peer)]


async def test_what_is_told_of_both(room):
    """Once both are told there is nothing to be had."""
    room.attestor.values |= {"supplementary_group:a", "supplementary_group:b"}
    with pytest.raises(NoIdentity):
        await room.identities.of(room.peer)


class TestAStream:
    """Its process is in the unit of which it has its ID, and may be in a container too."""

    @pytest.fixture
    def moving(self, tmp_path, monkeypatch):
        """A function that has a process in another unit, about which the engine cannot tell."""
        container = fleet("/best", id="best", selectors=selectors("docker:label:a"), priority=1)
        room = Room(tmp_path, [fleet("/unit/{unix.user}"), container])
        docker = FakeAttestor()
        room.identities._attestation = Attestation({"unix": room.attestor, "docker": docker}, room.clock)
        room.attestor.values |= {"user:a"}

        def move(to):
            docker.failure = AttestationFailed("down")
            room.attestor.values = room.attestor.values - {"user:a"} | {f"user:{to}"}
            monkeypatch.setattr(Process, "cgroup", lambda _: f"0::/{to}")
            room.clock.advance(ATTESTATION_FRESH_SECONDS)

        yield room, move
        room.close()

    async def test_is_given_no_other_identity(self, moving):
        """By another value an entry is another identity: no stream has it while it might be the lesser one."""
        room, move = moving
        async with room.stream() as stream:
            move("b")
            with pytest.raises(AttestationFailed, match="down"):
                await room.identities.refresh(stream)

    async def test_keeps_what_it_has(self, moving):
        """The identity that it had, it has on."""
        room, move = moving
        async with room.stream() as stream:
            move("a")
            await room.identities.refresh(stream)
            assert ["spiffe://example.org/unit/a"] == [str(each.spiffe_id) for each in stream.entries]

    async def test_keeps_its_other_identities(self, moving):
        """One that has a second identity has that on, and of the template nothing for now."""
        room, move = moving
        await room.registry.create([fleet("/web", id="web")])
        async with room.stream() as stream:
            assert {"fleet", "web"} == {each.id for each in stream.entries}
            move("b")
            await room.identities.refresh(stream)
            assert ["spiffe://example.org/web"] == [str(each.spiffe_id) for each in stream.entries]


@pytest.mark.parametrize("what", ["label", "label:team", "label:team:a"])
async def test_a_part_of_a_kind(tmp_path, what):
    """An attestor that cannot tell one label of many leaves nobody with a lesser identity, by a selector or a template."""
    asks = fleet("/best", id="best", selectors=selectors("unix:uid:1000", "docker:label:team:a"))
    for better in (asks, fleet("/team/{docker.label:team}")):
        with closing(Room(tmp_path / better.id, [better, fleet("/web", id="web")])) as room:
            docker = FakeAttestor({"label:env:prod"})
            docker.untold = {what: "the engine was interrupted"}
            room.identities._attestation = Attestation({"unix": room.attestor, "docker": docker}, room.clock)
            with pytest.raises(AttestationFailed, match="the engine was interrupted"):
                await room.identities.of(room.peer)
            docker.untold = {}
            assert ["web"] == [each.id for each in await room.identities.of(room.peer)]
