"""What is told of a node: by status, by the command, and by metrics."""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

from fakes.given_node import STATE
from sojourn.cli.messages import told
from sojourn.cli.upstream_lines import upstream_lines
from sojourn.endpoints.admin.upstream import upstream_message
from sojourn.endpoints.metrics.node import NodeMetrics

AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
WELL = replace(STATE, svid_ends=AT, synced_at=AT, synced_seconds=2.0, left_out=1, svids_near_end=3)
AWAY = replace(WELL, server="", away_seconds=61.0, fault="refused\x1b[2J")
BANNED = replace(WELL, refused="banned", remedy="evict it")


def node(state):
    return SimpleNamespace(attestation_type="x509pop", state=state, prefetched=7)


def issuing(*ends):
    kept = [SimpleNamespace(svid=SimpleNamespace(not_after=each)) for each in ends]
    return SimpleNamespace(x509=SimpleNamespace(kept=lambda: kept))


def lines(state, *ends):
    return "\n".join(upstream_lines(told(upstream_message(node(state), issuing(*ends)))))


def samples(state):
    return {each.name: each.samples[0].value for each in NodeMetrics(node(state)).collect() if each.samples}


def test_none():
    """An agent that is its own authority tells of no server."""
    assert upstream_message(None, issuing()) is None
    assert [] == upstream_lines(None)


def test_one_that_is_well():
    """A node tells which server answers, how it has joined, and until when what it has is good."""
    said = lines(WELL, AT, AT.replace(hour=13))
    assert "spire server 127.0.0.1:8081; joined by x509pop\n" in said
    assert "own SVID until 2030-01-01T12:00:00Z" in said
    assert "synced 2030-01-01T12:00:00Z, 2 s ago" in said
    assert "from 2030-01-01T12:00:00Z to 2030-01-01T13:00:00Z; 7 entries ahead of use; 3 near their end" in said
    assert "1 entries of the server cannot be served" in said
    assert not {"AWAY", "REFUSED", "NOT synced"} & set(said.split())


def test_one_whose_server_is_away():
    """Since when no server answers is told, with why, and nothing in that text acts on a terminal."""
    said = lines(AWAY)
    assert "spire server none answers" in said
    assert "AWAY for 61 s: refused" in said
    assert "\x1b" not in said


def test_one_that_is_refused():
    """That the server refuses a node is told with what helps; one by a token says that the token is used."""
    assert "REFUSED by the server: banned; evict it" in lines(BANNED)
    assert "joined by x509pop, which cannot be used again" in lines(replace(BANNED, reattestable=False))


def test_metrics():
    """Each of these is a number, and what has never been has none."""
    well = samples(WELL)
    assert (1.0, 0.0, 2.0) == tuple(
        well[f"sojourn_node_{name}"] for name in ("server_up", "refused", "sync_age_seconds")
    )
    assert AT.timestamp() == well["sojourn_node_svid_not_after_seconds"]
    assert (3, 1) == (well["sojourn_node_svids_near_end"], well["sojourn_node_entries_left_out"])
    assert 0.0 == samples(AWAY)["sojourn_node_server_up"]
    assert 1.0 == samples(BANNED)["sojourn_node_refused"]
    new = samples(replace(STATE, spiffe_id=None))
    assert 0.0 == new["sojourn_node_server_up"]
    assert not {"sojourn_node_sync_age_seconds", "sojourn_node_svid_not_after_seconds"} & set(new)
