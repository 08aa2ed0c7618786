"""token_request.py: what a token request may ask for (RFC 8693), and that nobody gets more."""

import asyncio
import contextlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.children import child, holder_of, peer_of
from fakes.clock import FakeClock
from fakes.journals import FakeTaskStore
from fakes.registrations import entry
from fakes.task_room import beginning_of, end_all
from fakes.task_types import TICKETS, TRIAGE, WIKI, task_type
from harness.examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from sojourn.audit.journal import Audit
from sojourn.errors import (
    ActionOutsideType,
    InvalidAuthorizationDetails,
    InvalidInput,
    InvalidScope,
    InvalidTarget,
    PolicyDenied,
    SojournError,
    UnsupportedGrantType,
)
from sojourn.jose.jws import SigningKey
from sojourn.oauth import token_request
from sojourn.oauth.token_request import GRANT_TYPE, TOKEN_TYPE_ACCESS, TOKEN_TYPE_JWT, actions_wanted, choose_type, read
from sojourn.runtime.clock import Alarms
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.begin import BeginRequest, Bond
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.holders import Holders
from sojourn.tasks.signing_keys import TokenKeys
from sojourn.tasktoken.grants import Authority, Grant

SUBJECT = SpiffeId.parse(TRIAGE)
READ = Authority((Grant(TICKETS, ("ticket:read",)),))
DETAIL = {"type": "triage", "actions": ["ticket:read"], "locations": [TICKETS]}
ONE, TWO = task_type(), task_type("second")


def form(*more, without=(), **changes):
    fields = {
        "grant_type": GRANT_TYPE,
        "subject_token": "a.b.c",
        "subject_token_type": TOKEN_TYPE_JWT,
        **changes,
    }
    return [(name, value) for name, value in fields.items() if name not in without] + list(more)


def details(*elements):
    return json.dumps(elements)


class TestRead:
    def test_the_least(self):
        """A request needs the grant type and a subject token with its type, and no more."""
        request = read(form())
        assert ("a.b.c", "", None, None, (), "") == (
            request.unverified_subject,
            request.target,
            request.type_name,
            request.wanted,
            request.scope,
            request.task_id,
        )

    def test_all_of_it(self):
        """Target, scope, details and task are read, in either spelling of the target."""
        for name in ("audience", "resource"):
            request = read(
                form(
                    (name, TICKETS),
                    scope="ticket:read ticket:write",
                    authorization_details=details(DETAIL),
                    task_id="tsk_1",
                    requested_token_type=TOKEN_TYPE_ACCESS,
                )
            )
            assert (TICKETS, "triage", READ, ("ticket:read", "ticket:write"), "tsk_1") == (
                request.target,
                request.type_name,
                request.wanted,
                request.scope,
                request.task_id,
            )

    @pytest.mark.parametrize(
        ("fields", "error"),
        [
            pytest.param([], InvalidInput, id="empty"),
            pytest.param(form(without=["grant_type"]), InvalidInput, id="no grant type"),
            pytest.param(form(grant_type="authorization_code"), UnsupportedGrantType, id="other grant type"),
            pytest.param(form(grant_type=GRANT_TYPE.upper()), UnsupportedGrantType, id="grant type in capitals"),
            pytest.param(form(without=["subject_token"]), InvalidInput, id="no subject token"),
            pytest.param(form(subject_token=""), InvalidInput, id="empty subject token"),
            pytest.param(form(without=["subject_token_type"]), InvalidInput, id="no subject token type"),
            pytest.param(form(subject_token_type="urn:x"), InvalidInput, id="other subject token type"),
            pytest.param(form(("subject_token", "x")), InvalidInput, id="subject token twice"),
            pytest.param(form(("grant_type", GRANT_TYPE)), InvalidInput, id="grant type twice"),
            pytest.param(form(("scope", "a"), ("scope", "b")), InvalidInput, id="scope twice"),
            pytest.param(form(actor_token="x"), InvalidInput, id="actor token"),
            pytest.param(form(actor_token_type=TOKEN_TYPE_JWT), InvalidInput, id="actor token type"),
            pytest.param(form(client_assertion=""), InvalidInput, id="empty client assertion"),
            pytest.param(form(assertion="x"), InvalidInput, id="another grant's parameter"),
            pytest.param(form(assertion=""), InvalidInput, id="another grant's parameter, empty"),
            pytest.param(form(dpop_jkt="x"), InvalidInput, id="proof that we do not honour"),
            pytest.param(form(requested_token_type="urn:x"), InvalidInput, id="other token wanted"),
            pytest.param(form(("audience", TICKETS), ("audience", WIKI)), InvalidTarget, id="two audiences"),
            pytest.param(form(("audience", TICKETS), ("resource", WIKI)), InvalidTarget, id="audience and resource"),
            pytest.param(form(("resource", TICKETS), ("resource", TICKETS + "/")), InvalidTarget, id="two spellings"),
        ],
    )
    def test_refused(self, fields, error):
        """A parameter that is missing, doubled, or not honoured here is refused, never ignored."""
        with pytest.raises(error) as caught:
            read(fields)
        assert error is type(caught.value)

    def test_the_same_target_twice(self):
        """One target named as audience and as resource is one target."""
        assert TICKETS == read(form(("audience", TICKETS), ("resource", TICKETS))).target

    @pytest.mark.parametrize(
        "text",
        [
            "no JSON",
            "{}",
            json.dumps(DETAIL),
            "[]",
            "[1]",
            "null",
            "[" * 100_000,
            "1" * 5_000,
            details({**DETAIL, "type": 1}),
            details(DETAIL, {**DETAIL, "type": "other"}),
            details({**DETAIL, "datatypes": ["x"]}),
            details({**DETAIL, "privileges": ["admin"]}),
            details({**DETAIL, "actions": []}),
            details({**DETAIL, "actions": "ticket:read"}),
            details({**DETAIL, "locations": []}),
            details({"type": "triage", "actions": ["ticket:read"]}),
            details({**DETAIL, "locations": ["not a URI"]}),
            details({**DETAIL, "actions": ["a b"]}),
        ],
    )
    def test_details_that_are_not_understood(self, text):
        """authorization_details with anything that we do not understand are refused (RFC 9396, 5)."""
        with pytest.raises(InvalidAuthorizationDetails):
            read(form(authorization_details=text))

    def test_details_name_the_target(self):
        """The location of the details is the target if none is named."""
        assert TICKETS == read(form(authorization_details=details(DETAIL))).target

    @pytest.mark.parametrize(
        "elements",
        [
            [{**DETAIL, "locations": [WIKI]}],
            [{**DETAIL, "locations": [TICKETS, WIKI]}],
            [DETAIL, {**DETAIL, "locations": [WIKI]}],
        ],
    )
    def test_details_elsewhere(self, elements):
        """Details for another or for more than the target are refused: a token has one audience."""
        with pytest.raises(InvalidTarget):
            read(form(("audience", TICKETS), authorization_details=details(*elements)))

    @pytest.mark.parametrize("name", ["authorization_details", "requested_token_type"])
    def test_a_parameter_without_value(self, name):
        """A parameter without a value counts as left out (RFC 6749, 3.2)."""
        assert read(form()) == read(form(**{name: ""}))

    def test_repr_hides_the_token(self):
        """The subject token is not in the repr of a request."""
        assert "secret" not in repr(read(form(subject_token="secret")))

    @examples(200)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [name for name, _ in form()] + ["audience", "resource", "scope", "authorization_details"]
                )
                | st.text(max_size=5),
                st.sampled_from([GRANT_TYPE, TOKEN_TYPE_JWT, details(DETAIL)])
                | st.text(max_size=20)
                | st.recursive(
                    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just(DETAIL),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
                ).map(json.dumps),
            ),
            max_size=6,
        )
    )
    def test_ours_or_nothing(self, more):
        """Any form is read or refused with an error of ours that has an OAuth code."""
        with contextlib.suppress(SojournError):
            assert read([*form(), *more]).unverified_subject


class TestChooseType:
    def request(self, *more, **changes):
        return read(form(*more, **changes))

    def test_the_one_that_reaches_the_target(self):
        """Without details, the one type that reaches the target is taken, with all its actions there."""
        request = self.request(("audience", TICKETS))
        assert ("triage", Authority((Grant(TICKETS, ("ticket:read", "ticket:write")),))) == choose_type(
            request, {"triage": ONE}, [SUBJECT]
        )

    def test_scope_narrows(self):
        """Scope narrows to the actions that it names."""
        request = self.request(("audience", TICKETS), scope="ticket:read")
        assert ("triage", READ) == choose_type(request, {"triage": ONE}, [SUBJECT])

    def test_details_decide(self):
        """Details name the type and the authority; nothing is guessed."""
        request = self.request(authorization_details=details({**DETAIL, "type": "second"}))
        assert ("second", READ) == choose_type(request, {"triage": ONE, "second": TWO}, [SUBJECT])

    def test_scope_narrows_details(self):
        """Scope beside details narrows to the actions that it names."""
        both = {**DETAIL, "actions": ["ticket:read", "ticket:write"]}
        request = self.request(authorization_details=details(both), scope="ticket:read")
        assert ("triage", READ) == choose_type(request, {}, [SUBJECT])
        assert ("ticket:read",) == actions_wanted(request)

    @pytest.mark.parametrize(
        ("changes", "types", "subject", "error"),
        [
            pytest.param({}, {"triage": ONE}, SUBJECT, InvalidTarget, id="no target"),
            pytest.param(
                {"audience": TICKETS},
                {"triage": task_type(binding='["stream", "process", "session"]')},
                SUBJECT,
                InvalidTarget,
                id="type that needs a holder",
            ),
            pytest.param({"audience": WIKI + "/"}, {"triage": ONE}, SUBJECT, InvalidTarget, id="target of no type"),
            pytest.param(
                {"audience": TICKETS},
                {"triage": ONE},
                SpiffeId.parse("spiffe://example.org/web"),
                InvalidTarget,
                id="type for others",
            ),
            pytest.param({"audience": TICKETS}, {"triage": ONE, "second": TWO}, SUBJECT, InvalidInput, id="two types"),
            pytest.param({"audience": TICKETS, "scope": "a(b"}, {"triage": ONE}, SUBJECT, InvalidInput, id="bad scope"),
            pytest.param(
                {"authorization_details": details(DETAIL), "scope": "page:read"},
                {"triage": ONE},
                SUBJECT,
                InvalidScope,
                id="scope beyond details",
            ),
            pytest.param(
                {"audience": TICKETS, "scope": "ticket:read ticket:delete"},
                {"triage": ONE},
                SUBJECT,
                InvalidScope,
                id="scope beyond the type",
            ),
        ],
    )
    def test_refused(self, changes, types, subject, error):
        """What is not clear is refused, not guessed."""
        with pytest.raises(error) as caught:
            choose_type(self.request(**changes), types, [subject])
        assert error is type(caught.value)


ACTIONS = ["ticket:read", "ticket:write", "page:read", "page:write"]
PLACES = [TICKETS, WIKI]
POLICIES = {
    tuple(allowed): task_type(
        "triage",
        "".join(
            f'@id("p{number}") permit (principal, action == Sojourn::Action::"{action}", resource);'
            for number, action in enumerate(allowed)
        ),
        ceiling=f'[{{resource = "{TICKETS}", actions = ["ticket:read", "ticket:write"]}},'
        f' {{resource = "{WIKI}", actions = ["page:read", "page:write"]}}]',
    )
    for allowed in ([], ["ticket:read"], ["ticket:read", "page:read"], ["ticket:write", "page:write"], ACTIONS)
}
subsets = st.lists(st.sampled_from(ACTIONS), unique=True, max_size=4)


class TestNeverMore:
    """Result ⊆ subject ∩ task ∩ policy ∩ request."""

    @examples(100, HealthCheck.function_scoped_fixture)
    @given(
        policy=st.sampled_from(sorted(POLICIES)),
        target=st.sampled_from(PLACES),
        scope=subsets,
        named=st.none() | subsets,
        subject=st.sampled_from([TRIAGE, "spiffe://example.org/web"]),
        running=st.booleans(),
    )
    def test_result_within_all_four(self, policy, target, scope, named, subject, running):
        """Whatever is asked for, a token holds only what subject, task, policy and request all have, or there is none."""
        kind = POLICIES[policy]
        fields = {"audience": target, "scope": " ".join(scope)}
        if named is not None:
            fields["authorization_details"] = details({"type": "triage", "actions": named, "locations": [target]})
        token = asyncio.run(self.token(kind, fields, SpiffeId.parse(subject), running=running))
        if token is None:
            return
        assert (target, subject) == (token.resource, str(token.spiffe_id))
        assert TRIAGE == subject
        got = set(token.actions)
        assert got
        assert got <= set(kind.ceiling.at(target))
        assert got <= set(policy)
        assert got <= set(scope or ACTIONS)
        assert got <= set(ACTIONS if named is None else named)

    async def token(self, kind, fields, subject, *, running):
        """What an exchange gives, by the same steps as oauth/token_grants.py; None if it is refused."""
        clock = FakeClock()
        store = FakeTaskStore()
        alarms = Alarms(clock)
        keys = TokenKeys(alarms, first=SigningKey.from_private("k", PRIVATE))
        engine = TaskEngine(
            {"triage": kind}, store, Audit(store, clock), keys, "https://i", 1, clock, alarms, Holders(9)
        )
        entries = [entry("/agent/triage", spiffe_id=subject)]
        with child() as process:
            peer = peer_of(process)
            try:
                wanted, request = None, read(form(**fields))
                name, actions = "triage", actions_wanted(request)
                if not running:
                    name, wanted = choose_type(request, engine.types, [subject])
                    actions = ()
                task = await beginning_of(engine, store, Audit(store, clock)).begin(
                    peer, entries, BeginRequest(name, {}, wanted), Bond(holder_of(process), "process")
                )
                return await engine.token(task, request.target, actions)
            except (InvalidInput, InvalidTarget, ActionOutsideType, PolicyDenied):
                return None
            finally:
                end_all(engine)
                peer.close()

    def test_service_takes_the_same_steps(self):
        """The property above goes through the functions that the service calls."""
        assert {choose_type, actions_wanted} == {token_request.choose_type, token_request.actions_wanted}


PRIVATE = ec.generate_private_key(ec.SECP256R1())
