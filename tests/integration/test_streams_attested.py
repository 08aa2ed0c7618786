"""A stream that is held: what its process becomes meanwhile ends or changes it, though nobody calls and nothing is new."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness.borrowed import Borrowed
from harness.cgroups import Cgroup, CgroupAgent, cgroup
from harness.looking import until
from harness.raw import WORKLOAD_API, Admin, Wire, refusal
from harness.sds import SecretStream
from sojourn._pb.sojourn.v1 import validation_pb2

pytestmark = [pytest.mark.full, pytest.mark.root]
SLEEP = os.path.realpath("/bin/sleep")
SOON_SECONDS = 10.0  # it looks once a second; a timer alone would take a minute
ID = "spiffe://example.org"


@pytest.fixture(scope="module")
def agent() -> Iterator[CgroupAgent]:
    with CgroupAgent() as running:
        yield running
        failed = {"call_failed", "http_failed"}
        assert [] == [line for line in running.log_lines() if line["event"] in failed]


@pytest.fixture
def switched_off(agent: CgroupAgent) -> Iterator[Callable[[], None]]:
    """Makes the cgroup attestor unable to tell, until the end of the test."""
    yield agent.switch.touch
    agent.switch.unlink(missing_ok=True)


@pytest.fixture
def place(uid: int) -> Iterator[Cgroup]:
    with cgroup(str(uid)) as made:
        yield made


@pytest.fixture
def workload(agent: CgroupAgent, uid: int, place: Cgroup) -> Iterator[Borrowed]:
    """A process of a user of its own. It ends before its cgroup is removed."""
    del place
    with Borrowed(agent.socket, uid) as borrowed:
        yield borrowed


@pytest.fixture
def wire(workload: Borrowed) -> Iterator[Wire]:
    with workload.wire() as wire:
        yield wire


def soon(action: Callable[[], Any]) -> Any:
    """What `action` returns, which must be within SOON_SECONDS."""
    begun = time.monotonic()
    found = action()
    assert time.monotonic() - begun < SOON_SECONDS
    return found


def ids(message: Any) -> list[str]:
    return sorted(svid.spiffe_id for svid in message.svids)


@contextlib.contextmanager
def held(wire: Wire, method: str) -> Iterator[Callable[[], object]]:
    """An open stream of any kind that has had its first message; what waits for the next."""
    if method == "StreamSecrets":
        secrets = SecretStream(wire)
        secrets.ask(resource_names=["default"])
        yield secrets.hear
        secrets.close()
        return
    path, request = WORKLOAD_API + method, b""
    if method == "WatchTasks":
        path = "/sojourn.v1.Validation/WatchTasks"
        request = validation_pb2.WatchTasksRequest(audiences=["https://a.example.org"]).SerializeToString()
    stream = wire.stream(path, request, timeout=60)
    next(stream)
    yield lambda: list(stream) if method == "WatchTasks" else next(stream)  # whose heartbeats are no news


@pytest.mark.parametrize(
    "method", ["FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles", "StreamSecrets", "WatchTasks"]
)
def test_another_program(admin: Admin, uid: int, workload: Borrowed, wire: Wire, method: str) -> None:
    """When its process executes another program, a stream ends within a second or so, and its client may come again."""
    admin.register(f"/w/{uid}", f"unix:uid:{uid}")
    with held(wire, method) as following:
        workload.tell(f"exec {SLEEP} 60")
        status, text = soon(lambda: refusal(following))
    assert ("UNAVAILABLE", True) == (status, "connect again" in text)
    until(lambda: not admin.streams_of(workload.pid))


def test_another_program_with_many_streams(
    agent: CgroupAgent, admin: Admin, uid: int, workload: Borrowed, wire: Wire
) -> None:
    """All of a process's streams end then, and those of another process do not."""
    admin.register(f"/w/{uid}", f"unix:uid:{uid}")
    streams = [wire.x509_stream() for _ in range(20)]
    assert {(f"{ID}/w/{uid}",)} == {tuple(ids(next(stream))) for stream in streams}
    with Borrowed(agent.socket, uid) as other, other.wire() as others:
        kept = others.x509_stream()
        next(kept)
        workload.tell(f"exec {SLEEP} 60")
        soon(lambda: until(lambda: not admin.streams_of(workload.pid)))
        assert {"UNAVAILABLE"} == {refusal(lambda stream=stream: next(stream))[0] for stream in streams}
        assert ["FetchX509SVID"] == admin.streams_of(other.pid)
        kept.cancel()


class TestAnotherCgroup:
    def test_that_earns_nothing(self, admin: Admin, uid: int, place: Cgroup, workload: Borrowed, wire: Wire) -> None:
        """When its process has left the cgroup that earned its identity, a stream loses it: PERMISSION_DENIED."""
        place.take(workload.pid)
        admin.register(f"/in/{uid}", f"unix:uid:{uid}", place.selector)
        stream = wire.x509_stream()
        assert [f"{ID}/in/{uid}"] == ids(next(stream))
        place.leave(workload.pid)
        assert ("PERMISSION_DENIED", "no identity issued") == soon(lambda: refusal(lambda: next(stream)))

    def test_that_earns_less(self, admin: Admin, uid: int, place: Cgroup, workload: Borrowed, wire: Wire) -> None:
        """What does not depend on the cgroup stays: the stream is told what is left."""
        place.take(workload.pid)
        admin.register(f"/in/{uid}", f"unix:uid:{uid}", place.selector)
        admin.register(f"/w/{uid}", f"unix:uid:{uid}")
        stream = wire.x509_stream()
        assert [f"{ID}/in/{uid}", f"{ID}/w/{uid}"] == ids(next(stream))
        place.leave(workload.pid)
        assert [f"{ID}/w/{uid}"] == ids(soon(lambda: next(stream)))

    def test_that_earns_more(self, admin: Admin, uid: int, place: Cgroup, workload: Borrowed, wire: Wire) -> None:
        """A process that is moved to where it earns more has it on its open stream."""
        admin.register(f"/in/{uid}", f"unix:uid:{uid}", place.selector)
        admin.register(f"/w/{uid}", f"unix:uid:{uid}")
        stream = wire.x509_stream()
        assert [f"{ID}/w/{uid}"] == ids(next(stream))
        place.take(workload.pid)
        assert [f"{ID}/in/{uid}", f"{ID}/w/{uid}"] == ids(soon(lambda: next(stream)))

    def test_of_a_secret(self, admin: Admin, uid: int, place: Cgroup, workload: Borrowed, wire: Wire) -> None:
        """On a stream of Envoy's kind the certificate goes, and comes again if the process comes back."""
        place.take(workload.pid)
        admin.register(f"/in/{uid}", f"unix:uid:{uid}", place.selector)
        stream = SecretStream(wire, "DeltaSecrets")
        answers = [stream.ask(resource_names_subscribe=["default"])]
        place.leave(workload.pid)
        answers.append(soon(stream.hear))
        place.take(workload.pid)
        answers.append(soon(stream.hear))
        stream.close()
        assert [(1, 0), (0, 1), (1, 0)] == [(len(each.resources), len(each.removed_resources)) for each in answers]

    def test_before_the_next_call(self, admin: Admin, uid: int, place: Cgroup, workload: Borrowed, wire: Wire) -> None:
        """A call after the move is answered by the new place at once, although an attestation was made just before."""
        place.take(workload.pid)
        admin.register(f"/in/{uid}", f"unix:uid:{uid}", place.selector)
        assert [f"{ID}/in/{uid}"] == wire.x509_ids()
        place.leave(workload.pid)
        assert "PERMISSION_DENIED" == refusal(wire.x509)[0]
        place.take(workload.pid)
        assert [f"{ID}/in/{uid}"] == wire.x509_ids()

    def test_of_which_nobody_can_tell(
        self,
        admin: Admin,
        uid: int,
        place: Cgroup,
        workload: Borrowed,
        wire: Wire,
        switched_off: Callable[[], None],
    ) -> None:
        """If an attestor fails just then, the stream ends with "not now" and not with a no, nor with less than it had."""
        place.take(workload.pid)
        admin.register(f"/in/{uid}", f"unix:uid:{uid}", place.selector)
        admin.register(f"/w/{uid}", f"unix:uid:{uid}")
        stream = wire.x509_stream()
        assert [f"{ID}/in/{uid}", f"{ID}/w/{uid}"] == ids(next(stream))
        switched_off()
        place.leave(workload.pid)
        assert "UNAVAILABLE" == soon(lambda: refusal(lambda: next(stream)))[0]


class TestAnAttestorThatFails:
    def test_at_first(
        self,
        agent: CgroupAgent,
        admin: Admin,
        uid: int,
        place: Cgroup,
        workload: Borrowed,
        wire: Wire,
        switched_off: Callable[[], None],
    ) -> None:
        """While it cannot be told whether a caller has more it is "not now", with the reason; then it has all."""
        place.take(workload.pid)
        admin.register(f"/in/{uid}", f"unix:uid:{uid}", place.selector)
        admin.register(f"/w/{uid}", f"unix:uid:{uid}")
        switched_off()
        status, text = refusal(wire.x509)
        assert ("UNAVAILABLE", True) == (status, "(cgroup: failed: RuntimeError)" in text)
        agent.switch.unlink()
        assert [f"{ID}/in/{uid}", f"{ID}/w/{uid}"] == sorted(wire.x509_ids())

    def test_where_it_cannot_matter(
        self, admin: Admin, uid: int, workload: Borrowed, wire: Wire, switched_off: Callable[[], None]
    ) -> None:
        """A caller for whom no entry asks what it would say is served meanwhile, and one without any is refused."""
        admin.register(f"/w/{uid}", f"unix:uid:{uid}")
        admin.register(f"/in/{uid}", f"unix:uid:{uid + 100}", "cgroup:name:x")
        switched_off()
        assert [f"{ID}/w/{uid}"] == wire.x509_ids()

    def test_while_a_connection_lasts(
        self,
        admin: Admin,
        uid: int,
        place: Cgroup,
        workload: Borrowed,
        wire: Wire,
        switched_off: Callable[[], None],
    ) -> None:
        """What it said before holds for the same process in the same place: its stream goes on, with what is new."""
        place.take(workload.pid)
        admin.register(f"/in/{uid}", f"unix:uid:{uid}", place.selector)
        stream = wire.x509_stream()
        assert [f"{ID}/in/{uid}"] == ids(next(stream))
        switched_off()
        admin.register(f"/more/{uid}", f"unix:uid:{uid}", place.selector)
        assert [f"{ID}/in/{uid}", f"{ID}/more/{uid}"] == ids(next(stream))
        assert [f"{ID}/in/{uid}", f"{ID}/more/{uid}"] == sorted(wire.x509_ids())


def test_nothing_new(admin: Admin, uid: int, workload: Borrowed, wire: Wire) -> None:
    """A process that stays what it is hears nothing of being looked at."""
    admin.register(f"/w/{uid}", f"unix:uid:{uid}")
    stream = wire.x509_stream()
    next(stream)
    time.sleep(3)
    [status] = [each for each in admin.streams() if each.pid == workload.pid]
    stream.cancel()
    assert 1 == status.pushes
