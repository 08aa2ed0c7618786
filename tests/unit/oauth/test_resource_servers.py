"""resource_servers.py: which workloads are the service behind a resource."""

from typing import Any

import pytest
from sojourn.attestation.selectors import Selector
from sojourn.identity.entries import Entry
from sojourn.oauth.resource_servers import Audiences, Service
from sojourn.spiffe.ids import SpiffeId

TICKETS = "https://tickets.example.org"
NODE = SpiffeId.parse("spiffe://example.org/node")


def entry(path: str, *dns_names: str) -> Entry:
    selector = frozenset({Selector("unix", "uid:1")})
    return Entry("e", SpiffeId.parse(f"spiffe://example.org{path}"), NODE, selector, dns_names=dns_names)


def audiences(**services: Any) -> Audiences:
    return Audiences(
        Service(resource, frozenset(SpiffeId.parse(f"spiffe://example.org{each}") for each in paths))
        for resource, paths in services.items()
    )


class TestConfigured:
    def test_named_workloads_serve(self) -> None:
        """A workload that the configuration names for the resource is its service; another is not."""
        made = audiences(**{TICKETS: ["/tickets", "/tickets-2"]})
        assert made.serves([entry("/other"), entry("/tickets-2")], TICKETS)
        assert not made.serves([entry("/other")], TICKETS)
        assert not made.serves([], TICKETS)

    def test_which(self) -> None:
        """The service of a resource is told if the configuration names one, and there are no others."""
        made = audiences(**{TICKETS: ["/tickets"]})
        service = made.service(TICKETS)
        assert service is not None
        assert ((service,), TICKETS, None) == (
            made.services,
            service.resource,
            made.service("https://wiki.example.org"),
        )

    def test_configuration_alone_counts(self) -> None:
        """Where the configuration names a resource, a DNS name of somebody else's entry counts for nothing."""
        assert not audiences(**{TICKETS: ["/tickets"]}).serves([entry("/other", "tickets.example.org")], TICKETS)

    def test_exactly_that_resource(self) -> None:
        """The workload serves exactly the resource that it is named for."""
        made = audiences(**{TICKETS: ["/tickets"]})
        for other in (TICKETS + "/", TICKETS.upper(), TICKETS + ":443", "https://wiki.example.org"):
            assert not made.serves([entry("/tickets")], other)


class TestByDnsName:
    @pytest.mark.parametrize(
        "resource", [TICKETS, TICKETS + "/a/b", TICKETS + ":8443/a", "http://tickets.example.org?q"]
    )
    def test_host_among_the_dns_names(self, resource: str) -> None:
        """Without configuration, an entry with the resource's host among its DNS names serves it."""
        assert audiences().serves([entry("/x", "a.example.org", "tickets.example.org")], resource)

    @pytest.mark.parametrize(
        "resource",
        [
            "https://Tickets.example.org",
            "https://tickets.example.org.",
            "https://tickets.example.org@evil.example",
            "https://evil.example/tickets.example.org",
            "https://evil.example?tickets.example.org",
            "https://x.tickets.example.org",
            "https://user@tickets.example.org",
            "spiffe://tickets.example.org/x",
            "urn:tickets.example.org",
            "https://tickets.example.org\n",
            "https://[::1]",
            "https://",
        ],
    )
    def test_nothing_else(self, resource: str) -> None:
        """Another host, spelling or scheme is another's."""
        assert not audiences().serves([entry("/x", "tickets.example.org")], resource)

    def test_a_wildcard_serves_nothing(self) -> None:
        """An entry for all of a domain is not the service of each name in it."""
        assert not audiences().serves([entry("/x", "*.example.org")], TICKETS)
