"""Which addresses may be connected to: those of the public internet, and what an operator allows beyond."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Below the addresses that IANA calls global there are some that lead to the host, its cloud or a relay all the same.
_NOT_PUBLIC: Final[tuple[Network, ...]] = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.88.99.0/24"),  # 6to4 relays, withdrawn
    IPv4Network("168.63.129.16/32"),  # Azure's host agent, which gives a machine its credentials
    IPv6Network("2001::/23"),  # protocol assignments, Teredo among them
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),  # 6to4, withdrawn; what it embeds is looked at first
    IPv6Network("3fff::/20"),  # documentation
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: how hosts without IPv4 reach what has nothing else
_COMPATIBLE: Final = IPv6Network("::/96")


def parse_address(text: str) -> Address | None:
    """The address that a host of a URL or of DNS is, without a zone; None if it is none."""
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address only stands for (mapped, compatible, NAT64); any other is itself."""
    if not isinstance(address, IPv6Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, and stands for no other."""
    address = unwrapped(address)
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def is_loopback(address: Address) -> bool:
    """Whether an address is of the loopback by itself: from Python 3.13 on one that stands for another would be too."""
    return address.is_loopback and unwrapped(address) is address


def may_connect(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether an address is public, or of one of the networks that are allowed."""
    real = unwrapped(address)
    return is_public(address) or any(real in network for network in allowed if network.version == real.version)
