"""Where callers over the network come from."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_OWN_PREFIX: Final = 64  # of IPv6: one host has all addresses below it to choose from
_CROWD_PREFIX: Final = 48  # of IPv6: what one customer is given at the most
_CROWD_PREFIX_4: Final = 24  # of IPv4: what one customer rents, and the least that is routed
_KEPT: Final = 4_096


@lru_cache(_KEPT)
def network_of(address: str) -> str:
    """What limits count as one place: an IPv4 address, or the network of an IPv6 address; anything else is itself."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), _OWN_PREFIX), strict=False))
    return str(parsed)


@lru_cache(_KEPT)
def crowd_of(address: str) -> str:
    """The network of which one customer may have all addresses: /24 of IPv4, /48 of IPv6; anything else is itself."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), _CROWD_PREFIX), strict=False))
    if isinstance(parsed, IPv4Address):
        return str(IPv4Network((int(parsed), _CROWD_PREFIX_4), strict=False))
    return parsed


def _parsed(address: str) -> IPv4Address | IPv6Address | str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:  # as a listener for both kinds has it
        return parsed.ipv4_mapped
    return parsed
