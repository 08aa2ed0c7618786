"""Who the audience of a token is: which workloads are the service behind a resource. Names compare byte for byte."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sojourn.errors import Refused
from sojourn.identity.entries import Entry
from sojourn.spiffe.ids import SpiffeId

# The authority of an http URL without user and port; a bracketed IPv6 address is no DNS name.
_HOST = re.compile(r"https?://([A-Za-z0-9_.-]+)(?::[0-9]*)?(?:[/?].*)?")


@dataclass(frozen=True, slots=True)
class Service:
    """A service that the configuration names: its resource, its workloads, and its name for people or ''."""

    resource: str
    workloads: frozenset[SpiffeId]
    name: str = ""


class Audiences:
    """The services behind resources: as configured; otherwise by the DNS names of entries."""

    def __init__(self, services: Iterable[Service] = ()) -> None:
        self.replace(services)

    def replace(self, services: Iterable[Service]) -> None:
        """Have the configuration name other services."""
        self._services: Mapping[str, Service] = {each.resource: each for each in services}

    @property
    def services(self) -> tuple[Service, ...]:
        """Those that the configuration names."""
        return tuple(self._services.values())

    def service(self, resource: str) -> Service | None:
        """The configured service behind a resource."""
        return self._services.get(resource)

    def check_serves(self, who: Iterable[SpiffeId], resource: str) -> None:
        """Raise Refused if the configuration names the service behind `resource`, and none of these is of it."""
        service = self._services.get(resource)
        if service is not None and service.workloads.isdisjoint(who):
            raise Refused(f"not a workload of the service {service.resource!r}: [[services]] names others")

    def serves(self, identities: Iterable[Entry], resource: str) -> bool:
        """Whether a workload with one of these entries is the service behind `resource`.

        Where the configuration names the resource, nothing else counts. Otherwise an entry that has the resource's
        host among its DNS names is one of its service, as it could show a certificate for it. A wildcard is not.
        """
        service = self._services.get(resource)
        if service is not None:
            return any(entry.spiffe_id in service.workloads for entry in identities)
        host = _HOST.fullmatch(resource)
        return host is not None and any(host[1] in entry.dns_names for entry in identities)
