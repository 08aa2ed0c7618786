"""Registration entries: what they give, when a change arrives, and what is refused with which text."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.borrowed import Borrowed, wire_of
from harness.looking import until
from harness.raw import ENTRY_API, Admin, entry, module_agent, refusal
from harness.registering import ALIAS, ALREADY_EXISTS, INVALID_ARGUMENT, NO_IDENTITY, NOT_FOUND, OK, Match, spiffe_id
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as entry_api
from sojourn._pb.spire.api.types import types_pb2 as types


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    """One agent for the module, which also serves what SPIRE's command registers with `-node`."""
    with module_agent(f'node_aliases = ["spiffe://example.org{ALIAS}"]\n') as running:
        yield running


def outcome(result: Any) -> tuple[int, str]:
    return result.status.code, result.status.message


@pytest.mark.root
class TestChanges:
    def test_a_creation_reaches_who_waits_for_it(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """An entry that is made while its caller's stream is held is answered on that stream, without a refusal."""
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            stream = wire.x509_stream()
            until(lambda: admin.streams_of(borrowed.pid))
            admin.register("/awaited", f"unix:uid:{uid}")
            assert ["spiffe://example.org/awaited"] == [svid.spiffe_id for svid in next(stream).svids]

    def test_a_further_entry_is_pushed(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """A second entry of a caller comes over the stream that is open, and the first keeps its certificate."""
        admin.register("/one", f"unix:uid:{uid}")
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            stream = wire.x509_stream()
            before = next(stream)
            admin.register("/two", f"unix:uid:{uid}", f"unix:gid:{uid}")
            after = next(stream)
        assert ["spiffe://example.org/two", "spiffe://example.org/one"] == [svid.spiffe_id for svid in after.svids]
        assert before.svids[0].x509_svid == after.svids[1].x509_svid

    @pytest.mark.parametrize(
        ("mask", "changes"),
        [
            ("spiffe_id", {"spiffe_id": types.SPIFFEID(trust_domain="example.org", path="/renamed")}),
            ("x509_svid_ttl", {"x509_svid_ttl": 60}),
            ("hint", {"hint": "new"}),
            ("dns_names", {"dns_names": ["new.example.org"]}),
        ],
    )
    def test_an_update_is_pushed(
        self, agent: AgentProcess, admin: Admin, uid: int, mask: str, changes: dict[str, Any]
    ) -> None:
        """A changed entry is pushed at once, with a new certificate that follows the change."""
        made = admin.register(f"/updated/{uid}", f"unix:uid:{uid}", hint="old", x509_svid_ttl=600)
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            stream = wire.x509_stream()
            [before] = next(stream).svids
            [result] = admin.update(types.Entry(id=made.id, **changes), mask=types.EntryMask(**{mask: True}))
            [after] = next(stream).svids
        assert (OK, "OK") == outcome(result)
        assert made.revision_number + 1 == result.entry.revision_number
        assert changes.get("hint", "old") == after.hint
        assert "renamed" in after.spiffe_id or mask != "spiffe_id"
        assert before.x509_svid != after.x509_svid

    def test_a_change_of_selectors_takes_the_identity_away(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """An update by which an entry no longer matches ends the stream with PERMISSION_DENIED."""
        made = admin.register(f"/narrowed/{uid}", f"unix:uid:{uid}")
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            stream = wire.x509_stream()
            next(stream)
            made.selectors.add(type="unix", value="path:/nowhere")
            admin.update(made)
            assert NO_IDENTITY == refusal(lambda: next(stream))

    def test_a_deletion_ends_the_stream(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """Deleting a caller's last entry ends its stream with PERMISSION_DENIED, and new calls are refused."""
        made = admin.register(f"/deleted/{uid}", f"unix:uid:{uid}")
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            stream = wire.x509_stream()
            next(stream)
            [result] = admin.delete(made.id)
            assert NO_IDENTITY == refusal(lambda: next(stream))
            assert NO_IDENTITY == refusal(wire.x509)
        assert (OK, made.id) == (result.status.code, result.id)

    @pytest.mark.forked
    def test_an_expiry_ends_the_stream(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """An entry serves until its expiry; then its stream ends, and `explain` says so."""
        admin.register(f"/expiring/{uid}", f"unix:uid:{uid}", expires_at=int(time.time()) + 2)
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            stream = wire.x509_stream()
            [svid] = next(stream).svids
            assert f"spiffe://example.org/expiring/{uid}" == svid.spiffe_id
            assert NO_IDENTITY == refusal(lambda: next(stream))
            verdicts = [each.verdict for each in admin.explain(borrowed.pid).verdicts if str(uid) in each.spiffe_id]
        assert ["expired"] == verdicts


@pytest.mark.root
class TestParents:
    def test_another_nodes_entry_is_kept_and_not_served(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """An entry of another node is stored, shown and explained, and gives nobody here an identity."""
        parent = spiffe_id("/spire/agent/x509pop/other")
        made = admin.register(f"/elsewhere/{uid}", f"unix:uid:{uid}", parent_id=parent)
        shown = admin.list(filter=entry_api.ListEntriesRequest.Filter(by_parent_id=parent)).entries
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            assert NO_IDENTITY == refusal(wire.x509)
            explained = admin.explain(borrowed.pid)
        assert [made.id] == [each.id for each in shown]
        assert (made.id, "other_parent") == (explained.verdicts[0].entry_id, explained.verdicts[0].verdict)
        assert "belongs to another node" in explained.conclusion

    def test_a_node_aliases_entry_is_served(self, agent: AgentProcess, admin: Admin, uid: int) -> None:
        """An entry whose parent is an alias of this node is served like its own."""
        admin.register(f"/aliased/{uid}", f"unix:uid:{uid}", parent_id=spiffe_id(ALIAS))
        with wire_of(agent.socket, uid) as wire:
            assert [f"spiffe://example.org/aliased/{uid}"] == wire.x509_ids()

    def test_a_parent_that_is_left_out_is_this_node(self, admin: Admin, uid: int) -> None:
        """Without a parent an entry is this node's."""
        made = admin.register(f"/own/{uid}", f"unix:uid:{uid}")
        assert admin.status().node_id == f"spiffe://{made.parent_id.trust_domain}{made.parent_id.path}"


@pytest.mark.forked
@pytest.mark.root
def test_a_thousand_entries(agent: AgentProcess) -> None:
    """With a thousand entries each caller has exactly those whose selectors are all its own."""
    first = 50_000
    with AgentProcess() as own, Admin(own.admin_socket) as admin:
        made = admin.create(
            *(entry(f"/n/{n}", f"unix:uid:{first + n // 4}", *_further(n, first)) for n in range(1_000)),
        )
        assert {OK} == {result.status.code for result in made}
        assert 1_000 == admin.unary(ENTRY_API + "CountEntries", b"", entry_api.CountEntriesResponse).count
        for place in (0, 57, 249):
            with wire_of(own.socket, first + place, (first + place,)) as wire:
                expected = {f"spiffe://example.org/n/{4 * place + n}" for n in (0, 1, 2)}
                assert expected == set(wire.x509_ids())
        with wire_of(own.socket, first + 999) as wire:
            assert NO_IDENTITY == refusal(wire.x509)


def _further(n: int, first: int) -> list[str]:
    """Of four entries of a user one asks for no more, two for what is so, one for what is not."""
    uid = first + n // 4
    return [[], [f"unix:gid:{uid}"], [f"unix:gid:{uid}", f"unix:supplementary_gid:{uid}"], ["unix:gid:1"]][n % 4]


GOOD = entry("/good", "unix:uid:1")
CREATE_FAULTS: dict[str, tuple[types.Entry, str]] = {
    "an empty message": (
        types.Entry(),
        "failed to convert entry: invalid spiffe ID: request must specify SPIFFE ID",
    ),
    "no SPIFFE ID": (
        entry("", "unix:uid:1", parent_id=spiffe_id("/p")),
        (
            'failed to convert entry: invalid spiffe ID: "spiffe://example.org" is not a workload in trust domain'
            ' "example.org"; path is empty'
        ),
    ),
    "foreign SPIFFE ID": (
        types.Entry(spiffe_id=spiffe_id("/x", "other.org"), selectors=GOOD.selectors),
        (
            'failed to convert entry: invalid spiffe ID: "spiffe://other.org/x" is not a member of trust domain'
            ' "example.org"'
        ),
    ),
    "reserved SPIFFE ID": (
        entry("/spire", "unix:uid:1"),
        (
            'failed to convert entry: invalid spiffe ID: "spiffe://example.org/spire" is not a workload in trust domain'
            ' "example.org"; path is in the reserved namespace'
        ),
    ),
    "SPIFFE ID in the reserved namespace": (
        entry("/spire/agent/x", "unix:uid:1"),
        (
            'failed to convert entry: invalid spiffe ID: "spiffe://example.org/spire/agent/x" is not a workload in trust'
            ' domain "example.org"; path is in the reserved namespace'
        ),
    ),
    "SPIFFE ID with dots": (
        entry("/a/../b", "unix:uid:1"),
        "failed to convert entry: invalid spiffe ID: path cannot contain dot segments",
    ),
    "SPIFFE ID without a leading slash": (
        entry("a", "unix:uid:1"),
        "failed to convert entry: invalid spiffe ID: path must have a leading slash",
    ),
    "foreign parent": (
        entry("/x", "unix:uid:1", parent_id=spiffe_id("/p", "other.org")),
        (
            'failed to convert entry: invalid parent ID: "spiffe://other.org/p" is not a member of trust domain'
            ' "example.org"'
        ),
    ),
    "parent with a trailing slash": (
        entry("/x", "unix:uid:1", parent_id=spiffe_id("/p/")),
        "failed to convert entry: invalid parent ID: path cannot have a trailing slash",
    ),
    "empty parent": (
        entry("/x", "unix:uid:1", parent_id=types.SPIFFEID()),
        "failed to convert entry: invalid parent ID: request must specify SPIFFE ID",
    ),
    "no selectors": (entry("/x"), "failed to convert entry: selector list is empty"),
    "selector without type": (entry("/x", ":uid"), "failed to convert entry: missing selector type"),
    "selector without value": (entry("/x", "unix:"), "failed to convert entry: missing selector value"),
    "selector type with a colon": (
        types.Entry(spiffe_id=GOOD.spiffe_id, selectors=[types.Selector(type="unix:uid", value="1")]),
        "failed to convert entry: selector type contains ':'",
    ),
    "long hint": (
        entry("/x", "unix:uid:1", hint="h" * 1025),
        "failed to convert entry: hint is too long, max length is 1024 characters",
    ),
}
CREATE_FAULTS_IN_PART: dict[str, tuple[types.Entry, list[str]]] = {
    "parent without path": (
        entry("/x", "unix:uid:1", parent_id=spiffe_id("")),
        ["failed to convert entry: invalid parent ID: ", "path is empty"],
    ),
    "DNS name": (entry("/x", "unix:uid:1", dns_names=["a b"]), ["failed to convert entry: invalid DNS name: "]),
    "empty DNS name": (entry("/x", "unix:uid:1", dns_names=[""]), ["failed to convert entry: invalid DNS name: "]),
    "federated trust domain": (
        entry("/x", "unix:uid:1", federates_with=["Not A Domain"]),
        ["failed to convert entry: invalid federated trust domain: "],
    ),
    "long ID": (entry("/x", "unix:uid:1", id="i" * 256), ["entry ID too long"]),
    "ID with a slash": (entry("/x", "unix:uid:1", id="a/b"), ["entry ID contains invalid characters"]),
    "ID with a newline": (entry("/x", "unix:uid:1", id="a\n"), ["entry ID contains invalid characters"]),
    "negative X.509 TTL": (entry("/x", "unix:uid:1", x509_svid_ttl=-1), ["x509_svid_ttl", "from 10 s"]),
    "negative JWT TTL": (entry("/x", "unix:uid:1", jwt_svid_ttl=-1), ["jwt_svid_ttl", "from 10 s"]),
    "X.509 TTL under the least": (entry("/x", "unix:uid:1", x509_svid_ttl=9), ["x509_svid_ttl is 9 s", "from 10 s"]),
    "JWT TTL under the least": (entry("/x", "unix:uid:1", jwt_svid_ttl=1), ["jwt_svid_ttl is 1 s", "from 10 s"]),
    "X.509 TTL over the most": (entry("/x", "unix:uid:1", x509_svid_ttl=604_801), ["x509_svid_ttl", "to 604800 s"]),
    "negative expiry": (entry("/x", "unix:uid:1", expires_at=-1), ["expires_at"]),
    "store_svid with two types": (
        entry("/x", "unix:uid:1", "k8s:ns:a", store_svid=True),
        ["selector types must be the same when store SVID is enabled"],
    ),
    "too many selectors": (entry("/x", *(f"unix:uid:{n}" for n in range(101))), ["more than 100 selectors"]),
}


class TestFaults:
    @pytest.mark.parametrize("fault", CREATE_FAULTS)
    def test_of_a_creation(self, admin: Admin, fault: str) -> None:
        """A bad entry is an invalid argument with SPIRE's text, and nothing is stored."""
        wanted, text = CREATE_FAULTS[fault]
        before = admin.status().entries
        [result] = admin.create(wanted)
        assert (INVALID_ARGUMENT, text) == outcome(result)
        assert (before, False) == (admin.status().entries, result.HasField("entry"))

    @pytest.mark.parametrize("fault", CREATE_FAULTS_IN_PART)
    def test_of_a_creation_names_the_rule(self, admin: Admin, fault: str) -> None:
        """A bad entry is an invalid argument whose text names the field and the rule."""
        wanted, parts = CREATE_FAULTS_IN_PART[fault]
        [result] = admin.create(wanted)
        assert INVALID_ARGUMENT == result.status.code
        assert [] == [part for part in parts if part not in result.status.message]

    def test_the_same_entry_again(self, admin: Admin, uid: int) -> None:
        """The same SPIFFE ID, parent and selectors exist already: the answer holds the entry that is there."""
        made = admin.register(f"/twice/{uid}", f"unix:uid:{uid}", "unix:gid:1", hint="first")
        again = entry(f"/twice/{uid}", "unix:gid:1", f"unix:uid:{uid}", hint="second")
        [result] = admin.create(again)
        assert (ALREADY_EXISTS, "similar entry already exists") == outcome(result)
        assert made == result.entry

    def test_the_same_entry_twice_in_a_batch(self, admin: Admin, uid: int) -> None:
        """Of two same entries in one batch the first is made, the second exists already."""
        wanted = entry(f"/pair/{uid}", f"unix:uid:{uid}")
        first, second = admin.create(wanted, wanted)
        assert (OK, ALREADY_EXISTS) == (first.status.code, second.status.code)
        assert first.entry.id == second.entry.id

    def test_an_id_that_is_taken(self, admin: Admin, uid: int) -> None:
        """The ID of another entry exists already, and that entry stays as it is."""
        made = admin.register(f"/named/{uid}", f"unix:uid:{uid}", id=f"named-{uid}")
        [result] = admin.create(entry("/other", f"unix:uid:{uid}", id=f"named-{uid}"))
        assert (ALREADY_EXISTS, False) == (result.status.code, result.HasField("entry"))
        assert made == admin.get(made.id)

    def test_a_selector_given_twice_counts_once(self, admin: Admin, uid: int) -> None:
        """Selectors are a set: one that is given twice is there once."""
        made = admin.register(f"/set/{uid}", f"unix:uid:{uid}", f"unix:uid:{uid}")
        assert [f"uid:{uid}"] == [selector.value for selector in made.selectors]

    def test_of_an_update(self, admin: Admin, uid: int) -> None:
        """An update fails for what is unknown, for what is bad, and for what exists; the entry stays as it is."""
        admin.register(f"/taken/{uid}", f"unix:uid:{uid}")
        made = admin.register(f"/mine/{uid}", f"unix:uid:{uid}")
        bad, same = types.Entry(), types.Entry()
        bad.CopyFrom(made)
        bad.spiffe_id.path = "/spire/x"
        same.CopyFrom(made)
        same.spiffe_id.path = f"/taken/{uid}"
        unknown = entry("/x", "unix:uid:1", id="unknown")
        results = admin.update(unknown, bad, same)
        assert [NOT_FOUND, INVALID_ARGUMENT, ALREADY_EXISTS] == [result.status.code for result in results]
        assert "failed to update entry" == results[0].status.message
        assert made == admin.get(made.id)

    def test_of_a_deletion(self, admin: Admin) -> None:
        """Deleting what is unknown or unnamed fails item by item, with the ID in the answer."""
        unknown, unnamed = admin.delete("unknown", "")
        assert ((NOT_FOUND, "entry not found"), "unknown") == (outcome(unknown), unknown.id)
        assert (INVALID_ARGUMENT, "missing entry ID") == outcome(unnamed)

    def test_of_a_look_up(self, admin: Admin) -> None:
        """Looking up nothing is an invalid argument, looking up what is unknown is not found."""
        assert ("INVALID_ARGUMENT", "missing ID") == refusal(lambda: admin.get(""))
        assert ("NOT_FOUND", "entry not found") == refusal(lambda: admin.get("unknown"))

    def test_of_one_item_leave_the_others(self, admin: Admin, uid: int) -> None:
        """A failed item never fails its batch: results stand in the order of the items."""
        results = admin.create(
            entry(f"/batch/a/{uid}", f"unix:uid:{uid}"),
            *(wanted for wanted, _ in CREATE_FAULTS.values()),
            entry(f"/batch/b/{uid}", f"unix:uid:{uid}"),
        )
        codes = [result.status.code for result in results]
        assert [OK, *[INVALID_ARGUMENT] * len(CREATE_FAULTS), OK] == codes
        assert [f"/batch/a/{uid}", f"/batch/b/{uid}"] == [results[n].entry.spiffe_id.path for n in (0, -1)]
        gone = admin.delete("unknown", results[0].entry.id, results[0].entry.id, results[-1].entry.id)
        assert [NOT_FOUND, OK, NOT_FOUND, OK] == [result.status.code for result in gone]

    @pytest.mark.parametrize(
        ("wanted", "text"),
        [
            ({"by_parent_id": spiffe_id("a")}, "malformed parent ID filter: path must have a leading slash"),
            ({"by_spiffe_id": spiffe_id("/a/")}, "malformed SPIFFE ID filter: path cannot have a trailing slash"),
            ({"by_selectors": Match()}, "malformed selectors filter: empty selector set"),
            (
                {"by_selectors": Match(selectors=[types.Selector(type="unix")])},
                "malformed selectors filter: missing selector value",
            ),
            (
                {"by_federates_with": types.FederatesWithMatch()},
                "malformed federates with filter: empty trust domain set",
            ),
        ],
        ids=["parent", "id", "no selectors", "selector", "federates"],
    )
    def test_of_a_filter(self, admin: Admin, wanted: dict[str, Any], text: str) -> None:
        """A malformed filter is an invalid argument, for a list and for a count."""
        listing = entry_api.ListEntriesRequest.Filter(**wanted)
        counting = entry_api.CountEntriesRequest(filter=entry_api.CountEntriesRequest.Filter(**wanted))
        assert ("INVALID_ARGUMENT", text) == refusal(lambda: admin.list(filter=listing))
        assert ("INVALID_ARGUMENT", text) == refusal(lambda: admin.unary(ENTRY_API + "CountEntries", counting))

    def test_of_a_page_token(self, admin: Admin) -> None:
        """A page token that is none of ours is refused with SPIRE's text."""
        _, text = refusal(lambda: admin.list(page_size=1, page_token="x"))
        assert "could not parse token 'x'" in text


def test_entries_outlive_the_agent() -> None:
    """After kill -9 and a start every acknowledged entry is there, as it was."""
    with AgentProcess() as own:
        with Admin(own.admin_socket) as admin:
            made = admin.register("/kept", f"unix:uid:{os.getuid()}", hint="h", dns_names=["a.example.org"])
        own.kill()
        own.start()
        with Admin(own.admin_socket) as admin:
            assert made == admin.get(made.id)
