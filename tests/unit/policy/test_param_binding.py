"""policy/param_binding.py and what comes of it: which parameters concern which action."""

from datetime import UTC, datetime

import pytest
from fakes.task_room import ISSUER, KEY
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, task_type, toml
from sojourn.errors import InvalidPolicy, InvalidToken
from sojourn.errors.oauth import ParamNotBound, WrongParams
from sojourn.policy.task_types import parse
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken import checks, tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.task_claim import TaskClaim

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PARAMS = {"ticket": "T-1", "level": 42, "urgent": True}
BIND = {"ticket:read": ("ticket",), "ticket:write": (), "page:read": ("level",)}


def token(bind=None):
    return tokens.issue(
        KEY,
        issuer=ISSUER,
        spiffe_id=SpiffeId.parse(TRIAGE),
        grant=Grant(TICKETS, ("ticket:delete", "ticket:read", "ticket:write")),
        task=TaskClaim("tsk_1", "triage", 1, "normal", bind or {}),
        issued_at=NOW,
        expires_at=NOW.replace(minute=1),
        params=PARAMS,
    )


def read(text):
    keys = {KEY.public.kid: KEY.public}
    return tokens.verify(text, keys=keys, issuer=ISSUER, audience=TICKETS, now=NOW)


class TestTypes:
    def test_said(self):
        """A type says which parameters concern an action; all that tokens carry concern those that it does not name."""
        params = '{ticket = "string", level = "long", note = {type = "string", in_tokens = false}}'
        kind = task_type(params=params, bind='{"ticket:read" = ["ticket", "ticket"], "page:read" = []}')
        assert ("ticket",) == kind.concerning("ticket:read")
        assert () == kind.concerning("page:read")
        assert ("ticket", "level") == kind.concerning("ticket:write")

    def test_faults(self):
        """An action or a parameter that is not there, and one that no token carries, is a fault with its line."""
        text = (
            toml(params='{ticket = "string", note = {type = "string", in_tokens = false}}')
            + """
[bind]
"ticket:read" = ["ticket", "tickt"]
"ticket:reed" = ["ticket"]
'page:read' = ["note"]
"""
        )
        with pytest.raises(InvalidPolicy) as raised:
            parse("triage", text, PERMIT_ALL)
        start = text.splitlines().index("[bind]") + 1
        assert [
            (start + 1, "bind.ticket:read: the type has no parameter 'tickt'"),
            (start + 2, "bind.ticket:reed: no ceiling has the action 'ticket:reed'"),
            (start + 3, "bind.page:read: parameter 'note' has in_tokens = false, so that no service can compare it"),
        ] == [(each.line, each.message) for each in raised.value.faults]

    @pytest.mark.parametrize("bind", ['{"x:y" = []}', '["ticket"]', '{"ticket:read" = "ticket"}'])
    def test_one_line(self, bind):
        """A table in one line, and what is no table of lists, is a fault with that line."""
        text = toml(bind=bind)
        with pytest.raises(InvalidPolicy) as raised:
            parse("triage", text, PERMIT_ALL)
        line = next(number for number, each in enumerate(text.splitlines(), 1) if each.startswith("bind"))
        assert [line] == [each.line for each in raised.value.faults]


class TestTokens:
    def test_travels(self):
        """A token says it, and is read so; where the type says nothing nothing stands there."""
        assert {action: list(names) for action, names in BIND.items()} == token(bind=BIND).claims["task"]["bind"]
        assert "bind" not in token().claims["task"]
        for each in (token(bind=BIND), read(token(bind=BIND).token)):
            assert {"ticket": "T-1"} == each.concerning("ticket:read")
            assert {} == each.concerning("ticket:write")
            assert PARAMS == each.concerning("ticket:delete")
        assert PARAMS == read(token().token).concerning("ticket:read")

    @pytest.mark.parametrize(
        "bind", [None, [], "x", {"ticket:read": "ticket"}, {"ticket:read": [1]}, {"ticket:read": None}]
    )
    def test_malformed(self, bind):
        """A token that says it in another way than is known here is refused."""
        made = token()
        text = KEY.sign({**made.claims, "task": {**made.claims["task"], "bind": bind}}, typ=tokens.TYP)
        with pytest.raises(InvalidToken, match="which parameters"):
            read(text)


class TestConcerning:
    def test_all_given(self):
        """A request is let through that has each parameter which concerns its action, with the task's value."""
        checks.check_concerning(token(), "ticket:read", PARAMS)
        checks.check_concerning(token(bind=BIND), "ticket:read", {"ticket": "T-1", "level": 7})
        checks.check_concerning(token(bind=BIND), "ticket:write", {})
        checks.check_concerning(token(), "ticket:read", {"ticket": "T-1"}, unchecked=("level", "urgent"))

    def test_not_given(self):
        """One that is missing is a refusal of its own, by name, and another value one as ever."""
        with pytest.raises(ParamNotBound, match="'urgent' is compared with nothing"):
            checks.check_concerning(token(), "ticket:read", {"ticket": "T-1", "level": 42})
        with pytest.raises(WrongParams, match="another 'ticket'"):
            checks.check_concerning(token(bind=BIND), "ticket:read", {"ticket": "T-2"})

    @pytest.mark.parametrize("value", ["42", 42.0, True, None, [42], {"level": 42}])
    def test_typed(self, value):
        """A value that has a type is of the parameter's own: no text is a number, and no truth is one."""
        with pytest.raises(WrongParams):
            checks.check_stated("level", 42, [42, checks.Exact(value)])
        checks.check_stated("level", 42, [42, "42", checks.Exact(42)])
