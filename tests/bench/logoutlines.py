"""What the bench measures of the end of what is done for people: until nobody takes its tokens any more."""

import itertools
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import httpx
from fakes.logouts import logout_token
from figures import Figure, percentile
from ground import Bench, Helper
from harness.agent import AgentProcess
from harness.keycloak import running_keycloak
from harness.keycloakagent import PERMIT_ALL, config_at, people_at, polled, running_at
from harness.looking import until
from harness.peoplekeycloak import NODE, LoggedIn, PeopleRealm
from harness.peopleplace import CHAT, CLIENT, CONFIG, JAG_CLIENT, LOGOUTS, Idp, idp
from harness.taskagent import TICKETS, write_type
from harness.tlsplace import TlsPlace
from processes import resident_mib
from sojourn import PersonToken, SyncClient, acting_for

VALIDATORS = 100
PEOPLE, TASKS_EACH = 1_000, 10
KINDS = {"for-people": '\n[person]\nneed = "required"\nseveral = true\nmax_live = 100\n', "for-nobody": ""}
DOCS = f"""
allowed_workloads = ["{CHAT}"]
max_duration = "1h"
{{person}}
[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:read"]
"""
RECHECK, POLL = 5, 1


def _with_types(config: str) -> AgentProcess:
    """An agent, not started, with a type for people and one for nobody."""
    agent = AgentProcess(config=f'{config}\n[log]\nlevel = "warning"\n')
    folder = agent.folder / "types"
    folder.mkdir()
    for name, person in KINDS.items():
        write_type(folder, name, DOCS.format(person=person), PERMIT_ALL)
    return agent


@contextmanager
def _ground() -> Iterator[tuple[AgentProcess, SyncClient, Idp, Callable[..., float]]]:
    """An agent that takes people of an issuer and hears their logouts. The last: post one; seconds until the answer."""
    with ExitStack() as stack:
        issuer = stack.enter_context(idp())
        tls = TlsPlace(Path(stack.enter_context(TemporaryDirectory())) / "tls")
        os.chmod(tls.key, 0o600)
        said = {"issuer": issuer.issuer.url, "chat": CHAT, "client": CLIENT, "jag_client": JAG_CLIENT, "more": ""}
        agent = _with_types(CONFIG.format(**said) + LOGOUTS.format(chain=tls.chain, key=tls.key))
        stack.enter_context(agent)
        agent.register("/agent/chat", f"unix:uid:{os.getuid()}")
        trust = ssl.create_default_context(cafile=str(tls.ca))
        browser = stack.enter_context(httpx.Client(verify=trust))  # one connection, as an issuer's server keeps it
        numbers = itertools.count()

        def logout(**whose: str | None) -> float:
            issuer.issuer.at = int(time.time())
            text = logout_token(issuer.issuer, jti=f"logout-{next(numbers)}", **whose)
            began = monotonic()
            answer = browser.post(f"https://{agent.people}/people/corp/logout", data={"logout_token": text})
            answer.raise_for_status()
            return monotonic() - began

        yield agent, stack.enter_context(SyncClient(agent.socket)), issuer, logout


# --- 66 ---


def validators(bench: Bench) -> Iterator[Figure | str]:
    """Each logout is of a session that has one task. Times are from the moment at which it is posted."""
    each: list[float] = []
    last: list[float] = []
    answered: list[float] = []
    with _ground() as (agent, client, issuer, logout), Helper(agent.socket) as crowd:
        crowd.call("subscribe", count=VALIDATORS)
        for number in range(bench.effort.tries + 1):
            session = f"session-{number}"
            with client.task("for-people", person=issuer.token("alice", sid=session)) as task:
                crowd.call("expect_end", task=task.id)
                began = monotonic()
                took = logout(sid=session, sub="alice")
                heard = [(at - began) * 1000 for at in crowd.wait_for("informed")["at"]]
            if number:  # the first makes the connection
                each += heard
                last.append(max(heard))
                answered.append(took * 1000)
    yield Figure.of("logout to each of 100 validators: p50", "ms", [percentile(each, 50)])
    yield Figure.of("logout to each of 100 validators: p99", "ms", [percentile(each, 99)])
    yield Figure.of("logout to the last of 100 validators: p50", "ms", [percentile(last, 50)])
    yield Figure.of("logout to the last of 100 validators: p99", "ms", [percentile(last, 99)])
    yield Figure.of("logout to its answer, on disk", "ms", answered)
    yield "with the client's part: a logout token is posted over a connection that is kept; signing it is not in it"


# --- 67 ---


def many(bench: Bench) -> Iterator[Figure | str]:
    """Tasks of one process, whose type lets it have them for several people: ten for each, by one token."""
    people = PEOPLE if bench.full else PEOPLE // 20
    count = people * TASKS_EACH
    grown: dict[str, float] = {}
    took: list[float] = []
    for kind in KINDS:
        with _ground() as (agent, _, issuer, logout), Helper(agent.socket) as worker:
            worker.call("begin_many", task_type="for-nobody", count=10)  # what comes with first use is there
            before = resident_mib(agent.pid)
            tokens = [issuer.text(f"user-{number}", seconds=3600) for number in range(people)]
            if kind == "for-people":
                worker.call("begin_for", task_type=kind, tokens=tokens, count=TASKS_EACH)
            else:
                worker.call("begin_many", task_type=kind, count=count)
            grown[kind] = (resident_mib(agent.pid) - before) * 1024 / count
            if kind == "for-people":
                some = range(bench.effort.tries // 2)
                took += [logout(sid=None, sub=f"user-{number}") * 1000 for number in some]
    yield Figure.of(f"{count:,} live tasks of {people:,} people: one person logs out, until the answer", "ms", took)
    for kind, kib in grown.items():
        yield Figure.of(f"RSS grown, a task {kind.replace('-', ' ')}", "KiB", [kib])
    yield Figure.of("RSS that a person adds to a task", "KiB", [grown["for-people"] - grown["for-nobody"]])


# --- 68 ---


def keycloak(bench: Bench) -> Iterator[Figure | str]:
    """From the act at a real Keycloak until a service's verifier has refused the task's token, which it took before."""
    if not bench.full:
        yield "in the whole bench alone: Keycloak takes half a minute to start"
        return
    running = running_keycloak()
    with running.realm(token_seconds=300) as realm:
        people = people_at(realm)
        people.let_introspect(NODE)
        people.let_have_streams(NODE)
        heard = LOGOUTS.format(chain=running.chain, key=running.key)
        yield Figure.of(
            "logout at Keycloak, back-channel: to refused", "ms", _ends(people, bench.effort.tries, tables=heard)
        )
        more = f'recheck = "{RECHECK}s"'
        found = _ends(people, 5, more=more, act=_disable)
        yield Figure.of(f"user disabled at Keycloak, recheck of {RECHECK} s: to refused", "ms", found)
        found = _ends(people, 10, tables=polled(realm, POLL))
        yield Figure.of(f"logout at Keycloak, events polled each {POLL} s: to refused", "ms", found)
    yield "Keycloak's own exchanged tokens stay good until `exp` wherever keys alone are looked at"


def _log_out(people: PeopleRealm, who: LoggedIn) -> None:
    people.logout(who)


def _disable(people: PeopleRealm, who: LoggedIn) -> None:
    people.enable(who.name, enabled=False)


def _ends(
    people: PeopleRealm,
    tries: int,
    *,
    more: str = "",
    tables: str = "",
    act: Callable[[PeopleRealm, LoggedIn], None] = _log_out,
) -> list[float]:
    """Milliseconds, of each try with another login."""
    agent = _with_types(config_at(people.realm, more=more, tables=tables))
    with running_at(people.realm, agent), SyncClient(agent.socket) as client, Helper(agent.socket) as service:
        if "people =" in tables and "[listen]" in tables:
            people.set_logout_url(f"https://localhost:{agent.people.rpartition(':')[2]}/people/corp/logout")
        if "[[signals]]" in tables:
            until(lambda: agent.json("status")["signals"][0]["polled_at"], seconds=90)
        service.call("verifier")
        return [_end(people, client, service, act) for _ in range(tries)]


def _end(people: PeopleRealm, client: SyncClient, service: Helper, act: Callable[..., Any]) -> float:
    who = people.login("alice")
    with client.task("for-people", person=PersonToken.id_token(who.id_token)) as task, acting_for(task.person):
        service.tell("until_refused", token=task.token(TICKETS).token)
        service.wait_for("accepted")
        began = monotonic()
        act(people, who)
        refused = service.wait_for("done")
    people.enable("alice", enabled=True)
    if refused["reason"] != "task_over":
        raise RuntimeError(f"the token was refused for another reason: {refused['reason']}")
    return (float(refused["at"]) - began) * 1000


LOGOUT_LINES = (
    (66, "tasks for people: a logout, until validators have heard of it", validators),
    (67, "tasks for people: one of a thousand logs out, and what a person weighs", many),
    (68, "tasks for people: the ends of a real Keycloak, until a service refuses", keycloak),
)
