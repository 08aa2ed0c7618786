"""SPIFFE IDs and trust domains (SPIFFE-ID.md).

Both are made only by parsing, compared byte for byte, and never normalised. The grammar is an allow list of bytes.
"""

from dataclasses import dataclass
from typing import Self

from sojourn.errors import InvalidSpiffeId, quoted
from sojourn.limits import SPIFFE_ID_MAX_BYTES, TRUST_DOMAIN_MAX_BYTES

SCHEME = "spiffe://"
SERVER_PATH = "/spire/server"  # of a server's SPIFFE ID, as SPIRE has it
AGENT_PATH = "/spire/agent/"  # before what names one of its nodes
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")
_SEGMENT = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_RESERVED = "/spire"


def _check_trust_domain(name: str) -> None:
    if not name:
        raise InvalidSpiffeId("trust domain is missing")
    if not _LOWER.issuperset(name):
        raise InvalidSpiffeId(
            "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"
        )
    if len(name) > TRUST_DOMAIN_MAX_BYTES:
        raise InvalidSpiffeId(f"trust domain is longer than {TRUST_DOMAIN_MAX_BYTES} bytes")


def check_path(path: str) -> None:
    """Raise InvalidSpiffeId unless `path` is empty or `/segment/…` by SPIFFE-ID.md 2.2."""
    if not path:
        return
    if path[0] != "/":
        raise InvalidSpiffeId("path must have a leading slash")
    segments = path[1:].split("/")
    for position, segment in enumerate(segments):
        if not segment:
            last = position == len(segments) - 1
            raise InvalidSpiffeId("path cannot have a trailing slash" if last else "path cannot contain empty segments")
        if segment in {".", ".."}:
            raise InvalidSpiffeId("path cannot contain dot segments")
        if not _SEGMENT.issuperset(segment):
            raise InvalidSpiffeId(
                "path segment characters are limited to letters, numbers, dots, dashes, and underscores"
            )


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """A trust domain, such as `example.org`."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `example.org` or any SPIFFE ID in it (SPIFFE-ID.md 2.1)."""
        if ":/" in text:  # not `://`, so that a typo in the scheme gets the message about the scheme
            return cls(SpiffeId.parse(text).trust_domain.name)
        _check_trust_domain(text)
        return cls(text)

    @property
    def id(self) -> "SpiffeId":
        """The ID of the trust domain itself, `spiffe://example.org`."""
        return SpiffeId(self, "")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A SPIFFE ID: a trust domain and a path, which is empty or begins with a slash."""

    trust_domain: TrustDomain
    path: str

    def __hash__(self) -> int:  # as the dataclass's own, without a call for the trust domain's
        return hash((self.trust_domain.name, self.path))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `spiffe://trust-domain/path` (SPIFFE-ID.md 2). Raise InvalidSpiffeId with the rule that it breaks."""
        if not text:
            raise InvalidSpiffeId("cannot be empty")
        if not text.startswith(SCHEME):
            raise InvalidSpiffeId("scheme is missing or invalid")
        rest = text[len(SCHEME) :]
        slash = rest.find("/")
        name, path = (rest, "") if slash < 0 else (rest[:slash], rest[slash:])
        _check_trust_domain(name)
        check_path(path)
        if len(text) > SPIFFE_ID_MAX_BYTES:
            raise InvalidSpiffeId(f"longer than {SPIFFE_ID_MAX_BYTES} bytes")
        return cls(TrustDomain(name), path)

    @classmethod
    def from_parts(cls, trust_domain: str, path: str) -> Self:
        """Make an ID of a trust domain name and a path with its leading slash."""
        _check_trust_domain(trust_domain)
        check_path(path)
        return cls.parse(f"{SCHEME}{trust_domain}{path}")

    def check_workload_of(self, trust_domain: TrustDomain) -> None:
        """Raise InvalidSpiffeId unless a workload of `trust_domain` may have this ID."""
        if self.trust_domain != trust_domain:
            raise InvalidSpiffeId(f"{quoted(str(self))} is not a member of trust domain {quoted(trust_domain.name)}")
        if not self.path:
            raise InvalidSpiffeId(
                f"{quoted(str(self))} is not a workload in trust domain {quoted(trust_domain.name)}; path is empty"
            )
        if self.path == _RESERVED or self.path.startswith(_RESERVED + "/"):
            raise InvalidSpiffeId(
                f"{quoted(str(self))} is not a workload in trust domain {quoted(trust_domain.name)};"
                " path is in the reserved namespace"
            )

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain.name}{self.path}"
