"""The token endpoint with fakes around it: a caller at the socket that is the triage agent, and clients elsewhere."""

from contextlib import ExitStack
from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from fakes.assertions import FakeAssertionStore
from fakes.attestations import FakeAttestor
from fakes.authorities import authority_in
from fakes.children import child, peer_of
from fakes.clock import FakeClock
from fakes.journals import FakeTaskStore
from fakes.persons import ScriptedTokens
from fakes.providers import HandingRoom
from fakes.registrations import NODE, TRUST_DOMAIN, FakeEntryStore, FakeForeignStore, entry
from fakes.revocations import FakeRevocationStore
from fakes.task_room import beginning_of, end_all
from fakes.task_types import TICKETS, TRIAGE, WIKI, task_type
from sojourn.attestation.service import Attestation
from sojourn.audit.journal import Audit
from sojourn.credentials.token_source import TaskTokenSource
from sojourn.errors.oauth import InvalidProof
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.identities import Identities
from sojourn.identity.registry import Registry
from sojourn.identity.revocations import Revocations
from sojourn.identity.svid_issuer import Signers, SvidIssuer
from sojourn.jose.jws import SigningKey
from sojourn.oauth.client_auth import Certificate, ClientCredentials, Clients, ClientSender
from sojourn.oauth.one_shot_holder import Runners
from sojourn.oauth.person_subjects import PersonSubjects
from sojourn.oauth.resource_servers import Audiences, Service
from sojourn.oauth.token_grants import TokenGrants
from sojourn.oauth.token_request import GRANT_TYPE, TOKEN_TYPE_ACCESS, TOKEN_TYPE_JWT, read
from sojourn.oauth.verified_request import RequestVerification
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.begin import BeginRequest, Bond
from sojourn.tasks.delegation import DelegationService
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.holders import Holders
from sojourn.tasks.mass_end import MassEnd
from sojourn.tasks.person_renewal import PersonRenewal
from sojourn.tasks.reattachment import Reattachment
from sojourn.tasks.revoked_svids import end_due_to
from sojourn.tasks.signing_keys import TokenKeys
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasktoken.sender_constraint import thumbprint_of
from sojourn.tasktoken.tokens import read_issued

ISSUER = "https://sojourn.example.org"
KEY = SigningKey.from_private("k1", ec.generate_private_key(ec.SECP256R1()))
TRIAGE_ID = SpiffeId.parse(TRIAGE)
WEB_ID = SpiffeId.parse("spiffe://example.org/web")
STORE_ID = SpiffeId.parse("spiffe://example.org/store")
TYPES = {"triage": task_type()}
SERVICES = (Service(TICKETS, frozenset({WEB_ID})), Service(WIKI, frozenset({STORE_ID})))


class Room:
    """A caller that is the triage agent, and the service that it asks."""

    def __init__(
        self, folder, types=None, providers=None, *, clock=None, revoked=None, epoch=1, people=None, used=None
    ):
        """`clock`, `revoked`, `used` (the stores) and `epoch`: those of a next run. `people` makes what verifies their
        tokens from the engine; None: a script.
        """
        self.clock = clock or FakeClock()
        self.alarms = Alarms(self.clock)
        self.store = FakeTaskStore()
        self.authority = authority_in(folder, self.clock)
        entries = FakeEntryStore([entry("/agent/triage"), entry("/web", "unix:uid:5"), entry("/store", "unix:uid:6")])
        self.registry = registry = Registry(entries, TRUST_DOMAIN, [NODE], self.clock, self.alarms)
        self.audit = audit = Audit(self.store, self.clock)
        signers = Signers.at_once(self.authority, timedelta(hours=1), timedelta(minutes=5))
        self.issuing = issuing = SvidIssuer(self.authority, signers, self.clock, self.alarms, audit)
        self.revocations = Revocations(
            revoked or FakeRevocationStore(), self.authority, self.clock, self.alarms, epoch=epoch
        )
        self.identities = identities = Identities(
            Attestation({"unix": FakeAttestor({"uid:1000"})}, self.clock),
            registry,
            self.authority,
            issuing,
            self.revocations,
            ForeignBundles(FakeForeignStore(), TRUST_DOMAIN, registry),
            self.clock,
        )
        self.engine = TaskEngine(
            types or TYPES,
            self.store,
            audit,
            TokenKeys(self.alarms, first=KEY),
            ISSUER,
            1,
            self.clock,
            self.alarms,
            Holders(50),
        )
        self.beginning = beginning_of(self.engine, self.store, audit)
        attaching = Reattachment(self.engine, TaskChanges(self.engine), identities)
        self.used = used or FakeAssertionStore()
        clients = Clients(identities, self.used, ISSUER, self.clock)
        delegating = DelegationService(self.engine, self.beginning)
        self.runners = Runners(identities)
        self.people = people(self.engine) if people is not None else ScriptedTokens()
        self.renewal = PersonRenewal(self.engine, TaskChanges(self.engine), self.people)
        self.handing = HandingRoom(self.engine, audit, providers or {})
        subjects = PersonSubjects(self.engine, self.people, self.renewal)
        self.verification = RequestVerification(self.engine, identities, clients, Audiences(SERVICES), self, subjects)
        self.granting = TokenGrants(
            self.engine,
            TaskTokenSource(self.engine, self.handing.handing),
            self.beginning,
            attaching,
            delegating,
            self.verification,
            self.runners,
            subjects,
            self.clock,
        )
        self.proofs = {}
        self.ending = MassEnd(self.engine)
        registry.on_change(self.ending.entries_changed)
        self.revocations.on_revoked(lambda found: end_due_to(self.ending, [each.svid for each in found]))
        self._closing = ExitStack()
        self._closing.callback(self.runners.close)
        self.process = self._closing.enter_context(child())
        self.peer = peer_of(self.process)
        self._closing.callback(self.peer.close)

    def subject(self, spiffe_id=TRIAGE_ID, audience=(ISSUER,), ttl=timedelta(minutes=5)):
        return self.authority.issue_jwt(spiffe_id, audience, ttl).token

    async def exchange(self, token=None, **fields):
        form = {
            "grant_type": GRANT_TYPE,
            "subject_token": token or self.subject(),
            "subject_token_type": TOKEN_TYPE_JWT,
            **fields,
        }
        request = read(list(form.items()), self.granting.provider_of)
        return self._read(await self.granting.grant(ClientSender(self.peer), ClientCredentials(), request))

    async def ask(self, sender, *, proof=None, authorization=None, **fields):
        """Ask as `sender`, by a whole form."""
        request = read(list(fields.items()), self.granting.provider_of)
        if proof is not None:
            self.proofs["a proof"] = proof
        proofs = [] if proof is None else ["a proof"]
        given = await self.granting.grant(
            sender, ClientCredentials.read(request.fields, authorization, proofs), request
        )
        return self._read(given)

    def by_proof(self, unverified_proof, _who, *, at_socket):
        """The binding to the key of a proof, as `Proving` says it of those that are good."""
        assert isinstance(at_socket, bool)
        if unverified_proof not in self.proofs:
            raise InvalidProof("DPoP proof is not good: it was not made here")
        return self.proofs[unverified_proof]

    def _read(self, given):
        """What was given: a task token as it was signed, or what a provider gave."""
        if given.provider:
            return given
        keys, now = self.engine.keys.published, self.clock.now()
        return read_issued(given.token, keys=keys, issuer=ISSUER, now=now)

    async def derive(self, sender, token, *, proof=None, **fields):
        """Exchange a task token as `sender`."""
        kind = {"subject_token": token, "subject_token_type": TOKEN_TYPE_ACCESS}
        return await self.ask(sender, proof=proof, grant_type=GRANT_TYPE, **kind, **fields)

    def shows(self, spiffe_id, serial="a1", seconds=3600):
        """A TLS peer on another machine, with an X.509-SVID."""
        ends = self.clock.now() + timedelta(seconds=seconds)
        return ClientSender(
            None, Certificate(spiffe_id, serial, thumbprint_of(f"{spiffe_id} {serial}".encode()), ends), "192.0.2.1"
        )

    async def begin(self, name="triage", **more):
        return await self.beginning.begin(
            self.peer,
            [entry("/agent/triage")],
            BeginRequest(name, {}, **more),
            Bond(self.peer.process.again(), "process"),
        )

    def close(self):
        end_all(self.engine)
        self._closing.close()
