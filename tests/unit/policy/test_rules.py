"""rules.py: who may begin a task, and what it may do. Each rule by itself."""

from dataclasses import replace

import pytest
from fakes.registrations import entry
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, WIKI, task_type
from sojourn.errors import ActionOutsideType, InvalidInput, InvalidTarget, PolicyDenied
from sojourn.limits import TASK_MIN_SECONDS
from sojourn.policy import rules
from sojourn.policy.cedar import Allow, Deny
from sojourn.policy.cedar_schema import UNSAID, Context, Principal, Reading
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Authority, Grant

READ, WRITE, PAGES = ("ticket:read",), ("ticket:write",), ("page:read",)
ALL = Authority((Grant(TICKETS, READ + WRITE), Grant(WIKI, PAGES)))
TRIAGE_ID = SpiffeId.parse(TRIAGE)
HELPER, OTHER = (SpiffeId.parse(f"spiffe://example.org/agent/{name}") for name in ("helper", "other"))
NO_WRITES = PERMIT_ALL + '@id("no-writes") forbid (principal, action == Sojourn::Action::"ticket:write", resource);'
ONLY_URGENT = (
    '@id("urgent") permit (principal, action, resource) when { context.params has urgent && context.params.urgent };'
)
FREEZE = '{freeze = {type = "boolean", required = true}}'
NOTHING = Context()


def principal(**changes):
    fields = {
        "task_id": "t",
        "task_type": "triage",
        "workload": TRIAGE,
        "user": None,
        **UNSAID,
    }
    return Principal(**{**fields, **changes})


def handed_on(**changes):
    return task_type(delegation=f'{{to = ["{HELPER}", "{TRIAGE}"], max_depth = 2}}', **changes)


def at(resource, *actions):
    return Authority((Grant(resource, actions),))


def refusal(error, call, *arguments):
    with pytest.raises(error) as caught:
        call(*arguments)
    return caught.value.public


class TestEntry:
    def test_the_first_that_may(self):
        """Of a caller's identities the first that may begin the type counts, or the one that was named."""
        kind = task_type(allowed_workloads=f'["{TRIAGE}", "{HELPER}"]')
        entries = [entry("/web"), entry("/agent/helper"), entry("/agent/triage")]
        assert entries[1] is rules.entry_for(kind, entries, None)
        assert entries[2] is rules.entry_for(kind, entries, TRIAGE_ID)

    def test_none_that_may(self):
        """A caller without an identity that may begin it is told so, and of which identity, if one was named."""
        own = [entry("/web"), entry("/agent/triage")]
        assert "none of the caller's identities" in refusal(PolicyDenied, rules.entry_for, task_type(), own[:1], None)
        for wanted in (HELPER, own[0].spiffe_id):
            assert str(wanted) in refusal(PolicyDenied, rules.entry_for, task_type(), own, wanted)


class TestCeiling:
    def test_within(self):
        """All that the type has may be wanted, and any part of it."""
        for wanted in (ALL, at(TICKETS, *WRITE), Authority(())):
            rules.check_within(task_type(), wanted)

    @pytest.mark.parametrize(
        ("wanted", "error", "named"),
        [
            (at("https://other.example.org", *READ), InvalidTarget, "does not reach 'https://other.example.org'"),
            (at(WIKI, *READ), ActionOutsideType, f"'ticket:read' at '{WIKI}'"),
            (at(TICKETS, "ticket:read", "ticket:shred"), ActionOutsideType, f"'ticket:shred' at '{TICKETS}'"),
        ],
    )
    def test_beyond(self, wanted, error, named):
        """What the type does not reach, or not with this action, is refused by name."""
        assert named in refusal(error, rules.check_within, task_type(), wanted)

    def test_held(self):
        """Of a task only what it holds may be wanted."""
        rules.check_held(ALL, at(TICKETS, *READ))
        assert f"'ticket:write' at '{TICKETS}'" in refusal(
            ActionOutsideType, rules.check_held, at(TICKETS, *READ), at(TICKETS, *READ, *WRITE)
        )


class TestDelegate:
    @pytest.mark.parametrize("line", [[TRIAGE_ID], [OTHER], [OTHER, TRIAGE_ID]])
    def test_may(self, line):
        """A type that names the workload is handed on to it, as deep as it says."""
        rules.check_delegate(handed_on(), HELPER, line)

    @pytest.mark.parametrize(
        ("kind", "to", "line", "why"),
        [
            pytest.param(task_type(), HELPER, [TRIAGE_ID], "the type has no [delegation]", id="none"),
            pytest.param(
                handed_on(break_glass="true", max_duration='"30m"', approval='{approvers = ["operator"]}'),
                HELPER, [TRIAGE_ID], "who was approved does it", id="break-glass",
            ),
            pytest.param(handed_on(), OTHER, [TRIAGE_ID], f"not handed on to '{OTHER}'", id="not-named"),
            pytest.param(handed_on(), TRIAGE_ID, [TRIAGE_ID, HELPER], "not handed in a circle", id="circle"),
            pytest.param(handed_on(), HELPER, [TRIAGE_ID, OTHER, OTHER], "2 deep at most", id="too-deep"),
        ],
    )  # fmt: skip
    def test_may_not(self, kind, to, line, why):
        """Each rule of handing on refuses by itself, and says which it is."""
        assert why in refusal(PolicyDenied, rules.check_delegate, kind, to, line)

    @pytest.mark.parametrize(
        ("kind", "workload", "depth", "may"),
        [
            (task_type(), TRIAGE, 0, True),
            (task_type(), str(HELPER), 0, False),
            (task_type(), TRIAGE, 1, False),
            (handed_on(), str(HELPER), 0, False),
            (handed_on(), str(HELPER), 1, True),
            (handed_on(), str(HELPER), 2, True),
            (handed_on(), str(HELPER), 3, False),
            (handed_on(), str(OTHER), 1, False),
        ],
    )
    def test_may_hold(self, kind, workload, depth, may):
        """A workload has a task of a type by beginning it, or at a depth to which the type hands it on."""
        assert may is rules.may_hold(kind, workload, depth)


class TestSmallRules:
    @pytest.mark.parametrize("seconds", [0, TASK_MIN_SECONDS, TASK_MIN_SECONDS + 1])
    def test_life(self, seconds):
        """A task may be wanted for any time from the shortest on, and for no time that is said."""
        rules.check_life(seconds)

    @pytest.mark.parametrize("seconds", [-1, TASK_MIN_SECONDS / 2, TASK_MIN_SECONDS - 0.01])
    def test_too_short_a_life(self, seconds):
        """A task that would end at once is refused."""
        assert f"at least {TASK_MIN_SECONDS} s" in refusal(InvalidInput, rules.check_life, seconds)

    def test_binding(self):
        """A task is held as its type says, and otherwise it is said as what it could be."""
        kind = task_type(binding='["stream", "one-shot"]')
        rules.check_binding(kind, "stream")
        said = refusal(PolicyDenied, rules.check_binding, kind, "process")
        assert "a task of type 'triage' may not be held as process: its type has one-shot, stream" == said


class TestAuthorize:
    def test_the_whole_type(self):
        """Of the whole type what is denied is left out, and each decision is heard."""
        heard = []
        found = rules.authorize(
            task_type(cedar=NO_WRITES), principal(), None, NOTHING, lambda *decided: heard.append(decided)
        )
        assert Authority((Grant(TICKETS, READ), Grant(WIKI, PAGES))) == found
        assert [
            ("ticket:read", TICKETS, Allow(("all",))),
            ("ticket:write", TICKETS, Deny("a policy forbids it", ("no-writes",))),
            ("page:read", WIKI, Allow(("all",))),
        ] == heard

    def test_what_is_named(self):
        """What is named and allowed is granted, and no more."""
        heard = []
        wanted = at(TICKETS, *READ)
        assert wanted == rules.authorize(
            task_type(cedar=NO_WRITES), principal(), wanted, NOTHING, lambda *decided: heard.append(decided)
        )
        assert [("ticket:read", TICKETS, Allow(("all",)))] == heard

    def test_what_is_named_and_denied(self):
        """One named action that is denied refuses the whole, says who decided, and was heard."""
        heard = []
        said = refusal(
            PolicyDenied, rules.authorize, task_type(cedar=NO_WRITES), principal(), at(TICKETS, *READ, *WRITE), NOTHING,
            lambda *decided: heard.append(decided),
        )  # fmt: skip
        expected = f"action 'ticket:write' at '{TICKETS}' was denied: a policy forbids it (decided by no-writes)"
        assert expected == said
        assert ("ticket:write", TICKETS, Deny("a policy forbids it", ("no-writes",))) == heard[-1]
        said = refusal(PolicyDenied, rules.authorize, task_type(cedar=""), principal(), at(TICKETS, *READ), NOTHING)
        assert f"action 'ticket:read' at '{TICKETS}' was denied: no policy permits it" == said

    def test_what_is_named_and_beyond_the_type(self):
        """What the type has not is refused before policy is asked, and heard as a denial."""
        heard = []
        refusal(
            ActionOutsideType, rules.authorize, task_type(), principal(), at(WIKI, *READ), NOTHING,
            lambda *decided: heard.append(decided),
        )  # fmt: skip
        assert [("ticket:read", WIKI, Deny("the ceiling does not have this action at this resource"))] == heard

    @pytest.mark.parametrize(
        ("kind", "context", "why"),
        [
            pytest.param(task_type(cedar=""), NOTHING, "", id="no-policy"),
            pytest.param(task_type(facts=FREEZE), NOTHING, ": fact 'freeze' is missing", id="no-fact"),
            pytest.param(
                task_type(facts=FREEZE),
                Context(facts={"freeze": Reading(False)}, also=(Context(absent={"freeze": "stale"}),)),
                ": fact 'freeze' is stale",
                id="no-fact-soon",
            ),
        ],
    )
    def test_nothing_left(self, kind, context, why):
        """If policy leaves nothing of the whole type that is refused, with the fact that is lacking."""
        expected = f"policy allows nothing of task type 'triage'{why}"
        assert expected == refusal(PolicyDenied, rules.authorize, kind, principal(), None, context)


class TestLeft:
    def left(self, kind, held=ALL, context=NOTHING, binding="stream", **changes):
        asked = changes.pop("asked", True)
        found, params, why = rules.left_by(kind, principal(**changes), held, context, binding, asked=asked)
        return found, dict(params), why

    def test_all(self):
        """A version that allows all of it leaves all, and has nothing to say."""
        assert (ALL, {}, "") == self.left(task_type())

    def test_a_smaller_ceiling(self):
        """What the ceiling has no more is gone, a resource with all its actions too."""
        smaller = task_type(ceiling=f'[{{resource = "{TICKETS}", actions = ["ticket:read"]}}]')
        assert (at(TICKETS, *READ), {}, "the ceiling does not have it") == self.left(smaller)

    def test_a_narrower_policy(self):
        """What policy denies is gone, unless it is not asked."""
        narrower = task_type(cedar=NO_WRITES)
        left = Authority((Grant(TICKETS, READ), Grant(WIKI, PAGES)))
        assert (left, {}, "policy denies it") == self.left(narrower)
        assert (ALL, {}, "") == self.left(narrower, asked=False)

    @pytest.mark.parametrize(
        ("kind", "changes", "why"),
        [
            (task_type(allowed_workloads=f'["{HELPER}"]'), {}, "its workload may not begin this type"),
            (task_type(), {"depth": 1}, rules.NOT_HANDED_ON),
            (task_type(binding='["process"]'), {}, "may not be held as stream: its type has process"),
            (task_type(params='{level = {type = "long", required = true}}'), {}, "parameter 'level' is required"),
        ],
    )
    def test_nothing(self, kind, changes, why):
        """A version by which the task could not be at all leaves nothing, and says why."""
        left, params, said = self.left(kind, **changes)
        assert (Authority(()), {}, True) == (left, params, said.endswith(why))

    def test_parameters_are_read_anew(self):
        """The parameters have the types that the new version gives them, in every context that policy is asked with."""
        was = Context({"urgent": "true", "ticket": "7"}, also=(Context({"urgent": "true", "ticket": "7"}),))
        kind = task_type(cedar=ONLY_URGENT, params='{urgent = "boolean", ticket = "long"}')
        assert (ALL, {"urgent": True, "ticket": 7}, "") == self.left(kind, context=was)
        now = replace(was, params={"urgent": True, "ticket": 7})
        assert (ALL, {"urgent": True, "ticket": 7}, "") == self.left(kind, context=now)

    def test_also_in_what_is_to_come(self):
        """What policy denies by facts that are not on disk yet is gone as well."""
        kind = task_type(
            cedar='@id("calm") permit (principal, action, resource) unless { context.facts.freeze };', facts=FREEZE
        )
        calm, frozen = (Context(facts={"freeze": Reading(value)}) for value in (False, True))
        assert (ALL, {}, "") == self.left(kind, context=replace(calm, also=(calm,)))
        assert (Authority(()), {}, "policy denies it") == self.left(kind, context=replace(calm, also=(calm, frozen)))


class TestNarrow:
    def test_a_part(self):
        """A token is for the actions that are named, sorted and each once, or for all at its resource."""
        assert Grant(TICKETS, READ + WRITE) == rules.narrow(ALL, TICKETS, ())
        assert Grant(TICKETS, READ + WRITE) == rules.narrow(
            ALL, TICKETS, ("ticket:write", "ticket:read", "ticket:write")
        )
        assert Grant(TICKETS, WRITE) == rules.narrow(ALL, TICKETS, WRITE)

    def test_the_only_resource(self):
        """The resource need not be named where there is one alone."""
        assert Grant(WIKI, PAGES) == rules.narrow(at(WIKI, *PAGES), "", ())

    @pytest.mark.parametrize(
        ("resource", "actions", "error", "named"),
        [
            ("", (), InvalidInput, "several resources"),
            ("https://other.example.org", READ, InvalidTarget, "https://other.example.org"),
            (WIKI, PAGES + READ, ActionOutsideType, "'ticket:read'"),
        ],
    )
    def test_beyond(self, resource, actions, error, named):
        """What the task has not is refused by name."""
        assert named in refusal(error, rules.narrow, ALL, resource, actions)
