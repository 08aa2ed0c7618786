"""An end of a TLS 1.3 connection that sends by the thousand what no library does: updates of its key (RFC 8446, 4.6.3)."""

import socket
import ssl
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_HANDSHAKE, _APPLICATION = 22, 23


class KeyUpdates:
    """What a client, or a server, sends after its handshake, sealed by hand."""

    def __init__(self, tls: ssl.SSLContext, connected: socket.socket, *, server: bool = False) -> None:
        """Shake hands on a connection that blocks; what comes back is for the caller to read, and cannot be opened."""
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        if server:
            tls.num_tickets = 0  # they would be counted
        with tempfile.TemporaryDirectory() as folder:
            keys = Path(folder) / "keys"
            tls.keylog_filename = str(keys)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            inner = tls.wrap_bio(incoming, outgoing, server_side=server)
            while True:
                try:
                    inner.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    connected.sendall(outgoing.read())
                    incoming.write(connected.recv(65_536))
            connected.sendall(outgoing.read())
            lines = dict(line.split(" ", 1) for line in keys.read_text().splitlines() if not line.startswith("#"))
        name, _, bits = inner.cipher() or ("", "", 0)
        assert "AES" in name
        self._hash = hashes.SHA384() if name.endswith("SHA384") else hashes.SHA256()
        self._size = bits // 8
        self._use(bytes.fromhex(lines["SERVER_TRAFFIC_SECRET_0" if server else "CLIENT_TRAFFIC_SECRET_0"].split()[1]))

    def update(self, *, answer: bool = False) -> bytes:
        """The record of one update of the key; with `answer` the other side is to update its own."""
        record = self._sealed(bytes([24, 0, 0, 1, answer]), _HANDSHAKE)
        self._use(self._expanded(self._secret, b"traffic upd", self._hash.digest_size))
        return record

    def content(self, data: bytes) -> bytes:
        """The record of some content."""
        return self._sealed(data, _APPLICATION)

    def _use(self, secret: bytes) -> None:
        self._secret, self._sequence = secret, 0
        self._cipher = AESGCM(self._expanded(secret, b"key", self._size))
        self._vector = int.from_bytes(self._expanded(secret, b"iv", 12))

    def _expanded(self, secret: bytes, label: bytes, size: int) -> bytes:
        info = size.to_bytes(2) + bytes([6 + len(label)]) + b"tls13 " + label + b"\0"
        return HKDFExpand(self._hash, size, info).derive(secret)

    def _sealed(self, data: bytes, kind: int) -> bytes:
        head = bytes([_APPLICATION, 3, 3]) + (len(data) + 17).to_bytes(2)
        nonce = (self._vector ^ self._sequence).to_bytes(12)
        self._sequence += 1
        return head + self._cipher.encrypt(nonce, data + bytes([kind]), head)
