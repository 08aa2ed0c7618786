"""Providers that a test scripts, a book in memory, and what hands their credentials out."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from sojourn.credentials.credential import ENDING, HELD, Credential
from sojourn.credentials.exchange_call import ExchangeCalls
from sojourn.credentials.hand_out import HandOut
from sojourn.credentials.provider_routes import ProviderRoutes
from sojourn.errors import InvalidInput, TaskOver
from sojourn.providers.provider import Obtained

LIFE_SECONDS = 300


@dataclass
class Ask:
    """What a scripted provider is asked with."""

    audience: str
    actions: tuple = ()


class ScriptedProvider:
    """Gives each credential a number. `script`: for the next exchanges, errors to raise or Obtained to give.

    `gate`: exchanges wait until it is set. `life`: seconds; each ends no later than its task.
    """

    kind = "scripted"
    offline = True
    longest = timedelta(hours=1)

    def __init__(self, clock, *, recall="none", life=LIFE_SECONDS, token_type="Bearer", issued_type=None):
        self.clock = clock
        self.recall = recall
        self.life = life
        self.token_type = token_type
        self.issued_type = issued_type
        self.script = []
        self.wanted = []
        self.gate = None
        self.running = 0
        self.most = 0
        self.came = asyncio.Event()
        self.closed = False

    def read_ask(self, ask: Mapping, actions):
        unknown = set(ask) - {"audience"}
        if unknown:
            raise InvalidInput(f"{min(unknown)}: unknown key")
        return Ask(ask.get("audience", ""), actions)

    def describe(self, ask):
        return {"audience": ask.audience}

    async def exchange(self, wanted, mint):
        self.wanted.append(wanted)
        self.came.set()
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            else:
                await asyncio.sleep(0)
        finally:
            self.running -= 1
        step = self.script.pop(0) if self.script else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            return step
        return self.obtained(wanted)

    def obtained(self, wanted, **changes):
        more = {} if self.issued_type is None else {"issued_type": self.issued_type}
        return Obtained(
            **{
                "token": f"{wanted.task_id}|{wanted.resource}|{','.join(wanted.actions)}|{len(self.wanted)}",
                "expires_at": min(self.clock.now() + timedelta(seconds=self.life), wanted.ends),
                "token_type": self.token_type,
                "handle": {"id": str(len(self.wanted))},
                "public": {"audience": wanted.ask.audience},
                **more,
                **changes,
            }
        )

    async def close(self):
        self.closed = True


@dataclass
class FakeBook:
    """A book in memory. `failure` is raised in the place of a write; `gate` holds writes up until it is set."""

    engine: object
    credentials: list = field(default_factory=list)
    written: list = field(default_factory=list)  # (what, credential's ID)
    failure: BaseException | None = None
    gate: asyncio.Event | None = None

    async def ask(self, task, provider, grant, longest):
        await self._write()
        number, now = len(self.credentials) + 1, self.engine.clock.now()
        ends = self.engine.clock.boot() + (longest - now).total_seconds()
        made = Credential(f"ext_{number}", task.id, task.type.name, task.spiffe_id, provider, grant, now, longest, ends)
        self.credentials.append(made)
        self.written.append(("asking", made.id))
        return made

    async def hold(self, credential, obtained, **decided):
        await self._write()
        task = self.engine.tasks.find(credential.task_id)
        credential.obtained, credential.expires_at = obtained, obtained.expires_at
        over = task is None or not task.live or credential.grant.resource not in task.authority.resources
        credential.state = ENDING if over else HELD
        self.written.append((credential.state, credential.id))
        if over:
            raise TaskOver("the task is over")

    def over(self, credential, why):
        self.written.append(("over", credential.id))

    def refused(self, credential, why):
        self.written.append(("refused", credential.id))

    def lost(self, credential, why):
        self.written.append(("lost", credential.id))

    def of(self, task_id):
        return tuple(each for each in self.credentials if each.task_id == task_id)

    async def _write(self):
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure


class FakeAssertions:
    """Mints of workloads, which sign nothing."""

    def of(self, spiffe_id):
        async def mint(audience, **_):
            return f"{spiffe_id} for {audience}"

        return mint


class HandingRoom:
    """What hands out the credentials of these providers under an engine. Pauses take no time, and are kept."""

    def __init__(self, engine, audit, providers, *, seconds=None):
        self.pauses = []
        self.heard = []
        self.outlets = ProviderRoutes(providers, engine.clock, seconds)
        self.book = FakeBook(engine)
        self.asking = ExchangeCalls(self.book, FakeAssertions(), engine.clock, pause=self._pause, chance=lambda: 0.0)
        self.asking.on_exchange(lambda *heard: self.heard.append(heard))
        self.handing = HandOut(engine, self.outlets, self.book, self.asking, audit)

    async def _pause(self, seconds):
        self.pauses.append(seconds)
        await asyncio.sleep(0)
