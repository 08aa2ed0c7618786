"""A real rsyslogd as a receiver over TLS, in a folder of its own, without a socket or file of the machine's."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from fakes.ca import FakeCa
from sojourn.spiffe.x509svid import X509Svid

from harness.keeper import keep
from harness.lacking import lacking
from harness.looking import until
from harness.ports import free_port

_PROGRAM, _MODULE = "/usr/sbin/rsyslogd", "lmnsd_ossl.so"


class Rsyslog:
    """Use as a context manager. `tls`: with a certificate of this authority, and only for clients that have one."""

    def __init__(self, folder: Path, tls: FakeCa | None) -> None:
        if not Path(_PROGRAM).exists():
            lacking("needs rsyslogd: install the package rsyslog")
        if tls is not None and not list(Path("/usr/lib").glob(f"*/rsyslog/{_MODULE}")):
            lacking("needs rsyslog's TLS: install the package rsyslog-openssl")
        self.port = free_port()
        self.folder = folder / "rsyslog"
        self.folder.mkdir()
        self.file = self.folder / "messages"
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        if tls is not None:
            self._write(tls.svid("/receiver", dns="localhost"), tls)
        (self.folder / "conf").write_text(self._config())

    def _write(self, svid: X509Svid, ca: FakeCa) -> None:
        (self.folder / "ca.pem").write_bytes(ca.root.public_bytes(Encoding.PEM))
        (self.folder / "cert.pem").write_bytes(svid.chain_pem)
        (self.folder / "key.pem").write_bytes(svid.key_pem)

    def _config(self) -> str:
        stream = ""
        driver = ""
        if self._tls is not None:
            driver = (
                f'defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{self.folder}/ca.pem"'
                f' defaultNetstreamDriverCertFile="{self.folder}/cert.pem"'
                f' defaultNetstreamDriverKeyFile="{self.folder}/key.pem"'
            )
            stream = 'StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid"'
        return f"""
global(workDirectory="{self.folder}" maxMessageSize="128k" {driver})
module(load="imtcp" {stream})
template(name="whole" type="list") {{
  property(name="msgid") constant(value=" ") property(name="hostname") constant(value=" ")
  property(name="app-name") constant(value=" ") property(name="pri") constant(value=" ")
  property(name="timereported" dateFormat="rfc3339") constant(value=" ") property(name="msg") constant(value="\\n")
}}
ruleset(name="in") {{ action(type="omfile" file="{self.file}" template="whole") }}
input(type="imtcp" port="{self.port}" address="127.0.0.1" ruleset="in")
"""

    def __enter__(self) -> "Rsyslog":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        argv = [_PROGRAM, "-n", "-f", f"{self.folder}/conf", "-i", f"{self.folder}/pid"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=log)
        keep(self._process)
        time.sleep(0.2)
        assert self._process.poll() is None, (self.folder / "log").read_text()
        until(self._listens, "rsyslogd listens", 30)

    def trust(self, authorities: Path) -> None:
        """Take the certificates of clients that these have signed, too: begins anew."""
        self.stop()
        conf = (self.folder / "conf").read_text().replace(f"{self.folder}/ca.pem", str(authorities))
        (self.folder / "conf").write_text(conf)
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def _listens(self) -> bool:
        wanted = f":{self.port:04X} "
        return any(wanted in line and " 0A " in line for line in Path("/proc/net/tcp").read_text().splitlines())

    def heads(self) -> list[list[str]]:
        """Of each message: MSGID, host, program, priority and time."""
        return [line.split(" ", 5)[:5] for line in self._lines()]

    def values(self) -> list[dict[str, Any]]:
        """What each message has."""
        return [json.loads(line.split(" ", 5)[5]) for line in self._lines()]

    def _lines(self) -> list[str]:
        return self.file.read_text().splitlines() if self.file.exists() else []
