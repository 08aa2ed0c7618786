"""svid_lifetime.py: why an SVID lives as long as it does."""

from datetime import timedelta

import pytest
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.registrations import entry
from sojourn.identity.svid_lifetime import reason

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    clock = FakeClock()
    return clock, authority_in(tmp_path_factory.mktemp("authority") / "keys", clock)


def why(signer, ttl):
    """The reason for an SVID of an entry with this TTL, where the default is an hour and the issuer lives a day."""
    _, authority = signer
    made = entry("/web", x509_svid_ttl=ttl)
    svid = authority.issue_x509(made.spiffe_id, timedelta(seconds=ttl) or HOUR)
    return reason(made, HOUR, svid)


def test_the_entry(signer):
    """An entry's own TTL is named."""
    assert "the entry's x509_svid_ttl, 30m" == why(signer, 1800)


def test_the_default(signer):
    """The agent's default is named where the entry has none."""
    assert "the agent's default x509_svid_ttl, 1h" == why(signer, 0)


def test_the_issuer(signer):
    """An SVID that its issuer's end cut short says what was asked, and when the issuer ends."""
    said = why(signer, 3 * 86_400)
    assert "3d asked by the entry's x509_svid_ttl; the issuer ends earlier, at 2030-01-02T00:00:00Z" == said


def test_as_long_as_the_issuer(signer):
    """An SVID that asked for just what its issuer has left was not cut short."""
    assert "the entry's x509_svid_ttl, 1d" == why(signer, 86_400)


def test_the_default_and_the_issuer(signer):
    """The default, too, is cut short by an issuer that ends earlier."""
    _, authority = signer
    made = entry("/web")
    svid = authority.issue_x509(made.spiffe_id, timedelta(days=2))
    assert "2d asked by the agent's default x509_svid_ttl; the issuer ends" in reason(made, timedelta(days=2), svid)
