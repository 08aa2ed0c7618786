"""Malformed requests at both sockets: our error with a stable code, nothing changed, the agent alive."""

from typing import Any

import pytest
from harness.http2 import integer
from harness.malformed import admin_fixture, nothing_changes, told  # noqa: F401 - fixtures
from harness.raw import ENTRY_API, WORKLOAD_API, Admin, Wire
from sojourn._pb.spire.api.types import types_pb2 as types


def field(number: int, kind: int, body: bytes = b"") -> bytes:
    """A protobuf field: its tag, and what is given as its body."""
    return integer_of(number << 3 | kind) + body


def integer_of(value: int) -> bytes:
    """A protobuf varint."""
    return integer(value + 127, 7, 0x80)[1:] if value >= 0 else b"\xff" * 9 + b"\x01"


def text(number: int, body: bytes) -> bytes:
    return field(number, 2, integer_of(len(body)) + body)


def nested(number: int, depth: int) -> bytes:
    """Messages in messages in one field, so many deep."""
    body = b""
    for _ in range(depth):
        body = text(number, body)
    return body


BYTES: dict[str, bytes] = {
    "a truncated tag": b"\x8a",
    "a truncated length": b"\x0a\xff",
    "a length over the message": b"\x0a\x7fabc",
    "a length over all messages": b"\x0a\xff\xff\xff\xff\x0f",
    "a length without end": b"\x0a" + b"\xff" * 12,
    "field number 0": b"\x00\x01",
    "an end of a group that never began": b"\x0c",
    "a group without end": b"\x0b" * 200,
    "wire type 6": b"\x0e",
    "wire type 7": b"\x0f",
    "a varint of eleven bytes": b"\x08" + b"\xff" * 11,
    "a truncated number": b"\x09\x00",
    "text that is not UTF-8": b"\x0a\x02\xff\xfe",
    "a lone surrogate in text": b"\x0a\x03\xed\xa0\x80",
    "overlong UTF-8": b"\x0a\x02\xc0\x80",
}
TEXT_FIRST = {  # methods whose first field is text, or a message with text first
    "FetchJWTSVID": WORKLOAD_API + "FetchJWTSVID",
    "ValidateJWTSVID": WORKLOAD_API + "ValidateJWTSVID",
}


def test_varints() -> None:
    """The helper of this file writes varints as protobuf does."""
    for value in (0, 1, 127, 128, 300, 2**31):
        made = types.SPIFFEID.FromString(field(9, 0, integer_of(value)))
        assert field(9, 0, integer_of(value)) == made.SerializeToString()


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("method", TEXT_FIRST)
def test_bytes_at_the_public_socket(wire: Wire, method: str, name: str) -> None:
    """What is no message of the method's type is an invalid argument."""
    assert ("INVALID_ARGUMENT", "invalid_input") == told(lambda: wire.unary(TEXT_FIRST[method], BYTES[name]))


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("method", ["GetEntry", "BatchDeleteEntry", "BatchCreateEntry"])
def test_bytes_at_the_admin_socket(admin: Admin, method: str, name: str) -> None:
    """What is no message of the method's type is an invalid argument for registration, too, and nothing of it is done."""
    body = text(1, BYTES[name]) if method == "BatchCreateEntry" else BYTES[name]
    assert ("INVALID_ARGUMENT", "invalid_input") == told(lambda: admin.unary(ENTRY_API + method, body))


@pytest.mark.parametrize("kind", [0, 1, 5])
def test_other_wire_types(wire: Wire, kind: int) -> None:
    """A field of another wire type than the schema's is an unknown one: what is then missing is asked for."""
    body = field(1, kind, {0: b"\x01", 1: b"\0" * 8, 5: b"\0" * 4}[kind])
    assert ("INVALID_ARGUMENT", "invalid_input") == told(lambda: wire.unary(WORKLOAD_API + "FetchJWTSVID", body))


def test_unknown_fields(wire: Wire) -> None:
    """Fields of a later version are passed over."""
    extra = text(1, b"a") + text(500, b"x" * 1_000) + field(501, 0, integer_of(7))
    assert b"" != wire.unary(WORKLOAD_API + "FetchJWTSVID", extra)


@pytest.mark.parametrize("depth", [101, 1_000, 20_000])
def test_nesting(wire: Wire, depth: int) -> None:
    """Messages nested without end are refused, not followed."""
    # DiscoveryRequest.node.metadata: a Struct, whose values may be Structs
    value = nested(1, depth)
    body = text(2, text(3, value))
    method = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets"
    assert ("INVALID_ARGUMENT", "invalid_input") == told(lambda: wire.unary(method, body))


@pytest.mark.parametrize("size", [256 * 1024 + 1, 1024 * 1024])
def test_large_messages(wire: Wire, size: int) -> None:
    """A request over the public socket's limit is refused by its size."""
    body = text(1, b"a" * size)
    assert "RESOURCE_EXHAUSTED" == told(lambda: wire.unary(WORKLOAD_API + "FetchJWTSVID", body))[0]


METADATA: dict[str, tuple[tuple[str, Any], ...]] = {
    "none": (),
    "twice": (("workload.spiffe.io", "true"),) * 2,
    "with its opposite": (("workload.spiffe.io", "true"), ("workload.spiffe.io", "false")),
    "capitals": (("workload.spiffe.io", "True"),),
    "spaces": (("workload.spiffe.io", " true x"),),
    "as a list": (("workload.spiffe.io", "true,true"),),
    "binary": (("workload.spiffe.io-bin", b"true"),),
    "under a longer name": (("x-workload.spiffe.io", "true"),),
    "one": (("workload.spiffe.io", "1"),),
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("method", ["FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles"])
def test_security_header(wire: Wire, method: str, name: str) -> None:
    """The header is there once with the one value, or the call is an invalid argument with a stable code."""
    refused = told(lambda: wire.first(WORKLOAD_API + method, b"", metadata=METADATA[name]))
    assert ("INVALID_ARGUMENT", "invalid_input") == refused
