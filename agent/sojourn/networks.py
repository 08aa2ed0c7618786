"""Where callers over the network come from."""

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

_OWN_PREFIX: Final = 64  # of IPv6: one host has all addresses below it to choose from
_KEPT: Final = 4_096


@lru_cache(_KEPT)
def network_of(address: str) -> str:
    """What limits count as one place: an IPv4 address, or the network of an IPv6 address; anything else is itself."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:  # as a listener for both kinds has it
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((int(parsed), _OWN_PREFIX), strict=False))
