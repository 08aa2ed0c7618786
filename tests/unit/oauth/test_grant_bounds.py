"""grant_bounds.py: what may be asked for by an assertion is in the assertion and in the request, and never more."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidAuthorizationDetails, InvalidScope, InvalidTarget, SojournError
from sojourn.oauth.grant_bounds import UNBOUNDED, GrantBounds
from sojourn.oauth.token_request import JWT_BEARER, TokenRequest, actions_wanted, read
from sojourn.tasks.task import Task
from sojourn.tasktoken.grants import Authority, Details, Grant

A, B = "https://a.example", "https://b.example"
BOTH = Authority((Grant(A, ("x", "y")), Grant(B, ("x", "z"))))


def asked(**fields: str) -> TokenRequest:
    return read([("grant_type", JWT_BEARER), ("assertion", "a"), *fields.items()])


def details(*actions: str, at: str = A, name: str = "t", **more: Any) -> str:
    return json.dumps([{"type": name, "actions": list(actions), "locations": [at], **more}])


def bounds(*actions: str, at: str = A, **more: Any) -> GrantBounds:
    """Those of authorization_details alone."""
    authority = Authority((Grant(at, tuple(sorted(actions))),))
    return GrantBounds(details=Details("t", authority, more.get("params", {}), ""))


def task(authority: Authority = BOTH, name: str = "t", **params: Any) -> Task:
    return cast("Task", SimpleNamespace(authority=authority, params=params, type=SimpleNamespace(name=name)))


class TestWithin:
    def test_unbounded(self) -> None:
        """What says nothing of it changes nothing of a request."""
        for request in (asked(), asked(resource=A), asked(scope="x"), asked(authorization_details=details("x"))):
            assert request == UNBOUNDED.within(request)

    def test_one_resource(self) -> None:
        """The only resource is the target where the client names none; of several none is taken without being named."""
        assert A == GrantBounds(resources=(A,)).within(asked()).target
        assert B == GrantBounds(resources=(A, B)).within(asked(resource=B)).target
        for resources in ((), (A, B)):
            with pytest.raises(InvalidTarget):
                GrantBounds(resources=resources).within(asked())
        with pytest.raises(InvalidTarget):
            GrantBounds(resources=(A,)).within(asked(resource=B))

    def test_details_alone_name_the_target(self) -> None:
        """The only location of its details is the target too, with their type, actions and parameters."""
        request = bounds("x", "y", params={"n": 1}).within(asked())
        assert (A, "t", ("x", "y"), {"n": 1}) == (
            request.target, request.type_name, actions_wanted(request), request.params,
        )  # fmt: skip

    def test_details_elsewhere(self) -> None:
        """Where its resource and its details have nothing in common, there is nothing to ask for."""
        with pytest.raises(InvalidTarget):
            GrantBounds(resources=(B,), details=bounds("x").details).within(asked())

    def test_scope_and_details(self) -> None:
        """Where it has both, what is asked by its details is in its scope as well; nothing is refused."""
        both = GrantBounds(scope=frozenset({"y"}), details=bounds("x", "y").details)
        assert ("y",) == actions_wanted(both.within(asked()))
        with pytest.raises(InvalidScope):
            GrantBounds(scope=frozenset({"z"}), details=bounds("x", "y").details).within(asked())

    @pytest.mark.parametrize("params", [{"n": 2}, {"n": True}, {"n": "1"}, {}, {"m": 1}])
    def test_parameters(self, params: dict[str, Any]) -> None:
        """What it says of a parameter the request says too, of the very type; what it does not say is the client's."""
        bound = bounds("x", params={"n": 1})
        with pytest.raises(InvalidAuthorizationDetails):
            bound.within(asked(authorization_details=details("x", params=params)))
        assert bound.within(asked(authorization_details=details("x", params={"n": 1, "m": 2})))


class TestActions:
    def test_what_both_have(self) -> None:
        """Where none are named, a token has those of the task that the assertion has; of several targets one is named."""
        bound = GrantBounds(scope=frozenset({"x", "z"}))
        assert ("x",) == bound.actions((), BOTH, A)
        assert ("x", "z") == bound.actions((), BOTH, B)
        with pytest.raises(InvalidTarget):
            bound.actions((), BOTH, "")
        with pytest.raises(InvalidScope):
            GrantBounds(scope=frozenset({"q"})).actions((), BOTH, A)
        assert () == UNBOUNDED.actions((), BOTH, "")


class TestCovers:
    def test_all_of_a_task(self) -> None:
        """A task goes on by what has all that it has, and by nothing less."""
        assert UNBOUNDED.covers(task())
        assert GrantBounds((A, B), frozenset({"x", "y", "z"})).covers(task())
        assert not GrantBounds((A, B), frozenset({"x", "y"})).covers(task())
        assert not GrantBounds((A,)).covers(task())

    def test_details(self) -> None:
        """By details it is of the same type and parameters, and not for one request."""
        one = Authority((Grant(A, ("x",)),))
        assert bounds("x", "y", params={"n": 1}).covers(task(one, n=1, m=2))
        for other in (task(one, n=2), task(one), task(one, name="u", n=1), task(n=1)):
            assert not bounds("x", "y", params={"n": 1}).covers(other)


ACTIONS = st.sampled_from("xyzw")
SETS = st.sets(ACTIONS, min_size=1)


@given(
    resources=st.none() | st.sets(st.sampled_from([A, B])),
    scope=st.none() | st.sets(ACTIONS),
    own=st.none() | st.tuples(st.sampled_from([A, B]), SETS),
    wanted=st.none() | st.tuples(st.sampled_from([A, B]), SETS),
    named=st.sets(ACTIONS),
    target=st.sampled_from(["", A, B]),
)
def test_never_more(resources: Any, scope: Any, own: Any, wanted: Any, named: Any, target: str) -> None:
    """Whatever an assertion and a request say: what comes of both is in each, and otherwise nothing does."""
    bound = GrantBounds(
        None if resources is None else tuple(sorted(resources)),
        None if scope is None else frozenset(scope),
        None if own is None else bounds(*own[1], at=own[0]).details,
    )
    fields = {"resource": target} if target else {}
    fields |= {"scope": " ".join(sorted(named))} if named else {}
    fields |= {"authorization_details": details(*sorted(wanted[1]), at=wanted[0])} if wanted else {}
    whole = Authority((Grant(A, tuple("wxyz")), Grant(B, tuple("wxyz"))))
    try:
        request = bound.within(asked(**fields))
        actions = bound.actions(actions_wanted(request), whole, request.target)
    except SojournError:
        return
    for action in actions:
        assert resources is None or request.target in resources
        assert scope is None or action in scope
        assert own is None or (request.target == own[0] and action in own[1])
        assert wanted is None or action in wanted[1]
        assert not named or action in named
    assert actions or bound == UNBOUNDED
