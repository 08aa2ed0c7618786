"""The blocking client, against an agent in another thread."""

import asyncio
import inspect
import ssl
import threading
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import pytest
from fakes.ca import FakeCa
from fakes.fake_agent import ScriptedAgent, x509_response
from fakes.task_messages import BEGUN, ended, task
from harness.looking import WAIT_SECONDS
from sojourn._pb import workload_pb2
from sojourn._pb.sojourn.v1 import tasks_pb2 as pb
from sojourn._pb.sojourn.v1 import validation_pb2
from sojourn.errors import InvalidInput, NoIdentity, Unreachable
from sojourn.sdk.client.client import Client
from sojourn.sdk.client.sync import SyncClient, SyncTask
from sojourn.sdk.task.task import Task
from sojourn.spiffetls.authorize import authorize_any


@pytest.fixture
def remote(socket: Path) -> Iterator[ScriptedAgent]:
    """A fake agent with a loop and thread of its own."""
    agent = ScriptedAgent()
    loop = asyncio.new_event_loop()
    up, down = threading.Event(), asyncio.Event()

    async def main() -> None:
        async with agent.serve(socket):
            up.set()
            await down.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert up.wait(WAIT_SECONDS)
    push = agent.push
    agent.push = lambda *what: loop.call_soon_threadsafe(push, *what)  # type: ignore[method-assign]
    yield agent
    loop.call_soon_threadsafe(down.set)
    thread.join(WAIT_SECONDS)
    loop.close()


@pytest.fixture
def client(remote: ScriptedAgent, socket: Path) -> Iterator[SyncClient]:
    with SyncClient(str(socket), deadline_seconds=5) as opened:
        yield opened


def test_fetches(remote: ScriptedAgent, client: SyncClient, ca: FakeCa) -> None:
    """Each fetch answers as the asynchronous one does."""
    remote.push("FetchX509SVID", x509_response(ca, ca.svid()))
    remote.push("FetchX509Bundles", workload_pb2.X509BundlesResponse(bundles={"spiffe://example.org": ca.root_der}))
    empty = {"spiffe://example.org": b'{"keys": []}'}
    remote.push("FetchJWTBundles", workload_pb2.JWTBundlesResponse(bundles=empty))
    remote.answers["FetchJWTSVID"] = workload_pb2.JWTSVIDResponse()
    remote.answers["ValidateToken"] = validation_pb2.ValidateTokenResponse(valid=True)
    remote.answers["ValidateJWTSVID"] = workload_pb2.ValidateJWTSVIDResponse(
        spiffe_id="spiffe://example.org/x", claims={"sub": "spiffe://example.org/x"}
    )
    assert client.fetch_x509_svids().default.spiffe_id.path == "/web"
    assert {ca.trust_domain: (ca.root,)} == client.fetch_x509_bundles()
    assert client.fetch_jwt_bundles() == {ca.trust_domain: {}}
    with pytest.raises(NoIdentity):
        client.fetch_jwt_svid("them")
    assert client.validate_token("t", "them").valid
    assert client.validate_jwt_svid("t", "them")[0].path == "/x"


def test_watch(remote: ScriptedAgent, client: SyncClient, ca: FakeCa) -> None:
    """A watch is a plain iterator over rotations."""
    svids = [ca.svid(), ca.svid()]
    remote.push("FetchX509SVID", *(x509_response(ca, svid) for svid in svids))
    contexts = client.watch_x509_contexts()
    assert [svid.serial for svid in svids] == [next(contexts).default.serial for _ in svids]
    contexts.close()  # type: ignore[attr-defined]


def test_source(remote: ScriptedAgent, client: SyncClient, ca: FakeCa) -> None:
    """A source is followed in the background, and its contexts serve this thread."""
    remote.push("FetchX509SVID", x509_response(ca, ca.svid()))
    with client.x509_source() as source:
        assert source.svid.spiffe_id.path == "/web"
        source.client_context(authorize_any()).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())


def test_task(remote: ScriptedAgent, client: SyncClient) -> None:
    """A task lives as long as its block and gives tokens."""
    remote.answers["GetToken"] = pb.GetTokenResponse(access_token="secret")
    remote.push("RunTask", BEGUN)
    with client.task("triage-ticket") as running:
        assert (running.id, running.token().token) == ("t1", "secret")
        remote.push("RunTask", ended("revoked", "enough"))
        running.wait_ended()
        running.complete()
    assert (running.ended, running.reason) == (True, "enough")


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, StopIteration])
def test_task_fails(remote: ScriptedAgent, client: SyncClient, error: type[BaseException]) -> None:
    """An exception that leaves the block ends the task as failed, whichever it is, and the client lives on."""
    remote.push("RunTask", BEGUN, ended("completed"))
    remote.answers["CompleteTask"] = task("completed")
    with pytest.raises((error, RuntimeError)), client.task("triage-ticket"):
        raise error
    assert client.complete_task("t1").state == "completed"


def test_process_task(remote: ScriptedAgent, client: SyncClient) -> None:
    """A task of a process gives tokens by the blocking client, and ends."""
    remote.answers |= {"BeginTask": task(), "CompleteTask": task("completed")}
    remote.answers["GetToken"] = pb.GetTokenResponse(access_token="x")
    held = client.begin_task("triage-ticket")
    assert (held.token().token, client.get_token("t1").token) == ("x", "x")
    held.complete()
    assert held.ended


def test_unreachable(tmp_path: Path) -> None:
    """Errors are those of the asynchronous client, and no thread is left behind."""
    with SyncClient(str(tmp_path / "none.sock")) as client, pytest.raises(Unreachable):
        client.fetch_x509_svids()
    assert "sojourn-client" not in {thread.name for thread in threading.enumerate()}


def test_not_open() -> None:
    """A client outside its block says how it is used."""
    with pytest.raises(InvalidInput):
        SyncClient("/none").fetch_x509_svids()


def test_what_there_is() -> None:
    """Whatever the other client can, this one can by the same name, with the same parameters, and it says how."""
    for twin, blocking in ((Client, SyncClient), (Task, SyncTask)):
        for name, method in inspect.getmembers(twin, inspect.isroutine):
            own = getattr(blocking, name, None)
            if name.startswith("_") or (twin, name) == (Task, "follow"):
                continue
            assert own is not None, name
            assert list(signature(own).parameters) == list(signature(method).parameters)
            assert not inspect.iscoroutinefunction(own)
            assert "async with" not in (own.__doc__ or "")
    assert "AbstractContextManager[SyncTask]" == signature(SyncClient.task).return_annotation
    assert "SyncHeldTask" == signature(SyncClient.begin_task).return_annotation


def test_an_option_that_is_none(remote: ScriptedAgent, client: SyncClient) -> None:
    """An option that is misspelt is refused, not left out: a task with more authority would begin."""
    with pytest.raises(TypeError, match="grant"):
        client.begin_task("triage-ticket", grant=[])  # type: ignore[call-arg]
    assert [] == remote.requests
