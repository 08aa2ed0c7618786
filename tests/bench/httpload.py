"""HTTP load on several subjects: the same program for each (gohttp/main.go), which keeps its connections between turns."""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from beside import Load, Run, Subject
from harness.agent import clean_environment
from peers import HTTP_CLIENT

FORM = ("Content-Type: application/x-www-form-urlencoded",)
JSON = ("Content-Type: application/json",)


@dataclass(frozen=True)
class Step:
    """One request. `bodies` are sent in turn; `{token}` in them is the access_token of the step before. `want` is in each
    good answer.
    """

    target: str
    bodies: Sequence[str] = field(default=(), repr=False)
    want: str = "access_token"
    headers: Sequence[str] = FORM
    method: str = "POST"

    @classmethod
    def form(cls, target: str, fields: Mapping[str, str], *, want: str = "access_token") -> "Step":
        return cls(target, [urlencode(fields, safe="{}")], want)


@dataclass(frozen=True)
class Work:
    """What a call to a subject is: `steps`, one after another, at `url`. `before`: what is done once, for its token.

    `socket`: a Unix socket instead of the URL's host. `roots`, `pair`: PEM files, for https.
    """

    url: str
    steps: Sequence[Step]
    before: Sequence[Step] = ()
    socket: str = ""
    roots: str = ""
    pair: str = ""

    def asked(self, connections: int) -> dict[str, Any]:
        host = urlsplit(self.url).netloc
        return {
            "network": "unix" if self.socket else "tcp",
            "address": self.socket or host,
            "host": host,
            "roots": self.roots,
            "pair": self.pair,
            "connections": connections,
            "before": [asdict(step) for step in self.before],
            "steps": [asdict(step) for step in self.steps],
        }


class _Client:
    """A process that holds its connections to one subject."""

    def __init__(self, work: Work, connections: int) -> None:
        self._process = subprocess.Popen(
            [HTTP_CLIENT.there()[0]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )
        self._tell(work.asked(connections))

    def run(self, seconds: float) -> Run:
        self._tell({"seconds": seconds})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load client gave up: {self._process.communicate()[1].strip()[-400:]}")
        return Run.told(json.loads(line))

    def _tell(self, what: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it says why when it is waited for
            print(json.dumps(what), file=self._process.stdin, flush=True)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def http_load(works: Mapping[str, Work], connections: int) -> Iterator[Load]:
    """The load of `works`, by the subjects' names. Raise Missing if there is no client for it."""
    with contextlib.ExitStack() as stack:
        clients: dict[str, _Client] = {}
        for name, work in works.items():
            clients[name] = _Client(work, connections)
            stack.callback(clients[name].close)

        def load(subject: Subject, seconds: float) -> Run:
            return clients[subject.name].run(seconds)

        yield load
