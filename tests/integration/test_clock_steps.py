"""A wall clock that is set, and a machine that sleeps: what an agent serves is valid, on streams that are open too."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from harness.agent import SAMPLES, AgentProcess
from harness.callers import Caller
from harness.clocks import SteppedAgent
from harness.facttypes import PERMIT
from harness.looking import until
from harness.program import Program
from harness.raw import WORKLOAD_API, Admin, Wire, refusal
from harness.reading import certificates, claims, uris
from harness.taskagent import CONFIG, ISSUER, TICKETS, write_type
from harness.webclients import web
from sojourn import Client
from sojourn._pb import workload_pb2 as workload
from sojourn.errors import InvalidToken
from sojourn.sdk.guard.verifier import TaskVerifier

pytestmark = pytest.mark.full

DAY = timedelta(days=1)
STEPS = pytest.mark.parametrize("step", [DAY, -DAY], ids=["a day ahead", "a day back"])
SOON_SECONDS = 10.0
PATH = "/agent/triage"  # the workload of the sample's task type
ID = f"spiffe://example.org{PATH}"


@pytest.fixture
def agent() -> Iterator[SteppedAgent]:
    """An agent that is three days old by its clock. The tests themselves are its workload."""
    with SteppedAgent(ago=3 * DAY) as running, Admin(running.admin_socket) as admin:
        admin.register(PATH, f"unix:uid:{os.getuid()}")
        running.step(DAY)
        yield running
        failed = {"call_failed", "http_failed", "alarm_failed", "step_hook_failed", "authority_not_renewed"}
        assert [] == [line for line in running.log_lines() if line["event"] in failed]
        assert running.json("audit", "verify")["intact"]


def check_valid(message: Any, now: datetime) -> list[x509.Certificate]:
    """All that is served is valid now, up to the root in the bundle; the leaves."""
    leaves = []
    for svid in message.svids:
        leaf, issuer = certificates(svid.x509_svid)
        [root] = certificates(svid.bundle)
        for certificate in (leaf, issuer, root):
            assert certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
        leaf.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(root)
        leaves.append(leaf)
    assert leaves
    return leaves


def jwt(wire: Wire) -> str:
    request = workload.JWTSVIDRequest(audience=["a"])
    [svid] = wire.unary(WORKLOAD_API + "FetchJWTSVID", request, workload.JWTSVIDResponse).svids
    return svid.svid


def validated(wire: Wire, token: str) -> str:
    request = workload.ValidateJWTSVIDRequest(audience="a", svid=token)
    return wire.unary(WORKLOAD_API + "ValidateJWTSVID", request, workload.ValidateJWTSVIDResponse).spiffe_id


class TestX509:
    @STEPS
    def test_on_an_open_stream(self, agent: SteppedAgent, step: timedelta) -> None:
        """Within seconds of a step an open stream has a new certificate, valid by the new time."""
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            [old] = check_valid(next(stream), agent.now())
            stepped = agent.step(step)
            [new] = check_valid(next(stream), agent.now())
            took = time.monotonic() - stepped
        assert (True, [ID], True) == (took < SOON_SECONDS, uris(new), old.serial_number != new.serial_number)
        assert not old.not_valid_before_utc <= agent.now() < old.not_valid_after_utc

    @STEPS
    def test_of_a_call_just_behind_it(self, agent: SteppedAgent, step: timedelta) -> None:
        """A call that comes before the agent had time to notice gets what is valid, and open streams get the same."""
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            next(stream)
            agent.step(step)
            [called] = check_valid(wire.x509(), agent.now())
            [pushed] = check_valid(next(stream), agent.now())
        assert called == pushed

    def test_there_and_back(self, agent: SteppedAgent) -> None:
        """A wrong time that is corrected costs two renewals and nothing else."""
        with Wire(agent.socket) as wire:
            stream = wire.x509_stream()
            check_valid(next(stream), agent.now())
            for step in (DAY, -DAY):
                agent.step(step)
                check_valid(next(stream), agent.now())
            check_valid(wire.x509(), agent.now())

    def test_before_the_root(self) -> None:
        """On a clock that stands before the root nothing is served, in so many words, until the time is right again."""
        with SteppedAgent() as fresh, Admin(fresh.admin_socket) as admin, Wire(fresh.socket) as wire:
            admin.register(PATH, f"unix:uid:{os.getuid()}")
            stream = wire.x509_stream()
            next(stream)
            fresh.step(-DAY)
            told = refusal(lambda: next(stream))
            assert ("UNAVAILABLE", True) == (told[0], "is the clock right?" in told[1])
            assert "UNAVAILABLE" == refusal(wire.x509)[0]
            fresh.step(DAY)
            check_valid(wire.x509(), fresh.now())

    @pytest.mark.go
    @STEPS
    def test_of_a_go_client(self, agent: SteppedAgent, go_client: str, step: timedelta) -> None:
        """A watch of go-spiffe's hears of the new certificate, and of no error."""
        arguments = ["watch", "-updates", "2", "-timeout", "20s"]
        with Program([go_client, *arguments], agent.environment) as program:
            first = program.hear()
            agent.step(step)
            status, lines = program.finish()
        assert (0, ["update"]) == (status, [line["event"] for line in lines])
        assert first["serials"] != lines[0]["serials"]


class TestJwt:
    @STEPS
    def test_new_ones(self, agent: SteppedAgent, step: timedelta) -> None:
        """A JWT-SVID that is issued after a step is valid by the new time."""
        with Wire(agent.socket) as wire:
            jwt(wire)
            agent.step(step)
            token = jwt(wire)
            assert claims(token)["iat"] <= agent.now().timestamp() < claims(token)["exp"]
            assert ID == validated(wire, token)

    @STEPS
    def test_old_ones(self, agent: SteppedAgent, step: timedelta) -> None:
        """A JWT-SVID from before a clock step is refused: as expired, or as not valid yet. No step prolongs it."""
        with Wire(agent.socket) as wire:
            token = jwt(wire)
            assert ID == validated(wire, token)
            agent.step(step)
            status, text = refusal(lambda: validated(wire, token))
        expected = "token has expired" if step > timedelta(0) else "token is not valid yet"
        assert ("INVALID_ARGUMENT", True) == (status, expected in text)

    def test_after_the_keys_have_ended(self, agent: SteppedAgent) -> None:
        """A step over the life of the JWT keys brings a new key to the streams, and it signs at once. Back again, what was
        signed before is as good as ever.
        """
        with Wire(agent.socket) as wire:
            method = WORKLOAD_API + "FetchJWTBundles"
            stream = wire.stream(method, workload.JWTBundlesRequest(), workload.JWTBundlesResponse, timeout=60)
            old, before = next(stream), jwt(wire)
            agent.step(40 * DAY)
            assert ID == validated(wire, jwt(wire))
            assert old != next(stream)
            agent.step(-40 * DAY)
            assert ID == validated(wire, before)


class TestEntries:
    def test_whose_time_a_step_passes(self, agent: SteppedAgent) -> None:
        """An entry that has ended by the new time ends what it served at once."""
        with Admin(agent.admin_socket) as admin, Wire(agent.socket) as wire:
            ends = int((agent.now() + DAY / 2).timestamp())
            admin.register("/brief", f"unix:uid:{os.getuid()}", f"unix:gid:{os.getgid()}", expires_at=ends)
            stream = wire.x509_stream()
            assert 2 == len(next(stream).svids)
            agent.step(DAY)
            messages = [next(stream)]
            while len(messages[-1].svids) > 1 and len(messages) < 3:
                messages.append(next(stream))
            assert [[ID]] == [uris(leaf) for leaf in check_valid(messages[-1], agent.now())]
            agent.step(-DAY)
            assert [ID] == wire.x509_ids()


class TestTasks:
    def test_go_on(self, agent: SteppedAgent) -> None:
        """A task lives by the boot clock: it goes on, and its tokens of before the step are refused."""
        with Caller(agent.socket) as holder:
            task = holder.ask("begin_process", type="triage-ticket")["id"]
            for step, code in ((DAY, "expired"), (-DAY, "not_yet_valid")):
                token = holder.ask("token", task=task)["token"]
                assert (True, "") == _verdict(holder, token)
                agent.step(step)
                assert (False, code) == _verdict(holder, token)
                assert [task] == [each["id"] for each in agent.json("task", "list")["tasks"]]
            assert (True, "") == _verdict(holder, holder.ask("token", task=task)["token"])

    async def test_what_has_ended(self) -> None:
        """A step back revives no token that has lived for its time: not at the agent, nor at a service by itself."""
        own = SteppedAgent(config=CONFIG.format(level="info"))
        types = own.folder / "types"
        types.mkdir()
        ceiling = f'[[ceiling]]\nresource = "{TICKETS}"\nactions = ["ticket:read"]\n'
        write_type(types, "brief", f'allowed_workloads = ["{ID}"]\ntoken_ttl = "2s"\n{ceiling}', PERMIT)
        with own, Caller(own.socket) as holder:
            own.register(PATH, f"unix:uid:{os.getuid()}")
            async with Client(own.socket) as client, TaskVerifier(client, TICKETS, now=own.now) as service:
                await service.feed.wait_ready(20)
                task = holder.ask("begin_process", type="brief")["id"]
                token = holder.ask("token", task=task)["token"]
                until(lambda: _verdict(holder, token) == (False, "expired"), "it has ended")
                own.step(timedelta(seconds=-2))
                assert datetime.fromtimestamp(claims(token)["exp"], UTC) > own.now()
                assert (False, "expired") == _verdict(holder, token)
                with pytest.raises(InvalidToken) as refused:
                    await service.verify(token)
                assert "expired" == refused.value.reason_code
                fresh = holder.ask("token", task=task)["token"]
                assert (await service.verify(fresh)).task_id == task


def _verdict(holder: Caller, token: str) -> tuple[bool, str]:
    verdict = holder.ask("validate", token=token, audience=TICKETS)
    return verdict["valid"], verdict["code"]


class TestSleep:
    """A process that is stopped sees time go by as a machine that sleeps does: none of its own timers ran."""

    def test_longer_than_a_certificate_lives(self, tmp_path: Path) -> None:
        """After a sleep that outlasts a certificate, what is pushed and what is fetched is valid at once."""
        del tmp_path
        with AgentProcess() as agent, Admin(agent.admin_socket) as admin, Wire(agent.socket) as wire:
            admin.register(PATH, f"unix:uid:{os.getuid()}", x509_svid_ttl=10)
            stream = wire.x509_stream()
            [old] = check_valid(next(stream), datetime.now(UTC))
            got: list[tuple[Any, datetime]] = []
            asking = threading.Thread(target=lambda: got.append((wire.x509(), datetime.now(UTC))))
            os.kill(agent.pid, signal.SIGSTOP)
            try:
                time.sleep((old.not_valid_after_utc - datetime.now(UTC)).total_seconds() + 1)
                asking.start()  # waits at the agent's door when that wakes up
                time.sleep(0.2)
            finally:
                os.kill(agent.pid, signal.SIGCONT)
            woken = time.monotonic()
            [pushed] = check_valid(next(stream), datetime.now(UTC))
            assert time.monotonic() - woken < SOON_SECONDS
            asking.join(15)
            [(message, at)] = got
            [fetched] = check_valid(message, at)
        assert (True, True) == (pushed != old, fetched != old)


def test_the_clock_of_these_tests(agent: SteppedAgent) -> None:
    """The agent obeys the clock that is set here: otherwise a test of this file would prove nothing."""
    with Wire(agent.socket) as wire:
        agent.step(400 * DAY)
        [leaf] = check_valid(wire.x509(), agent.now())
        assert leaf.not_valid_before_utc > datetime.now(UTC) + 300 * DAY


def test_assertions_of_a_clock_that_stood_days_ahead() -> None:
    """Once the clock is right again clients elsewhere are let in by fresh assertions, over a restart too, although some that
    were used days ahead are forgotten; what was used is never taken again. Log and status tell of it.
    """
    stepped = SteppedAgent(ago=2 * DAY, config=CONFIG.format(level="info") + '[listen]\nhttps = "127.0.0.1:0"\n')
    shutil.copytree(SAMPLES / "task-types", stepped.folder / "types")
    with stepped as agent:
        agent.step(DAY)
        agent.register(PATH, f"unix:uid:{os.getuid()}")
        used = []

        def shown(token: str) -> tuple[int, str]:
            form = {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": token,
                "resource": TICKETS,
            }
            with web(agent) as client:
                answer = client.post("/token", data=form)
            return answer.status_code, answer.json().get("error_description", "")

        def taken() -> tuple[int, str]:
            with Wire(agent.socket) as wire:
                [svid] = wire.jwt(ISSUER).svids
            used.append(svid.svid)
            return shown(svid.svid)

        for step in (3 * DAY, 2 * DAY):
            agent.step(step)
            assert (200, "") == taken()
        agent.step(-5 * DAY)
        assert [(200, "")] * 2 == [taken(), taken()]
        agent.stop()
        agent.start()
        assert (200, "") == taken()
        assert {shown(token)[0] for token in used} <= {400, 401}
        assert "assertions_used_ahead" in [each["what"] for each in agent.json("status")["failures"]]
        agent.step(3 * DAY)
        assert {shown(token)[0] for token in used} <= {400, 401}
