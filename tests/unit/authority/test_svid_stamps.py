"""svid_stamps.py: what the own ID of an SVID says is read as it was written, and nothing is read into other IDs."""

from datetime import timedelta
from pathlib import Path

import pytest
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from sojourn.authority import svid_stamps
from sojourn.authority.svid_stamps import UNSTAMPED, Stamp, entry_mark, name_mark
from sojourn.spiffe.ids import SpiffeId

ORDERS = st.integers(0, 256**svid_stamps.ORDER_BYTES - 1)


@given(ORDERS, st.text(min_size=1, max_size=40))
def test_read_as_written(order: int, entry_id: str) -> None:
    """Order and entry are read of a `jti` and of a serial number, and of a `jti` the SPIFFE ID, too."""
    jti, serial = svid_stamps.make_jti(order, entry_id, "spiffe://a/b"), svid_stamps.make_serial(order, entry_id)
    assert Stamp(order, entry_mark(entry_id), name_mark("spiffe://a/b")) == svid_stamps.of_jti(jti)
    assert Stamp(order, entry_mark(entry_id)) == svid_stamps.of_serial(f"{serial:x}")
    assert (159, True) == (serial.bit_length(), len(serial.to_bytes(20)) == 20)  # RFC 5280: at most twenty octets


def test_no_two_are_the_same() -> None:
    """Each has random bits of its own."""
    assert 1_000 == len({svid_stamps.make_jti(1, "e", "spiffe://a/b") for _ in range(1_000)})
    assert 1_000 == len({svid_stamps.make_serial(1, "e") for _ in range(1_000)})


@pytest.mark.parametrize("text", ["", "x", "quFsbwlSkwKNKyqxH-XQnw", "!" * 46, "é" * 46, "A" * 45, "a\n" * 23])
def test_others(text: str) -> None:
    """An ID of another make says nothing, and is older than every revocation."""
    assert UNSTAMPED == svid_stamps.of_jti(text) == svid_stamps.of_serial(text) == svid_stamps.of_serial("7" * 32)
    assert UNSTAMPED.order < svid_stamps.first_order(0)


def test_orders_of_starts() -> None:
    """Whatever a start says is later than all that an earlier one has said."""
    assert svid_stamps.first_order(7) + svid_stamps.ORDERS_PER_START == svid_stamps.first_order(8)


def test_an_authority_says_it(tmp_path: Path) -> None:
    """SVIDs of each kind say what the authority's order was, and which entry they are of; those of no entry name none."""
    authority, web = authority_in(tmp_path / "keys", FakeClock()), SpiffeId.parse("spiffe://example.org/web")
    authority.order = 77
    ttl = timedelta(hours=1)
    leaf = authority.issue_x509(web, ttl, (), "e1")
    token = authority.issue_jwt(web, ["a"], ttl, None, "e1")
    assert Stamp(77, entry_mark("e1")) == svid_stamps.of_serial(leaf.serial)
    assert Stamp(77, entry_mark("e1"), name_mark(str(web))) == svid_stamps.of_jti(token.claims["jti"])
    assert bytes(svid_stamps.MARK_BYTES) == svid_stamps.of_jti(authority.issue_jwt(web, ["a"], ttl).claims["jti"]).entry
