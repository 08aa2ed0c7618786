"""What the bench stands on: a running agent, its registration, and the bench's own processes."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from figures import Missing
from harness.agent import AgentProcess
from harness.callers import Caller
from sojourn._pb.sojourn.v1 import admin_pb2
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2
from sojourn._pb.spire.api.types import types_pb2 as types

HERE = Path(__file__).resolve().parent
TRIAGE = "/agent/triage"  # the workload of the sample's task type
CALL_SECONDS = 60.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done."""

    starts: int  # of an agent, to see how long that takes
    repetitions: int
    seconds: float  # for one repetition of a rate
    tries: int  # of what is timed one by one
    calls: int  # for one percentile
    alternations: int  # repetitions in which several subjects take turns
    load_seconds: float  # for one load on one of them


FULL = Effort(starts=3, repetitions=3, seconds=0.8, tries=30, calls=150, alternations=3, load_seconds=1.0)
QUICK = Effort(starts=1, repetitions=1, seconds=0.15, tries=6, calls=20, alternations=2, load_seconds=0.15)


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """What a test would be skipped for is a part that is missing here."""
    try:
        yield
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        raise Missing(str(error)) from None


class Helper(Caller):
    """A process of the bench's own: worker.py, bare.py or holders.py."""

    def __init__(self, socket: str, script: str = "worker.py", program: Sequence[str] = (sys.executable,)) -> None:
        super().__init__(socket, argv=[*program, str(HERE / script)])

    def wait_for(self, event: str) -> dict[str, Any]:
        heard = self.hear(event, "error", seconds=CALL_SECONDS)
        if heard["event"] == "error":
            raise RuntimeError(heard["message"])
        return heard

    def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.tell(do, **arguments)
        return self.wait_for("done")


class Admin:
    """Registration over one kept connection to the admin socket."""

    def __init__(self, socket: str) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")

    def create(self, entries: Sequence[types.Entry]) -> list[str]:
        """Register entries and return their IDs."""
        answer = self._call("BatchCreateEntry", entry_pb2.BatchCreateEntryRequest(entries=entries))
        return [result.entry.id for result in answer.results]

    def set_ttl(self, entry_id: str, seconds: int) -> None:
        self.set_ttls([entry_id], seconds)

    def set_ttls(self, ids: Sequence[str], seconds: int) -> None:
        entries = [types.Entry(id=each, x509_svid_ttl=seconds) for each in ids]
        mask = types.EntryMask(x509_svid_ttl=True)
        self._call("BatchUpdateEntry", entry_pb2.BatchUpdateEntryRequest(entries=entries, input_mask=mask))

    def rotate_all(self) -> None:
        """Replace every SVID that is in use (Sojourn's own API)."""
        call = self._channel.unary_unary(
            "/sojourn.v1.Admin/RotateSvids", request_serializer=admin_pb2.RotateSvidsRequest.SerializeToString
        )
        call(admin_pb2.RotateSvidsRequest(all=True), timeout=CALL_SECONDS)

    def delete(self, ids: Sequence[str]) -> None:
        self._call("BatchDeleteEntry", entry_pb2.BatchDeleteEntryRequest(ids=ids))

    def _call(self, method: str, request: Any) -> Any:
        kind = getattr(entry_pb2, f"{method}Response")
        call = self._channel.unary_unary(
            f"/spire.api.server.entry.v1.Entry/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=kind.FromString,
        )
        answer = call(request, timeout=CALL_SECONDS)
        for result in answer.results:
            if result.status.code:
                raise RuntimeError(f"{method}: {result.status.message}")
        return answer

    def __enter__(self) -> "Admin":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def entry(path: str, *selectors: str) -> types.Entry:
    """An entry for the bench's own user, and for what else is given."""
    values = [f"uid:{os.getuid()}", *selectors]
    return types.Entry(
        spiffe_id=types.SPIFFEID(trust_domain="example.org", path=path),
        selectors=[types.Selector(type="unix", value=value) for value in values],
    )


@dataclass(frozen=True, slots=True)
class Site:
    """A running agent, its registration, and the ID of its one entry, which all processes of this user match."""

    agent: AgentProcess
    admin: Admin
    entry_id: str

    @classmethod
    @contextlib.contextmanager
    def open(cls) -> Iterator["Site"]:
        with AgentProcess() as agent, Admin(agent.admin_socket) as admin:
            yield cls(agent, admin, admin.create([entry(TRIAGE)])[0])


class Bench:
    """How much is done, and the agent of all lines that leave nothing behind. Use as a context manager."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self._open = contextlib.ExitStack()
        self._of_group = contextlib.ExitStack()
        self._shared: dict[str, Any] = {}
        self._site: Site | None = None
        self._line = 0
        self._began = time.monotonic()

    @property
    def full(self) -> bool:
        return self.effort is FULL

    def say(self, what: str, *, line: int | None = None) -> None:
        """Progress, for whoever waits. `line`: a new one begins."""
        self._line = self._line if line is None else line
        print(f"bench: {time.monotonic() - self._began:5.0f} s  {self._line}. {what}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def site(self) -> Iterator[Site]:
        """The common agent. After a failure the next line gets a new one."""
        if self._site is None:
            self._site = self._open.enter_context(Site.open())
        try:
            yield self._site
        except BaseException:
            self.close()
            raise

    def shared(self, what: str, make: Callable[[], contextlib.AbstractContextManager[T]]) -> T:
        """What `make` opens, the first time that a group of lines asks for it: it stays until the group is through."""
        if what not in self._shared:
            self._shared[what] = self._of_group.enter_context(make())
        found: T = self._shared[what]
        return found

    def end_group(self) -> None:
        """Close what is shared: after a group, and after a failure, which may have broken it."""
        self._shared.clear()
        self._of_group.close()

    def close(self) -> None:
        self._site = None
        self._open.close()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.end_group()
        self.close()
