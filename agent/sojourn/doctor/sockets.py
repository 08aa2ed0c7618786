"""Checks of where the agent is reached: its two sockets, and the listeners for other machines."""

import os
import socket
import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from sojourn.doctor.findings import Finding, fail, ok, unknown, warn
from sojourn.doctor.scene import SILENT, START, Scene
from sojourn.files.path_owners import Exposed, named, walk

_CONNECT_SECONDS: Final = 2.0
_KEYS: Final = {
    "nodes": "listen.nodes",
    "tcp": "listen.tcp",
    "https": "listen.https",
    "trust": "listen.trust",
    "people": "listen.people",
    "metrics": "metrics.listen",
}
_RENEW: Final = "renew the certificate's file, which the agent reads again by itself"
_RESTART: Final = "look at the agent's log, and restart the agent; a change that was not read yet needs that too"
_ENDS_SOON: Final = timedelta(days=7)


def sockets(scene: Scene) -> Finding:
    """Whether both sockets stand where they should, for those who may use them, where nobody else can put others."""
    public, private = scene.public_socket, scene.admin_socket
    if public is None or private is None:
        return unknown(scene.config_fault)
    wanted = ((private, 0),) if scene.is_server else ((public, 0o666), (private, 0))
    found = [_socket_fault(scene, path, mode) for path, mode in wanted]
    wrong = next((each for each in found if each is not None), None)
    if wrong is not None:
        return wrong
    return ok(f"{private} for operators" if scene.is_server else f"{public} for all, {private} for operators")


def _socket_fault(scene: Scene, path: Path, others: int) -> Finding | None:
    """What is wrong with a socket whose mode gives others `others`."""
    trusted = {0, scene.uid}
    try:
        status = path.stat()
    except OSError as error:
        if scene.status is None:
            return unknown(SILENT, START)
        return fail(
            f"{path}: {error.strerror}, and the agent runs",
            "restart the agent; or name its configuration with --config, if its sockets stand elsewhere",
        )
    if not stat.S_ISSOCK(status.st_mode):
        return fail(f"{path} is no socket", "move it, and restart the agent")
    if status.st_uid not in trusted:
        return fail(
            f"{path} is {named(status.st_uid)}'s: another user may have taken the agent's place",
            "look who that is; then restart the agent",
        )
    mode = stat.S_IMODE(status.st_mode)
    if others and mode & others != others:
        return fail(f"{path} has mode {mode:04o}: workloads of other users cannot connect", f"chmod 0777 {path}")
    if not others and mode & 0o077:
        return fail(f"{path} has mode {mode:04o}: others may try to connect", f"chmod 0600 {path}")
    try:
        walk(os.fspath(path), trusted, {0})
    except Exposed as error:
        return warn(
            f"{path} stands {error}",
            "let sockets stand in a folder that root or the agent's user alone"
            " may write, such as /run/sojourn: clients of other users do not believe this one",
        )
    except OSError as error:
        return unknown(f"the way to {path} cannot be looked at: {error.strerror}")
    return None


def listeners(scene: Scene) -> Finding:
    """Whether the listeners for other machines answer, and show certificates that are good for a while."""
    config = scene.config
    if config is None:
        return unknown(scene.config_fault)
    listen = config.listen
    wanted = {name: getattr(listen, name) for name in ("tcp", "https", "trust", "people")}
    wanted["metrics"] = config.metrics.listen
    wanted["nodes"] = config.nodes_address if scene.is_server else None
    configured = {name: address for name, address in wanted.items() if address is not None}
    if not configured:
        return ok("none is configured")
    ends = {name: getattr(listen, f"{name}_certificate") for name in ("https", "trust", "people")}
    spoilt = [
        f"{name}: {fault}" for name, path in ends.items() if path is not None and (fault := _certificate_fault(path))
    ]
    if scene.status is None:
        return fail("; ".join(spoilt), _RENEW) if spoilt else unknown(SILENT, START)
    return _running(configured, spoilt, scene.status)


def _running(configured: Mapping[str, str], spoilt: Sequence[str], status: Any) -> Finding:
    """As `listeners`, of an agent that runs: what waits for its next start is not asked for an answer."""
    in_force = {each.name: each.address for each in status.listeners}
    waiting = [name for name in configured if _KEYS[name] in status.config.restart_needed]
    on = {name: address for name, address in configured.items() if name not in waiting} | {
        name: in_force[name] for name in configured if name in in_force
    }
    silent = [f"{name}: {address} does not answer" for name, address in on.items() if not _answers(address)]
    late = [f"{_KEYS[name]} {configured[name]} waits for a restart of the agent" for name in waiting]
    if silent or spoilt:
        cures = [_RENEW] * bool(spoilt) + [_RESTART] * bool(silent)
        return fail("; ".join([*silent, *spoilt, *late]), "; ".join(cures))
    if late:
        return warn("; ".join(late), "restart the agent: until then it listens as it did before")
    if "metrics" in on and not _is_loopback(on["metrics"]):
        return warn(
            f"anybody who reaches {on['metrics']} reads the metrics",
            "bind metrics.listen to 127.0.0.1, or keep others away by a firewall",
        )
    return ok(", ".join(f"{name} {address}" for name, address in on.items()))


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        unspecified = ip_address(host).is_unspecified
    except ValueError:
        unspecified = False
    try:
        with socket.create_connection(("localhost" if unspecified else host, int(port)), timeout=_CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _certificate_fault(path: Path) -> str:
    """Why a certificate's file is not good for a while; '' if it is, or cannot be read by this user."""
    try:
        certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except PermissionError:
        return ""
    except (OSError, ValueError) as error:
        return f"{path}: {error}"
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    if left < _ENDS_SOON:
        return f"{path} ends at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    return ""
