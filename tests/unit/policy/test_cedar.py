"""cedar.py: anything but a clean yes is a no."""

import contextlib

import pytest
from fakes.policies import ACTIONS, PARAMS, principal
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import Fault, InvalidPolicy
from sojourn.policy import cedar as policy_module
from sojourn.policy import clauses
from sojourn.policy.cedar import Allow, Deny, Policy
from sojourn.policy.cedar_schema import Context, Fields

LARGEST = 2**63 - 1
awkward = st.text(alphabet=st.sampled_from('ab"\\\n\r\t{}():;, @=*é\u2028\x00?/'), max_size=12)


def decide(cedar, action="ticket:read", resource=TICKETS, params=None, **changes):
    return Policy(cedar, ACTIONS, PARAMS).decide(principal(**changes), action, resource, Context(params or {}))


class TestDecision:
    def test_a_permit_allows(self):
        """What a policy permits is allowed, and the policy is named."""
        assert Allow(("all",)) == decide(PERMIT_ALL)

    def test_no_policy_denies(self):
        """What no policy permits is denied."""
        assert Deny("no policy permits it") == decide("")

    def test_a_forbid_wins(self):
        """A forbid beats any permit, and is named."""
        cedar = PERMIT_ALL + '@id("no-writes") forbid (principal, action == Sojourn::Action::"ticket:write", resource);'
        assert decide(cedar, "ticket:read")
        assert Deny("a policy forbids it", ("no-writes",)) == decide(cedar, "ticket:write")

    @pytest.mark.parametrize("state", ["completed", "revoked", "expired", "", "ACTIVE"])
    def test_only_active_tasks(self, state):
        """Whatever a type's policies say, a task that is not active may do nothing."""
        assert ("sojourn.task-not-active",) == decide(PERMIT_ALL, state=state).policies
        assert not decide(PERMIT_ALL, state=state)

    def test_answers_are_truth_values(self):
        """Of all answers of a policy only Allow is true."""
        assert (True, False) == (bool(Allow(())), bool(Deny("")))

    def test_policies_see_the_task(self):
        """Policies can tell tasks by type, workload and tokens issued."""
        cedar = (
            '@id("mine") permit (principal in Sojourn::TaskType::"triage", action, resource)'
            f' when {{ principal in Sojourn::Workload::"{TRIAGE}" && principal.type == "triage"'
            f' && principal.workload == Sojourn::Workload::"{TRIAGE}" && principal.tokens_issued < 1 }};'
        )
        assert decide(cedar)
        assert not decide(cedar, tokens_issued=1)
        assert not decide(cedar, workload="spiffe://example.org/web")
        assert not decide(cedar, task_type="other")

    def test_policies_see_parameters(self):
        """Policies can tell tasks by their parameters, each with its own type."""
        cedar = (
            '@id("p") permit (principal, action, resource) when { context.params has ticket'
            ' && context.params.ticket == "T-1" && context.params has level && context.params.level > 3'
            " && context.params has urgent && context.params.urgent };"
        )
        good = {"ticket": "T-1", "level": 4, "urgent": True}
        assert decide(cedar, params=good)
        for change in ({"ticket": "T-2"}, {"level": 3}, {"urgent": False}):
            assert not decide(cedar, params={**good, **change})
        assert not decide(cedar)


class TestErrors:
    OVERFLOWS = f"context.params has level && context.params.level + {LARGEST} > 0"

    def test_an_error_in_a_forbid_denies(self):
        """A forbid that cannot be evaluated denies: Cedar alone would drop it and allow."""
        cedar = PERMIT_ALL + f'@id("f") forbid (principal, action, resource) when {{ {self.OVERFLOWS} }};'
        decision = decide(cedar, params={"level": 1})
        assert not decision
        assert "could not be evaluated" in decision.reason

    def test_an_error_in_a_permit_denies(self):
        """A permit that cannot be evaluated denies, even beside one that permits."""
        cedar = PERMIT_ALL + f'@id("p") permit (principal, action, resource) when {{ {self.OVERFLOWS} }};'
        assert not decide(cedar, params={"level": 1})

    @pytest.mark.parametrize(
        "params",
        [
            {"level": "1"},
            {"level": 2**63},
            {"level": True},
            {"unknown": "x"},
            {"ticket": None},
            {"ticket": {"__entity": {"type": "Sojourn::Workload", "id": TRIAGE}}},
            {"ticket": object()},
        ],
        ids=["text", "too large", "truth", "unknown", "none", "entity", "not JSON"],
    )
    def test_parameters_of_a_wrong_type_deny(self, params):
        """A request that is not what the schema says is denied, whatever the policies say."""
        assert not decide(PERMIT_ALL, params=params)

    @pytest.mark.parametrize("action", ["ticket:delete", "", "TICKET:READ", "ticket:read\n"])
    def test_an_unknown_action_denies(self, action):
        """An action that the type does not have is denied."""
        assert not decide(PERMIT_ALL, action)

    @pytest.mark.parametrize("field", ["task_id", "state", "tokens_issued", "workload", "task_type"])
    def test_a_missing_attribute_denies(self, field):
        """A task with an attribute missing is denied, with a forbid that asks for it too."""
        cedar = PERMIT_ALL + '@id("f") forbid (principal, action, resource) when { principal.tokens_issued > 9 };'
        assert not decide(cedar, **{field: None})


class TestInjection:
    CEDAR = (
        '@id("one") permit (principal in Sojourn::TaskType::"triage", action == Sojourn::Action::"ticket:read",'
        f' resource == Sojourn::Resource::"{TICKETS}")'
        f' when {{ principal in Sojourn::Workload::"{TRIAGE}" && context.params has ticket'
        ' && context.params.ticket == "T-1" };'
    )
    POLICY = Policy(CEDAR, ACTIONS, PARAMS)

    @examples(150)
    @given(st.sampled_from(["task_type", "workload", "action", "resource", "ticket"]), awkward | st.text(max_size=20))
    def test_text_is_never_code(self, field, text):
        """Whatever stands in an id or a parameter: the answer is the policy's only if it is that very text."""
        values = {
            "task_type": "triage",
            "workload": TRIAGE,
            "action": "ticket:read",
            "resource": TICKETS,
            "ticket": "T-1",
        }
        for change, expected in ((text, text == values[field]), (values[field] + text, not text)):
            used = {**values, field: change}
            asked = principal(task_type=used["task_type"], workload=used["workload"])
            decision = self.POLICY.decide(asked, used["action"], used["resource"], Context({"ticket": used["ticket"]}))
            assert expected is bool(decision)

    @given(awkward)
    def test_the_task_s_id_does_not_matter(self, text):
        """A task's id may hold anything and changes no answer."""
        assert self.POLICY.decide(principal(task_id=text), "ticket:read", TICKETS, Context({"ticket": "T-1"}))

    @pytest.mark.parametrize(
        "text",
        [
            'T-1" || true || "',
            'x";\npermit (principal, action, resource);//',
            'Sojourn::Task::"x"',
            f'{TICKETS}"]; permit(principal,action,resource); //',
            "*",
            "../../",
        ],
    )
    def test_code_in_ids(self, text):
        """Quotes, newlines and `::` in ids open nothing."""
        assert not self.POLICY.decide(principal(workload=text), "ticket:read", TICKETS, Context({"ticket": "T-1"}))
        assert not self.POLICY.decide(principal(), text, TICKETS, Context({"ticket": "T-1"}))
        assert not self.POLICY.decide(principal(), "ticket:read", text, Context({"ticket": "T-1"}))
        assert not self.POLICY.decide(principal(), "ticket:read", TICKETS, Context({"ticket": text}))


class TestLoading:
    @pytest.mark.parametrize(
        ("cedar", "says"),
        [
            ("permit (principal, action, resource);", "needs an id"),
            (PERMIT_ALL + "forbid (principal, action, resource);", "needs an id"),
            ('@name("x") permit (principal, action, resource);', "needs an id"),
            ("permit (principal", "cannot be parsed"),
            ("# not Cedar", "cannot be parsed"),
            ('@id("a") permit (principal, action == Sojourn::Action::"ticket:delete", resource);', "ticket:delete"),
            ('@id("a") permit (principal == Sojourn::User::"x", action, resource);', "User"),
            ('@id("a") permit (principal == Task::"x", action, resource);', "Task"),
            ('@id("a") permit (principal, action, resource) when { principal.colour == "red" };', "colour"),
            ('@id("a") permit (principal, action, resource) when { context.params.nothing == "x" };', "nothing"),
            ('@id("a") permit (principal, action, resource) when { context.params.ticket == "x" };', "ticket"),
            (
                '@id("a") permit (principal, action, resource) when { context.params has level && context.params.level like "x*" };',
                "Long",
            ),
            ('@id("a") permit (principal, action, resource) when { context.time > 1 };', "time"),
        ],
    )
    def test_refused(self, cedar, says):
        """A policy without id, that does not parse, or that names what there is not, is refused when it is loaded."""
        with pytest.raises(InvalidPolicy, match=says):
            Policy(cedar, ACTIONS, PARAMS)

    @examples(150)
    @given(st.text(max_size=60) | st.text(alphabet='@id("a") permit(principal,action,resource);{}when', max_size=60))
    def test_ours_or_nothing(self, cedar):
        """Any text either makes a policy or raises our error."""
        with contextlib.suppress(InvalidPolicy):
            Policy(cedar, ACTIONS, PARAMS)

    @pytest.mark.parametrize("effect", ["permit", "forbid"])
    def test_a_text_cannot_take_our_ids(self, effect):
        """A policy that bears the name of one of ours is refused, so that an id in a record says whose it is."""
        with pytest.raises(InvalidPolicy, match="ours"):
            Policy(f'@id("sojourn.task-not-active") {effect} (principal, action, resource);', ACTIONS, PARAMS)

    def test_a_text_cannot_undo_our_forbid(self):
        """A type's text cannot comment out the forbid that stands before it."""
        for cedar in ("*/ " + PERMIT_ALL, PERMIT_ALL + " //", '// "\n' + PERMIT_ALL):
            with contextlib.suppress(InvalidPolicy):
                assert not decide(cedar, state="revoked")

    def test_every_fault_with_its_line(self):
        """All policies that cannot be used are told, each with its line and its id."""
        texts = [
            '// a comment; with "quotes" ; and semicolons',
            PERMIT_ALL,
            'permit (principal, action, resource) when { "; permit" == "x" };',
            PERMIT_ALL,
            '@id("slot") permit (principal == ?principal, action, resource);',
            '@id("late") permit (principal',
        ]
        with pytest.raises(InvalidPolicy) as caught:
            Policy("\n".join(texts), ACTIONS, PARAMS)
        assert [3, 4, 5, 6] == [fault.line for fault in caught.value.faults]
        for fault, said in zip(caught.value.faults, ["needs an id", "line 2", "template", "parsed"], strict=True):
            assert said in fault.message

    def test_every_invalid_use_with_its_line(self):
        """What the schema does not have is told once for each policy, with its line and its id."""
        with pytest.raises(InvalidPolicy) as caught:
            Policy(
                PERMIT_ALL + '\n\n@id("b")\npermit (principal, action, resource) when { principal.colour == "red" };',
                ACTIONS,
                PARAMS,
            )
        [fault] = caught.value.faults
        assert (3, True) == (fault.line, fault.message.startswith("policy 'b': attribute `colour`"))

    def test_a_fault_of_no_policy(self):
        """What the validator finds of no policy that we know is told all the same, on no line."""

        class Found:
            def __init__(self, policy_id, error):
                self.policy_id, self.error = policy_id, error

        every = clauses.read(PERMIT_ALL + "\n" + PERMIT_ALL.replace("all", "second"))
        errors = [
            Found("policy1", "for policy `policy1`, no such attribute"),
            Found("policy1", "for policy `policy1`, no such attribute"),
            Found("policy2", "out of range"),
            Found("schema", "no such type"),
            Found("xpolicy0", "of another"),
        ]
        assert [
            Fault("", 2, "policy 'second': no such attribute"),
            Fault("", 0, "out of range"),
            Fault("", 0, "no such type"),
            Fault("", 0, "of another"),
        ] == policy_module._faults(errors, every)

    def test_a_required_parameter_is_always_there(self):
        """A policy may read a required parameter without asking whether it is there; a request without it is denied."""
        cedar = '@id("p") permit (principal, action, resource) when { context.params.level > 3 };'
        policy = Policy(cedar, ACTIONS, Fields(PARAMS.types, ["level"]))
        assert policy.decide(principal(), "ticket:read", TICKETS, Context({"level": 4}))
        for params in ({}, {"level": 3}):
            assert not policy.decide(principal(), "ticket:read", TICKETS, Context(params))


class TestCut:
    """A request is decided by the policies that its action can match; the answer must be that of all of them."""

    SCOPES = (
        "action",
        'action == Sojourn::Action::"a0"',
        'action == Sojourn::Action::"a1"',
        'action in [Sojourn::Action::"a0", Sojourn::Action::"a2"]',
        'action in Sojourn::Action::"a1"',
    )
    CONDITIONS = (
        "",
        "when { principal.tokens_issued < 2 }",
        'unless { context.params has ticket && context.params.ticket == "T-1" }',
        f"when {{ context.params has level && context.params.level + {LARGEST} > 0 }}",
        f'when {{ resource == Sojourn::Resource::"{TICKETS}" }}',
    )
    clause = st.tuples(st.sampled_from(["permit", "forbid"]), st.sampled_from(SCOPES), st.sampled_from(CONDITIONS))

    @examples(200)
    @given(
        st.lists(clause, max_size=8),
        st.sampled_from(["a0", "a1", "a2", "other"]),
        st.sampled_from([TICKETS, "https://other.example.org"]),
        st.sampled_from([{}, {"ticket": "T-1"}, {"level": 0}, {"level": 1, "ticket": "T-2"}, {"level": "x"}]),
        st.sampled_from(["active", "revoked"]),
        st.integers(0, 3),
    )
    def test_the_same_answer(self, clauses, action, resource, params, state, tokens):
        """Whatever the policies and the request: the decision, and the policies that decided, are the same."""
        cedar = "\n".join(
            f'@id("p{number}") {effect} (principal, {scope}, resource) {condition};'
            for number, (effect, scope, condition) in enumerate(clauses)
        )
        policy = Policy(cedar, ["a0", "a1", "a2"], PARAMS)
        asked = principal(state=state, tokens_issued=tokens)
        cut = policy.decide(asked, action, resource, Context(params))
        whole = policy.ask(policy.whole, asked, action, resource, Context(params))
        assert (bool(whole), whole.policies) == (bool(cut), cut.policies)

    def test_it_is_cut(self):
        """Policies for other actions are not asked: one that cannot be evaluated shows only where it can match."""
        cedar = PERMIT_ALL + (
            '@id("bad") forbid (principal, action == Sojourn::Action::"ticket:write", resource) when'
            f" {{ {TestErrors.OVERFLOWS} }};"
        )
        assert decide(cedar, "ticket:read", params={"level": 1})
        assert "could not be evaluated" in decide(cedar, "ticket:write", params={"level": 1}).reason
