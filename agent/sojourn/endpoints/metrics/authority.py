"""Metrics of what signs: when keys and certificates end, how many keys there are, and what was issued."""

from collections import Counter as Count
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from cryptography import x509
from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sojourn.audit.journal import Audit
from sojourn.authority.embedded_ca import JWT, WIT
from sojourn.authority.key_rotation import Slots, SlotStatus
from sojourn.authority.key_steps import X509
from sojourn.endpoints.listener.tls import Listener
from sojourn.identity.svid_issuer import SvidIssuer

ISSUED: Final = Counter(
    "sojourn_svids_issued_total", "SVIDs that were issued to workloads, or minted by operators, by kind.", ["kind"]
)
_INTERMEDIATE: Final = "intermediate"  # beside the kinds of keys: it is in memory only
_TAINTED: Final = "tainted"
_KINDS: Final = {
    f"{name}_svid_{how}": kind
    for name, kind in (("x509", X509), ("jwt", JWT), ("wit", WIT))
    for how in ("issued", "minted")
}


def count_issued(audit: Audit) -> None:
    """Count SVIDs from now on: X.509- and WIT-SVIDs when they are made, a JWT-SVID for each process that has it."""
    counters = {event: ISSUED.labels(kind) for event, kind in _KINDS.items()}

    def happened(event: str, _fields: Mapping[str, Any]) -> None:
        counter = counters.get(event)
        if counter is not None:
            counter.inc()

    audit.on_event(happened)


class SigningKeys(Protocol):
    """What signs, and its keys by their kind."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """None where a server signs: its keys are told there."""

    def slots(self, kind: str) -> Slots[Any]: ...

    @property
    def issuer(self) -> x509.Certificate | None:
        """What signs leaves now; None: nothing does."""

    @property
    def root(self) -> x509.Certificate | None:
        """The root that it chains to."""


class AuthorityMetrics(Collector):
    """The authority, what it signed that is in use, and the certificates that listeners have from files."""

    def __init__(self, authority: SigningKeys, issuing: SvidIssuer, listeners: Sequence[Listener]) -> None:
        """`listeners` grows as they are opened."""
        self._authority = authority
        self._issuing = issuing
        self._listeners = listeners

    def collect(self) -> Iterable[Metric]:
        yield from self._lives()
        yield self._keys()
        oldest = GaugeMetricFamily(
            "sojourn_svid_oldest_share",
            "How much of its life that SVID of a stream has behind it which has most; 1 while none can be issued.",
        )
        oldest.add_metric([], max(self._issuing.x509.oldest_share(), self._issuing.wit.oldest_share()))
        yield oldest
        yield from self._certificates()

    def _lives(self) -> Iterator[Metric]:
        ends = GaugeMetricFamily(
            "sojourn_authority_not_after_seconds",
            "When what signs now ends, as Unix time: x509 is the root certificate, the others are keys.",
            labels=["kind"],
        )
        lives = GaugeMetricFamily(
            "sojourn_authority_lifetime_seconds", "For how long what signs now is valid in all.", labels=["kind"]
        )
        for kind, (begins, over) in self._signing().items():
            ends.add_metric([kind], over.timestamp())
            lives.add_metric([kind], (over - begins).total_seconds())
        return iter((ends, lives))

    def _signing(self) -> dict[str, tuple[datetime, datetime]]:
        authority = self._authority
        found = {kind: authority.slots(kind).active for kind in authority.kinds if kind != X509}
        signing = {kind: (slot.created, slot.not_after) for kind, slot in found.items()}

        if (root := authority.root) is not None:
            signing[X509] = root.not_valid_before_utc, root.not_valid_after_utc
        if (issuer := authority.issuer) is not None:
            signing[_INTERMEDIATE] = (issuer.not_valid_before_utc, issuer.not_valid_after_utc)
        return signing

    def _keys(self) -> Metric:
        keys = GaugeMetricFamily(
            "sojourn_authority_keys",
            "Keys of the authority by state: prepared, active, old; tainted are of the old ones.",
            labels=["kind", "state"],
        )
        for kind in self._authority.kinds:
            slots = self._authority.slots(kind).all
            states = Count(str(slot.status) for slot in slots)
            for state in SlotStatus:
                keys.add_metric([kind, state], states[state])
            keys.add_metric([kind, _TAINTED], sum(slot.tainted for slot in slots))
        return keys

    def _certificates(self) -> Iterator[Metric]:
        ends = GaugeMetricFamily(
            "sojourn_listener_certificate_not_after_seconds",
            "When the certificate ends that a listener has from files, as Unix time.",
            labels=["door"],
        )
        lives = GaugeMetricFamily(
            "sojourn_listener_certificate_lifetime_seconds",
            "For how long the certificate is valid in all that a listener has from files.",
            labels=["door"],
        )
        for each in self._listeners:
            if each.certificate is not None:
                shown = x509.load_pem_x509_certificates(each.certificate())[0]
                ends.add_metric([each.name], shown.not_valid_after_utc.timestamp())
                lives.add_metric([each.name], (shown.not_valid_after_utc - shown.not_valid_before_utc).total_seconds())
        return iter((ends, lives))
