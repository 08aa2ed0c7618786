"""A host that has another name now: what its agent says of the entries of the old one, and how it takes them over."""

import os
from collections.abc import Iterator

import pytest
from harness.agent import AgentProcess
from harness.raw import Wire, module_agent

pytestmark = pytest.mark.full

NODES = "spiffe://example.org/spire/agent/sojourn"
OLD, NEW = f"{NODES}/vm", f"{NODES}/newhost"
OURS, GROUP = f"unix:uid:{os.getuid()}", f"unix:gid:{os.getgid()}"


@pytest.fixture(scope="module")
def running() -> Iterator[AgentProcess]:
    with module_agent(f'node_name = "newhost"\nnode_aliases = ["{NODES}/alias"]\n') as agent:
        yield agent


@pytest.fixture
def agent(running: AgentProcess) -> Iterator[AgentProcess]:
    """An agent on the host `newhost`, which was `vm` when three workloads were registered."""
    for name in ("one", "two", "three"):
        running.register(f"/{name}", OURS, GROUP, parent_id=OLD)
    yield running
    running.run("entry", "delete", *(entry["id"] for entry in entries(running)))


def entries(agent: AgentProcess) -> list[dict[str, str]]:
    found: list[dict[str, str]] = agent.json("entry", "list")["entries"]
    return found


def said(agent: AgentProcess) -> list[str]:
    return [str(line["reason"]) for line in agent.log_lines() if line["event"] == "entries_of_other_nodes"]


def test_it_is_told(agent: AgentProcess) -> None:
    """After a host was renamed the agent warns at its start, and `status` says, whose the entries are and the cure.

    Those of an alias, and of what is no agent, are not told of.
    """
    agent.register("/aliased", OURS, parent_id=f"{NODES}/alias")
    agent.register("/below", OURS, parent_id="spiffe://example.org/spire/server")
    assert [] == said(agent)
    agent.stop()
    agent.start()
    text = "3 entries are for node `vm`; this is `newhost`: set node_aliases or run `sojourn entry adopt`"
    assert [text] == said(agent)
    assert text in agent.run("status").stdout
    assert [{"node": "vm", "spiffe_id": OLD, "entries": 3}] == agent.json("status")["other_nodes"]


def test_adopted_entries_are_served_at_once(agent: AgentProcess) -> None:
    """`entry adopt` makes all of the old name's entries this node's, tells which, and open streams get the SVIDs."""
    agent.register("/here", OURS)
    with Wire(agent.socket) as wire:
        stream = wire.x509_stream()
        assert ["spiffe://example.org/here"] == [svid.spiffe_id for svid in next(stream).svids]
        told = agent.run("entry", "adopt", "--dry-run").stdout
        assert f"3 would be this node's, {NEW}, and were of {OLD}" in told
        assert {OLD, NEW} == {entry["parent_id"] for entry in entries(agent)}
        done = agent.json("entry", "adopt")
        assert 4 == len(next(stream).svids)
    assert (OLD, NEW, False, []) == (done["from"], done["to"], done["dry_run"], done["left"])
    names = {f"spiffe://example.org/{name}" for name in ("one", "two", "three")}
    assert names == {each["spiffe_id"] for each in done["adopted"]}
    assert {NEW} == {entry["parent_id"] for entry in entries(agent)}
    records = agent.json("audit", "tail", "--lines", "30")["records"]
    record = next(each for each in reversed(records) if each["event"] == "entries_adopted")
    assert (OLD, 3, os.getuid()) == tuple(record["fields"][name] for name in ("from", "entries", "by_uid"))
    updated = {each["fields"]["entry_id"] for each in records if each["event"] == "entry_updated"}
    assert {each["id"] for each in done["adopted"]} <= updated
    assert [] == agent.json("status")["other_nodes"]
    nothing = agent.run("entry", "adopt", check=False)
    assert (1, True) == (nothing.returncode, "no entry is for another node [not_found]" in nothing.stderr)


def test_one_of_several_is_named(agent: AgentProcess) -> None:
    """Where entries are for several other nodes nothing is adopted until --from says whose, by name or ID."""
    agent.register("/elsewhere", OURS, parent_id=f"{NODES}/real")
    agent.register("/aliased", OURS, parent_id=f"{NODES}/alias")
    for arguments, text in (
        ([], "entries are for several nodes, `real` (1), `vm` (3): name one with --from [invalid_input]"),
        (["--from", "wm"], "no entry is for `wm`; there are: `real` (1), `vm` (3) [not_found]"),
        (["--from", "newhost"], "`newhost` is this node [invalid_input]"),
        (["--from", "a/../b"], "[invalid_spiffe_id]"),
    ):
        refused = agent.run("entry", "adopt", *arguments, check=False)
        assert (1, True) == (refused.returncode, text in refused.stderr), refused.stderr
    assert 3 == len(agent.json("entry", "adopt", "--from", "vm")["adopted"])
    assert "1 entry is for node `real`" in agent.run("status").stdout
    for node, name in ((f"{NODES}/real", "elsewhere"), ("alias", "aliased")):
        [adopted] = agent.json("entry", "adopt", "--from", node)["adopted"]
        assert f"spiffe://example.org/{name}" == adopted["spiffe_id"]


def test_all_or_nothing(agent: AgentProcess) -> None:
    """Where one of the entries was registered here again none is adopted, and the error says which is in the way."""
    twin = agent.register("/two", OURS, GROUP)
    refused = agent.run("entry", "adopt", check=False)
    assert (1, True) == (refused.returncode, "[already_exists]" in refused.stderr)
    assert f"is registered here already, as {twin['id']}" in refused.stderr
    assert [OLD] * 3 == [entry["parent_id"] for entry in entries(agent) if entry["id"] != twin["id"]]
