"""authorized_entries.py: a node gets what its entries entitle it to, and nothing else."""

from pathlib import Path

import pytest
from fakes.registrations import entry, selectors
from fakes.server_room import SERVER, ServerRoom, agent_id
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sojourn.identity.entries import Entry, Registration, changed, registration
from sojourn.identity.templates import parse_id
from sojourn.server.authorized_entries import AuthorizedEntries, every_node, named_node
from sojourn.server.node_records import Node
from sojourn.spiffe.ids import SpiffeId

A, B = agent_id("a"), agent_id("b")


def id_of(path: str) -> SpiffeId:
    return SpiffeId.from_parts("example.org", path)


def node(spiffe_id: SpiffeId = A, *texts: str, name: str = "") -> Node:
    return Node(spiffe_id, "x509pop", selectors(*texts), 1, 2, True, 0, name=name)


def room_of(folder: Path, *entries: Registration) -> ServerRoom:
    return ServerRoom(folder, entries)


def got(room: ServerRoom, of: Node) -> set[str]:
    return set(room.authorized.of(of))


class TestParents:
    def test_its_own(self, tmp_path: Path) -> None:
        """A node gets the entries below its SPIFFE ID, and none of another node's."""
        room = room_of(tmp_path, entry("/web", parent_id=A), entry("/db", parent_id=B))
        assert {"entry-web"} == got(room, node(A))
        assert {"entry-db"} == got(room, node(B))

    def test_below_its_entries(self, tmp_path: Path) -> None:
        """It gets what lies below those entries as well, to any depth, and once if parents go in a circle."""
        room = room_of(
            tmp_path,
            entry("/one", parent_id=A),
            entry("/two", parent_id=id_of("/one")),
            entry("/three", parent_id=id_of("/two")),
            entry("/one", "unix:uid:7", id="circle", parent_id=id_of("/three")),
            entry("/other", parent_id=id_of("/elsewhere")),
        )
        assert {"entry-one", "entry-two", "entry-three", "circle"} == got(room, node(A))

    def test_by_its_name(self, tmp_path: Path) -> None:
        """The node that an operator has called so gets the entries of that name, and no other node does."""
        mine = entry("/web", parent_id=named_node(A.trust_domain, "web-1"))
        room = room_of(tmp_path, mine)
        assert {"entry-web"} == got(room, node(A, name="web-1"))
        assert set() == got(room, node(B, name="web-2"))
        assert set() == got(room, node(B))

    def test_what_is_for_every_node(self, tmp_path: Path) -> None:
        """What is registered for every node all of them get, whoever has attested them."""
        room = room_of(tmp_path, entry("/everywhere", parent_id=every_node(A.trust_domain)))
        assert [{"entry-everywhere"}] * 2 == [got(room, node(each)) for each in (A, agent_id("x", "x509pop"))]

    def test_by_an_alias(self, tmp_path: Path) -> None:
        """Every node with all selectors of an alias gets what lies below it, and the alias itself goes to nobody."""
        alias = entry("/all", "x509pop:subject:cn:web", "x509pop:san:env:prod", id="alias", parent_id=SERVER)
        room = room_of(tmp_path, alias, entry("/proxy", parent_id=id_of("/all")))
        whole = ("x509pop:subject:cn:web", "x509pop:san:env:prod", "x509pop:serialnumber:01")
        assert {"entry-proxy"} == got(room, node(A, *whole))
        assert {"entry-proxy"} == got(room, node(B, *whole))
        assert set() == got(room, node(A, "x509pop:subject:cn:web"))
        assert set() == got(room, node(A))

    def test_nobody_is_the_server(self, tmp_path: Path) -> None:
        """What lies below the server is for no node, whatever IDs others have."""
        room = room_of(tmp_path, entry("/a", "unix:uid:1", parent_id=SERVER))
        assert set() == got(room, node(A, "unix:uid:2"))

    def test_no_templates(self, tmp_path: Path) -> None:
        """What a placeholder stands for is nothing that a node is asked."""
        template = registration(
            {
                "id": "template",
                "spiffe_id": parse_id("spiffe://example.org/{unix.user}"),
                "parent_id": A,
                "selectors": selectors("unix:uid:1"),
            }
        )
        assert set() == got(room_of(tmp_path, template), node(A))


class TestChanges:
    async def test_they_count_at_once(self, tmp_path: Path) -> None:
        """What is registered, changed and deleted is so with the next call."""
        room = room_of(tmp_path)
        await room.registry.create([entry("/web", parent_id=A)])
        assert {"entry-web"} == got(room, node(A))
        await room.registry.update([("entry-web", lambda old: changed(old, {"parent_id": B}))])
        assert (set(), {"entry-web"}) == (got(room, node(A)), got(room, node(B)))
        assert 1 == room.authorized.of(node(B))["entry-web"].revision
        await room.registry.delete(["entry-web"])
        assert set() == got(room, node(B))

    async def test_an_alias_that_changes(self, tmp_path: Path) -> None:
        """An alias with other selectors is for other nodes."""
        alias = entry("/all", "x509pop:subject:cn:web", id="alias", parent_id=SERVER)
        room = room_of(tmp_path, alias, entry("/proxy", parent_id=id_of("/all")))
        other = {"selectors": selectors("x509pop:subject:cn:db")}
        await room.registry.update([("alias", lambda old: changed(old, other))])
        assert set() == got(room, node(A, "x509pop:subject:cn:web"))
        assert {"entry-proxy"} == got(room, node(A, "x509pop:subject:cn:db"))

    async def test_one_that_ends(self, tmp_path: Path) -> None:
        """An entry whose time is over is nobody's, at once and not with some later sweep."""
        room = room_of(tmp_path)
        ends = int(room.clock.now().timestamp()) + 60
        await room.registry.create([entry("/web", parent_id=A, expires_at=ends)])
        assert {"entry-web"} == got(room, node(A))
        room.clock.advance(61)
        room.alarms.ring_due()
        assert set() == got(room, node(A))

    def test_one_that_had_ended_before(self, tmp_path: Path) -> None:
        """An entry that ended while no server ran is nobody's after its start."""
        assert set() == got(room_of(tmp_path, entry("/web", parent_id=A, expires_at=1)), node(A))

    async def test_the_same_object(self, tmp_path: Path) -> None:
        """Who gets the same as before gets the same object, whatever else was registered."""
        room = room_of(tmp_path, entry("/web", parent_id=A))
        before = room.authorized.of(node(A))
        await room.registry.create([entry("/db", parent_id=B)])
        assert before is room.authorized.of(node(A))


PATHS = st.sampled_from([f"/{each}" for each in "abcdef"])
PARENTS = st.one_of(st.sampled_from([A, B, SERVER]), PATHS.map(id_of))
TEXTS = st.sets(st.sampled_from(["x:1", "x:2", "x:3"]), min_size=1)
ENTRIES = st.lists(st.tuples(PATHS, PARENTS, TEXTS), max_size=12)


def by_the_rule(entries: list[Entry], of: Node) -> set[str]:
    """The same, written as the rule says it: until nothing more is added."""
    parents = {of.spiffe_id} | {
        each.spiffe_id for each in entries if each.parent_id == SERVER and each.selectors <= of.selectors
    }
    while True:
        found = {each.id for each in entries if each.parent_id in parents}
        more = parents | {each.spiffe_id for each in entries if each.id in found}
        if more == parents:
            return found
        parents = more


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(before=ENTRIES, after=ENTRIES, has=TEXTS)
async def test_whatever_is_registered(tmp_path: Path, before: list[object], after: list[object], has: set[str]) -> None:
    """After any changes a node gets what the rule says of the entries that there are, and nothing that lies elsewhere."""
    room = room_of(tmp_path)
    for number, drawn in enumerate((before, after)):
        made = [
            entry(path, *texts, id=f"{number}-{place}", parent_id=parent)
            for place, (path, parent, texts) in enumerate(drawn)  # type: ignore[misc]  # what was drawn
        ]
        await room.registry.delete([each.id for each in room.registry])
        await room.registry.create(made)
        assert isinstance(room.authorized, AuthorizedEntries)
        there = [each for each in room.registry if isinstance(each, Entry)]
        for of in (node(A, *has), node(B)):
            assert by_the_rule(there, of) == got(room, of)


@pytest.mark.parametrize("count", [2_000])
def test_many(tmp_path: Path, count: int) -> None:
    """A node with thousands of entries gets them all."""
    made = [entry(f"/n{number}", parent_id=A) for number in range(count)]
    assert count == len(got(room_of(tmp_path, *made), node(A)))
