"""What the agent hands out, read by means of our own and not the agent's."""

import base64
import contextlib
import json
import os
from typing import Any

from cryptography import x509

_LISTENING = 1 << 16  # __SO_ACCEPTCON


def certificates(data: bytes) -> list[x509.Certificate]:
    """DER certificates that follow each other without a separator."""
    found = []
    while data:
        assert b"\x30\x82" == data[:2]
        length = 4 + int.from_bytes(data[2:4], "big")
        found.append(x509.load_der_x509_certificate(data[:length]))
        data = data[length:]
    return found


def uris(certificate: x509.Certificate) -> list[str]:
    """The URI names of a certificate."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def decoded(segment: str) -> dict[str, Any]:
    """The JSON object in one segment of a token."""
    return json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))


def header(token: str) -> dict[str, Any]:
    return decoded(token.split(".", maxsplit=1)[0])


def claims(token: str) -> dict[str, Any]:
    return decoded(token.split(".")[1])


def listening(pid: int, but_to: int | None = None) -> tuple[list[str], list[str]]:
    """The paths of the Unix sockets that a process listens on, and its internet sockets of any state; not those that
    are connected to the port `but_to` of another.
    """
    held = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            held.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    unix = [
        fields[7]
        for fields in _rows(f"/proc/{pid}/net/unix")
        if len(fields) > 7 and f"socket:[{fields[6]}]" in held and int(fields[3], 16) & _LISTENING
    ]
    internet = [
        f"{kind} {fields[1]}"
        for kind in ("tcp", "tcp6", "udp", "udp6")
        for fields in _rows(f"/proc/{pid}/net/{kind}")
        if f"socket:[{fields[9]}]" in held and int(fields[2].rpartition(":")[2], 16) != but_to
    ]
    return unix, internet


def _rows(path: str) -> list[list[str]]:
    try:
        with open(path) as table:
            return [line.split() for line in table][1:]
    except FileNotFoundError:  # this kernel has no such protocol
        return []
