"""Abuse of the token endpoint: never more than subject, task, policy and request each allow."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from fakes.exchangeroom import DELEGATION, JKT_A, READ, TWO, details, opened
from fakes.granting_room import STORE_ID, WEB_ID
from fakes.task_types import TICKETS, TRIAGE, WIKI, task_type
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidInput, SojournError
from sojourn.errors.oauth import BindingNeeded, DigestNeeded, InvalidGrant
from sojourn.errors.people import PersonRefused
from sojourn.oauth.client_auth import ASSERTION_TYPES, ClientSender
from sojourn.oauth.token_request import CLIENT_CREDENTIALS, GRANT_TYPE, JWT_BEARER, TOKEN_TYPE_ACCESS, TOKEN_TYPE_JWT
from sojourn.tasktoken.sender_constraint import thumbprint_of

# --- F.8 5, 6, 13, C5 53: never more than was asked for --------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        details("ticket:read", params={"level": 1.0}), details("ticket:read", params={"level": 10**18}),
        details("ticket:read", params={"level": [1]}), details("ticket:read", params={"level": None}),
        details("ticket:read", params={"nobody_knows": "x"}), details("ticket:read", params=[]),
        details("ticket:read", limit={"amount": "1"}), details("ticket:read", params_digest="short"),
        READ[:-2] + ', "params": {"level": 1e300}}]', READ[:-2] + ', "params": {"level": -0.0}}]',
        READ[:-2] + ', "actions": ["ticket:write"]}]', READ[:-2] + ', "params": {"level": 1, "level": 2}}]',
        READ[:-2] + ', "params": {"level": NaN}}]',
    ],
    ids=lambda text: text[60:130],
)  # fmt: skip
async def test_case_6_constraints(text: str) -> None:
    """Parameters of a kind that is not theirs, members that we do not know, and members twice are refused."""
    with opened() as room:
        with pytest.raises(SojournError) as error:
            await room.ask(ClientSender(room.peer), grant_type=CLIENT_CREDENTIALS, authorization_details=text)
        assert error.value.oauth_error in {"invalid_authorization_details", "invalid_request"}
        assert [] == room.engine.tasks.all()


async def test_case_6_params_of_the_task() -> None:
    """A one-shot task has the parameters of its authorization_details, typed; what is said of another is refused."""
    with opened() as room:
        text = details("ticket:read", params={"level": 3, "urgent": True, "ticket": "42"})
        token = await room.ask(ClientSender(room.peer), grant_type=CLIENT_CREDENTIALS, authorization_details=text)
        assert {"level": 3, "urgent": True, "ticket": "42"} == dict(token.params)
        for other in ({"level": 4}, {"urgent": 1}, {"ticket": 42}, {"more": 1}):
            with pytest.raises(InvalidInput):
                await room.derive(
                    ClientSender(room.peer), token.token, authorization_details=details("ticket:read", params=other)
                )


async def test_high_class_by_its_request() -> None:
    """A type of class high gives a token for one request alone, and nothing is derived from that."""
    with opened() as room:
        digest = thumbprint_of(b"request")
        text = details("page:read", name="careful", at=f"{WIKI}/c", params_digest=digest)
        asked = {"grant_type": CLIENT_CREDENTIALS, "authorization_details": text}
        with pytest.raises(BindingNeeded):
            await room.ask(ClientSender(room.peer), **asked)
        with pytest.raises(DigestNeeded):
            await room.ask(ClientSender(room.peer), proof=JKT_A, grant_type=CLIENT_CREDENTIALS, resource=f"{WIKI}/c")
        token = await room.ask(ClientSender(room.peer), proof=JKT_A, **asked)
        assert digest == token.params_digest
        with pytest.raises(InvalidGrant, match="one request"):
            await room.derive(ClientSender(room.peer), token.token, proof=JKT_A)


@pytest.mark.parametrize(
    "kind",
    ["urn:ietf:params:oauth:token-type:unsigned_json", "urn:ietf:params:oauth:token-type:self_signed",
     "urn:ietf:params:oauth:token-type:refresh_token", "urn:ietf:params:oauth:token-type:saml2"],
)  # fmt: skip
async def test_case_13_kinds_of_subject(kind: str) -> None:
    """No subject is taken from the network unsigned, or by a kind that is not known here."""
    with opened() as room:
        subject = json.dumps({"sub": TRIAGE}) if "json" in kind else room.subject()
        with pytest.raises(InvalidInput, match="subject_token_type"):
            await room.ask(
                ClientSender(room.peer),
                grant_type=GRANT_TYPE,
                subject_token=subject,
                subject_token_type=kind,
                audience=TICKETS,
            )


async def test_case_13_a_workload_is_no_person() -> None:
    """A JWT-SVID is no ID token: it is of an issuer that the agent takes no people from."""
    with opened() as room, pytest.raises(PersonRefused) as refused:
        await room.ask(
            ClientSender(room.peer),
            grant_type=GRANT_TYPE,
            subject_token=room.subject(),
            subject_token_type="urn:ietf:params:oauth:token-type:id_token",
            audience=TICKETS,
        )
    assert "unknown_issuer" == refused.value.code


async def test_case_12_kinds_never_stand_in_for_each_other() -> None:
    """A task token is no assertion and no JWT-SVID; a JWT-SVID is no access token."""
    with opened() as room:
        svid, token = (
            room.subject(),
            await room.ask(ClientSender(room.peer), grant_type=CLIENT_CREDENTIALS, authorization_details=READ),
        )
        wrong: tuple[dict[str, str], ...] = (
            {"grant_type": GRANT_TYPE, "subject_token": svid, "subject_token_type": TOKEN_TYPE_ACCESS},
            {"grant_type": GRANT_TYPE, "subject_token": token.token, "subject_token_type": TOKEN_TYPE_JWT},
            {"grant_type": JWT_BEARER, "assertion": token.token},
            {"grant_type": GRANT_TYPE, "subject_token": svid, "subject_token_type": TOKEN_TYPE_JWT,
             "actor_token": token.token, "actor_token_type": TOKEN_TYPE_JWT},
            {"grant_type": CLIENT_CREDENTIALS, "client_assertion": token.token, "client_assertion_type": ASSERTION_TYPES[1]},
        )  # fmt: skip
        for form in wrong:
            with pytest.raises(SojournError) as error:
                await room.ask(ClientSender(room.peer), **form, authorization_details=READ)
            assert error.value.oauth_error in {"invalid_request", "invalid_grant", "invalid_client"}


ACTIONS = ["page:read", "ticket:read", "ticket:write"]
some = st.lists(st.sampled_from(ACTIONS), unique=True, max_size=3)


@examples(60)
@given(
    policy=some, held=some.filter(bool), subject=some.filter(bool), scope=some, named=st.none() | some.filter(bool),
    target=st.sampled_from(["", TICKETS, WIKI]), at=st.sampled_from([TICKETS, WIKI]),
    who=st.sampled_from(["holder", "audience", "other"]), seconds=st.integers(2, 70),
)  # fmt: skip
def test_C5_53_never_more_than_subject_task_policy_and_request(
    policy: list[str], held: list[str], subject: list[str], scope: list[str], named: list[str] | None, target: str,
    at: str, who: str, seconds: int,
) -> None:  # fmt: skip
    """Result ⊆ subject ∩ task ∩ policy ∩ request, for random actions, targets, scopes, details and ends."""
    asyncio.run(check_never_more(policy, held, subject, scope, named, target, at, who, seconds))


async def check_never_more(
    policy: list[str], held: list[str], subject: list[str], scope: list[str], named: list[str] | None, target: str,
    at: str, who: str, seconds: int,
) -> None:  # fmt: skip
    with opened() as room:
        task = await room.begin(wanted=None)
        try:
            first = await room.engine.token(
                task, TICKETS, tuple(subject), not_after=room.clock.now() + timedelta(seconds=seconds)
            )
        except SojournError:
            return
        task.authority = within(task.authority, held)
        rules = "".join(
            f'@id("{a[-4:]}{a[0]}") permit (principal, action == Sojourn::Action::"{a}", resource);' for a in policy
        )
        task.type = task_type(
            cedar=rules or '@id("n") forbid (principal, action, resource);', delegation=DELEGATION, ceiling=TWO
        )
        fields = {"resource": target, "scope": " ".join(scope)}
        if named is not None:
            fields["authorization_details"] = details(*named, at=at)
        sender = {"holder": ClientSender(room.peer), "audience": room.shows(WEB_ID), "other": room.shows(STORE_ID)}[who]
        try:
            token = await room.derive(sender, first.token, **fields)
        except SojournError:
            return
        assert who != "other"
        got = set(token.actions)
        assert got
        assert got <= set(subject)
        assert got <= set(held)
        assert got <= set(policy)
        assert got <= set(scope or ACTIONS)
        assert got <= set(ACTIONS if named is None else named)
        assert token.resource == (target or (at if named is not None else TICKETS))
        assert who == "audience" or token.resource == first.resource
        assert token.claims["exp"] <= first.claims["exp"]
        assert (first.spiffe_id, len(first.actors) + (who == "audience")) == (token.spiffe_id, len(token.actors))


def within(authority: Any, actions: list[str]) -> Any:
    from sojourn.tasktoken.grants import Authority, Grant

    grants = [(each.resource, [a for a in each.actions if a in actions]) for each in authority.grants]
    return Authority(tuple(Grant(resource, tuple(left)) for resource, left in grants if left))
