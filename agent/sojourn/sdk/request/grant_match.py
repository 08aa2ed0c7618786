"""Which of a task's grants a URL belongs to. All is compared byte for byte, and what is in doubt belongs nowhere.

A grant's resource is an origin, or an origin and a path: it covers the URLs of that origin whose path begins with its
path and ends there or goes on with a slash.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import unquote_to_bytes

from sojourn.errors import InvalidInput, quoted
from sojourn.limits import AUDIENCE_MAX_BYTES, REQUEST_TARGET_MAX_BYTES
from sojourn.tasktoken.grants import Grant

_PORTS: Final = {"http": "80", "https": "443"}
_DECODED_MAX: Final = 4  # how often a path may be percent-encoded over itself
_CONTROLS: Final = frozenset((*range(0x20), 0x7F))  # some parsers leave them out, and find a path of two dots then
# A dot, a slash and a backslash in more bytes than UTF-8 allows, which some decoders take nonetheless.
_OVERLONG: Final = (b"\xc0\xae", b"\xc0\xaf", b"\xc1\x9c", b"\xe0\x80\xae", b"\xe0\x80\xaf", b"\xe0\x81\x9c")


@dataclass(frozen=True, slots=True)
class UrlPlace:
    """The parts of an http or https URL, as written."""

    scheme: str
    authority: str
    target: str  # path and query; '' if the URL ends with its authority

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """None for what is no such URL: another scheme, user information, a fragment, anything not printable ASCII."""
        scheme, found, rest = url.partition("://")
        if not found or scheme not in _PORTS or not _clean(url):
            return None
        ends = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
        authority = rest[:ends]
        if not authority or any(each in authority for each in "@\\%,;"):
            return None
        return cls(scheme, authority, rest[ends:])

    @property
    def origin(self) -> str:
        """As written: what is before the path."""
        return f"{self.scheme}://{self.authority}"

    @property
    def path(self) -> str:
        """Without the query; at least a slash."""
        return self.target.partition("?")[0] or "/"

    @property
    def endpoint(self) -> str:
        """HOST:PORT, the port said even where it is the scheme's own; the host as written."""
        host, port = split_port(self.authority)
        return f"{host}:{port or _PORTS[self.scheme]}"


def origin_of(url: str) -> str:
    """An http or https origin, its host in small letters. Raise InvalidInput for what is more or less than that."""
    place = UrlPlace.parse(url)
    if place is None or place.target not in {"", "/"} or not _has_host(place):
        raise InvalidInput(f"{quoted(url)} is no origin: write it as https://api.example.org or http://127.0.0.1:8080")
    return f"{place.scheme}://{place.authority.lower()}"


def _has_host(place: UrlPlace) -> bool:
    host, port = split_port(place.endpoint)
    return bool(host.strip("[]")) and port.isdecimal() and 0 < int(port) < 65536


def find(grants: Iterable[Grant], url: str) -> Grant | None:
    """The grant that a URL belongs to: of several the one with the longest path."""
    place = UrlPlace.parse(url)
    if place is None:
        return None
    return _longest(((grant, place.origin) for grant in grants), place.target)


def find_at(grants: Iterable[Grant], scheme: str, endpoint: str, target: str) -> Grant | None:
    """The same for who knows the URL's HOST:PORT, and not whether its default port was written."""
    origins = ((grant, UrlPlace.parse(grant.resource)) for grant in grants)
    named = ((grant, at.origin) for grant, at in origins if at and (at.scheme, at.endpoint) == (scheme, endpoint))
    return _longest(named, target)


def url_of(grant: Grant, target: str) -> str:
    """The URL of a request that belongs to a grant: the grant's origin, as written, and what the request names."""
    place = UrlPlace.parse(grant.resource)
    return (place.origin if place else grant.resource) + (target if target.startswith("/") else "/" + target)


def endpoints(grants: Iterable[Grant], scheme: str) -> frozenset[str]:
    """Every HOST:PORT that a task has something at, by this scheme."""
    places = (UrlPlace.parse(grant.resource) for grant in grants)
    return frozenset(place.endpoint for place in places if place is not None and place.scheme == scheme)


def split_port(authority: str) -> tuple[str, str]:
    """Host, and port if there is one. The host of an IPv6 address keeps its brackets."""
    if authority.startswith("["):
        host, bracket, rest = authority.partition("]")
        return host + bracket, rest.removeprefix(":")
    host, _, port = authority.partition(":")
    return host, port


def _longest(candidates: Iterable[tuple[Grant, str]], target: str) -> Grant | None:
    if not _sound(target):
        return None
    path = target.partition("?")[0] or "/"
    best: tuple[int, Grant] | None = None
    for grant, origin in candidates:
        place = UrlPlace.parse(grant.resource)
        if place is None or place.origin != origin or "?" in place.target:
            continue
        prefix = place.target.rstrip("/")
        if (path == prefix or path.startswith(prefix + "/")) and (best is None or len(prefix) > best[0]):
            best = len(prefix), grant
    return best[1] if best is not None else None


def _sound(target: str) -> bool:
    """Whether everybody who reads a target finds the same path in it: no segment of it, however often it is decoded,
    leads upwards, and no server can take a part of it for a separator.
    """
    if (target and target[0] not in "/?") or not _clean(target, REQUEST_TARGET_MAX_BYTES):
        return False
    path = target.partition("?")[0].encode()
    for _ in range(_DECODED_MAX):
        parts = path.replace(b"\\", b"/").split(b"/")
        if any(part.partition(b";")[0].strip(b" ") in {b".", b".."} for part in parts):
            return False
        if not _CONTROLS.isdisjoint(path) or any(each in path for each in _OVERLONG):
            return False
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return True
        path = decoded
    return False


def _clean(text: str, most: int = AUDIENCE_MAX_BYTES + REQUEST_TARGET_MAX_BYTES) -> bool:
    return len(text) <= most and "#" not in text and all("!" <= each <= "~" for each in text)
