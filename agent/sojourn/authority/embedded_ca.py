"""The `embedded` authority: our own certificate authority, in two tiers, and our JWT keys.

On disk, in the folder `keys` (0700): `root.pem`, the root certificates and their keys, or where in a token those are;
`jwt.pem`, the JWT keys, and `jwt-rs256.pem`, those for RS256. In memory only: the intermediate, which signs the leaves
and is made anew at each start and at half of its life. Where a token makes the root, and has not done so yet, there is
none, and no intermediate either; once there is, the intermediate is on disk too if keys are sealed there, so that a
restart asks nothing of the token.

Below an upstream authority (`below.py`) that signs the intermediate, which is on disk too: `upstream.json` has the
roots of the bundle, and `intermediates.pem` the intermediates with their keys. The root here is not used then.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sojourn.authority import crl, key_files, svid_stamps, token_authority
from sojourn.authority.asking import Sleep
from sojourn.authority.below import INTERMEDIATES_FILE, Below
from sojourn.authority.bundle_making import bundle_of
from sojourn.authority.bundle_sequence import BundleSequence
from sojourn.authority.crl import RevokedLeaf
from sojourn.authority.file_root import FileRoot
from sojourn.authority.intermediates import Intermediates, Issuer
from sojourn.authority.kept_intermediates import KeptIntermediates
from sojourn.authority.key_rotation import Slots
from sojourn.authority.key_seal import KeySeal
from sojourn.authority.key_steps import X509, KeySteps
from sojourn.authority.root_lists import RootLists
from sojourn.authority.root_making import AWAITED, RootMaker, RootMaking, note_awaited
from sojourn.authority.root_signer import RootSigner
from sojourn.authority.roots import Roots, TokenRoot
from sojourn.authority.signable import check_signable
from sojourn.authority.token_authority import TokenAuthority
from sojourn.authority.upstream import UpstreamHealth, UpstreamRoot, UpstreamSetting
from sojourn.authority.upstream_roots import UpstreamRoots
from sojourn.authority.x509_profile import signer_id
from sojourn.errors import CannotStart, KeysUnavailable, Unavailable
from sojourn.jose.jws import PublicKey
from sojourn.limits import NOT_BEFORE_SLACK_SECONDS, ROOT_START_SECONDS
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import X509Svid

JWT, RS256, WIT = token_authority.JWT, token_authority.RS256, token_authority.WIT


class EmbeddedAuthority(KeySteps, TokenAuthority):
    """Signs X.509-SVIDs and JWT-SVIDs of one trust domain."""

    kind = "embedded"
    stamps = True

    def __init__(
        self,
        trust_domain: TrustDomain,
        folder: Path,
        clock: Clock,
        *,
        curve: ec.EllipticCurve,
        root_ttl: timedelta,
        issuer_ttl: timedelta,
        jwt_key_ttl: timedelta,
        jwt_key_overlap: timedelta | None = None,
        jwt_issuer: str | None = None,
        rs256: bool = False,
        wit: bool = False,
        pool: Executor | None = None,
        seal: KeySeal | None = None,
        root: Callable[[FileRoot], RootSigner] = lambda own: own,
        maker: RootMaker | None = None,
        upstream: UpstreamSetting | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Load the keys, or make them if there are none. Raise CannotStart if what lies there cannot be used.

        `curve` is that of new X.509 keys: a root that is there already keeps its own. JWT keys are P-256 (ES256).
        `jwt_key_overlap`: for how long those are published before they sign; by default an hour, or a third of
        `jwt_key_ttl`. `jwt_issuer`: the `iss` of JWT-SVIDs, if they are to have one. With `rs256` there are RSA keys
        (RS256) beside, which a thread of `pool` makes; with `wit` keys for WIT-SVIDs. `seal`: what keys are sealed
        with on disk; None: they lie there in clear. `root` makes what is asked for intermediates, of the root that is a
        file here; with one that has to be waited for, `begin` comes first. `maker`: what makes roots in a token.
        `upstream`: what signs intermediates instead of an own root. `sleep` is what pauses between tries are made of.
        """
        self.trust_domain = trust_domain
        self._clock = clock
        self._curve = curve
        self._folder = folder
        self.on_change: Hooks[[]] = Hooks()  # of the bundle
        key_files.make_folder(folder)
        had_root = (folder / "root.pem").exists()
        if (folder / "jwt.pem").exists() and not (had_root or (folder / AWAITED).exists()):
            raise CannotStart(
                f"there are JWT keys in {str(folder)!r} and no root: restore root.pem, or remove jwt.pem to begin anew"
            )
        self._sequence = BundleSequence(folder / "sequence")
        elsewhere = maker is not None
        self._roots = Roots(
            folder / "root.pem", clock, trust_domain, curve, root_ttl, seal=seal, made_elsewhere=elsewhere
        )
        note_awaited(folder, awaited=not self._roots.are_there)
        self._making = None if maker is None else RootMaking(self._roots, maker, folder, sleep)
        super().__init__(
            folder,
            clock,
            jwt_key_ttl=jwt_key_ttl,
            jwt_key_overlap=jwt_key_overlap,
            jwt_issuer=jwt_issuer,
            rs256=rs256,
            wit=wit,
            pool=pool,
            seal=seal,
        )
        self._slots: dict[str, Slots[Any]] = {X509: self._roots, **self._tokens}
        self._own = own = root(FileRoot(self._roots, clock))
        self._below = Below.of(folder, clock, trust_domain, self._roots, own, upstream, had_root=had_root, seal=seal)
        asked = own if self._below is None else self._below.root
        self._lists = RootLists(asked, clock, sleep)
        self.issuers = Intermediates(asked, trust_domain, curve, issuer_ttl, clock, sleep)
        self._asked = (self.issuers, self._lists, *(() if self._making is None else (self._making,)))
        self._kept = KeptIntermediates(folder / INTERMEDIATES_FILE, seal)
        self._keeps = maker is not None and seal is not None
        if self._below is not None:
            self._below.begin(self.issuers)
        elif self._keeps:
            self.issuers.keep(None, self._kept)
            known = {slot.id for slot in self._roots.all}
            self.issuers.take_over(each for each in self._kept.load() if each.root_id in known)
        else:
            self._kept.remove()
        if self._roots.are_there:
            self.issuers.renew_at_once()
        self._following: asyncio.Task[None] | None = None
        own_root = self.upstream is None and self._making is None  # of any other an intermediate's end is looked at
        self._needed = tuple(self._slots.values() if own_root else self._tokens.values())
        self._bundle = self._made_bundle()
        if self._below is not None:
            self._below.trust.on_change(self._publish)

    # --- what it signs ----------------------------------------------------------------------------------------------

    def issue_x509(
        self, spiffe_id: SpiffeId, ttl: timedelta, dns_names: Sequence[str] = (), entry_id: str = ""
    ) -> X509Svid:
        """Make a key and sign an X.509-SVID for it. Its life is `ttl`, or what the issuer has left if that is less."""
        key = ec.generate_private_key(self._curve)
        return X509Svid(spiffe_id, self.sign_x509(spiffe_id, key.public_key(), ttl, dns_names, entry_id), key)

    def sign_x509(
        self,
        spiffe_id: SpiffeId,
        public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        ttl: timedelta,
        dns_names: Sequence[str] = (),
        entry_id: str = "",
    ) -> tuple[x509.Certificate, ...]:
        """Sign a leaf for somebody else's key and return the chain, leaf first."""
        now = self._ready_for(spiffe_id)
        issuer = self._valid_issuer(now)
        leaf = issuer.signer.sign_leaf(
            spiffe_id,
            public_key,
            not_before=now - timedelta(seconds=NOT_BEFORE_SLACK_SECONDS),
            not_after=min(now + ttl, issuer.ends),
            dns_names=dns_names,
            serial=svid_stamps.make_serial(self.order, entry_id),
        )
        return (leaf, *issuer.chain)

    def sign_crls(self, revoked: Iterable[RevokedLeaf]) -> tuple[bytes, ...]:
        """Sign DER lists of revoked leaves; none if nothing is revoked. `on_list`: one that was waited for is there."""
        trusted = self._x509_authorities()
        roots = {slot.id for slot in self._roots.all if slot.key.certificate in trusted}
        return crl.sign(revoked, self.trust_domain, self.issuers.signers, roots, self._clock.now(), self._lists.of)

    def root_of(self, svid: X509Svid) -> str:
        """The authority ID of the root that an X.509-SVID chains to."""
        return signer_id(svid.chain[-1])

    @property
    def on_list(self) -> Hooks[[]]:
        """For those who want to hear of a list that was waited for: `sign_crls` has it."""
        return self._lists.on_signed

    @property
    def on_issuer(self) -> Hooks[[]]:
        """For those who want to hear of an intermediate that was waited for."""
        return self.issuers.on_waited

    # --- what others check it with ----------------------------------------------------------------------------------

    @property
    def bundle(self) -> Bundle:
        return self._bundle

    @property
    def jwt_keys(self) -> Mapping[str, PublicKey]:
        return self._bundle.jwt_authorities

    @property
    def root(self) -> x509.Certificate | None:
        """The root that the intermediate chains to which signs now; None: there is none yet."""
        if self._below is None:
            return self._roots.active.key.certificate if self._roots.are_there else None
        issuer = self.issuers.current
        return None if issuer is None else self._below.root_certificate(issuer.root_id)

    @property
    def below(self) -> Below | None:
        """What there is of an upstream authority."""
        return self._below

    @property
    def upstream(self) -> UpstreamHealth | None:
        """How the upstream authority is; None: there is none."""
        return None if self._below is None or self._below.upstream is None else self._below.upstream.health

    @property
    def upstream_roots(self) -> UpstreamRoots:
        """Which of the bundle's roots are the upstream authority's."""
        return UpstreamRoots(self._below, self.issuers)

    @property
    def upstream_root(self) -> UpstreamRoot | None:
        """What asks the upstream authority; None: there is none."""
        return None if self._below is None else self._below.upstream

    def key_place(self, certificate: x509.Certificate) -> str:
        """Where the private key of a certificate of the chain lives, for people."""
        if certificate == self.issuer:
            on_disk = self._keeps or self._below is not None
            return str(self._folder / INTERMEDIATES_FILE) if on_disk else "memory"
        own = next((slot.key for slot in self._roots.all if slot.key.certificate == certificate), None)
        if isinstance(own, TokenRoot):
            return own.uri
        return "above the upstream authority" if own is None else str(self._folder / "root.pem")

    @property
    def fault(self) -> str:
        """Why there is no root yet, or no next intermediate; empty: there is, or it is being asked for."""
        return ("" if self._making is None else self._making.fault) or self.issuers.fault

    @property
    def issuer(self) -> x509.Certificate | None:
        """The intermediate that signs leaves now; None: there is none yet."""
        issuer = self.issuers.current
        return None if issuer is None else issuer.chain[0]

    @property
    def whole_chain(self) -> tuple[x509.Certificate, ...]:
        """That intermediate, what is above it, and the root."""
        issuer, root = self.issuers.current, self.root
        return (*(() if issuer is None else issuer.chain), *(() if root is None else (root,)))

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        """The intermediates that have signed leaves which may still be good."""
        return tuple(certificate for issuer in self.issuers.alive for certificate in issuer.chain)

    # --- upkeep -----------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Begin to sign: wait for the first intermediate for a while, if the root has to be waited for."""
        if self._below is not None and self._below.upstream is not None:
            looking = self._below.upstream.follow(self.issuers.on_waited.tell, self.issuers.hurry)
            self._following = asyncio.ensure_future(looking)
        self.maintain()
        if self._making is not None and not self._roots.are_there:
            await self._making.wait(ROOT_START_SECONDS)
        if self._below is not None:
            await self._below.bridge(self.issuers)
        if self.issuers.current is None:
            await self.issuers.wait(ROOT_START_SECONDS)

    def hurry(self) -> None:
        """Ask the root at once for what it did not give: there is reason to think that it does now."""
        for each in self._asked:
            each.hurry()

    async def close(self) -> None:
        """Ask the root for nothing any more."""
        if self.upstream_root is not None:
            self.upstream_root.health.over = True
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        for each in self._asked:
            await each.close()
        if self.upstream_root is not None:
            await self.upstream_root.upstream.close()

    def maintain(self) -> timedelta:
        """Renew what is past half of its life and return how long until the next look is due.

        What the root has to be waited for comes behind it: `on_issuer` tells.
        """
        now = self._clock.now()
        changed = [slots.maintain() for slots in self._slots.values()]
        if self._below is not None and self._below.tend(self.issuers):
            self._below, changed = None, [True]
            self.issuers.keep(None, self._kept if self._keeps else None)
        if self._making is not None:
            self._making.look(self._made)
        self._look()
        if any(changed):
            self._publish()
        due = [slots.next_change for slots in self._slots.values()]
        due += [] if self._below is None else self._below.due(self.issuers)
        due += [] if self.issuers.next_change is None else [self.issuers.next_change]
        return max(min(due) - now, timedelta(seconds=1))

    def _look(self) -> None:
        """Have an intermediate, unless there is nothing yet that could sign one."""
        if self._roots.are_there or self.upstream is not None:
            self.issuers.look()

    def _made(self) -> None:
        """A token has made a root."""
        self._publish()
        self._look()
        self.on_issuer.tell()

    def _ready_for(self, spiffe_id: SpiffeId) -> datetime:
        """The time to sign at: what a clock's step, or a long sleep, has left useless before its upkeep is renewed."""
        check_signable(spiffe_id, self.trust_domain)
        now = self._clock.now()
        if any(slots.active.not_after <= now for slots in self._needed):
            self._maintain_for_caller()
        return now

    def _valid_issuer(self, now: datetime) -> Issuer:
        """The intermediate to sign by. Raise Unavailable if the root has to be waited for, and there is none."""
        issuer = self.issuers.current
        if issuer is None or not issuer.is_valid(now):
            self._maintain_for_caller()
            issuer = self.issuers.current
        if issuer is None or issuer.ends <= now:
            raise (Unavailable if self._making is None else KeysUnavailable)(
                "there is no valid intermediate to sign X.509-SVIDs by; `sojourn authority show` tells operators why",
                detail=self.fault,
            )
        return issuer

    def _maintain_for_caller(self) -> None:
        try:
            self.maintain()
        except CannotStart as error:  # the root has ended
            raise Unavailable(error.public) from error

    def _publish(self) -> None:
        self._bundle = self._made_bundle()
        self.on_change.tell()

    def _x509_authorities(self) -> tuple[x509.Certificate, ...]:
        if self._below is not None:
            return self._below.certificates()
        return tuple(slot.key.certificate for slot in self._roots.all)

    def _made_bundle(self) -> Bundle:
        tainted = frozenset().union(*(slots.tainted for slots in self._slots.values()), self.upstream_roots.tainted)
        roots, now = self._x509_authorities(), self._clock.now()
        return bundle_of(self.trust_domain, roots, self._tokens, tainted, self._sequence, now)
