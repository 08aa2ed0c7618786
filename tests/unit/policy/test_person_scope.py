"""person_rules.py and rules.py: what the scope of a person's access token lets be done, beside what policy allows."""

import pytest
from fakes.policies import principal, user
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.errors import PolicyDenied
from sojourn.errors.people import PersonRefused
from sojourn.policy import rules
from sojourn.policy.cedar_schema import Context
from sojourn.policy.person_rules import check_scope
from sojourn.tasktoken.grants import Authority, Grant

PERSON = '{need = "required", max_auth_age = "10m"}'
KIND = task_type(person=PERSON)
READ = Authority((Grant(TICKETS, ("ticket:read",)),))
BOTH = Authority((Grant(TICKETS, ("ticket:read", "ticket:write")),))
PAGES = Authority((Grant(WIKI, ("page:read",)),))


def refusal(who, wanted):
    with pytest.raises(PersonRefused) as refused:
        check_scope(KIND, who, wanted)
    assert "not_in_scope" == refused.value.code
    return refused.value.public


class TestScope:
    def test_nothing_said(self):
        """A token that says nothing of scopes bounds nothing, and nor does a task for nobody."""
        for who in (None, user(), user(may=None)):
            check_scope(KIND, who, None)
            check_scope(KIND, who, BOTH)

    def test_what_is_named(self):
        """What is named outright has to be in the scope, all of it; the refusal names the first that is not."""
        check_scope(KIND, user(may=("ticket:read",)), READ)
        check_scope(KIND, user(may=("ticket:write", "ticket:read")), BOTH)
        assert "the scope of the person's access token does not let action 'ticket:write' be done" == refusal(
            user(may=("ticket:read",)), BOTH
        )
        assert "action 'page:read'" in refusal(user(may=("ticket:read",)), PAGES)
        assert "action 'ticket:read'" in refusal(user(may=()), READ)

    def test_the_whole_type(self):
        """Where nothing is named one action of the type is enough; a scope with none of them is refused."""
        for action in ("ticket:read", "ticket:write", "page:read"):
            check_scope(KIND, user(may=(action,)), None)
        for may in ((), ("page:write",)):
            assert (
                "the scope of the person's access token does not let anything of task type 'triage' be done"
                == refusal(user(may=may), None)
            )


class TestAuthorized:
    def given(self, who, wanted, heard=lambda *_: None):
        return rules.authorize(KIND, principal(user=who), wanted, Context(), heard)

    def test_what_is_named(self):
        """A request for what the scope does not have is refused whole, before policy is asked."""
        heard = []
        with pytest.raises(PersonRefused, match="does not let action 'ticket:write' be done"):
            self.given(user(may=("ticket:read",)), BOTH, lambda *each: heard.append(each))
        assert [] == heard
        assert READ == self.given(user(may=("ticket:read",)), READ)

    def test_the_whole_type(self):
        """Of the whole type what the scope does not have is left out, and the decision on it says why."""
        heard = {}
        left = self.given(
            user(may=("ticket:read", "page:read")), None, lambda action, _, decision: heard.update({action: decision})
        )
        assert (("ticket:read",), ("page:read",)) == (left.at(TICKETS), left.at(WIKI))
        assert "the scope of the person's access token does not have it" == heard["ticket:write"].reason
        assert {"ticket:read": True, "ticket:write": False, "page:read": True} == {
            action: bool(decision) for action, decision in heard.items()
        }

    def test_nothing_is_left(self):
        """A scope and a policy that have no action in common leave nothing."""
        kind = task_type(
            person=PERSON,
            cedar=f'@id("p") permit (principal, action, resource == Sojourn::Resource::"{WIKI}");',
        )
        with pytest.raises(PolicyDenied, match="policy allows nothing of task type 'triage'"):
            rules.authorize(kind, principal(user=user(may=("ticket:read",))), None, Context())


class TestAgain:
    def test_a_login_of_long_ago(self):
        """What a living task keeps under another version of its type does not hang on how long ago its person logged in;
        whether it begins does.
        """
        long_ago = principal(user=user(auth_age=86_400))
        left, _, why = rules.left_by(KIND, long_ago, READ, Context(), "stream")
        assert (READ, "") == (left, why)
        with pytest.raises(PersonRefused, match="again: it was too long ago, or nobody says when"):
            rules.check_user(KIND, long_ago.user)

    def test_the_scope_stays(self):
        """The scope bounds it then as before."""
        left, _, why = rules.left_by(KIND, principal(user=user(may=("ticket:read",))), BOTH, Context(), "stream")
        assert (("ticket:read",), "policy denies it") == (left.at(TICKETS), why)


def test_claims_of_another_kind():
    """A claim that is not of the kind that the type declares is named, with the kind that it should have."""
    kind = task_type(person='{need = "required", claims = {level = "long"}}')
    with pytest.raises(PersonRefused, match="claim 'level' of the person is no long") as refused:
        rules.check_user(kind, user(claims=(("level", "string", "3"),)))
    assert "person_not_taken" == refused.value.code
