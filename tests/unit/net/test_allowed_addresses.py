"""Which addresses a provider may have."""

from ipaddress import ip_address, ip_network

import pytest
from sojourn.net.allowed_addresses import is_public, may_connect, parse_address

NOT_PUBLIC = [
    *("0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "169.254.169.254"),
    *("172.16.0.1", "192.0.0.8", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1"),
    *("198.51.100.7", "203.0.113.9", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "3fff::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::a00:1"),
    *("64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8", "2002:7f00:1::", "2002:a00:1::1"),
    *("2002:808:808::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "100::1", "5f00::1", "4000::1"),
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "52.95.110.1"]


class TestIsPublic:
    @pytest.mark.parametrize("text", NOT_PUBLIC)
    def test_no(self, text: str) -> None:
        """Addresses of this host, its networks and its cloud are not public, in none of their IPv6 forms."""
        assert not is_public(ip_address(text))

    @pytest.mark.parametrize("text", PUBLIC)
    def test_yes(self, text: str) -> None:
        """Addresses of the internet are public, behind NAT64 too."""
        assert is_public(ip_address(text))


class TestMayConnect:
    def test_only_what_is_allowed(self) -> None:
        """A network that is allowed adds its own addresses and no others, in whatever form they come."""
        allowed = [ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")]
        fits = {each: may_connect(ip_address(each), allowed) for each in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::9")}
        assert {"10.1.2.3": True, "::ffff:10.1.2.3": True, "fd00:1::9": True} == fits
        assert not any(may_connect(ip_address(each), allowed) for each in ("10.2.0.1", "::ffff:10.2.0.1", "fd00:2::1"))


class TestParseAddress:
    @pytest.mark.parametrize("text", ["fe80::1%eth0", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "a", ""])
    def test_not_an_address(self, text: str) -> None:
        """A zone, and what only some parsers take for an address, is none."""
        assert parse_address(text) is None
