"""What the tokens of one issuer must be, and which workload may bring which of them. Values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from sojourn.settings.people import PeopleConfig, PresenterConfig
from sojourn.spiffe.ids import SCHEME, SpiffeId

# By which an access token says to which client it was given: RFC 9068 and others, Entra, Okta.
PARTIES: Final = ("azp", "client_id", "appid", "cid")


@dataclass(frozen=True, slots=True)
class Presenter:
    """Workloads, and the tokens that they may bring. Each is judged by its own lists, never by another's."""

    workloads: frozenset[str]
    id_token_audiences: frozenset[str]
    access_token_audiences: frozenset[str]
    authorized_parties: frozenset[str]
    id_jag_clients: frozenset[str]

    @classmethod
    def of(cls, table: PresenterConfig) -> Self:
        return cls(
            frozenset(table.workloads),
            frozenset(table.id_token_audiences),
            frozenset(table.access_token_audiences),
            frozenset(table.authorized_parties),
            frozenset(table.id_jag_clients),
        )

    def names(self, workload: SpiffeId) -> frozenset[str]:
        """What an issuer may call one of these workloads: its SPIFFE ID, its clients, and what it is as a resource."""
        return self.id_token_audiences | self.access_token_audiences | {str(workload)}

    def client_names(self, workload: SpiffeId) -> frozenset[str]:
        """What an issuer may call one of these workloads as a client of ours, in an ID-JAG. A SPIFFE ID is nobody
        else's, also where the table has several workloads.
        """
        own = str(workload)
        return frozenset({own, *(each for each in self.id_jag_clients if not each.startswith(SCHEME))})

    def misfit_of_id_token(self, audiences: tuple[str, ...], claims: Mapping[str, Any]) -> str:
        """Why an ID token was not given to these workloads (OpenID Connect Core 3.1.3.7); empty: it was."""
        if len(audiences) != 1:
            return "its aud is not exactly one client"
        if audiences[0] not in self.id_token_audiences:
            return "its aud is no client of this workload"
        if "azp" in claims and claims["azp"] != audiences[0]:
            return "its azp is another client than its aud"
        return ""

    def misfit_of_access_token(self, audiences: tuple[str, ...], claims: Mapping[str, Any]) -> str:
        """Why an access token is none that these workloads receive; empty: it is."""
        if self.access_token_audiences.isdisjoint(audiences):
            return "its aud is nothing that this workload receives tokens for"
        parties = [claims[name] for name in PARTIES if name in claims]
        if not parties:
            return f"it does not say to which client it was given: it has none of {', '.join(PARTIES)}"
        if not all(isinstance(each, str) and each in self.authorized_parties for each in parties):
            return "it was given to a client from which this workload takes none"
        return ""

    def misfit_of_id_jag(self, workload: SpiffeId, claims: Mapping[str, Any]) -> str:
        """Why an ID-JAG was not given to this one of these workloads; empty: it was."""
        if not self.id_jag_clients:
            return "this workload takes no ID-JAGs"
        client = claims.get("client_id")
        if not isinstance(client, str):
            return "it does not say to which client it was given: it has no client_id"
        return "" if client in self.client_names(workload) else "its client_id is no client of this workload"


@dataclass(frozen=True, slots=True)
class IssuerRules:
    """One issuer. `longest`, `fresh`, `session_longest`, `recheck` and `recheck_grace` are seconds.

    `ends_with_session`: its people's tasks outlive a token, since it says who logs out. `recheck` 0: it is not asked
    whether tokens are still active.
    """

    name: str
    url: str
    algorithms: frozenset[str]
    longest: float
    fresh: float
    groups: str
    claims: tuple[str, ...]
    presenters: tuple[Presenter, ...]
    ends_with_session: bool
    session_longest: float
    recheck: float
    recheck_grace: float
    prefix: str
    scopes: Mapping[str, frozenset[str]] | None = None  # the actions that each lets be done; None: any lets all
    opaque: bool = False  # whether access tokens that are no JWTs are taken
    bound_by_details: bool = True  # whether an access token's authorization_details bound what is done by it

    @classmethod
    def of(cls, name: str, table: PeopleConfig) -> Self:
        return cls(
            name,
            table.issuer,
            frozenset(table.algorithms),
            table.longest.total_seconds(),
            table.fresh.total_seconds(),
            table.groups,
            table.claims,
            tuple(map(Presenter.of, table.presenters)),
            table.ends == "session",
            table.session_longest.total_seconds(),
            table.recheck.total_seconds() if table.recheck is not None else 0.0,
            table.recheck_grace.total_seconds(),
            table.prefix,
            None if table.scopes is None else {name: frozenset(each) for name, each in table.scopes.items()},
            table.opaque,
            table.authorization_details == "bound",
        )

    @property
    def audiences(self) -> frozenset[str]:
        """The clients and resources that presenters take tokens of: a logout is told to these."""
        kinds = ("id_token_audiences", "access_token_audiences", "authorized_parties")
        return frozenset().union(*(getattr(each, kind) for each in self.presenters for kind in kinds))

    @property
    def takes_id_jags(self) -> bool:
        """Whether some workload may bring an ID-JAG of the issuer."""
        return any(each.id_jag_clients for each in self.presenters)

    def takes_opaque(self, workload: SpiffeId) -> bool:
        """Whether a workload may bring access tokens that are no JWTs."""
        return self.opaque and any(each.access_token_audiences for each in self.presented_by(workload))

    def presented_by(self, workload: SpiffeId) -> tuple[Presenter, ...]:
        """The tables that name a workload."""
        return tuple(each for each in self.presenters if str(workload) in each.workloads)
