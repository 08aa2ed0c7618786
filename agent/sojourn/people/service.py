"""People, as tokens of their issuers say: whoever brings such a token is the workload that the kernel says."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sojourn.errors import InvalidConfig, LimitExceeded
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import parse_unverified
from sojourn.limits import OPAQUE_TOKENS_PER_SECOND
from sojourn.people.id_jag import IdJag, verify_id_jag
from sojourn.people.issuer_keys import FetchedKeys, FiledKeys, IssuerKeys
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.logout import Logout, check_unverified_logout, verify_logout
from sojourn.people.opaque import is_opaque, verify_answer
from sojourn.people.person import Person
from sojourn.people.token_kind import ACCESS_TOKEN
from sojourn.people.verification import UnverifiedPerson, parse_unverified_person, verify
from sojourn.providers.provider import Mint
from sojourn.quota.rate import Rate
from sojourn.runtime.clock import Clock
from sojourn.settings.people import PeopleConfig
from sojourn.settings.plugin_loader import faults_below
from sojourn.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from sojourn.people.introspection import Introspection


class Issuer:
    """One issuer of the configuration: what its tokens must be, its keys, and how it is asked whether one is active."""

    def __init__(self, rules: IssuerRules, keys: IssuerKeys, introspection: "Introspection | None" = None) -> None:
        self.rules = rules
        self.keys = keys
        self.introspection = introspection

    @classmethod
    def of(cls, name: str, table: PeopleConfig, clock: Clock, mint: Mint | None) -> "Issuer":
        """Raise InvalidConfig if `ca` is not a file of certificates."""
        rules = IssuerRules.of(name, table)
        if table.jwks is not None:
            return cls(rules, FiledKeys(table.jwks, rules))
        from sojourn.providers.guarded_http import GuardedHttp  # with it comes an HTTP library: for those who use it

        http = GuardedHttp(table)
        keys = FetchedKeys(rules, http, clock)
        if not rules.recheck:
            return cls(rules, keys)
        from sojourn.people.introspection import Introspection

        assert mint is not None
        return cls(rules, keys, Introspection(rules, table, http, keys.discovery, clock, mint))

    async def close(self) -> None:
        if self.introspection is not None:
            await self.introspection.close()
        await self.keys.close()


class People:
    """Verifies people's tokens. Nothing of a token is kept here."""

    def __init__(
        self,
        tables: Mapping[str, PeopleConfig],
        clock: Clock,
        check_standing: Callable[[Person], None],
        mint: Mint | None = None,
        own_issuer: str = "",
        own_mint: Mint | None = None,
    ) -> None:
        """Without a table every token is refused. `check_standing` raises PersonRefused for whose session has ended,
        and for who is blocked. `mint`: of the agent's own JWT-SVIDs, for issuers that are asked about tokens;
        `own_mint`: of such as have the agent's SPIFFE ID as `iss`, too, for those that want that.
        `own_issuer`: what we are called as an authorization server; '': no ID-JAG is for us. Raise InvalidConfig.
        """
        self.own_issuer = own_issuer
        self._clock = clock
        self._hears_since = int(clock.now().timestamp())  # logouts, where anybody tells of them
        self._check_standing = check_standing
        # Told of each token that its issuer has just said to be active, and is to be asked about again and again.
        # By whom it was brought, and when its issuer was asked, on the boot clock.
        self.on_active: Callable[[Introspection, Person, str, str, float], None] = lambda *_: None
        self._opaque_allowance = Rate(OPAQUE_TOKENS_PER_SECOND, clock.boot)
        self.issuers: Mapping[str, Issuer] = _made(tables, clock, mint, own_mint or mint)
        self._by_url = {each.rules.url: each for each in self.issuers.values()}

    def is_issuer(self, url: str) -> bool:
        """Whether tokens with this `iss` may be of people."""
        return url in self._by_url

    @property
    def takes_id_jags(self) -> bool:
        """Whether some workload may bring an ID-JAG."""
        return any(each.rules.takes_id_jags for each in self.issuers.values())

    async def verify(self, text: str, token_type: str, presenter: SpiffeId) -> Person:
        """Whose a token is that this workload brings, which was attested.

        `token_type`: the URN of an ID token or access token (RFC 8693, 3). Raise PersonRefused, or InvalidToken for a
        token that is malformed, has expired, or was not signed by its issuer.
        """
        if token_type == ACCESS_TOKEN and self.may_be_opaque(text):
            return await self._verify_opaque(text, presenter)
        unverified = parse_unverified_person(text)
        issuer = self._issuer_of(unverified)
        key = await issuer.keys.find(unverified.jws.kid or "")
        person = verify(unverified, issuer.rules, key, token_type, presenter, self._clock.now())
        if person.issued_at <= self._hears_since:  # its session may have ended while no agent ran
            person = person.by_token_alone()
        self._check_standing(person)
        if issuer.introspection is not None:
            since = self._clock.boot()
            await issuer.introspection.check(text, person)
            self._check_standing(person)
            self.on_active(issuer.introspection, person, text, str(presenter), since)
        return person

    def may_be_opaque(self, text: str) -> bool:
        """Whether a text may be an access token that is no JWT, and some issuer is asked about such tokens."""
        return is_opaque(text) and any(each.rules.opaque for each in self.issuers.values())

    async def _verify_opaque(self, text: str, presenter: SpiffeId) -> Person:
        """Whose an opaque token is, as the one issuer says of which this workload may bring such."""
        asked = [each for each in self.issuers.values() if each.rules.takes_opaque(presenter)]
        if len(asked) != 1 or asked[0].introspection is None:
            raise PersonRefused("wrong_presenter", "this workload may bring no opaque token of any issuer")
        if not self._opaque_allowance.allow(presenter):
            raise LimitExceeded(f"a workload brings {OPAQUE_TOKENS_PER_SECOND} opaque tokens a second, and no more")
        introspection, since = asked[0].introspection, self._clock.boot()
        said = await introspection.read(text)
        person = verify_answer(said, asked[0].rules, presenter, self._clock.now())
        if person.issued_at <= self._hears_since:
            person = person.by_token_alone()
        self._check_standing(person)
        self.on_active(introspection, person, text, str(presenter), since)
        return person

    async def verify_id_jag(self, text: str, clients: Sequence[SpiffeId]) -> IdJag:
        """What an ID-JAG says, which a client brings that has authenticated as one of `clients`. Raise as `verify`.

        Whoever takes it uses its `jti` up.
        """
        unverified = parse_unverified_person(text)
        issuer = self._issuer_of(unverified)
        key = await issuer.keys.find(unverified.jws.kid or "")
        jag = verify_id_jag(unverified, issuer.rules, key, self.own_issuer, clients, self._clock.now())
        self._check_standing(jag.person)
        return jag

    def _issuer_of(self, unverified: UnverifiedPerson) -> Issuer:
        issuer = self._by_url.get(unverified.unverified_issuer)
        if issuer is None:
            raise PersonRefused("unknown_issuer", "the token is of an issuer that this agent takes no people from")
        return issuer

    async def verify_logout(self, name: str, text: str, since: float | None = None) -> Logout:
        """Who has logged out, as a logout token of the issuer `name` says, which there is. `since`: when it came, on
        the boot clock; None: now. Raise PersonRefused or InvalidToken: `issuer_unavailable` for a token that is good
        but for its key, of which nobody can tell now whether it is the issuer's.
        """
        issuer = self.issuers[name]
        unverified = parse_unverified(text, more_headers=True)
        check_unverified_logout(unverified, issuer.rules, self._clock.now())
        key = await issuer.keys.find(unverified.kid or "", since)
        return verify_logout(unverified, issuer.rules, key, self._clock.now())

    async def close(self) -> None:
        """Let go of connections."""
        for each in self.issuers.values():
            await each.close()


def _made(
    tables: Mapping[str, PeopleConfig], clock: Clock, mint: Mint | None, own_mint: Mint | None
) -> dict[str, Issuer]:
    made: dict[str, Issuer] = {}
    faults: list[str] = []
    for name, table in tables.items():
        try:
            made[name] = Issuer.of(name, table, clock, own_mint if table.client_auth == "private_key_jwt" else mint)
        except InvalidConfig as error:
            faults += faults_below("people", name, error)
    if faults:
        raise InvalidConfig(faults)
    return made
