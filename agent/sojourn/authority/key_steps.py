"""The steps of an authority's keys, as operators take them one at a time by SPIRE's names: prepared to revoked."""

from abc import ABC, abstractmethod
from typing import Any, Final

from cryptography import x509

from sojourn.authority import token_authority
from sojourn.authority.below import Below
from sojourn.authority.intermediates import Intermediates
from sojourn.authority.key_rotation import Slot, Slots
from sojourn.authority.root_making import RootMaking
from sojourn.authority.root_signer import RootSigner
from sojourn.authority.root_tests import RootTest, try_root
from sojourn.authority.upstream import UpstreamHealth
from sojourn.errors import FailedPrecondition, Unimplemented

X509: Final = "x509"


class KeySteps(ABC):
    """Keys by their kind. Whatever changes is published."""

    issuers: Intermediates
    _slots: dict[str, Slots[Any]]
    _making: RootMaking | None  # what has a token make roots
    _below: Below | None
    _own: RootSigner  # what signs by roots of our own

    @property
    @abstractmethod
    def upstream(self) -> UpstreamHealth | None:
        """How the upstream authority is; None: there is none."""

    @abstractmethod
    def key_place(self, certificate: x509.Certificate) -> str:
        """Where the private key of a certificate of the chain lives, for people."""

    @abstractmethod
    def _publish(self) -> None:
        """Have the bundle as the keys are by now."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of keys that there are."""
        return tuple(self._slots)

    def slots(self, kind: str) -> Slots[Any]:
        """The keys of one kind. Raise Unimplemented if this agent has none of it."""
        if kind not in self._slots:
            raise Unimplemented(token_authority.SWITCHED_OFF.get(kind, "there are no keys of this kind"))
        return self._slots[kind]

    def prepare(self, kind: str) -> Slot[Any]:
        """Make the next key of a kind and publish it in the bundle."""
        return self._changed(self._steps(kind).prepare())

    async def prepare_waited(self, kind: str) -> Slot[Any]:
        """The same, also where a token has to make the key first. Raise Unavailable if it does not in time."""
        if kind != X509 or self._making is None:
            return self.prepare(kind)
        self._steps(kind)
        return self._changed(await self._making.prepare())

    async def activate(self, kind: str, authority_id: str) -> Slot[Any]:
        """Let the prepared key sign. What the one before has signed stays good, and is replaced in its time.

        Raise Unavailable if a root does not sign its first intermediate in time: nothing was changed.
        """
        slots = self._steps(kind)
        if kind != X509:
            return self._changed(slots.activate(authority_id))
        slots.check_prepared(authority_id)
        issuer = await self.issuers.under(authority_id)
        slot = slots.activate(authority_id)
        self.issuers.use(issuer)
        return self._changed(slot)

    def taint(self, kind: str, authority_id: str) -> Slot[Any]:
        """Mark an old key: what it signed must be replaced. A root that an upstream authority has followed is old."""
        slots = self.slots(kind)
        if kind == X509 and self.upstream is not None:
            self._check_unused(authority_id)
            return self._changed(slots.replace(authority_id))
        return self._changed(slots.taint(authority_id))

    def replace(self, kind: str, authority_id: str) -> Slot[Any]:
        """Taint a key, also the one that signs: then the next one does at once. A root must be old by then."""
        if kind == X509:
            return self.taint(kind, authority_id)
        return self._changed(self.slots(kind).replace(authority_id))

    def revoke(self, kind: str, authority_id: str) -> Slot[Any]:
        """Take a tainted key out of the bundle: nothing that it signed verifies any more."""
        slot = self.slots(kind).revoke(authority_id)
        if kind == X509 and self._below is not None:
            self._below.revoked(authority_id)
        return self._changed(slot)

    async def try_roots(self) -> tuple[RootTest, ...]:
        """Have the key of each root sign something that is of no use to anybody. Raise KeysUnavailable if there is none
        yet.
        """
        self.slots(X509).active  # noqa: B018  # raises
        certificates = [(slot.key.certificate, slot.status) for slot in self.slots(X509).all]
        return tuple([await try_root(each, status, self.key_place(each), self._own) for each, status in certificates])

    def _check_unused(self, root_id: str) -> None:
        """Raise FailedPrecondition for an own root that signs still, as the upstream authority has not followed yet."""
        issuer = self.issuers.current
        if issuer is not None and issuer.root_id == root_id:
            raise FailedPrecondition("the root signs still: the upstream authority has not followed it yet")

    def _steps(self, kind: str) -> Slots[Any]:
        """The keys of a kind, of which the next is to sign. Raise FailedPrecondition for a root that does not."""
        slots = self.slots(kind)
        if kind == X509 and self.upstream is not None:
            raise FailedPrecondition(
                "X.509-SVIDs are signed below an upstream authority: change its keys there, and the agent follows"
            )
        return slots

    def _changed(self, slot: Slot[Any]) -> Slot[Any]:
        self._publish()
        return slot
