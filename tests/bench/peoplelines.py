"""What the bench measures of people: what it costs that a task is for somebody, beside the same that is for nobody."""

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import monotonic, perf_counter, process_time

from beside import Load, Run, Subject, beside
from figures import Figure, percentile
from ground import Bench
from harness.agent import AgentProcess
from harness.exchanges import ACCESS_TOKEN, GRANT, form
from harness.peopleplace import CHAT, CLIENT, CONFIG, JAG_CLIENT, Idp, idp
from harness.taskagent import ISSUER, PLACE_A, write_type
from httpload import Step, Work, http_load
from policyrules import ACTIONS, TYPE, Question, cedar, questions
from sojourn import SyncClient
from sojourn.errors import PolicyDenied
from sojourn.policy.rules import authorize
from sojourn.policy.task_types import parse
from sojourn.policy.user import User
from sojourn.tasktoken.grants import Authority, Grant

AT = 50  # policies
GROUPS = tuple(f"group-{number:02d}" for number in range(20))
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
FOR_ONE, FOR_NOBODY = "for a person", "for nobody"
PERSON = '\n[person]\nneed = "required"\n'
DOCS = f"""
allowed_workloads = ["{CHAT}"]
max_duration = "1h"
{{person}}
[[ceiling]]
resource = "{PLACE_A}"
actions = ["doc:read", "doc:write"]
"""
POLICY = '@id("all") permit (principal, action, resource);'


@contextmanager
def _ground() -> Iterator[tuple[AgentProcess, SyncClient, Idp]]:
    """An agent that takes people of an issuer, with one type for them and one for nobody; this process is the workload."""
    with idp() as issuer:
        config = CONFIG.format(issuer=issuer.issuer.url, chat=CHAT, client=CLIENT, jag_client=JAG_CLIENT, more="")
        agent = AgentProcess(config=f'{config}\n[log]\nlevel = "warning"\n')
        types = agent.folder / "types"
        types.mkdir()
        write_type(types, "for-one", DOCS.format(person=PERSON), POLICY)
        write_type(types, "for-nobody", DOCS.format(person=""), POLICY)
        with agent:
            agent.register("/agent/chat", f"unix:uid:{os.getuid()}")
            with SyncClient(agent.socket) as client:
                yield agent, client, issuer


# --- 63 ---


def begin(bench: Bench) -> Iterator[Figure]:
    """Each with an ID token that the agent has not seen: its RS256 signature is verified each time."""
    took: dict[str, list[float]] = {FOR_ONE: [], FOR_NOBODY: []}
    with _ground() as (_, client, issuer):
        for number in range(bench.effort.calls + 1):
            for name, each in took.items():
                person = issuer.token("alice", jti=f"j{number}") if name == FOR_ONE else None
                begun = monotonic()
                with client.task("for-one" if person else "for-nobody", person=person):
                    spent = (monotonic() - begun) * 1000
                if number:  # the first has the issuer's keys fetched
                    each.append(spent)
    for name, each in took.items():
        yield Figure.of(f"a task is begun {name}: p50", "ms", [percentile(each, 50)])
        yield Figure.of(f"a task is begun {name}: p99", "ms", [percentile(each, 99)])
    yield Figure.of("added, p50", "ms", [percentile(took[FOR_ONE], 50) - percentile(took[FOR_NOBODY], 50)])


# --- 64 ---


def exchanges(bench: Bench) -> Iterator[Figure | str]:
    """The token of a task for a narrower one, over and over, by eight connections."""
    with _ground() as (agent, client, issuer):
        begun = {FOR_ONE: _exchange("for-one", issuer.text("alice", seconds=3600), ID_TOKEN)}
        begun[FOR_NOBODY] = _exchange("for-nobody", client.fetch_jwt_svid(ISSUER).token)
        narrower = {"grant_type": GRANT, "subject_token": "{token}", "subject_token_type": ACCESS_TOKEN}
        step = Step.form("/token", {**narrower, "resource": PLACE_A, "scope": "doc:read"})
        works = {
            name: Work("http://localhost", [step], [before], socket=agent.socket) for name, before in begun.items()
        }
        subjects = [Subject(name, {"agent": agent.pid}, agent.socket) for name in works]
        with http_load(works, 8) as load:
            yield from beside(bench, subjects, "exchanges at /token, 8 connections", load)
    yield "a task's token for a narrower one of the same task; a task for a person says in each token whose it is"


def _exchange(kind: str, subject: str, token_type: str = "") -> Step:
    details = json.dumps([{"type": kind, "actions": ["doc:read", "doc:write"], "locations": [PLACE_A]}])
    more = {"subject_token_type": token_type} if token_type else {}
    return Step.form("/token", form(subject, audience=PLACE_A, authorization_details=details, **more))


# --- 65 ---


def decisions(bench: Bench) -> Iterator[Figure | str]:
    """From this process, one core: the same questions, of tasks for people with twenty groups and of tasks for nobody."""
    some = questions(1_000)
    theirs = [replace(each, principal=replace(each.principal, user=_user(n))) for n, each in enumerate(some)]
    reads = (
        '@id("one") permit (principal, action, resource) when { principal.user in Sojourn::Group::"corp/group-19" };'
    )
    kinds = {FOR_ONE: parse("many", TYPE + PERSON, f"{cedar(AT)}\n{reads}"), FOR_NOBODY: parse("many", TYPE, cedar(AT))}
    wanted = {action: Authority((Grant(PLACE_A, (action,)),)) for action in ACTIONS}
    asked: dict[str, Sequence[Question]] = {FOR_ONE: theirs, FOR_NOBODY: some}

    def load(subject: Subject, seconds: float) -> Run:
        turn, took, kind = itertools.cycle(asked[subject.name]), [], kinds[subject.name]
        began, spent = perf_counter(), process_time()
        before = began
        while before < began + seconds:
            question = next(turn)
            with suppress(PolicyDenied):
                authorize(kind, question.principal, wanted[question.action], question.context)
            now = perf_counter()
            took.append((now - before) * 1000)
            before = now
        spent = process_time() - spent
        return Run(
            len(took), len(took) / (before - began), percentile(took, 50), percentile(took, 99), spent / len(took)
        )

    measured: Load = load
    subjects = [Subject(name, {"process": os.getpid()}) for name in kinds]
    yield from beside(bench, subjects, f"a decision at {AT} policies", measured)
    yield "a person in twenty groups, of whom one policy more asks whether they are in one; no two questions are alike"


def _user(number: int) -> User:
    return User("corp", f"person-{number}", "silver", ("pwd",), GROUPS, 60 + number)


PEOPLE_LINES = (
    (63, "tasks for people: begun with an RS256 ID token, beside none", begin),
    (64, "tasks for people: exchanges, beside those for nobody", exchanges),
    (65, "tasks for people: decisions with twenty groups, beside none", decisions),
)
