"""What the agent's readiness is made of: its keys, its authority, its store, its sockets, its attestors."""

import os
from pathlib import Path
from typing import Protocol

from sojourn.attestation.attestor_stats import Tally
from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.authority.key_steps import X509
from sojourn.authority.token.key_process import KeyProcess
from sojourn.runtime.clock import Clock
from sojourn.runtime.readiness import ATTESTORS, AUTHORITY, KEYS, ROOT_KEY, SOCKETS, STORE, UPSTREAM, Readiness
from sojourn.store.write_health import WriteHealth


class Conditions(Protocol):
    """What signs here, and whether it can: what is wrong, '' if nothing is."""

    def keys_fault(self) -> str: ...
    def root_fault(self) -> str: ...
    def upstream_fault(self) -> str: ...
    def token_fault(self) -> str: ...


class EmbeddedConditions:
    """Those of an authority of our own."""

    def __init__(self, authority: EmbeddedAuthority, clock: Clock, token: KeyProcess | None = None) -> None:
        """`token`: what uses the token with the root's key, if that is in one."""
        self._authority = authority
        self._clock = clock
        self._process = token

    def keys_fault(self) -> str:
        authority, now, issuer = self._authority, self._clock.now(), self._authority.issuer
        if issuer is None or not issuer.not_valid_before_utc <= now < issuer.not_valid_after_utc:
            why = f": {authority.fault}" if authority.fault else ""
            return f"the intermediate that signs SVIDs is not valid now, and no new one could be made{why}"
        ended = [kind for kind in authority.kinds if kind != X509 and authority.slots(kind).active.not_after <= now]
        return f"the active key has ended, and no new one could be made: {', '.join(ended)}" if ended else ""

    def root_fault(self) -> str:
        now, root = self._clock.now(), self._authority.root
        if root is None:
            return ""  # that nothing signs is a fault of the keys
        if now >= root.not_valid_after_utc:
            return f"the root certificate ended at {root.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}: is the clock right?"
        if now < root.not_valid_before_utc:
            begins = f"{root.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
            return f"the root certificate begins at {begins}: is the clock right?"
        return ""

    def upstream_fault(self) -> str:
        """There is no server above it."""
        return ""

    def token_fault(self) -> str:
        return "" if self._process is None else self._process.fault


def readiness_of(signing: Conditions, health: WriteHealth, tally: Tally) -> Readiness:
    """Readiness without the sockets, which are bound later: see `follow_socket`."""
    made = Readiness()
    made.on(KEYS, signing.keys_fault)
    made.on(AUTHORITY, signing.root_fault)
    made.on(UPSTREAM, signing.upstream_fault)
    made.on(ROOT_KEY, signing.token_fault)
    made.on(STORE, lambda: health.fault)
    made.on(ATTESTORS, lambda: _attestors(tally))
    return made


def follow_socket(readiness: Readiness, path: Path) -> None:
    """Count the socket that was just bound at `path`: another one there, or none, is a fault."""
    was = _identity(path)

    def look() -> str:
        found = _identity(path)
        if found == was:
            return ""
        return f"the socket {str(path)!r} {'is gone' if found is None else 'is another one now'}: restart the agent"

    readiness.on(SOCKETS, look)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _attestors(tally: Tally) -> str:
    failing = [f"{name}: {record.failure}" for name, record in sorted(tally.records.items()) if record.failing]
    return "; ".join(failing)
