"""An agent that is killed again and again while one release takes the place of another, and all that it has acknowledged."""

import asyncio
import contextlib
import itertools
import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from sojourn import Client, SyncClient
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn._pb.sojourn.v1.admin_pb2 import RevokeTaskRequest
from sojourn._pb.sojourn.v1.tasks_pb2 import Task as TaskMessage
from sojourn.errors import SojournError
from sojourn.sdk.client.sync import SyncTask

from harness.agent import AgentProcess
from harness.approvals import BOSS, BOSS_UID, approvals
from harness.authserver import AuthServer, granted_then_drop, status
from harness.callers import Caller
from harness.cascade import ORDERS, PERMIT, READ, make, provider, records
from harness.looking import until
from harness.raw import Admin
from harness.taskagent import TICKETS, TRIAGE, revoke_all, write_type
from harness.taskcalls import unary
from harness.taskkills import ADMIN, Known, Work, check, tasks

SECOND = "spiffe://example.org/second"
FOLLOWERS = 8
FIRST_STEPS = 40  # so that there is something of everything when the next release comes
MOST_STEPS = 16
LAST_MOMENT_SECONDS = 0.05  # it is killed in the midst of a step
LONGEST_START_SECONDS = 1.0  # far less than holders of tasks have to come back: they do not while it starts
SHARE_AMID_START = 0.4
SHARE_REVOKED = 0.3
SHARE_ENDED = 0.6  # of tasks that have a credential
_ASKED = f"""
allowed_workloads = ["{TRIAGE}"]
[approval]
approvers = ["{BOSS}"]
[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:read"]
"""
_BROKEN = {
    "call_failed",
    "http_failed",
    "external_recall_broken",
    "provider_raised",
    "exchange_failed",
    "task_journal_damaged",
}
_STEPS = ["task"] * 4 + ["credential"] * 3 + ["register", "delete", "approve", "deny", "leave", "revoke"]


@dataclass
class KnownOfAll(Known):
    """What has been acknowledged of everything."""

    entries: dict[str, str] = field(default_factory=dict)  # id -> path
    under_way: set[str] = field(default_factory=set)  # paths of entries whose change was not acknowledged
    waiting: set[str] = field(default_factory=set)  # tasks that nobody has decided
    approved: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    got: set[str] = field(default_factory=set)  # a provider's tokens that someone was given
    revoked: set[str] = field(default_factory=set)  # JWT-SVIDs

    def counts(self) -> Counter[str]:
        """How much of each it is."""
        names = ("entries", "ended", "dead", "waiting", "approved", "denied", "got", "revoked", "outside")
        return Counter({name: len(getattr(self, name)) for name in names})


class WorkOfAll(Work):
    """Beside tasks: entries, approvals, credentials of a provider, and revoked SVIDs. `boss` decides on requests."""

    _known: KnownOfAll

    def __init__(self, agent: AgentProcess, known: KnownOfAll, chance: random.Random, boss: Caller) -> None:
        super().__init__(agent, known, chance)
        self._boss = boss

    def _step(self, client: SyncClient) -> None:
        match doing := self._chance.choice(_STEPS):
            case "task":
                super()._step(client)
            case "register":
                self._register()
            case "delete":
                self._unregister()
            case "revoke":
                self._revoke(client)
            case "credential":
                self._credential(client)
            case _:
                self._approval(client, doing)

    def _register(self) -> None:
        path = f"/{secrets.token_hex(8)}"
        self._known.under_way.add(path)
        with Admin(self._agent.admin_socket) as admin:
            made = admin.register(path, "unix:uid:7")
        self._known.entries[made.id] = path
        self._known.under_way.discard(path)

    def _unregister(self) -> None:
        if not self._known.entries:
            return
        entry_id = self._chance.choice(sorted(self._known.entries))
        path = self._known.entries[entry_id]
        self._known.under_way.add(path)
        with Admin(self._agent.admin_socket) as admin:
            [result] = admin.delete(entry_id)
        assert 0 == result.status.code
        del self._known.entries[entry_id]
        self._known.under_way.discard(path)

    def _revoke(self, client: SyncClient) -> None:
        token = client.fetch_jwt_svid(TICKETS, SECOND).token
        assert client.validate_token(token, TICKETS).valid
        request = admin_pb2.RevokeSvidsRequest(spiffe_id=SECOND)
        unary(self._agent.admin_socket, f"{ADMIN}RevokeSvids", request, admin_pb2.RevokeSvidsResponse)
        self._known.dead.append(token)
        self._known.revoked.add(token)

    def _credential(self, client: SyncClient) -> None:
        known, begun = self._known, client.begin_task("orders").status
        known.outside.add(begun.id)
        known.saw(begun.id, begun.version)
        try:
            known.got.add(client.get_token(begun.id, ORDERS, READ).token)
        except SojournError as error:
            if error.remote_code != "provider_unavailable":
                raise
        if self._chance.random() < SHARE_ENDED:
            known.asked_to_end.add(begun.id)
            client.complete_task(begun.id)
            known.ended.add(begun.id)

    def _approval(self, client: SyncClient, verdict: str) -> None:
        """Have a task wait for approval, and decide; or `leave` it waiting."""
        known, asked = self._known, client.begin_task("asked", approve_wait=0).status
        if verdict == "leave":
            known.waiting.add(asked.id)
            return
        known.unsure.add(asked.id)
        told = self._boss.ask("decide", approval=asked.approval.id, digest=asked.approval.digest, verdict=verdict)
        if told["event"] == "error":
            if told["code"] not in {"unavailable", "unreachable"}:
                self.failure = AssertionError(told)
            return
        known.unsure.discard(asked.id)
        if verdict == "approve":
            known.approved.add(asked.id)
            known.saw(asked.id, asked.version)
        else:
            known.denied.add(asked.id)
            known.ended.add(asked.id)


class Followers(threading.Thread):
    """Workloads that follow their X.509-SVIDs, whatever becomes of the agent."""

    def __init__(self, socket: str, number: int) -> None:
        super().__init__(daemon=True)
        self._socket = socket
        self._had = [0] * number
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._all())

    async def _all(self) -> None:
        following = [asyncio.ensure_future(self._follow(each)) for each in range(len(self._had))]
        await self._ending.wait()
        for each in following:
            each.cancel()
        await asyncio.gather(*following, return_exceptions=True)

    async def _follow(self, number: int) -> None:
        async with Client(self._socket) as client:
            async for context in client.watch_x509_contexts():
                assert TRIAGE in {str(svid.spiffe_id) for svid in context.svids}
                self._had[number] += 1

    def forget(self) -> None:
        self._had[:] = [0] * len(self._had)

    def wait(self) -> None:
        """Until each has had an SVID since all was forgotten."""
        until(lambda: all(self._had), "who follows has an SVID again", 30)

    def __enter__(self) -> "Followers":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self.join(timeout=30)
        self._loop.close()


@contextmanager
def made(server: AuthServer) -> Iterator[AgentProcess]:
    """An agent, not started, with a type that needs approval, and one whose tokens are the server's."""
    agent = make(provider("corp", server))
    write_type(agent.folder / "types", "asked", _ASKED, PERMIT)
    try:
        yield agent
    finally:
        agent.__exit__()


class Life:
    """One data folder, from its first start on; `releases`: what each needs in its environment, as they take turns."""

    def __init__(
        self, agent: AgentProcess, server: AuthServer, releases: Sequence[dict[str, str]], chance: random.Random
    ) -> None:
        self._agent = agent
        self._server = server
        self._releases = itertools.cycle(releases)
        self._chance = chance
        self._start_seconds = 0.0
        self._fixed: set[str] = set()
        self._held: list[SyncTask] = []
        self.known = KnownOfAll()
        self.kills: Counter[str] = Counter()  # amid what

    def run(self, kills: int) -> None:
        """Kill it that often, and look at everything when it is back; then end all, and look at what is left of it."""
        self._start()
        with Admin(self._agent.admin_socket) as admin:
            for path, uid in (("/agent/triage", os.getuid()), ("/second", os.getuid()), ("/boss", BOSS_UID)):
                self._fixed.add(admin.register(path, f"unix:uid:{uid}").spiffe_id.path)
        with Followers(self._agent.socket, FOLLOWERS) as followers, ExitStack() as stack:
            client = stack.enter_context(SyncClient(self._agent.socket))
            self._boss = stack.enter_context(Caller(self._agent.socket, uid=BOSS_UID))
            self._hold(client, stack)
            self._hold(client, stack)
            self._work_and_be_killed(FIRST_STEPS)
            self._be_killed_amid_start()  # the next release's first: it brings the database up to date
            while self.kills.total() < kills:
                followers.forget()
                if self._chance.random() < SHARE_AMID_START:
                    self._be_killed_amid_start()
                    continue
                self._start()
                self._look(client, followers)
                self._revoke_held(client, stack)
                self._work_and_be_killed(self._chance.randrange(MOST_STEPS))
            followers.forget()
            self._start()
            self._look(client, followers)
        self._end()

    def _start(self) -> None:
        self._agent.extra_environment = next(self._releases)
        before = time.monotonic()
        self._agent.start()
        self._start_seconds = time.monotonic() - before

    def _be_killed_amid_start(self) -> None:
        self._agent.extra_environment = next(self._releases)
        self._agent.process = self._agent.spawn()
        time.sleep(self._chance.random() * min(self._start_seconds, LONGEST_START_SECONDS))
        self._agent.kill()
        self.kills["start"] += 1

    def _work_and_be_killed(self, steps: int) -> None:
        self._server.script("token", *[granted_then_drop] * self._chance.randrange(2))
        self._server.script("revoke", *[status(503)] * self._chance.randrange(3))
        work = WorkOfAll(self._agent, self.known, random.Random(self._chance.random()), self._boss)
        work.start()
        until(lambda: work.steps >= steps or not work.is_alive(), "it works", 60)
        time.sleep(self._chance.random() * LAST_MOMENT_SECONDS)
        self._agent.kill()
        work.join(timeout=30)
        assert not work.is_alive()
        if work.failure is not None:
            raise work.failure
        self.kills["work"] += 1

    def _hold(self, client: SyncClient, stack: ExitStack) -> None:
        """Begin a task that is a stream of this process."""
        held = client.task("triage-ticket")
        self._held.append(held.__enter__())
        stack.callback(_leave, held)

    def _revoke_held(self, client: SyncClient, stack: ExitStack) -> None:
        """Now and then one that is a stream is ended, and another begun."""
        if self._chance.random() < SHARE_REVOKED:
            task = self._held.pop()
            unary(self._agent.admin_socket, f"{ADMIN}RevokeTask", RevokeTaskRequest(task_id=task.id), TaskMessage)
            self.known.ended.add(task.id)
            self._hold(client, stack)

    # --- looking ---

    def _look(self, client: SyncClient, followers: Followers) -> None:
        """What was acknowledged is so, before and after holders have come back; what may have been under way is what it
        is from now on.
        """
        known = self.known
        assert [] == approvals(self._agent), "a request for approval outlives the agent"
        check(self._agent, known, {task.id for task in self._held})
        known.outside = {task for task, each in tasks(self._agent).items() if each.type == "orders"}
        assert set() == known.live.keys() & (known.waiting | known.denied), "a task lives that nobody approved"
        self._look_at_entries()
        with SyncClient(self._agent.socket) as service:
            for task in self._held:
                token = until(lambda task=task: _token_of(task), "a task that is a stream is back", 30)
                assert service.validate_token(token, TICKETS).valid
        followers.wait()

    def _look_at_entries(self) -> None:
        known = self.known
        with Admin(self._agent.admin_socket) as admin:
            found = {each.id: each.spiffe_id.path for each in admin.list().entries}
            found = {each: path for each, path in found.items() if path not in self._fixed}
            assert {} == {
                each: path for each, path in found.items() ^ known.entries.items() if path not in known.under_way
            }
        known.entries, known.under_way = found, set()

    def _end(self) -> None:
        """End all tasks: each credential that anyone was given is taken back, and the audit has all that was said."""
        agent, known = self._agent, self.known
        revoke_all(agent)
        until(lambda: not tasks(agent), "all tasks are over")
        until(lambda: not _recalls(agent), "all that can be taken back is", 60)
        good = {token for token in self._server.given() if self._server.active(token)}
        assert set() == good & known.got, "a credential was forgotten"
        lost = records(agent, "external_credential_lost")
        assert len(good) <= len(lost), "one is good, and nobody knows of it"
        assert not any(each["handed_out"] for each in lost)
        decided = {each["task"] for each in records(agent, "approval_decided")}
        assert set() == (known.approved | known.denied) - decided, "a decision is not in the audit"
        assert set() == known.ended - {each["task"] for each in records(agent, "task_ended")}
        agent.run("audit", "verify")
        assert [] == [line for line in agent.log_lines() if line["event"] in _BROKEN]
        agent.stop()


def _leave(held: AbstractContextManager[SyncTask]) -> None:
    """Leave a task that may be over. What failed meanwhile is not its business, and goes on to fail the test."""
    with contextlib.suppress(SojournError):
        held.__exit__(None, None, None)


def _token_of(task: SyncTask) -> str:
    """Its token; '' while its stream is not back."""
    try:
        return task.token().token
    except SojournError as error:
        if error.code not in {"unavailable", "unreachable"}:
            raise
        return ""


def _recalls(agent: AgentProcess) -> list[dict[str, object]]:
    """Credentials that are being taken back."""
    return [each for each in agent.json("provider", "residuals")["credentials"] if each["state"] == "ending"]
