"""Registration entries: which selectors earn which SPIFFE ID."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sojourn.attestation.selectors import Selector, text_of
from sojourn.errors import InvalidEntry, InvalidSpiffeId, quoted
from sojourn.limits import (
    DNS_NAMES_PER_ENTRY,
    ENTRY_ID_MAX_BYTES,
    ENTRY_PRIORITY_MAX,
    HINT_MAX_BYTES,
    SELECTORS_PER_ENTRY,
    SVID_TTL_MAX_SECONDS,
    SVID_TTL_MIN_SECONDS,
)
from sojourn.spiffe.ids import SpiffeId, TrustDomain

_ENTRY_ID = re.compile(r"[A-Za-z0-9._-]+")
_DNS_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_TIME_MAX = 2**53
_STORED = "failed to create entry: datastore-validation: invalid registration entry: "


@dataclass(frozen=True, slots=True)
class Entry:
    """One registration. TTLs: seconds, 0 for the agent's default. Times: seconds since the epoch, 0 for none.

    `origin` is the followed folder that it comes from; empty: it was made through the API.
    """

    id: str
    spiffe_id: SpiffeId
    parent_id: SpiffeId
    selectors: frozenset[Selector]
    x509_svid_ttl: int = 0
    jwt_svid_ttl: int = 0
    hint: str = ""
    dns_names: tuple[str, ...] = ()
    federates_with: tuple[TrustDomain, ...] = ()
    admin: bool = False
    downstream: bool = False
    store_svid: bool = False
    disable_x509_svid_prefetch: bool = False
    jwt_svid_include_jti: bool = False
    expires_at: int = 0
    revision: int = 0
    created_at: int = 0
    priority: int = 0
    origin: str = ""

    @property
    def order(self) -> tuple[int, int, int, str, str]:
        """The stated order of identities: highest priority first, then most selectors, then oldest (in seconds), then
        by SPIFFE ID, and only then by the entry's ID, which may be random.
        """
        return (-self.priority, -len(self.selectors), self.created_at, str(self.spiffe_id), self.id)

    @property
    def identity_digest(self) -> str:
        """SHA-256 over what makes an entry the same as another: SPIFFE ID, parent and selectors."""
        return identity_digest(self.spiffe_id, self.parent_id, self.selectors)


def identity_digest(spiffe_id: SpiffeId, parent_id: SpiffeId, selectors: Iterable[Selector]) -> str:
    parts = [str(spiffe_id), str(parent_id), *text_of(selectors)]
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def check(entry: Entry, trust_domain: TrustDomain) -> None:
    """Raise InvalidEntry, naming the field and the rule, unless `entry` may be registered in `trust_domain`."""
    if not _ENTRY_ID.fullmatch(entry.id):
        raise InvalidEntry(_STORED + "entry ID contains invalid characters")
    if len(entry.id) > ENTRY_ID_MAX_BYTES:
        raise InvalidEntry(_STORED + "entry ID too long")
    try:
        entry.spiffe_id.check_workload_of(trust_domain)
    except InvalidSpiffeId as error:
        raise InvalidEntry(f"invalid spiffe ID: {error.public}") from error
    if entry.parent_id.trust_domain != trust_domain:
        raise InvalidEntry(
            f"invalid parent ID: {quoted(str(entry.parent_id))} is not a member of trust domain"
            f" {quoted(trust_domain.name)}"
        )
    if not entry.parent_id.path:
        raise InvalidEntry(f"invalid parent ID: {quoted(str(entry.parent_id))} is not a node; path is empty")
    if not entry.selectors:
        raise InvalidEntry("selector list is empty")
    if len(entry.selectors) > SELECTORS_PER_ENTRY:
        raise InvalidEntry(f"more than {SELECTORS_PER_ENTRY} selectors")
    _check_ttl("x509_svid_ttl", entry.x509_svid_ttl)
    _check_ttl("jwt_svid_ttl", entry.jwt_svid_ttl)
    if len(entry.hint.encode()) > HINT_MAX_BYTES:
        raise InvalidEntry(f"hint is too long, max length is {HINT_MAX_BYTES} characters")
    check_dns_names(entry.dns_names)
    if abs(entry.priority) > ENTRY_PRIORITY_MAX:
        raise InvalidEntry(
            f"priority is {entry.priority}: it must be from -{ENTRY_PRIORITY_MAX} to {ENTRY_PRIORITY_MAX}"
        )
    if not 0 <= entry.expires_at <= _TIME_MAX:
        raise InvalidEntry("expires_at is not a time in seconds since the epoch")
    if entry.store_svid and len({selector.type for selector in entry.selectors}) > 1:
        raise InvalidEntry("selector types must be the same when store SVID is enabled")


def _check_ttl(name: str, seconds: int) -> None:
    if seconds and not SVID_TTL_MIN_SECONDS <= seconds <= SVID_TTL_MAX_SECONDS:
        raise InvalidEntry(
            f"{name} is {seconds} s: it must be from {SVID_TTL_MIN_SECONDS} s to {SVID_TTL_MAX_SECONDS} s,"
            " or 0 for the default"
        )


def check_dns_names(names: Sequence[str]) -> None:
    """Raise InvalidEntry unless these may stand in a certificate."""
    if len(names) > DNS_NAMES_PER_ENTRY:
        raise InvalidEntry(f"more than {DNS_NAMES_PER_ENTRY} DNS names")
    for name in names:
        labels = name.removeprefix("*.").split(".")
        if len(name) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in labels):
            raise InvalidEntry(f"invalid DNS name: {name[:100]!r}")
