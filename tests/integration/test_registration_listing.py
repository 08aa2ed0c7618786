"""Registration: entries are listed, counted and filtered page by page."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.raw import ENTRY_API, Admin, entry, module_agent
from harness.registering import ALIAS, OK, Match, paths, spiffe_id
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as entry_api
from sojourn._pb.spire.api.types import types_pb2 as types


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    """One agent for the module, which also serves what SPIRE's command registers with `-node`."""
    with module_agent(f'node_aliases = ["spiffe://example.org{ALIAS}"]\n') as running:
        yield running


@pytest.fixture(scope="class")
def listed() -> Iterator[Admin]:
    """An agent with entries that differ in what can be asked for."""
    with module_agent() as own, Admin(own.admin_socket) as admin:
        admin.trust("one.org", "two.org")
        made = admin.create(
            entry("/a", "s:1"),
            entry("/ab", "s:1", "s:2", hint="h"),
            entry("/abc", "s:1", "s:2", "s:3", federates_with=["one.org"]),
            entry("/c", "s:3", federates_with=["one.org", "two.org"]),
            entry("/d", "s:4", downstream=True, parent_id=spiffe_id("/spire/agent/other")),
        )
        assert {OK} == {result.status.code for result in made}
        yield admin


class TestListing:
    @pytest.mark.parametrize(
        ("match", "selectors", "expected"),
        [
            (Match.MATCH_EXACT, "12", ["/ab"]),
            (Match.MATCH_EXACT, "2", []),
            (Match.MATCH_SUBSET, "12", ["/a", "/ab"]),
            (Match.MATCH_SUPERSET, "12", ["/ab", "/abc"]),
            (Match.MATCH_SUPERSET, "3", ["/abc", "/c"]),
            (Match.MATCH_ANY, "14", ["/a", "/ab", "/abc", "/d"]),
        ],
    )
    def test_by_selectors(self, listed: Admin, match: int, selectors: str, expected: list[str]) -> None:
        """Selectors are matched exactly, as a subset, as a superset, or by any of them."""
        asked = Match(match=match, selectors=[types.Selector(type="s", value=each) for each in selectors])
        assert expected == paths(_found(listed, by_selectors=asked))

    @pytest.mark.parametrize(
        ("match", "domains", "expected"),
        [
            (types.FederatesWithMatch.MATCH_EXACT, ["one.org"], ["/abc"]),
            (types.FederatesWithMatch.MATCH_SUPERSET, ["one.org"], ["/abc", "/c"]),
            (types.FederatesWithMatch.MATCH_ANY, ["two.org", "three.org"], ["/c"]),
        ],
    )
    def test_by_federation(self, listed: Admin, match: int, domains: list[str], expected: list[str]) -> None:
        """Trust domains that an entry federates with are matched likewise."""
        asked = types.FederatesWithMatch(match=match, trust_domains=domains)
        assert expected == paths(_found(listed, by_federates_with=asked))

    def test_by_one_field(self, listed: Admin) -> None:
        """SPIFFE ID, parent, hint and downstream each let through their own."""
        assert ["/ab"] == paths(_found(listed, by_spiffe_id=spiffe_id("/ab")))
        assert ["/d"] == paths(_found(listed, by_parent_id=spiffe_id("/spire/agent/other")))
        assert ["/ab"] == paths(_found(listed, by_hint={"value": "h"}))
        assert ["/a", "/abc", "/c", "/d"] == paths(_found(listed, by_hint={"value": ""}))
        assert ["/d"] == paths(_found(listed, by_downstream={"value": True}))

    def test_downstream_entries_too(self, listed: Admin) -> None:
        """The filter `by_downstream` with the value false, as SPIRE's command always sends it, lists all as without it."""
        assert 5 == len(_found(listed, by_downstream={"value": False})) == len(listed.list().entries)

    def test_all_filters_must_hold(self, listed: Admin) -> None:
        """Several filters are joined by and."""
        asked = Match(match=Match.MATCH_SUPERSET, selectors=[types.Selector(type="s", value="1")])
        assert ["/ab"] == paths(_found(listed, by_selectors=asked, by_hint={"value": "h"}))

    @pytest.mark.parametrize("size", [1, 2, 4, 5, 6])
    def test_by_pages(self, listed: Admin, size: int) -> None:
        """Pages of any size give every entry once, and the last has no token."""
        found: list[types.Entry] = []
        token = ""
        while True:
            page = listed.list(page_size=size, page_token=token)
            assert 1 <= len(page.entries) <= size
            found += page.entries
            token = page.next_page_token
            if not token:
                break
        assert ["/a", "/ab", "/abc", "/c", "/d"] == paths(found)

    def test_pages_go_on_where_an_entry_was_deleted(self, listed: Admin) -> None:
        """A page token stays good when the entry that it ended with is deleted."""
        made = [listed.register(f"/page/{n}", "p:1", id=f"page-{n}") for n in range(3)]
        asked = entry_api.ListEntriesRequest.Filter(by_selectors=Match(selectors=made[0].selectors))
        first = listed.list(filter=asked, page_size=1)
        listed.delete(first.entries[0].id)
        rest = listed.list(filter=asked, page_token=first.next_page_token).entries
        listed.delete(*(each.id for each in made))
        assert ["/page/1", "/page/2"] == paths(rest)

    def test_a_mask_leaves_out_the_rest(self, listed: Admin) -> None:
        """With an output mask an answer holds the ID and the masked fields."""
        asked = entry_api.ListEntriesRequest.Filter(by_spiffe_id=spiffe_id("/ab"))
        [found] = listed.list(filter=asked, output_mask=types.EntryMask(hint=True)).entries
        assert types.Entry(id=found.id, hint="h") == found


def _found(admin: Admin, **wanted: Any) -> Sequence[types.Entry]:
    """What a list shows; a count must agree."""
    counting = entry_api.CountEntriesRequest(filter=entry_api.CountEntriesRequest.Filter(**wanted))
    found = admin.list(filter=entry_api.ListEntriesRequest.Filter(**wanted)).entries
    assert len(found) == admin.unary(ENTRY_API + "CountEntries", counting, entry_api.CountEntriesResponse).count
    return found
