"""What Prometheus is told of the upstream authority."""

from contextlib import suppress

from fakes.authorities import authority_in
from fakes.upstreams import FakeUpstream
from sojourn.endpoints.metrics.upstream_authority import UpstreamAuthorityMetrics
from sojourn.errors import Unavailable


def told(authority):
    """The values by name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in UpstreamAuthorityMetrics(authority).collect()
        for sample in metric.samples
    }


async def look(authority):
    with suppress(Unavailable):
        await authority.upstream_root.look()


def test_without(tmp_path, clock):
    """An agent that is its own root is up, and has no other of these values."""
    assert {("sojourn_upstream_up",): 1} == told(authority_in(tmp_path / "keys", clock))


async def test_up_and_down(tmp_path, clock):
    """It is down from the first call that fails until one succeeds again, and the calls are counted by how they ended."""
    upstream = FakeUpstream(clock)
    authority = authority_in(tmp_path / "keys", clock, upstream=upstream.setting())
    await look(authority)
    first = clock.now().timestamp()
    assert (1, first) == tuple(
        told(authority)[name,] for name in ("sojourn_upstream_up", "sojourn_upstream_last_success_timestamp_seconds")
    )
    clock.advance(60)
    upstream.failing = "nobody is there"
    await look(authority)
    down = told(authority)
    assert (0, first) == tuple(
        down[name,] for name in ("sojourn_upstream_up", "sojourn_upstream_last_success_timestamp_seconds")
    )
    upstream.failing = ""
    await look(authority)
    back = told(authority)
    requests = "sojourn_upstream_requests_total", "look"
    assert (1, 2, 1) == (back["sojourn_upstream_up",], back[*requests, "ok"], back[*requests, "failed"])
    assert 3 == back["sojourn_upstream_seconds_count", "look"]
