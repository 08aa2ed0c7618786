"""URLs that something is asked of a provider at, read strictly: what two parsers might read in two ways is none."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from sojourn.limits import PROVIDER_URL_MAX_BYTES
from sojourn.net.allowed_addresses import parse_address

_URL: Final = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,253})"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<target>(?:/[!-~]*)?(?:\?[!-~]*)?)"
)
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_OWN_PORTS: Final = {"https": 443, "http": 80}
_FORBIDDEN: Final = frozenset('#\\"<>^`{|}')
_PORTS_FROM: Final = 1_024  # below, other than HTTP's own: other protocols, which would be spoken to


@dataclass(frozen=True, slots=True)
class Url:
    """`host` is a name, or an address without brackets; `target` is the path with the query, and never shown."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The host, with the port if it is not the scheme's own: what Host has, and errors show."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _OWN_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(text: str) -> Url:
    """Parse an absolute http or https URL without user information and fragment. Raise ValueError with a sentence."""
    if len(text) > PROVIDER_URL_MAX_BYTES:
        raise ValueError(f"is longer than {PROVIDER_URL_MAX_BYTES} bytes")
    found = _URL.fullmatch(text)
    if found is None or not _FORBIDDEN.isdisjoint(text):
        raise ValueError("is not a plain http or https URL: no user information, fragment, or odd characters")
    host = found["host"].strip("[]")
    address = parse_address(host)
    if found["host"].startswith("["):
        if not isinstance(address, IPv6Address):
            raise ValueError("has a host that is not an IPv6 address")
    elif not isinstance(address, IPv4Address):
        labels = host.split(".")
        if not all(_LABEL.fullmatch(label) for label in labels) or _NUMBER.fullmatch(labels[-1]):
            raise ValueError("has a host that is neither a name nor an address")
    port = int(found["port"] or _OWN_PORTS[found["scheme"]])
    if port > 65_535 or (port < _PORTS_FROM and port not in _OWN_PORTS.values()):
        raise ValueError(f"has port {port}: 443, 80, and those from {_PORTS_FROM} on may be asked")
    target = found["target"]
    return Url(found["scheme"], host, port, target if target.startswith("/") else f"/{target}")
