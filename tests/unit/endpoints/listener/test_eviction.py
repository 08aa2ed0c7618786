"""endpoints/listener/eviction.py: who makes room where all places are taken."""

from collections import Counter

import pytest
from sojourn.endpoints.listener.eviction import makes_room
from sojourn.net.networks import crowd_of, network_of


def present(*addresses):
    """Connections from these, the oldest first."""
    return dict(enumerate(addresses))


@pytest.mark.parametrize(
    ("newcomer", "addresses", "goes"),
    [
        ("192.0.2.1", [], None),
        ("192.0.2.1", ["192.0.2.1"], None),  # its own place has no fewer
        ("192.0.2.1", ["192.0.2.9"], 0),  # another of its network does
        ("192.0.2.1", ["198.51.100.1", "192.0.2.9", "192.0.2.9"], 1),
        ("192.0.2.1", ["198.51.100.1", "203.0.113.1", "203.0.113.2", "203.0.113.2"], 2),  # crowd, place, oldest
        ("192.0.2.1", ["192.0.2.1", "198.51.100.7"], None),  # crowds with as many leave each other alone
        ("192.0.2.1", ["192.0.2.1", "198.51.100.7", "198.51.100.8"], 1),
        ("2001:db8:1:1::1", ["2001:db8:2:1::1", "2001:db8:2:2::1", "2001:db8:3::1"], 0),  # a customer's many networks
        ("2001:db8:2:9::1", ["2001:db8:2:1::1", "2001:db8:2:2::1", "2001:db8:2:2::2"], 1),
        ("2001:db8:2:2::3", ["2001:db8:2:1::1", "2001:db8:2:2::1", "2001:db8:2:2::2"], None),
        ("::ffff:192.0.2.1", ["192.0.2.1"], None),  # the same address
        ("/run/agent.sock", ["192.0.2.1", "192.0.2.2"], 0),
    ],
)
def test_who_goes(newcomer, addresses, goes):
    """From the crowd with the most, if that is more than the newcomer's, the oldest of the most crowded place goes."""
    assert goes == makes_room(newcomer, present(*addresses), lambda _: True)


def test_who_may_not_go():
    """Only those who may be spared are sent away, and they count with the others of their crowd."""
    addresses = present("198.51.100.1", "198.51.100.1", "203.0.113.1", "192.0.2.9", "192.0.2.8")
    assert 1 == makes_room("10.0.0.1", addresses, lambda number: number in {1, 2})
    assert 2 == makes_room("10.0.0.1", addresses, lambda number: number == 2)
    assert None is makes_room("192.0.2.1", addresses, lambda number: number == 2)
    assert 3 == makes_room("192.0.2.1", addresses, lambda number: number == 3)
    assert None is makes_room("192.0.2.1", addresses, lambda _: False)


def test_whoever_comes_again_and_again():
    """Of many who come all the time nobody pushes another below an equal share, and each newcomer finds room."""
    places = {number: f"203.0.113.{number % 250}" for number in range(64)}
    coming = [f"203.0.113.{number % 7}" if number % 2 else f"10.{number % 5}.0.1" for number in range(2_000)]
    for number, address in enumerate(coming, 1_000):
        oldest = makes_room(address, places, lambda _: True)
        if oldest is not None:
            del places[oldest]
            places[number] = address
    crowds = Counter(map(crowd_of, places.values()))
    assert 64 == len(places)
    assert 6 == len(crowds)
    assert max(crowds.values()) - min(crowds.values()) <= 1


@pytest.mark.parametrize(
    ("address", "network", "crowd"),
    [
        ("192.0.2.77", "192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
        ("?", "?", "?"),
        ("", "", ""),
    ],
)
def test_networks(address, network, crowd):
    """A place is an IPv4 address or a /64, a crowd a /24 or a /48; what is no address is itself."""
    assert (network, crowd) == (network_of(address), crowd_of(address))
