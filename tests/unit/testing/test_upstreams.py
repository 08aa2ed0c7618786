"""upstreams.py of the kit: a plugin that keeps what is asked of it passes, and one that breaks a promise is told which."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sojourn.plugins.upstream import (
    SignedIntermediate,
    SojournError,
    Standing,
    UpstreamNotGood,
    UpstreamTable,
    UpstreamUnavailable,
    read_settings,
)
from sojourn.testing import UpstreamCase, UpstreamContract, answer_of
from sojourn.testing.promises import Broken
from sojourn.testing.signing_authority import pem

pytestmark = pytest.mark.full

PIN = "1234-5678-of-the-desk"
SETTINGS = {"kind": "desk", "desk": "https://desk.example.org/", "pin": PIN}


class DeskSettings(UpstreamTable):
    """[authority.upstream] with `kind = "desk"`."""

    desk: str
    pin: str


class Desk:
    """An outside of one path: with a request it signs, without one it tells its line."""

    def __init__(self, authority):
        self.authority = authority
        self.secrets = []

    def answer(self, sent):
        told = json.loads(sent.content)
        line = pem(*self.authority.line)
        if "csr" not in told:
            return answer_of({"line": line})
        made = self.authority.sign(told["csr"].encode(), datetime.fromtimestamp(told["ends"], UTC))
        return answer_of({"line": pem(made) + line})


class DeskUpstream:
    """Keeps what is asked of it."""

    kind = "desk"
    longer = timedelta(0)

    def __init__(self, settings, reach, _mint):
        self.told = read_settings(DeskSettings, settings)
        self.http = reach(self.told)

    async def sign(self, csr, ttl):
        ends = int((datetime.now(UTC) + ttl + self.longer).timestamp())
        made, *line = await self.ask({"csr": csr.public_bytes(Encoding.PEM).decode(), "ends": ends})
        return SignedIntermediate((made, *line[:-1]), self.roots(line))

    async def look(self):
        line = await self.ask({})
        return Standing(line[0], self.roots(line))

    def describe(self):
        return {"desk": self.told.desk}

    async def close(self):
        await self.http.close()

    async def ask(self, told):
        headers = {"authorization": self.told.pin}
        answer = await self.http.ask(
            "POST", self.told.desk, step="ask", headers=headers, content=json.dumps(told).encode()
        )
        if answer.status != 200:
            raise UpstreamUnavailable(self.refusal(answer))
        return self.read(answer)

    def refusal(self, answer):
        return f"the desk says {answer.status}"

    def read(self, answer):
        try:
            return x509.load_pem_x509_certificates(str(answer.json("ask").get("line")).encode())
        except (SojournError, ValueError):
            raise UpstreamNotGood("the desk's answer is none") from None

    def roots(self, line):
        if not line:
            raise UpstreamNotGood("the desk tells no root")
        return (line[-1],)


class Longer(DeskUpstream):
    longer = timedelta(days=2)


class Echoes(DeskUpstream):
    def refusal(self, answer):
        return f"the desk says {answer.body.decode(errors='replace')}"


class Stumbles(DeskUpstream):
    def read(self, answer):
        return x509.load_pem_x509_certificates(answer.json("ask")["line"].encode())


class Follows(DeskUpstream):
    async def ask(self, told):
        try:
            return await super().ask(told)
        except UpstreamUnavailable:
            await self.http.ask("GET", "https://elsewhere.example.net/", step="ask", headers={})
            raise


class Open(DeskUpstream):
    async def close(self):
        """Forgets what it asks by."""


class Deaf(DeskUpstream):
    async def ask(self, told):
        try:
            return await super().ask(told)
        except asyncio.CancelledError:
            raise UpstreamUnavailable("nobody waits") from None


class Lax(DeskUpstream):
    def __init__(self, settings, reach, mint):
        super().__init__({name: each for name, each in settings.items() if name in SETTINGS}, reach, mint)


class Tells(DeskUpstream):
    def describe(self):
        return {"pin": self.told.pin}


class Rootless(DeskUpstream):
    def roots(self, line):
        return tuple(line)


def contract(plugin):
    return UpstreamContract(UpstreamCase(plugin=plugin, settings=SETTINGS, outside=Desk, secrets=[PIN]))


@pytest.mark.parametrize("promise", contract(DeskUpstream).promises, ids=str)
def test_a_good_one(promise):
    """One that does what is asked of it keeps each promise."""
    promise.run()


@pytest.mark.parametrize(
    ("plugin", "name", "told"),
    [
        (Longer, "signs", "was asked for until"),
        (Echoes, "lied_to", "has a secret in it"),
        (Stumbles, "lied_to", "raised"),
        (Follows, "lied_to", "follows an answer to elsewhere"),
        (Open, "closes", "is open still"),
        (Deaf, "cancelled", "made something else of it"),
        (Lax, "settings", "it takes the setting no_such_key"),
        (Tells, "made", "has a secret in it"),
        (Rootless, "signs", "is not good"),
    ],
    ids=lambda each: each.__name__ if isinstance(each, type) else "",
)
def test_a_bad_one(plugin, name, told):
    """One that does otherwise breaks the promise that is about it, and is told what was seen."""
    [promise] = [each for each in contract(plugin).promises if each.name == name]
    with pytest.raises(Broken, match=told):
        promise.run()
