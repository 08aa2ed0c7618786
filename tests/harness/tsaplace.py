"""A time-stamp authority on loopback: `openssl ts -reply` behind HTTP, with keys and certificates of a test's own."""

import datetime as dt
import http.server
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA224, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from rfc3161_client._rust import parse_timestamp_request

from harness.httpserver import HttpServer

_CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = {digests}
accuracy = secs:1
tsa_name = yes
ess_cert_id_alg = {ess}
"""


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class TsaKeys:
    """A root and an authority's certificate in a folder. `life`: of that, in days from now; `stamps`: whether it may;
    `more`: what else it may; `key` and `digest`: of the certificate.
    """

    def __init__(
        self,
        folder: Path,
        *,
        life: tuple[int, int] = (-1, 100),
        stamps: bool = True,
        issuer: str = "root",
        more: Sequence[x509.ObjectIdentifier] = (),
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
        digest: SHA256 | SHA224 | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.roots = folder, folder / "roots.pem"
        now = dt.datetime.now(dt.UTC)
        root_key = ec.generate_private_key(ec.SECP256R1())
        key = key or ec.generate_private_key(ec.SECP256R1())
        root = (
            x509.CertificateBuilder()
            .subject_name(_name(issuer)).issuer_name(_name(issuer)).public_key(root_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=900)).not_valid_after(now + dt.timedelta(days=900))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(root_key, SHA256())
        )  # fmt: skip
        usage = ExtendedKeyUsageOID.TIME_STAMPING if stamps else ExtendedKeyUsageOID.SERVER_AUTH
        begins, ends = (now + dt.timedelta(days=each) for each in life)
        leaf = (
            x509.CertificateBuilder()
            .subject_name(_name("authority")).issuer_name(_name(issuer)).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage, *more]), critical=True)
            .sign(root_key, digest or SHA256())
        )  # fmt: skip
        self.roots.write_bytes(root.public_bytes(Encoding.PEM))
        (folder / "tsa.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
        (folder / "tsa.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / "serial").write_text("01\n")

    def reply(self, query: bytes, digests: str = "sha256", ess: str = "sha256") -> bytes:
        """What the authority answers, DER. `ess`: by which digest it names its certificate."""
        (self.folder / "config").write_text(_CONFIG.format(folder=self.folder, digests=digests, ess=ess))
        (self.folder / "query").write_bytes(query)
        argv = [
            *(shutil.which("openssl") or "openssl", "ts", "-reply", "-config", str(self.folder / "config")),
            *("-queryfile", str(self.folder / "query"), "-out", str(self.folder / "reply")),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return (self.folder / "reply").read_bytes()

    def signed(self, query: bytes, at: dt.datetime, *, digest: str = "sha256", names_signer: bool = True) -> bytes:
        """What an authority answers whose clock says `at`, with a signature of its own digest, as openssl makes none.

        `names_signer`: whether the signature covers which certificate it is by.
        """
        asked = parse_timestamp_request(query)
        nonce = [] if asked.nonce is None else [_integer(asked.nonce)]
        algorithm = _der(0x30, bytes.fromhex("0609608648016503040201"), bytes.fromhex("0500"))
        imprint = _der(0x30, algorithm, _der(0x04, asked.message_imprint.message))
        moment = _der(0x18, f"{at:%Y%m%d%H%M%SZ}".encode())
        info = _der(0x30, _integer(1), _der(0x06, bytes([0x2A, 3, 4, 1])), imprint, _integer(7), moment, *nonce)
        (self.folder / "info").write_bytes(info)
        argv = [
            *(shutil.which("openssl") or "openssl", "cms", "-sign", "-binary", "-nodetach", "-md", digest),
            *("-econtent_type", "1.2.840.113549.1.9.16.1.4", "-in", str(self.folder / "info"), "-outform", "DER"),
            *("-signer", str(self.folder / "tsa.pem"), "-inkey", str(self.folder / "tsa.key")),
            *(["-cades"] if names_signer else []),
        ]
        done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return _der(0x30, _der(0x30, _integer(0)), done.stdout)


def _der(tag: int, *content: bytes) -> bytes:
    whole = b"".join(content)
    size = len(whole)
    if size < 128:
        return bytes([tag, size]) + whole
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(octets)]) + octets + whole


def _integer(number: int) -> bytes:
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1))


class _Post(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: "TsaPlace"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        status, content = self.owner.take(self.headers.get("content-type", ""), body)
        self.send_response(status)
        self.send_header("content-type", "application/timestamp-reply")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


class TsaPlace:
    """Use as a context manager. `answer`: what is answered to a query, with a status; by default what openssl says."""

    def __init__(self, keys: TsaKeys) -> None:
        self.keys = keys
        self.queries: list[bytes] = []
        self.answer: Callable[[bytes], tuple[int, bytes]] = lambda query: (200, keys.reply(query))
        self._lock = threading.Lock()
        self._server = HttpServer(("127.0.0.1", 0), type("Handler", (_Post,), {"owner": self}))
        self.url = f"http://localhost:{self._server.server_address[1]}/"

    def __enter__(self) -> "TsaPlace":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.end()

    def take(self, content_type: str, query: bytes) -> tuple[int, bytes]:
        assert content_type == "application/timestamp-query"
        with self._lock:
            self.queries.append(query)
            return self.answer(query)
