"""cedar.py: which tasks a policy tells apart, and for what question an answer is kept."""

from dataclasses import fields, replace

import pytest
from fakes.policies import ACTIONS, PARAMS, principal, user
from fakes.task_types import TICKETS, TRIAGE, task_type
from sojourn.policy import cedar as policy_module
from sojourn.policy import rules
from sojourn.policy.cedar import Deny, Policy
from sojourn.policy.cedar_schema import (
    ATTRIBUTES,
    SOME_TASK,
    UNSAID,
    Context,
    Fields,
    Principal,
    Reading,
    entity,
    inputs_of,
    shown,
    some_task,
    user_entity,
)
from sojourn.policy.user import ATTRIBUTES as OF_USER
from sojourn.policy.user import User, UserFields


class TestTasksByName:
    @pytest.mark.parametrize(
        "condition",
        [
            'principal == Sojourn::Task::"tsk_a", action, resource)',
            'principal in Sojourn::Task::"tsk_a", action, resource)',
            'principal is Sojourn::Task in Sojourn::Task::"tsk_a", action, resource)',
            'principal, action, resource) when { principal == Sojourn::Task::"tsk_a" }',
            'principal, action, resource) when { [Sojourn::Task::"tsk_a"].contains(principal) }',
            'principal, action, resource) unless { principal != Sojourn::Task::"tsk_a" }',
        ],
    )
    def test_one_is_not_the_other(self, condition):
        """A policy may name a task, wherever in it: then it is for that one, whoever was decided before."""
        policy = task_type(cedar=f'@id("this") permit ({condition};').policy
        answers = [
            bool(policy.decide(principal(task_id=name), "ticket:read", TICKETS, Context()))
            for name in ("tsk_b", "tsk_a", "tsk_b", "tsk_a")
        ]
        assert [False, True, False, True] == answers


class TestAlike:
    """Tasks are one to policies that cannot tell them apart; whatever a policy reads or names it sees as it is."""

    @pytest.mark.parametrize(
        "condition",
        [
            "principal.tokens_issued < 1",
            "principal has tokens_issued && principal.tokens_issued < 1",
            'principal["tokens_issued"] < 1',
            "!(principal.tokens_issued >= 1)",
            'if context.params has ticket then principal.tokens_issued < 1 else principal["tokens_issued"] == 0',
        ],
    )
    def test_what_is_read(self, condition):
        """However a policy reads a count, it reads that of the task, each time."""
        policy = Policy(f'@id("a") permit (principal, action, resource) when {{ {condition} }};', ACTIONS, PARAMS)
        for tokens in (0, 1, 0, 5):
            asked = principal(tokens_issued=tokens, reported_calls=tokens + 1)
            assert (tokens < 1) == bool(policy.decide(asked, "ticket:read", TICKETS, Context()))

    def test_what_is_named(self):
        """A policy for one task is for no other."""
        policy = Policy('@id("a") permit (principal == Sojourn::Task::"tsk_1", action, resource);', ACTIONS, PARAMS)
        for name in ("tsk_2", "tsk_1", "tsk_some"):
            asked = principal(task_id=name)
            assert (name == "tsk_1") == bool(policy.decide(asked, "ticket:read", TICKETS, Context()))

    def test_entities_are_made_once(self):
        """Of tasks that differ in what no policy reads, entities are made once; a change that is read makes new ones."""
        policy = Policy(
            '@id("a") permit (principal, action, resource) when { principal.reported_calls < 9 };', ACTIONS, PARAMS
        )
        for tokens, name, calls in ((0, "a", 0), (1, "b", 0), (2, "c", 1)):
            policy.decide(
                principal(task_id=name, tokens_issued=tokens, reported_calls=calls), "ticket:read", TICKETS, Context()
            )
        assert 2 == policy._made.cache_info().misses


class TestAllowed:
    """A clean yes is kept for the very same question, and for no other; a no never is."""

    WHEN = "principal.reported_calls < 9 && context.params has level && context.params.level > 0 && context.facts.calm"

    @pytest.fixture
    def asked(self, monkeypatch):
        """What Cedar was asked, in order."""
        asked, real = [], policy_module.cedarpy.is_authorized

        def ask(request, *arguments, **named):
            asked.append(request)
            return real(request, *arguments, **named)

        monkeypatch.setattr(policy_module.cedarpy, "is_authorized", ask)
        return asked

    @pytest.fixture
    def policy(self):
        return Policy(
            f'@id("a") permit (principal, action, resource) when {{ {self.WHEN} }};',
            ACTIONS,
            PARAMS,
            Fields({"calm": "boolean"}, ["calm"]),
        )

    def context(self, level=1, *, calm=True, age=0.0):
        return Context({"level": level}, {"calm": Reading(calm, "monitor", age)})

    def test_asked_once(self, policy, asked):
        """The same question, of a task that is alike, is asked once, however old its facts are by now."""
        for name, age in (("a", 0.0), ("b", 7.5)):
            assert policy.decide(principal(task_id=name), "ticket:read", TICKETS, self.context(age=age))
        assert 1 == len(asked)

    @pytest.mark.parametrize(
        ("changes", "action", "resource", "said", "allowed"),
        [
            pytest.param({"reported_calls": 9}, "ticket:read", TICKETS, {}, False, id="a count"),
            pytest.param({"state": "suspended"}, "ticket:read", TICKETS, {}, False, id="the state"),
            pytest.param({"depth": 1}, "ticket:read", TICKETS, {}, True, id="the depth"),
            pytest.param({"workload": "spiffe://x/y"}, "ticket:read", TICKETS, {}, True, id="the workload"),
            pytest.param({}, "ticket:write", TICKETS, {}, True, id="the action"),
            pytest.param({}, "ticket:none", TICKETS, {}, False, id="an action that there is not"),
            pytest.param({}, "ticket:read", "https://other.example", {}, True, id="the resource"),
            pytest.param({}, "ticket:read", TICKETS, {"level": 0}, False, id="a parameter"),
            pytest.param({}, "ticket:read", TICKETS, {"level": True}, False, id="its type"),
            pytest.param({}, "ticket:read", TICKETS, {"level": "1"}, False, id="its type, as text"),
            pytest.param({}, "ticket:read", TICKETS, {"calm": False}, False, id="a fact"),
            pytest.param({}, "ticket:read", TICKETS, {"calm": 1}, False, id="the type of a fact"),
        ],
    )
    def test_another_question(self, policy, asked, changes, action, resource, said, allowed):
        """Whatever Cedar would read differently is asked, whichever yes is kept."""
        assert policy.decide(principal(), "ticket:read", TICKETS, self.context())
        assert allowed == bool(policy.decide(principal(**changes), action, resource, self.context(**said)))
        assert 2 == len(asked)

    @pytest.mark.parametrize("name", [each.name for each in fields(Principal) if each.name != "task_id"])
    def test_each_field_of_the_task(self, asked, name):
        """Whatever of the task policies may read, a yes for one value is none for another, and Cedar reads that one."""
        read = dict(ATTRIBUTES)[name].name
        policy = Policy(
            '@id("a") permit (principal, action, resource)'
            f" when {{ principal has {read} && principal.{read} == principal.{read} }};",
            ACTIONS,
            PARAMS,
            limited=["ticket:read"],
            user=UserFields(),
        )
        one = principal(uses=(("ticket:read", 1),), user=user())
        was = getattr(one, name)
        others = {"uses": (("ticket:read", 2),), "user": user(issuer="partner")}
        other = replace(one, **{name: others[name] if name in others else was + type(was)("7")})
        made = [entity(policy._as_told_apart(each), ["ticket:read"], UserFields()) for each in (one, other)]
        assert made[0] != made[1]
        for each in (one, other, one):
            policy.decide(each, "ticket:read", TICKETS, Context())
        assert 2 == len(asked)

    @pytest.mark.parametrize("name", [each.name for each in fields(User) if each.name != "may"])
    def test_each_field_of_the_person(self, asked, name):
        """Whatever of the person policies may read, a yes for one value is none for another, and Cedar, explanations,
        the audit and the digest of an approval have that one.
        """
        declared = UserFields({"department": "string"})
        read = {"claims": "department"}.get(name, name)
        there = f"principal.user has {read} && principal.user.{read} == principal.user.{read}"
        policy = Policy(
            f'@id("a") permit (principal, action, resource) when {{ {there} }};', ACTIONS, PARAMS, user=declared
        )
        one = user(claims=(("department", "string", "sales"),))
        was = getattr(one, name)
        changed = {"claims": (("department", "string", "board"),), "amr": ("sms",), "groups": ("lead",), "auth_age": 61}
        other = replace(one, **{name: changed[name] if name in changed else was + "7"})
        tasks = [principal(user=each) for each in (one, other)]
        made = [user_entity(policy._as_told_apart(each).user, declared) for each in tasks]
        assert made[0] != made[1]
        assert shown(tasks[0], (), declared) != shown(tasks[1], (), declared)
        assert inputs_of(tasks[0], Context(), b"key") != inputs_of(tasks[1], Context(), b"key")
        for each in (*tasks, tasks[0]):
            assert policy.decide(each, "ticket:read", TICKETS, Context())
        assert 2 == len(asked)

    def test_each_field_of_the_person_is_in_cedar(self):
        """Whatever is said of a person is an attribute of theirs, or a claim; but for what their token lets be done, which
        is above policy.
        """
        assert {each.name for each in fields(User)} == {*OF_USER, "claims", "may"}

    def test_above_policy(self, asked):
        """A yes that is kept is none for a person whose access token does not let it be done; the audit and the digest of
        an approval tell the two apart.
        """
        kind = task_type(person='{need = "required"}')
        one, other = (principal(user=user(may=may)) for may in (None, ("ticket:read",)))
        for each, actions in ((one, 3), (other, 1), (one, 3), (other, 1)):
            left = rules.still_allowed(kind, each, kind.ceiling, Context())
            assert actions == sum(len(grant.actions) for grant in left.grants)
        assert 3 == len(asked)
        assert inputs_of(one, Context(), b"key") != inputs_of(other, Context(), b"key")

    @pytest.mark.parametrize("name", [each.name for each in fields(Context) if each.name not in {"absent", "also"}])
    def test_each_field_beside_it(self, policy, asked, name):
        """Whatever policies may read beside the task is part of the question."""
        other = {"params": {"level": 2}, "facts": {"calm": Reading(value=False)}}[name]
        now = self.context()
        for each in (now, replace(now, **{name: other})):
            policy.decide(principal(), "ticket:read", TICKETS, each)
        assert 2 == len(asked)
        assert asked[0]["context"] != asked[1]["context"]

    def test_all_of_them_are_recorded(self):
        """What the audit has the digest of, and what an approval is asked for, has each of these fields."""
        made = inputs_of(principal(), Context({"level": 1}, {"calm": Reading(value=True)}), b"key")
        assert {each.name for each in fields(Principal)} == made["principal"].keys()
        assert {"principal", "params", "facts"} == made.keys()

    def test_a_question_has_them_too(self):
        """Cases, explanations and a candidate set ask with each of these fields, of a task as it is."""
        one = principal(state="suspended", tokens_issued=3, reported_calls=4, depth=2, uses=(("ticket:read", 1),))
        said = {name: getattr(one, name) for name in UNSAID}
        assert {each.name for each in fields(Principal)} == {"task_id", "task_type", "workload", "user", *said}
        assert replace(one, task_id=SOME_TASK) == some_task("triage", TRIAGE, **said)
        assert replace(one, task_id=SOME_TASK, user=user()) == some_task("triage", TRIAGE, user=user(), **said)

    def test_a_no_is_not_kept(self, policy, asked):
        """What is denied is asked again, each time."""
        for _ in range(2):
            assert not policy.decide(principal(reported_calls=9), "ticket:read", TICKETS, self.context())
        assert 2 == len(asked)

    def test_a_missing_fact(self, policy):
        """A yes that is kept allows nothing once a fact that is required is not there."""
        assert policy.decide(principal(), "ticket:read", TICKETS, self.context())
        gone = Context({"level": 1}, {}, {"calm": "stale"})
        assert Deny("fact 'calm' is stale") == policy.decide(principal(), "ticket:read", TICKETS, gone)

    def test_no_more_than_there_is_room_for(self, policy, asked, monkeypatch):
        """The questions that were asked last are kept, ALLOWED_KEPT of them."""
        monkeypatch.setattr(policy._allowed, "room", 2)
        for level in (1, 2, 1, 3, 1, 2):
            assert policy.decide(principal(), "ticket:read", TICKETS, self.context(level))
        assert [1, 2, 3, 2] == [request["context"]["params"]["level"] for request in asked]
