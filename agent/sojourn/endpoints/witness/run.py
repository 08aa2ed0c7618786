"""One run of a witness: its folder, its logs, its listener. SIGHUP has logs and certificate read again."""

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from sojourn.endpoints.listener.bind import listen
from sojourn.endpoints.listener.tls import address_of, bind_tcp
from sojourn.endpoints.witness.app import WitnessApp
from sojourn.endpoints.witness.door import WitnessDoor
from sojourn.errors import CannotStart, InvalidInput, SojournError, told_as
from sojourn.files import data_folder, trusted
from sojourn.limits import PEM_MAX_BYTES
from sojourn.net.allowed_addresses import is_loopback, parse_address
from sojourn.net.tls_versions import demand_modern_tls
from sojourn.operating_limits import WITNESS_LOGS
from sojourn.runtime.clock import SystemClock
from sojourn.spiffetls.context import load_pem
from sojourn.witness.cosigned_heads import CosignedHeads
from sojourn.witness.witness import Logs, Witness, check_state, logs_of
from sojourn.witness.witness_key import signer_of

log = structlog.get_logger()
_LINE_MAX = 400  # bytes of a vkey, with a remark
UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class WitnessStart:
    """How a witness is started. `listen`: ADDRESS:PORT, or `unix:` and a path. `vkeys` and `file`: logs that it trusts.

    `certificate` and `key`: PEM files; without them it speaks no TLS, which a loopback address alone may have. `ready`
    is called once it answers, with where that is, its verifier key and how many logs it trusts.
    """

    folder: Path
    name: str
    listen: str
    vkeys: Sequence[str]
    file: Path | None
    certificate: Path | None
    key: Path | None
    ready: Callable[[str, str, int], None]


async def run(start: WitnessStart) -> None:
    """Run until SIGTERM or SIGINT. Raise CannotStart, InvalidInput, StoreFailed."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.enter_context(data_folder.claim(start.folder))
        signer = signer_of(start.folder, start.name)
        logs = _logs(start)
        heads = CosignedHeads(start.folder, signer.key)
        check_state(heads, logs)
        witness = Witness(signer, logs, heads, SystemClock())
        door = WitnessDoor(WitnessApp(witness))
        door.context = _context(start)
        listener, where = _listener(start, stack)

        def again() -> None:
            try:
                witness.logs, door.context = _logs(start), _context(start)
            except SojournError as error:
                log.error("witness_not_reloaded", reason=error.public)
            else:
                log.info("witness_reloaded", logs=len(witness.logs))

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, again)
        accepting = asyncio.ensure_future(door.serve(listener))
        log.info("witness_started", name=signer.key.name, listen=where, logs=len(logs))
        start.ready(where, signer.key.cosigner, len(logs))
        try:
            await stop.wait()
        finally:
            accepting.cancel()
            await asyncio.wait([accepting])
            await door.stop()
        log.info("witness_stopped")


def _logs(start: WitnessStart) -> Logs:
    vkeys = list(start.vkeys)
    if start.file is not None:
        with told_as(InvalidInput, f"--logs: {start.file}"):
            text = trusted.read(start.file, WITNESS_LOGS * _LINE_MAX)
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        vkeys += [line.split()[0] for line in lines if line]
    return logs_of(vkeys)


def _context(start: WitnessStart) -> ssl.SSLContext | None:
    if start.certificate is None or start.key is None:
        return None
    texts = []
    for path in (start.certificate, start.key):
        with told_as(CannotStart, str(path)):
            texts.append(trusted.read(path, PEM_MAX_BYTES))
    if start.key.stat().st_mode & 0o007:
        raise CannotStart(f"{start.key}: the key is open to every user: chmod o-rwx it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    demand_modern_tls(context)
    context.set_alpn_protocols(["http/1.1"])
    try:
        load_pem(context, "\n".join(texts).encode())
    except (ssl.SSLError, ValueError) as error:
        raise CannotStart(f"{start.certificate}: not a certificate in PEM with its key: {error}") from error
    return context


def _listener(start: WitnessStart, stack: AsyncExitStack) -> tuple[socket.socket, str]:
    if start.listen.startswith(UNIX):
        path = Path(start.listen.removeprefix(UNIX))
        return listen(path, 0o660, None, stack), str(path)
    host, _, port = start.listen.rpartition(":")
    address = parse_address(host.strip("[]"))
    if address is None or not port.isdecimal() or int(port) > 65_535:
        raise InvalidInput(f"--listen: {start.listen[:200]!r} is neither ADDRESS:PORT nor unix:PATH")
    if start.certificate is None and not is_loopback(address):
        raise InvalidInput("--listen: an address that is not of the loopback needs --tls-certificate and --tls-key")
    listener = bind_tcp(start.listen, "--listen")
    stack.callback(listener.close)
    return listener, address_of(listener)
