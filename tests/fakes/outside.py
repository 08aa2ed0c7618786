"""The outside without sockets: answers that a test gives, and what a task wants of a provider."""

import asyncio
import json
from datetime import timedelta

from fakes.clock import FakeClock
from sojourn.errors import Unavailable
from sojourn.providers.http import HttpResponse
from sojourn.providers.provider import Ended, Wanted
from sojourn.spiffe.ids import SpiffeId

WORKLOAD = SpiffeId.parse("spiffe://example.org/agent/triage")
TASK = "task_7Qm2xV9f"


def answer(told=None, status=200, body=None, **headers):
    """An answer: an object as JSON, or bytes."""
    return HttpResponse(status, headers, json.dumps(told).encode() if body is None else body)


class FakeHttp:
    """Gives the answers that it has, in turn, and keeps what was asked: (method, url, sent, headers). Meets Http.

    An exception among them is raised; an event is waited for.
    """

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []
        self.closed = False

    async def get(self, url, *, step, headers=None):
        return await self._next("GET", url, {}, headers)

    async def post_form(self, url, form, *, step, headers=None):
        assert all(isinstance(each, str) for pair in form.items() for each in pair)
        return await self._next("POST", url, dict(form), headers)

    async def post_json(self, url, body, *, step, headers=None):
        return await self._next("POST", url, json.loads(json.dumps(body)), headers)

    async def close(self):
        self.closed = True

    async def _next(self, method, url, sent, headers):
        self.asked.append((method, url, sent, dict(headers or {})))
        told = self.answers.pop(0)
        if isinstance(told, Exception):
            raise told
        if isinstance(told, asyncio.Event):
            await told.wait()
        return told


class FakeMint:
    """Mints words that say what they are for, and keeps what it was asked: (audience, algorithm, claims)."""

    def __init__(self, *, works=True):
        self.works = works
        self.asked = []

    async def __call__(self, audience, *, algorithm="ES256", claims=None):
        if not self.works:
            raise Unavailable("there is no key")
        self.asked.append((audience, algorithm, claims))
        return f"svid-{len(self.asked)}"


def wanted(provider, ask, actions, asked=None, *, clock=None, ends_in=600, spiffe_id=WORKLOAD, task_id=TASK, ends=None):
    """What a task wants whose type has `ask` for `actions`; `asked`: of these, all unless said."""
    clock = clock or FakeClock()
    return Wanted(
        task_id=task_id,
        task_type="triage",
        spiffe_id=spiffe_id,
        resource="https://outside.example.org",
        actions=tuple(sorted(asked or actions)),
        ask=provider.read_ask(ask, tuple(sorted(actions))),
        ends=ends or clock.now() + timedelta(seconds=ends_in),
    )


def ended(wanted, obtained=None, *, handle=None, ask=...):
    """The end of what was obtained; without it: of what was lost."""
    return Ended(
        task_id=wanted.task_id,
        spiffe_id=wanted.spiffe_id,
        resource=wanted.resource,
        ask=wanted.ask if ask is ... else ask,
        handle=obtained.handle if obtained is not None else (handle or {}),
        public=obtained.public if obtained is not None else {},
        expires_at=obtained.expires_at if obtained is not None else wanted.ends,
    )


async def steps(provider, wanted, mint):
    """A check's steps, by name."""
    return {step.name: step async for step in provider.check(wanted, mint)}
