"""The roots in the bundle that are not the authority's own, or not only: since when each is there, and for how long it
is needed.

A root is published before anything under it signs, and stays while something that lives was signed under it, whatever
has become of where it came from. On disk, in `keys/upstream.json`, so that a restart forgets neither.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sojourn.authority import key_files
from sojourn.authority.x509_profile import key_id
from sojourn.errors import CannotStart, StoreFailed
from sojourn.files import atomic
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks

log = structlog.get_logger()
_BEFORE_ALL = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class PublishedRoot:
    """One root. `since`: when it came into the bundle. `until`: when the last that was signed under it will have ended.

    `given`: whether the upstream authority names it now. `tainted`: what it has signed is to be replaced. `lost`: that
    is so since the upstream authority has revoked it, and it leaves the bundle as soon as another signs.
    """

    certificate: x509.Certificate
    since: datetime
    until: datetime = _BEFORE_ALL
    given: bool = False
    tainted: bool = False
    lost: bool = False

    @property
    def id(self) -> str:
        """The authority ID."""
        return key_id(self.certificate)


class PublishedRoots:
    """Those of one authority. What is said of them is on disk when a method returns; each raises StoreFailed."""

    def __init__(self, path: Path, clock: Clock, lead: timedelta | None) -> None:
        """`lead`: for how long a root is published before anything under it signs; None: there is no upstream authority
        any more, and it is as it was. Raise CannotStart if what lies there cannot be used.
        """
        self.on_change: Hooks[[]] = Hooks()  # of which roots there are, and which are tainted
        self.revoked: frozenset[str] = frozenset()  # authority IDs that do not come back, whoever names them
        self.switched = False  # whether an upstream authority's intermediate has signed: the own root does not any more
        self._path = path
        self._clock = clock
        self._roots: tuple[PublishedRoot, ...] = ()
        self._lead = timedelta(0)
        self._boot: dict[bytes, tuple[float, float]] = {}  # by the boot clock: published since, needed until
        self.found = self._load()
        self._lead = self._lead if lead is None else lead

    @property
    def all(self) -> tuple[PublishedRoot, ...]:
        return self._roots

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        return tuple(each.certificate for each in self._roots)

    @property
    def tainted(self) -> frozenset[str]:
        """The authority IDs of those that are."""
        return frozenset(each.id for each in self._roots if each.tainted)

    def begin(self, own: Iterable[x509.Certificate], longest: timedelta) -> None:
        """An upstream authority takes over from an own root, whose SVIDs live for `longest` at the most."""
        now = self._clock.now()
        made = (PublishedRoot(each, _BEFORE_ALL, min(now + longest, each.not_valid_after_utc)) for each in own)
        self._keep(tuple(made))

    def give(
        self, certificates: Iterable[x509.Certificate], tainted: Collection[str] = (), *, gone_is_revoked: bool = False
    ) -> None:
        """The upstream authority names these roots, and no others. `tainted`: authority IDs of those that it taints.

        `gone_is_revoked`: whether one that it named before and not any more, though it has not ended, is revoked there.
        """
        named = {_der(each): each for each in certificates if key_id(each) not in self.revoked}
        known = {_der(each.certificate) for each in self._roots}
        now = self._clock.now()
        roots = [_named(each, named, tainted) for each in self._roots]
        if gone_is_revoked:
            roots = [
                replace(each, tainted=True, lost=True) if _is_gone(before, each, now) else each
                for before, each in zip(self._roots, roots, strict=True)
            ]
        fresh = [
            PublishedRoot(each, now, given=True, tainted=key_id(each) in tainted)
            for der, each in named.items()
            if der not in known
        ]
        for each in fresh:
            log.info(
                "upstream_root_published", authority_id=each.id, not_after=_moment(each.certificate.not_valid_after_utc)
            )
        if (*roots, *fresh) != self._roots:
            self._keep((*roots, *fresh))

    def publish(self, certificate: x509.Certificate) -> None:
        """Have an own root in the bundle from now on, if it is not there."""
        if _der(certificate) not in {_der(each.certificate) for each in self._roots}:
            self._keep((*self._roots, PublishedRoot(certificate, self._clock.now())))

    def need(self, root_id: str, until: datetime) -> None:
        """Something is about to sign under a root, which ends at `until`."""
        self.switched = self.switched or any(each.given for each in self._roots if each.id == root_id)
        self._keep(
            tuple(replace(each, until=max(each.until, until)) if each.id == root_id else each for each in self._roots)
        )

    def known_in(self, root_id: str) -> timedelta:
        """For how long a root is to be published yet before anything under it signs: for ever, if it is not there."""
        found = [self._known_in(each) for each in self._roots if each.id == root_id]
        return min(found, default=timedelta.max)

    def is_lost(self, root_id: str) -> bool:
        """Whether a root is revoked at the upstream authority: nobody else takes what is below it."""
        return any(each.id == root_id and each.lost for each in self._roots)

    def taint(self, root_id: str) -> None:
        """What a root has signed is not to be trusted any more."""
        self._keep(tuple(replace(each, tainted=True) if each.id == root_id else each for each in self._roots))

    def revoke(self, root_id: str) -> None:
        """Take a root out of the bundle for good: it does not come back by being named."""
        self.revoked |= {root_id}
        self._keep(tuple(each for each in self._roots if each.id != root_id))

    def drop(self, root_id: str) -> None:
        """Take a root out of the bundle, whatever needs it."""
        if any(each.id == root_id for each in self._roots):
            self._keep(tuple(each for each in self._roots if each.id != root_id))

    def forget_unneeded(self, besides: Collection[str] = ()) -> None:
        """Take those out that nobody names, and under which nothing lives. `besides`: authority IDs that stay too."""
        kept = tuple(each for each in self._roots if each.given or each.id in besides or self._is_needed(each))
        if kept != self._roots:
            for each in self._roots:
                if each not in kept:
                    log.info("upstream_root_gone", authority_id=each.id)
            self._keep(kept)

    def next_change(self, besides: Collection[str] = ()) -> datetime | None:
        """When there may be something to forget; `besides` as there."""
        now = self._clock.now()
        ending = [each for each in self._roots if not each.given and each.id not in besides]
        return min(
            (now if each.lost else max(each.until, now + self._needed_for(each)) for each in ending), default=None
        )

    def _known_in(self, root: PublishedRoot) -> timedelta:
        """By the boot clock, so that a wall clock that is set neither shortens nor prolongs it. Where something was
        signed already, nothing is left.
        """
        if root.until > _BEFORE_ALL:
            return timedelta(0)
        return max(timedelta(0), self._lead - self._shown_for(root))

    def _shown_for(self, root: PublishedRoot) -> timedelta:
        return timedelta(seconds=self._clock.boot() - self._boot[_der(root.certificate)][0])

    def _needed_for(self, root: PublishedRoot) -> timedelta:
        left = self._boot[_der(root.certificate)][1] - self._clock.boot()
        return timedelta(seconds=max(0.0, left))

    def _is_needed(self, root: PublishedRoot) -> bool:
        if root.lost:
            return False
        return root.until > self._clock.now() or bool(self._needed_for(root))

    def _keep(self, roots: tuple[PublishedRoot, ...]) -> None:
        before = _shown(self._roots)
        told = {
            "switched": self.switched,
            "revoked": sorted(self.revoked),
            "lead_seconds": self._lead.total_seconds(),
            "roots": [
                {
                    "certificate": each.certificate.public_bytes(Encoding.PEM).decode(),
                    "since": each.since.timestamp(),
                    "until": each.until.timestamp(),
                    "given": each.given,
                    "tainted": each.tainted,
                    "lost": each.lost,
                }
                for each in roots
            ],
        }
        try:
            atomic.write(self._path, json.dumps(told, indent=1).encode() + b"\n")
        except OSError as error:
            raise StoreFailed(
                f"the roots of the bundle cannot be written: {error.strerror}", detail=str(self._path)
            ) from error
        self._hold(roots)
        if before != _shown(roots):
            self.on_change.tell()

    def remove(self) -> None:
        """Nothing is left of an upstream authority: forget that there was one."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreFailed(f"{str(self._path)!r} cannot be removed: {error.strerror}") from error

    def _hold(self, roots: tuple[PublishedRoot, ...]) -> None:
        now, boot = self._clock.now(), self._clock.boot()
        held, self._boot = self._boot, {}
        for each in roots:
            der = _der(each.certificate)
            shown = max(0.0, (now - each.since).total_seconds())
            since, until = held.get(der, (boot - shown, 0.0))
            self._boot[der] = since, max(until, boot + (each.until - now).total_seconds())
        self._roots = roots

    def _load(self) -> bool:
        content = key_files.read(self._path)
        if content is None:
            return False
        try:
            told = json.loads(content)
            roots = tuple(_root(each) for each in told["roots"])
            self.switched, self._lead = told["switched"] is True, timedelta(seconds=float(told["lead_seconds"]))
            self.revoked = frozenset(map(str, told.get("revoked", ())))
        except (KeyError, TypeError, ValueError) as error:
            raise CannotStart(
                f"{str(self._path)!r} cannot be parsed: restore it from a backup", detail=str(error)
            ) from error
        self._hold(roots)
        return True


def _root(told: dict[str, Any]) -> PublishedRoot:
    certificate = x509.load_pem_x509_certificate(told["certificate"].encode())
    since, until = (datetime.fromtimestamp(float(told[key]), UTC) for key in ("since", "until"))
    marks = (told.get(mark) is True for mark in ("given", "tainted", "lost"))
    return PublishedRoot(certificate, since, until, *marks)


def _named(root: PublishedRoot, named: Collection[bytes], tainted: Collection[str]) -> PublishedRoot:
    given = _der(root.certificate) in named
    stays = root.tainted and not (root.lost and given)  # one that is named again is not lost
    return replace(root, given=given, tainted=stays or root.id in tainted, lost=root.lost and not given)


def _is_gone(before: PublishedRoot, root: PublishedRoot, now: datetime) -> bool:
    return before.given and not root.given and now < root.certificate.not_valid_after_utc


def _shown(roots: Iterable[PublishedRoot]) -> list[tuple[bytes, bool]]:
    """What the bundle tells of them."""
    return [(_der(each.certificate), each.tainted) for each in roots]


def _moment(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
