"""What the own ID of an SVID says, a `jti` or a serial number: when it was issued, and for which entry.

"When" is a number that grows with each revocation of an identity and with each start of the agent, and not a time: no
clock that is set, and no two things within one second, make an SVID older or younger than a revocation. So one row
takes away all that an identity was ever given, and nothing that it is given from then on.
"""

import base64
import hashlib
import secrets
from dataclasses import dataclass

ORDER_BYTES = 5
MARK_BYTES = 5  # of an entry
NAME_BYTES = 8  # of a SPIFFE ID, in a `jti` alone: a certificate says its name itself
RANDOM_BYTES = 16
SERIAL_RANDOM_BITS = 78  # of 159: a positive number of twenty octets (RFC 5280, 4.1.2.2), always of the same length
ORDERS_PER_START = 1 << 16
_JTI_BYTES = ORDER_BYTES + MARK_BYTES + NAME_BYTES + RANDOM_BYTES
_JTI_LENGTH = (_JTI_BYTES * 8 + 5) // 6
_SERIAL_BITS = 1 + 8 * (ORDER_BYTES + MARK_BYTES) + SERIAL_RANDOM_BITS
OLDEST = -1


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an ID says. `entry` and `name` are marks; empty: it says none."""

    order: int
    entry: bytes = b""
    name: bytes = b""


UNSTAMPED = Stamp(OLDEST)  # an ID that is no stamp of ours: older than every revocation


def entry_mark(entry_id: str) -> bytes:
    """The mark of an entry."""
    return hashlib.sha256(f"entry {entry_id}".encode()).digest()[:MARK_BYTES]


def name_mark(spiffe_id: str) -> bytes:
    """The mark of a SPIFFE ID."""
    return hashlib.sha256(f"name {spiffe_id}".encode()).digest()[:NAME_BYTES]


def first_order(epoch: int) -> int:
    """The first number of a start of the agent, whose own number is `epoch`."""
    return epoch * ORDERS_PER_START


def make_jti(order: int, entry_id: str, spiffe_id: str) -> str:
    """A new `jti`, with 128 random bits. `entry_id` empty: of no entry."""
    mark = entry_mark(entry_id) if entry_id else bytes(MARK_BYTES)
    whole = order.to_bytes(ORDER_BYTES) + mark + name_mark(spiffe_id) + secrets.token_bytes(RANDOM_BYTES)
    return base64.urlsafe_b64encode(whole).rstrip(b"=").decode()


def make_serial(order: int, entry_id: str) -> int:
    """A new serial number, with 78 random bits."""
    mark = entry_mark(entry_id) if entry_id else bytes(MARK_BYTES)
    says = int.from_bytes(b"\1" + order.to_bytes(ORDER_BYTES) + mark)
    return says << SERIAL_RANDOM_BITS | secrets.randbits(SERIAL_RANDOM_BITS)


def of_jti(jti: str) -> Stamp:
    """What a `jti` says."""
    if len(jti) != _JTI_LENGTH:
        return UNSTAMPED
    try:
        whole = base64.b64decode(jti + "=" * (-len(jti) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return UNSTAMPED
    order, rest = whole[:ORDER_BYTES], whole[ORDER_BYTES:]
    return Stamp(int.from_bytes(order), rest[:MARK_BYTES], rest[MARK_BYTES : MARK_BYTES + NAME_BYTES])


def of_serial(serial: str) -> Stamp:
    """What a serial number says, in hex."""
    try:
        number = int(serial, 16)
    except ValueError:
        return UNSTAMPED
    if number.bit_length() != _SERIAL_BITS:
        return UNSTAMPED
    says = (number >> SERIAL_RANDOM_BITS).to_bytes(1 + ORDER_BYTES + MARK_BYTES)
    return Stamp(int.from_bytes(says[1 : 1 + ORDER_BYTES]), says[1 + ORDER_BYTES :])
