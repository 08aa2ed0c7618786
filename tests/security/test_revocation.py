"""Revocation that would be escaped, filled, interrupted or lost: by floods, disks, signals, kills and clocks."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from harness.agent import COMMAND, AgentProcess
from harness.callers import Caller
from harness.clocks import SteppedAgent
from harness.disks import failing
from harness.looking import until
from harness.raw import Admin, Wire
from harness.reading import certificates
from harness.taskagent import TICKETS, make_agent
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.types import types_pb2 as types

pytestmark = pytest.mark.forked

ID = "spiffe://example.org/agent/triage"
ME = f"unix:uid:{os.getuid()}"
DAY = timedelta(days=1)
BUNDLES = "/spire.api.server.bundle.v1.Bundle"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    """An agent on which the tests themselves, and their callers, are one workload."""
    with make_agent() as running:
        running.register("/agent/triage", ME)
        yield running
        assert running.json("audit", "verify")["intact"]


class Held:
    """What a workload has by now, and whether it is good still: a JWT-SVID, an X.509-SVID, and a token of a task."""

    def __init__(self, wire: Wire, caller: Caller) -> None:
        self._wire, self._caller = wire, caller
        self.jwt = wire.jwt("a").svids[0].svid
        self.serial = self._serial()
        self.task = caller.ask("begin_process", type="triage-ticket")["id"]
        self.token = caller.ask("token", task=self.task)["token"]

    def _serial(self) -> str:
        return f"{certificates(self._wire.x509().svids[0].x509_svid)[0].serial_number:x}"

    @property
    def refused(self) -> dict[str, bool]:
        """What is no longer good; of the X.509-SVID, whether the workload has another one."""
        return {
            "jwt": is_refused(self._wire, self.jwt),
            "x509": self._serial() != self.serial,
            "task": not self._caller.ask("validate", token=self.token, audience=TICKETS)["valid"],
            "new tokens": "token" != self._caller.ask("token", task=self.task)["event"],
        }


ALL_REFUSED = dict.fromkeys(("jwt", "x509", "task", "new tokens"), True)
NONE_REFUSED = dict.fromkeys(ALL_REFUSED, False)


def is_refused(wire: Wire, token: str) -> bool:
    try:
        wire.validate("a", token)
    except grpc.RpcError as error:
        return "revoked" in (error.details() or "")
    return False


@contextmanager
def held(agent: AgentProcess) -> Iterator[Held]:
    with Wire(agent.socket) as wire, Caller(agent.socket) as caller:
        found = Held(wire, caller)
        assert found.refused == NONE_REFUSED
        yield found


@contextmanager
def waiting_writes(agent: AgentProcess) -> Iterator[None]:
    """The agent's writes wait, as they do for a slow disk: another process has the database for itself."""
    database = sqlite3.connect(agent.data_dir / "sojourn.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        database.execute("ROLLBACK")
        database.close()


def records(agent: AgentProcess) -> list[dict[str, Any]]:
    return [each["fields"] for each in agent.json("audit", "tail", "--event", "svids_revoked")["records"]]


@pytest.mark.forked
def test_A1_a_flood_of_svids(agent: AgentProcess) -> None:
    """An identity is revoked by one row, however many SVIDs it has had made: the first and the last are dead, also after
    a kill, and what it is given then is good; nobody else's room is taken.
    """
    agent.register("/other", ME)
    with held(agent) as found, Wire(agent.socket) as wire, ThreadPoolExecutor(8) as pool:
        theirs = {svid.spiffe_id: svid.svid for svid in wire.jwt("a").svids}["spiffe://example.org/other"]
        made = list(pool.map(lambda number: wire.jwt("a", str(number)).svids[0].svid, range(400)))
        done = agent.json("svid", "revoke", "--spiffe-id", ID, "--reason", "flood")
        assert (ID, 0) == (done["identity"]["spiffe_id"], done["identity"]["left_out"])
        after = wire.jwt("a").svids[0].svid
        for _ in range(2):
            listed = agent.json("svid", "revoked")
            assert ([], [ID]) == (listed["revoked"], [each["spiffe_id"] for each in listed["identities"]])
            assert [True] * 400 == [is_refused(wire, each) for each in made]
            assert [True, False, False] == [is_refused(wire, each) for each in (found.jwt, theirs, after)]
            agent.kill()
            agent.start()
            until(lambda: wire.x509().svids)
    assert (ID, "flood") == ((last := records(agent)[-1])["spiffe_id"], last["reason"])


@pytest.mark.parametrize("again", ["by the operator", "behind"])
def test_A2_a_write_that_fails(agent: AgentProcess, again: str) -> None:
    """A revocation that the disk does not take is in force, tasks and streams too, and is told as not on disk; once there
    is room it is written, by the next call and by the agent itself, and a restart finds it, with its record.
    """
    before = len(records(agent))
    with held(agent) as found, Wire(agent.socket) as wire:
        with failing(agent):
            told = agent.run("svid", "revoke", "--spiffe-id", ID, "--output", "json", check=False)
            assert (1, True) == (told.returncode, '"code": "not_on_disk"' in told.stderr)
            assert ALL_REFUSED == found.refused
            assert not agent.json("svid", "revoked")["identities"][0]["written"]
        if again == "behind":
            until(lambda: agent.json("svid", "revoked")["identities"][0]["written"])
        else:
            assert agent.json("svid", "revoke", "--spiffe-id", ID)["identity"]["written"]
        agent.kill()
        agent.start()
        until(lambda: wire.x509().svids)
        assert is_refused(wire, found.jwt)
        assert {"jwt": True, "x509": True, "task": True, "new tokens": True} == found.refused
    assert len(records(agent)) > before


@pytest.mark.forked
def test_A3_an_operator_who_is_interrupted(agent: AgentProcess) -> None:
    """A revocation whose command is interrupted while its write waits is gone through with: all of it is in force before,
    and is on disk with its record after.
    """
    before = len(records(agent))
    with held(agent) as found:
        with waiting_writes(agent):
            command = [*COMMAND, "svid", "revoke", "--spiffe-id", ID, "--reason", "cut"]
            operator = subprocess.Popen(command, env=agent.environment, stderr=subprocess.DEVNULL)
            until(lambda: found.refused == ALL_REFUSED, "it is in force while the write waits")
            operator.send_signal(signal.SIGINT)
            assert 0 != operator.wait(15)
        until(lambda: len(records(agent)) > before, "it is written")
        assert "cut" == records(agent)[-1]["reason"]
        assert agent.json("svid", "revoked")["identities"][0]["written"]
        assert ALL_REFUSED == found.refused


@pytest.mark.forked
def test_A3_a_partners_bundle_that_is_interrupted(agent: AgentProcess) -> None:
    """A bundle that takes a partner's key away is in force and recorded, though the call ended while its write waited."""
    with Admin(agent.admin_socket) as admin:
        own = admin.bundle().x509_authorities
        admin.know(types.Bundle(trust_domain="partner.example", x509_authorities=own))
        fewer = types.Bundle(trust_domain="partner.example", sequence_number=2)
        method, request = "BatchSetFederatedBundle", bundle_pb2.BatchSetFederatedBundleRequest(bundle=[fewer])
        with waiting_writes(agent), pytest.raises(grpc.RpcError) as told:
            admin.unary(f"{BUNDLES}/{method}", request, bundle_pb2.BatchSetFederatedBundleResponse, timeout=3)
        assert grpc.StatusCode.DEADLINE_EXCEEDED == told.value.code()

        def known() -> int:
            get = bundle_pb2.GetFederatedBundleRequest(trust_domain="partner.example")
            return len(admin.unary(f"{BUNDLES}/GetFederatedBundle", get, types.Bundle).x509_authorities)

        until(lambda: known() == 0, "the key is gone")
        assert 2 == len(agent.json("audit", "tail", "--event", "bundle_set")["records"])


@pytest.mark.forked
def test_A5_a_start_with_a_clock_that_is_ahead() -> None:
    """What was revoked is so after a start whose clock stood days ahead, once it is right again."""
    with SteppedAgent(ago=3 * DAY) as agent, Admin(agent.admin_socket) as admin, Wire(agent.socket) as wire:
        admin.register("/agent/triage", ME)
        token, one = wire.jwt("a").svids[0].svid, wire.jwt("a", "b").svids[0].svid
        agent.run("svid", "revoke", "--spiffe-id", ID)
        good = wire.jwt("a").svids[0].svid
        for step in (2 * DAY, -2 * DAY):
            agent.stop()
            agent.step(step)
            agent.start()
            until(lambda: wire.x509().svids)
        assert [True, True, False] == [is_refused(wire, each) for each in (token, one, good)]
        assert [ID] == [each["spiffe_id"] for each in agent.json("svid", "revoked")["identities"]]


def acts(agent: AgentProcess, admin: Admin, task: str) -> dict[str, Callable[[], object]]:
    """What operators do, each by the event of its record."""
    partner = types.Bundle(trust_domain="partner.example", x509_authorities=admin.bundle().x509_authorities)

    revoke = pb.ChangeTasksRequest(selection=pb.TaskSelection(task_id=task))
    return {
        "entry_created": lambda: admin.register("/made", "unix:uid:4242"),
        "bundle_set": lambda: admin.know(partner),
        "authority_prepared": lambda: admin.local_authority("PrepareJWTAuthority"),
        "task_revoked_by_operator": lambda: admin.unary(
            "/sojourn.v1.Admin/RevokeTasks", revoke, pb.ChangeTasksResponse
        ),
    }


def test_A7_acts_have_their_records() -> None:
    """What an operator was told is done has its record in the journal, also if the agent is killed that very moment."""
    with make_agent() as agent:
        agent.register("/agent/triage", ME)
        with Caller(agent.socket) as caller, Admin(agent.admin_socket) as admin:
            for event, act in acts(agent, admin, caller.ask("begin_process", type="triage-ticket")["id"]).items():
                act()
                agent.kill()
                agent.start()
                until(lambda: admin.status().epoch)
                assert [event] == [
                    each["event"] for each in agent.json("audit", "tail", "-n", "1", "--event", event)["records"]
                ]
        assert agent.json("audit", "verify")["intact"]


@pytest.mark.forked
def test_A13_what_a_full_disk_tells_of_tasks(agent: AgentProcess) -> None:
    """What takes from tasks while the disk refuses writes is in force, and is answered at once as not on disk."""
    with Caller(agent.socket) as caller, Caller(agent.socket) as service:
        ids = [caller.ask("begin_process", type="triage-ticket")["id"] for _ in range(3)]
        tokens = [caller.ask("token", task=each)["token"] for each in ids]
        with failing(agent):
            for done, task in (("revoke", ids[0]), ("suspend", ids[1])):
                told = agent.run("task", done, task, check=False)
                assert (1, True) == (told.returncode, "not on disk yet" in told.stdout + told.stderr), told
            assert "not_on_disk" == caller.ask("complete", task=ids[2])["code"]
            for token in tokens:
                assert not service.ask("validate", token=token, audience=TICKETS)["valid"]
        until(lambda: {each["id"]: each["state"] for each in agent.json("task", "list", "--all")["tasks"]}
              .items() >= dict(zip(ids, ("revoked", "suspended", "completed"), strict=True)).items())  # fmt: skip
