"""Policies as an attack, and attacks on policies: the cases of the policy engine (32 to 36), and its failures."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cedarpy
import pytest
from fakes.clock import FakeClock
from fakes.task_room import Room
from fakes.task_types import TICKETS, TRIAGE, task_type, toml
from harness.agent import AgentProcess
from harness.examples import examples
from harness.looking import until
from harness.taskagent import make_agent
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidPolicy, PolicyDenied
from sojourn.limits import POLICIES_PER_TYPE, POLICY_NESTED_MAX, TASK_TYPES
from sojourn.policy import task_types
from sojourn.policy.cedar import Allow, Deny, Policy
from sojourn.policy.cedar_schema import Context, Fields, some_task

ACTIONS = ["ticket:read", "ticket:write"]
PERMIT = '@id("all") permit (principal, action, resource);'
ASKED = replace(some_task("triage", TRIAGE), task_id="tsk_a")


def decide(cedar: str, context: Context, params: Fields) -> Allow | Deny:
    return Policy(cedar, ACTIONS, params).decide(ASKED, "ticket:read", TICKETS, context)


class TestCase32:
    """A forbid that errors must deny."""

    CEDAR = PERMIT + '@id("risky") forbid (principal, action, resource) when { context.params.risk * 4 > 40 };'
    FIELDS = Fields({"risk": "long"}, ["risk"])

    def test_the_forbid_by_itself(self) -> None:
        """The rule that forbids does so where it should, and lets pass all else."""
        assert Allow(("all",)) == decide(self.CEDAR, Context({"risk": 1}), self.FIELDS)
        assert ("risky",) == decide(self.CEDAR, Context({"risk": 11}), self.FIELDS).policies

    def test_an_overflow_in_it(self) -> None:
        """Arithmetic that overflows makes the forbid vanish for Cedar, which says yes; we say no."""
        high = Context({"risk": 2**62})
        assert "could not be evaluated" in decide(self.CEDAR, high, self.FIELDS).reason  # type: ignore[union-attr]
        request = {
            "principal": {"type": "Sojourn::Task", "id": "t"},
            "action": {"type": "Sojourn::Action", "id": "a"},
            "resource": {"type": "Sojourn::Resource", "id": "r"},
            "context": high.document(),
        }
        assert cedarpy.Decision.Allow is cedarpy.is_authorized(request, self.CEDAR, []).decision

    def test_an_attribute_that_may_be_missing(self) -> None:
        """A forbid that does not guard what need not be there is refused before it is in force."""
        with pytest.raises(InvalidPolicy, match="risk"):
            Policy(self.CEDAR, ACTIONS, Fields({"risk": "long"}))

    async def test_no_token(self, room_of: Callable[[str], Room]) -> None:
        """A task whose forbid errors gets no token, and begins with nothing at all."""
        room = room_of(PERMIT + '@id("bad") forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 };')
        with pytest.raises(PolicyDenied):
            await room.begin()
        assert {} == room.store.rows


@pytest.mark.parametrize(
    "context",
    [Context(), Context({}), Context({"level": "3"}), Context({"level": 3, "more": 1}), Context({"level": 0.5})],  # type: ignore[dict-item]
    ids=["nothing", "empty", "another type", "too much", "a float"],
)
def test_case_33_context_that_the_schema_does_not_allow(context: Context) -> None:
    """A request without what the schema asks for is denied, whatever policies say."""
    fields = Fields({"level": "long"}, ["level"])
    assert decide(PERMIT, Context({"level": 3}), fields)
    assert "could not be" in decide(PERMIT, context, fields).reason  # type: ignore[union-attr]


CODE = [
    '") || true || ("',
    'x" };permit(principal,action,resource);//',
    'Sojourn::Workload::"spiffe://example.org/admin"',
    'a\n@id("b") permit (principal, action, resource);',
    '{"__entity": {"type": "Sojourn::Workload", "id": "root"}}',
    '\\"; forbid',
    "::",
    "\x00\u202e\ud7ff",
]


@pytest.mark.parametrize("text", CODE)
def test_case_34_code_in_names(text: str) -> None:
    """Quotes, newlines and `::` in a task, workload, action, resource or parameter are text, and match as text."""
    cedar = f"""@id("one") permit (
      principal, action == Sojourn::Action::"ticket:read", resource == Sojourn::Resource::"{TICKETS}"
    ) when {{ context.params.ticket == "T-1" && principal.workload == Sojourn::Workload::"{TRIAGE}" }};"""
    policy = Policy(cedar, ACTIONS, Fields({"ticket": "string"}, ["ticket"]))
    good = Context({"ticket": "T-1"})
    assert policy.decide(ASKED, "ticket:read", TICKETS, good)
    assert policy.decide(replace(some_task(text, TRIAGE), task_id=text), "ticket:read", TICKETS, good)
    assert not policy.decide(some_task("triage", text), "ticket:read", TICKETS, good)
    assert not policy.decide(some_task("triage", TRIAGE, state=text), "ticket:read", TICKETS, good)
    assert not policy.decide(ASKED, text, TICKETS, good)
    assert not policy.decide(ASKED, "ticket:read", text, good)
    assert not policy.decide(ASKED, "ticket:read", TICKETS, Context({"ticket": text}))


def when(condition: str) -> str:
    return f'@id("bomb") permit (principal, action, resource) when {{ {condition} }};'


BOMBS = {
    "a thousand brackets": when("(" * 1_000 + "true" + ")" * 1_000),
    "sets in sets": when("[" * 5_000 + "1" + "]" * 5_000 + " == [1]"),
    "records in records": when("{a: " * 5_000 + "1" + "}" * 5_000 + " == 1"),
    "ifs in ifs": when("if true then " * 20_000 + "true" + " else false" * 20_000),
    "a long row of ands": when(" && ".join(["true"] * 100_000)),
    "a long sum": when(" + ".join(["1"] * 100_000) + " == 1"),
    "a long path": when("context" + ".params" * 100_000),
    "a hundred thousand nots": when("!" * 100_000 + "true"),
    "no end of policies": "\n".join(f'@id("p{n}") permit (principal, action, resource);' for n in range(20_000)),
    "one policy of a megabyte": when('"' + "x" * 1_000_000 + '" == ""'),
}


class TestCase35:
    """A thousand types, policy bombs, and nesting. Cedar's parser has no limits: it would take the process with it."""

    @pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
    def test_a_bomb(self, bomb: str) -> None:
        """A policy that would take the parser's stack or memory is refused with its line, soon, and the process lives."""
        with pytest.raises(InvalidPolicy) as refused:
            task_types.parse("bomb", toml(), bomb)
        assert 1 <= len(refused.value.public) < 5_000
        assert {"bomb.cedar"} == {fault.file for fault in refused.value.faults}

    def test_what_is_not_too_much(self) -> None:
        """Nesting up to the limit and a set up to the limit are taken."""
        depth = POLICY_NESTED_MAX - 1  # the braces around the condition are one
        assert task_type(cedar=when("(" * depth + "true" + ")" * depth))
        many = "\n".join(f'@id("p{n}") permit (principal, action, resource);' for n in range(POLICIES_PER_TYPE))
        assert POLICIES_PER_TYPE == len(task_type(cedar=many).policy.clauses)

    def test_brackets_in_texts_and_comments(self) -> None:
        """What stands in a text or a comment nests nothing."""
        assert task_type(cedar=f"// {'(' * 500}\n" + when(f'"{"(" * 500}" == ""'))

    @pytest.mark.forked
    def test_a_thousand_types(self, tmp_path: Path) -> None:
        """As many types as are allowed are loaded; one more is refused as a whole."""
        for number in range(TASK_TYPES):
            (tmp_path / f"t{number}.toml").write_text(toml())
            (tmp_path / f"t{number}.cedar").write_text(PERMIT)
        assert TASK_TYPES == len(task_types.load(tmp_path))
        (tmp_path / "more.toml").write_text(toml())
        (tmp_path / "more.cedar").write_text(PERMIT)
        with pytest.raises(InvalidPolicy, match=f"more than {TASK_TYPES}"):
            task_types.load(tmp_path)

    @pytest.mark.forked
    def test_a_bomb_in_the_folder_of_a_running_agent(self) -> None:
        """The agent keeps the set that it has, says why, and goes on."""
        with make_agent() as agent:
            before = agent.json("status")["policy"]["digest"]
            (agent.folder / "types" / "triage-ticket.cedar").write_text(BOMBS["a thousand brackets"])
            until(lambda: "brackets" in _fault(agent), "the set is refused")
            assert before == agent.json("status")["policy"]["digest"]
            assert "policy_refused" in [line["event"] for line in agent.log_lines()]


@examples(150)
@given(st.text(max_size=300), st.text(max_size=300))
def test_case_36_text_changes_nothing(purpose: str, other: str) -> None:
    """Whatever stands in `purpose`, the decision on the same action is the same, and so are the policies that decide."""
    cedar = """@id("small") permit (principal, action, resource) when { context.params.cents <= 100 };
    @id("why") forbid (principal, action, resource) when { context.params.purpose == "" };"""
    policy = Policy(cedar, ACTIONS, Fields({"cents": "long", "purpose": "string"}, ["cents", "purpose"]))
    for cents in (100, 101):
        answers = [
            policy.decide(ASKED, "ticket:read", TICKETS, Context({"cents": cents, "purpose": f"please: {text}"}))
            for text in (purpose, other)
        ]
        assert answers[0] == answers[1]
        assert (cents == 100) == bool(answers[0])


class Panic(BaseException):
    """As the engine's own: it is no Exception."""


def says(decision: Any, errors: Any = (), reasons: Any = ("policy0",), ids: Any = None) -> Callable[..., Any]:
    found = SimpleNamespace(errors=errors, reasons=reasons, id_annotations_by_reason=ids if ids is not None else {})
    return lambda *_, **__: SimpleNamespace(decision=decision, diagnostics=found)


def raises(error: BaseException) -> Callable[..., Any]:
    def engine(*_: Any, **__: Any) -> Any:
        raise error

    return engine


FAILURES: dict[str, Callable[..., Any]] = {
    **{
        type(error).__name__: raises(error)
        for error in (
            Panic("engine"),
            RuntimeError("x" * 1_000_000),
            MemoryError(),
            RecursionError(),
            ValueError(),
            TypeError(),
            OSError(),
            KeyError("a"),
            TimeoutError(),
            AssertionError(),
            StopIteration(),
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
        )
    },
    "nothing": lambda *_, **__: None,
    "true": lambda *_, **__: True,
    "a text": lambda *_, **__: "Allow",
    "a dictionary": lambda *_, **__: {"decision": "Allow", "diagnostics": {"errors": []}},
    "allow as a text": says("Allow"),
    "allow as true": says(True),
    "allow as a number": says(1),
    "no decision": says(cedarpy.Decision.NoDecision),
    "deny": says(cedarpy.Decision.Deny),
    "allow with an error": says(cedarpy.Decision.Allow, errors=["overflow"]),
    "allow with errors of no type": says(cedarpy.Decision.Allow, errors=7),
    "allow without a policy": says(cedarpy.Decision.Allow, reasons=()),
    "allow with reasons of no type": says(cedarpy.Decision.Allow, reasons=7),
    "allow with names of no type": says(cedarpy.Decision.Allow, ids=7),
    "no diagnostics": lambda *_, **__: SimpleNamespace(decision=cedarpy.Decision.Allow),
    "diagnostics of nothing": lambda *_, **__: SimpleNamespace(decision=cedarpy.Decision.Allow, diagnostics=None),
}


@pytest.fixture
async def room_of() -> AsyncIterator[Callable[[str], Room]]:
    made: list[Room] = []

    def make(cedar: str = PERMIT) -> Room:
        made.append(Room(FakeClock(), {"triage": task_type(cedar=cedar)}))
        return made[-1]

    yield make
    for room in made:
        room.end_everything()


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_case_103_the_engine_fails(
    room_of: Callable[..., Room], monkeypatch: pytest.MonkeyPatch, failure: Callable[..., Any]
) -> None:
    """However the policy engine fails or answers: no task begins, no token is issued; the next good answer counts."""
    room = room_of()
    task = await room.begin()
    task.type.policy._allowed.clear()  # what it has said before to the very same question need not be asked
    with monkeypatch.context() as broken:
        broken.setattr(cedarpy, "is_authorized", failure)
        with pytest.raises(PolicyDenied):
            await room.engine.token(task, TICKETS, ())
        with pytest.raises(PolicyDenied):
            await room.begin()
    assert {task.id} == set(room.store.rows)
    assert "token_issued" not in room.store.names
    assert await room.engine.token(task, TICKETS, ())


@pytest.mark.parametrize(
    "error", [Panic("schema"), ValueError("no"), RecursionError()], ids=lambda each: type(each).__name__
)
async def test_case_103_entities_cannot_be_made(
    room_of: Callable[..., Room], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """What fails before the engine is asked is a deny too."""
    room = room_of()
    task = await room.begin()
    task.type.policy._allowed.clear()
    monkeypatch.setattr(task.type.policy, "_made", raises(error))
    with pytest.raises(PolicyDenied):
        await room.engine.token(task, TICKETS, ())


@pytest.mark.forked
def test_the_running_agent_is_not_fooled_by_its_folder(tmp_path: Path) -> None:
    """A folder that others may write is not read: who may write it would decide."""
    del tmp_path
    with make_agent() as agent:
        (agent.folder / "types").chmod(0o777)
        (agent.folder / "types" / "triage-ticket.cedar").write_text(PERMIT)
        until(lambda: _fault(agent), "the set is refused")
        assert "can be written by others" in _fault(agent)


def _fault(agent: AgentProcess) -> str:
    return str(agent.json("status")["policy"]["fault"])
