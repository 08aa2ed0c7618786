"""The key process as a service of its own, as the configuration has it: `sojourn keys run`."""

import os
import pwd
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import structlog

from sojourn.agent.token_keys import TRIED_PIN, place_of, settings_of
from sojourn.authority import key_files
from sojourn.authority.key_seal import KeySeal
from sojourn.authority.token.pin import PinRecord
from sojourn.config.model import Config
from sojourn.endpoints.listener.bind import bind
from sojourn.errors import InvalidConfig
from sojourn.keyprocess import confinement
from sojourn.keyprocess.serving import KeyService
from sojourn.spiffe.ids import TrustDomain

log = structlog.get_logger()
_MODE = 0o666  # who connects is known by the kernel, and refused unless it is the agent's user


def run(config: Config, folder: Path, ready: Callable[[Path], None]) -> None:
    """Listen, and answer the agent until SIGTERM or SIGINT. `folder`: what this service keeps. `ready` is told where.

    Raise InvalidConfig, CannotStart.
    """
    path = config.keys.socket
    if path is None:
        raise InvalidConfig(["keys.socket is missing: where the key process is to listen"])
    allowed = _uid_of(config.keys.agent_user)
    key_files.make_folder(folder)
    sealed = config.keys.seal_key if config.keys.manager == "sealed" else None
    seal = None if sealed is None else KeySeal.at(sealed)
    place = place_of(config.keys, folder, seal)
    service = KeyService(
        settings_of(config, TrustDomain(config.trust_domain), place), PinRecord(folder / TRIED_PIN), allowed
    )
    listening = bind(path, _MODE)
    listening.setblocking(True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    os.environ.update(place.environment)
    confinement.confine(network=place.network)
    log.info("keys_listening", socket=str(path), manager=config.keys.manager, place=place.label, uid=allowed)
    ready(path)
    try:
        service.serve(listening)
    finally:
        listening.close()
        path.unlink(missing_ok=True)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _uid_of(user: str) -> int:
    """Raise InvalidConfig if there is no such user."""
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise InvalidConfig([f"keys.agent_user: there is no user {user!r} on this machine"]) from None
