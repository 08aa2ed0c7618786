"""Registration entries: which selectors earn which SPIFFE ID."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sojourn.attestation.selectors import Selector, text_of
from sojourn.errors import Bug, CannotStart, InvalidEntry, SojournError, quoted, told_as
from sojourn.identity.custom_claims import NO_CLAIMS, JwtClaims
from sojourn.identity.templates import IdTemplate, Placeholder, Unfilled, values_of
from sojourn.limits import (
    DNS_NAMES_PER_ENTRY,
    ENTRY_ID_MAX_BYTES,
    ENTRY_PRIORITY_MAX,
    HINT_MAX_BYTES,
    SELECTORS_PER_ENTRY,
    SVID_TTL_MAX_SECONDS,
    SVID_TTL_MIN_SECONDS,
)
from sojourn.settings.owners import check_owner
from sojourn.spiffe.ids import SpiffeId, TrustDomain

_ENTRY_ID = re.compile(r"[A-Za-z0-9._-]+")
_DNS_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_TIME_MAX = 2**53
_STORED = "failed to create entry: datastore-validation: invalid registration entry: "


@dataclass(frozen=True, slots=True)
class IdentityKey:
    """One identity: an entry with a template has many, of one SPIFFE ID each. Its hash is made once: it is looked up a
    dozen times in each call.
    """

    entry_id: str
    spiffe_id: SpiffeId
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.entry_id, self.spiffe_id)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Registration:
    """What is registered. TTLs: seconds, 0 for the agent's default. Times: seconds since the epoch, 0 for none.

    `spiffe_id` and `jwt_claims` may hold placeholders: what a caller has by it is an Entry, which `expand` makes.
    `origin` is the followed folder that it comes from; empty: it was made through the API. `owner` and `sponsor` say
    who is responsible for it, for people; empty: nobody is named.
    """

    id: str
    spiffe_id: SpiffeId | IdTemplate
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
    jwt_claims: JwtClaims = NO_CLAIMS
    owner: str = ""
    sponsor: str = ""

    @property
    def placeholders(self) -> tuple[Placeholder, ...]:
        """What must be attested beside the selectors, so that there is anything to give."""
        own = self.spiffe_id.placeholders if isinstance(self.spiffe_id, IdTemplate) else ()
        return own + self.jwt_claims.placeholders

    def expand(self, selectors: frozenset[Selector], untold: frozenset[str] = frozenset()) -> "Entry | Unfilled":
        """What a caller that has all its selectors, among these, has by it; or why that is nothing.

        `untold`: types and kinds of selectors of which it may have others too.
        """
        if isinstance(self, Entry) and not self.jwt_claims.placeholders:
            return self
        values = values_of(self.placeholders, selectors, untold)
        if isinstance(values, Unfilled):
            return values
        spiffe_id = self.spiffe_id.fill(values) if isinstance(self.spiffe_id, IdTemplate) else self.spiffe_id
        jwt_claims = self.jwt_claims.fill(values)
        for made in (spiffe_id, jwt_claims):
            if isinstance(made, Unfilled):
                return made
        return Entry(**{**_fields(self), "spiffe_id": spiffe_id, "jwt_claims": jwt_claims})

    def expanded_to(self, spiffe_id: SpiffeId) -> "Entry | None":
        """The entry of a workload that is known by its SPIFFE ID alone, if it may have that by this registration.

        Claims keep their placeholders, so that nothing is signed with them.
        """
        if not isinstance(self.spiffe_id, IdTemplate):
            return self if isinstance(self, Entry) and self.spiffe_id == spiffe_id else None
        return self.named(spiffe_id) if self.spiffe_id.makes(spiffe_id) else None

    def named(self, spiffe_id: SpiffeId) -> "Entry":
        """The entry for a SPIFFE ID that this is known to make."""
        return Entry(**{**_fields(self), "spiffe_id": spiffe_id})

    @property
    def order(self) -> tuple[int, int, int, str, str]:
        """The stated order of identities: highest priority first, then most selectors, then oldest (in seconds), then
        by SPIFFE ID, and only then by the entry's ID, which may be random.
        """
        return (-self.priority, -len(self.selectors), self.created_at, str(self.spiffe_id), self.id)

    @property
    def identity_digest(self) -> str:
        """SHA-256 over what makes an entry the same as another: SPIFFE ID, parent and selectors."""
        parts = [str(self.spiffe_id), str(self.parent_id), *text_of(self.selectors)]
        return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry(Registration):
    """A registration whose SPIFFE ID is said outright, or has been filled in for one caller: one identity.

    What is signed is made of this and of nothing else.
    """

    spiffe_id: SpiffeId
    key: IdentityKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.spiffe_id, SpiffeId):
            raise Bug("an entry would have had a SPIFFE ID that was not filled in")
        object.__setattr__(self, "key", IdentityKey(self.id, self.spiffe_id))


def registration(given: Mapping[str, Any]) -> Registration:
    """Make a registration of its fields: an Entry if its SPIFFE ID is said outright."""
    return Registration(**given) if isinstance(given["spiffe_id"], IdTemplate) else Entry(**given)


def changed(old: Registration, changes: Mapping[str, Any]) -> Registration:
    """The registration with other values in some fields."""
    return registration({**_fields(old), **changes})


def _fields(of: Registration) -> dict[str, Any]:
    return {each.name: getattr(of, each.name) for each in fields(of) if each.init}


def check(entry: Registration, trust_domain: TrustDomain) -> None:
    """Raise InvalidEntry, naming the field and the rule, unless `entry` may be registered in `trust_domain`."""
    if not _ENTRY_ID.fullmatch(entry.id):
        raise InvalidEntry(_STORED + "entry ID contains invalid characters")
    if len(entry.id) > ENTRY_ID_MAX_BYTES:
        raise InvalidEntry(_STORED + "entry ID too long")
    with told_as(InvalidEntry, "invalid spiffe ID"):
        entry.spiffe_id.check_workload_of(trust_domain)
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
    _check_owner("owner", entry.owner)
    _check_owner("sponsor", entry.sponsor)
    if abs(entry.priority) > ENTRY_PRIORITY_MAX:
        raise InvalidEntry(
            f"priority is {entry.priority}: it must be from -{ENTRY_PRIORITY_MAX} to {ENTRY_PRIORITY_MAX}"
        )
    if not 0 <= entry.expires_at <= _TIME_MAX:
        raise InvalidEntry("expires_at is not a time in seconds since the epoch")
    if entry.store_svid and len({selector.type for selector in entry.selectors}) > 1:
        raise InvalidEntry("selector types must be the same when store SVID is enabled")


def check_for_nodes(entry: Registration) -> None:
    """Raise InvalidEntry for what a server cannot give its nodes: what placeholders stand for is known to them alone,
    so that a stolen node could have any value of theirs.
    """
    if entry.placeholders:
        raise InvalidEntry(
            "a server gives no entries with placeholders to its nodes: say the SPIFFE ID and the claims outright"
        )


def check_served(entry: Registration, trust_domain: TrustDomain) -> None:
    """Raise InvalidSpiffeId or InvalidEntry for what may not be served in a trust domain, whoever has registered it."""
    entry.spiffe_id.check_workload_of(trust_domain)
    if not entry.selectors:
        raise InvalidEntry("selector list is empty")


def check_stored(entry: Registration, trust_domain: TrustDomain) -> None:
    """Raise CannotStart for an entry that no agent of this trust domain has kept, as where its keys were moved away and
    its trust domain was changed: what it says would be signed.
    """
    try:
        check_served(entry, trust_domain)
    except SojournError as error:
        raise CannotStart(
            f"the database's entry {quoted(entry.id)} is none of this agent's: {error.public}; use another --data-dir"
            " for another trust domain, or restore it from a backup"
        ) from error


def _check_ttl(name: str, seconds: int) -> None:
    if seconds and not SVID_TTL_MIN_SECONDS <= seconds <= SVID_TTL_MAX_SECONDS:
        raise InvalidEntry(
            f"{name} is {seconds} s: it must be from {SVID_TTL_MIN_SECONDS} s to {SVID_TTL_MAX_SECONDS} s,"
            " or 0 for the default"
        )


def _check_owner(name: str, text: str) -> None:
    try:
        check_owner(text)
    except ValueError as error:
        raise InvalidEntry(f"{name} {error}") from error


def check_dns_names(names: Sequence[str]) -> None:
    """Raise InvalidEntry unless these may stand in a certificate."""
    if len(names) > DNS_NAMES_PER_ENTRY:
        raise InvalidEntry(f"more than {DNS_NAMES_PER_ENTRY} DNS names")
    for name in names:
        labels = name.removeprefix("*.").split(".")
        if len(name) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in labels):
            raise InvalidEntry(f"invalid DNS name: {name[:100]!r}")
