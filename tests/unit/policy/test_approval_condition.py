"""approval_condition.py: which tasks of a type need someone's approval, and that whatever is in doubt does."""

import pytest
from fakes.approvals import approve, request_of
from fakes.delegations import READ
from fakes.families import FamilyRoom, handed_on, opened
from fakes.policies import principal, question
from fakes.task_room import TRIAGE_ENTRY, Room
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, WIKI, task_type
from sojourn.errors import InvalidPolicy, NeedsApproval
from sojourn.facts.publications import Publication
from sojourn.policy import cases, lint
from sojourn.policy.cedar_schema import Context, Reading
from sojourn.policy.conditions import conditions
from sojourn.policy.explanation import explain
from sojourn.policy.questions import ask
from sojourn.policy.task_type_tables import OPERATOR
from sojourn.policy.task_types import TypeSet, parse
from sojourn.tasks.approval import Approvals
from sojourn.tasks.begin import BeginRequest, BeginService
from sojourn.tasks.policy_reload import PolicyReload
from sojourn.tasktoken.grants import Authority, Grant

OVER = "context.params has level && context.params.level > 5"
RISKY = "context.facts has risk && context.facts.risk > 5"
BOTH = Authority((Grant(TICKETS, ("ticket:read", "ticket:write")), Grant(WIKI, ("page:read",))))
TASK = principal(task_type="asked")


def conditional(when=OVER, name="asked", **changes):
    return task_type(name, approval=f"{{when = '{when}'}}", **changes)


def risky(room):
    return Publication("risk", "", 9, OPERATOR, None, room.facts.happens_now("risk", "", OPERATOR))


def needs(kind, authority=BOTH, context=None, **params):
    return kind.needs_approval(TASK, authority, context or Context(params))


class TestNeed:
    @pytest.mark.parametrize(("level", "needed"), [(5, False), (6, True)])
    def test_by_a_parameter(self, level, needed):
        """A task needs approval exactly where the condition holds for its parameters."""
        assert needed == needs(conditional(), level=level)

    def test_without_a_condition(self):
        """Without a condition each task of the type needs approval; without [approval] none does."""
        assert needs(task_type("asked", approval="{}"))
        assert not needs(task_type())

    def test_by_an_action(self):
        """What a task may do counts too: one action for which the condition holds is enough."""
        kind = conditional('action == Sojourn::Action::"ticket:write"')
        assert needs(kind)
        assert not needs(kind, READ)

    def test_of_nothing(self):
        """A task of which nobody knows what it may do needs approval."""
        assert needs(conditional(), Authority(()))

    def test_an_error_is_a_need(self):
        """A condition that cannot be evaluated is a need: here a number becomes too large."""
        kind = conditional("context.params has level && context.params.level * 9223372036854775807 < 0")
        assert (False, True) == (needs(kind, level=1), needs(kind, level=2))

    def test_what_cannot_be_asked_is_a_need(self):
        """A request that Cedar does not even read, by a value of another type than the schema's, needs approval."""
        assert needs(conditional(), context=Context({"level": "many"}))

    def test_what_is_said_and_not_on_disk(self):
        """A fact that was said and is not on disk yet counts as well: either way the condition must not hold."""
        kind = conditional(RISKY, facts='{risk = "long"}')
        calm, risky = Context(facts={"risk": Reading(1)}), Context(facts={"risk": Reading(9)})
        assert (False, True) == (needs(kind, context=calm), needs(kind, context=risky))
        assert needs(kind, context=Context(facts={"risk": Reading(1)}, also=(risky,)))

    def test_what_is_used_counts(self):
        """A condition reads the task as it is, also what the type's policies do not read of it."""
        kind = conditional("principal.depth > 0 || principal.reported_calls > 2")
        used = principal(task_type="asked", reported_calls=3)
        assert (False, True) == (needs(kind), kind.needs_approval(used, BOTH, Context()))


class TestTyped:
    @pytest.mark.parametrize(
        ("when", "says"),
        [
            ("context.params.cents > 5", "cents"),
            ("context.params.level > 5", "level"),  # it need not be there
            ('context.params has level && context.params.level > "5"', "type"),
            ("context.facts has risk", "there is no context.facts.risk"),
            ("context.params has levle && context.params.levle > 5", "there is no context.params.levle"),
            ("context has params.levle", "there is no context.params.levle"),
            ("context has level", "there is no context.level"),
            ("principal has owner", "there is no principal.owner"),
            ("resource has owner", "there is no resource.owner"),
            ("level >", "cannot be parsed"),
            ("true } unless { false", "it is not one condition"),
            ('true }; @id("x") permit (principal, action, resource) when { true', "it is not one policy"),
            ("true }; //", "it is not one policy"),
            ("(" * 200 + "true" + ")" * 200, "brackets"),
            ("", "approval"),
            ("true || " * 600 + "true", "approval"),
        ],
    )
    def test_a_fault_of_the_type(self, when, says):
        """A condition that is none, or that is about what the type does not have, is a fault with file and line."""
        toml = (
            f'allowed_workloads = ["{TRIAGE}"]\n\n[params]\nlevel = "long"\n\n[approval]\ncount = 1\n'
            f'when = \'{when}\'\n\n[[ceiling]]\nresource = "{TICKETS}"\nactions = ["ticket:read"]\n'
        )
        with pytest.raises(InvalidPolicy, match=says) as caught:
            parse("asked", toml, PERMIT_ALL)
        assert [("asked.toml", 8)] == [(each.file, each.line) for each in caught.value.faults]

    def test_beside_other_faults(self):
        """Its faults are told together with those of the policies."""
        with pytest.raises(InvalidPolicy) as caught:
            conditional("x >", cedar="permit (principal, action, resource);")
        assert {"asked.toml", "asked.cedar"} == {each.file for each in caught.value.faults}

    def test_not_for_broken_glass(self):
        """Broken glass is never without a second person."""
        with pytest.raises(InvalidPolicy, match=r"approval\.when is not for it"):
            conditional(break_glass="true")

    def test_a_condition_is_of_the_digest(self):
        """Another condition is another type."""
        assert conditional().digest != conditional("true").digest

    def test_a_fact_that_it_alone_reads(self):
        """A fact that is read by the condition alone is read."""
        assert [] == lint.warnings(conditional(RISKY, facts='{risk = "long"}'))


class TestBeginning:
    @pytest.fixture
    async def room(self, clock):
        types = {
            "asked": conditional(),
            "risky": conditional(RISKY, "risky", facts='{risk = "long"}'),
            "high": conditional(name="high", consequence='"high"'),
        }
        async with Room(clock, TypeSet(types)).running() as room:
            yield room

    async def test_begins_or_waits(self, room):
        """Below the bound a task is active at once, above it waits; the records say by which condition."""
        small, large = [await room.begin("asked", params={"level": level}) for level in ("5", "6")]
        assert ("active", None, "pending", OVER) == (
            small.state,
            small.approval,
            large.state,
            request_of(large).when,
        )
        ((begun,), (waits,)) = room.store.fields("task_begun"), room.store.fields("task_pending")
        assert (OVER, OVER) == (begun["no_approval_unless"], waits["when"])
        assert await room.engine.token(small, TICKETS, ())
        await approve(room, large)
        assert ("active", True, False) == (large.state, large.approved, small.approved)
        assert OVER == large.record().document["approval"]["when"]

    async def test_by_a_fact(self, room):
        """The facts that count are those as the task begins; one that runs stays without approval when they change."""
        before = await room.begin("risky")
        await room.facts.publish(risky(room), {"by_uid": 0})
        after = await room.begin("risky")
        assert ("active", "pending") == (before.state, after.state)

    async def test_a_class_lifts_no_condition(self, room):
        """Where the configuration wants approval of a whole class, a type's condition takes nothing away from that."""
        room.approving = Approvals(room.engine, room.reviews, room.audit, ["high"])
        room.beginning = BeginService(room.engine, room.approving)
        task = await room.begin("high", params={"level": "1"})
        assert ("pending", "") == (task.state, request_of(task).when)

    async def test_what_an_exchange_will_do(self, room):
        """Whether a request will wait is known before it begins; what is refused is left to be refused."""
        for level, waits in (("5", False), ("6", True), ("many", True)):
            request = BeginRequest("asked", {"level": level})
            assert waits == room.beginning.waits([TRIAGE_ENTRY], request)


class TestHandingOn:
    async def test_needs_it_by_then(self, clock, stack):
        """What is handed on needs approval as what is begun does: it is refused, unless someone agreed to the first."""
        kind = handed_on(approval=f"{{when = '{RISKY}'}}", facts='{risk = "long"}')
        room = await opened(FamilyRoom(clock, kind), stack)
        task = await room.begin()
        assert "active" == (await room.hand_on(task, 0)).state
        ticket = await room.ticket(task, 1)
        await room.facts.publish(risky(room), {"by_uid": 0})
        with pytest.raises(NeedsApproval, match="nobody has agreed"):
            await room.accept(ticket, 1)
        await room.audit.flush()
        (denied,) = room.store.fields("delegation_denied")
        assert "begin a task of its own" in denied["reason"]
        approved = await room.begin()
        await approve(room, approved)
        child = await room.hand_on(approved, 0)
        assert "active" == (await room.hand_on(child, 1)).state

    async def test_another_type(self, clock, stack):
        """A task goes on when its type comes to ask for approval of such as it; a part of it is not handed on then."""
        room = await opened(FamilyRoom(clock, handed_on()), stack)
        task = await room.begin()
        types = TypeSet({"triage": handed_on(approval="{when = 'principal.depth >= 0'}")})
        await PolicyReload(room.engine, room.changing).apply(types)
        assert await room.engine.token(task, TICKETS, ())
        with pytest.raises(NeedsApproval):
            await room.hand_on(task, 0)


class TestTold:
    def question(self, level, **changes):
        return question("ticket:read", TICKETS, {"level": level}, task_type="asked", **changes)

    def test_an_answer(self):
        """Whoever asks what a type answers hears whether somebody must agree; what is denied nobody is asked for."""
        kind = conditional()
        assert (False, True) == (ask(kind, self.question("5")).approval, ask(kind, self.question("6")).approval)
        assert not ask(kind, self.question("6", state="revoked")).approval
        assert (False, True) == (
            explain(kind, self.question("5")).needs_approval,
            explain(kind, self.question("6")).needs_approval,
        )

    @pytest.mark.parametrize(("level", "approval", "differs"), [(5, False, False), (6, True, False), (6, False, True)])
    def test_a_case(self, level, approval, differs):
        """A case can say whether approval is needed."""
        text = (
            f'[[case]]\nname = "c"\nexpect = "allow"\nresource = "{TICKETS}"\naction = "ticket:read"\n'
            f"params = {{level = {level}}}\napproval = {str(approval).lower()}\n"
        )
        [outcome] = cases.run(conditional(), cases.parse("t.test.toml", text, conditional()))
        expected = ("expected no approval to be needed, got approval to be needed",) if differs else ()
        assert expected == outcome.differences

    def test_conditions(self):
        """Beside a type's policies stands for which of its tasks somebody must agree."""
        kind = conditional()
        found = conditions(kind, kind.approval)
        assert "approval when" == found.names()
        assert [f"1 of operator must agree, within 10m, where {OVER}"] == list(found.lines())
