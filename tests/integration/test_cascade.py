"""What becomes of the credentials of a provider when their task ends: a real agent, and a stand-in for the provider."""

import json
import os
import signal
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import pytest
from harness.agent import AgentProcess
from harness.authserver import AuthServer, granted_then_drop, held, refuse, status
from harness.callers import Caller
from harness.cascade import ORDERS, READ, STOCK, granted_and_held, provider, records, running
from harness.disks import failing
from harness.looking import until
from sojourn import SyncClient
from sojourn.errors import SojournError

pytestmark = [pytest.mark.full, pytest.mark.forked]

METRICS_PORT = 19_617 + os.getpid() % 1000


@pytest.fixture
def server() -> Iterator[AuthServer]:
    with AuthServer() as made:
        yield made


@pytest.fixture
def other() -> Iterator[AuthServer]:
    with AuthServer() as made:
        yield made


@pytest.fixture
def agent(server: AuthServer, other: AuthServer) -> Iterator[AgentProcess]:
    metrics = f'[metrics]\nlisten = "127.0.0.1:{METRICS_PORT}"\n'
    with running(metrics + provider("corp", server) + provider("vault", other)) as made:
        yield made


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(agent.socket) as made:
        yield made


def show(agent: AgentProcess, task: str) -> dict:
    return agent.json("task", "show", task)


def states(agent: AgentProcess, task: str) -> list[str]:
    return [each["state"] for each in show(agent, task)["external_credentials"]]


def gone(agent: AgentProcess, number: int = 1) -> list[dict]:
    """How credentials ended, once so many have."""
    return until(
        lambda: found if len(found := records(agent, "external_credential_ended")) >= number else [], "they are gone"
    )


def journal(agent: AgentProcess, event: str) -> list[dict]:
    """The records of an event, which the database has also while the agent is down."""
    with closing(sqlite3.connect(agent.data_dir / "sojourn.db")) as connection:
        rows = connection.execute("SELECT at_ms, fields FROM audit WHERE event = ? ORDER BY seq", [event]).fetchall()
    return [{"at_ms": at_ms, **json.loads(fields)} for at_ms, fields in rows]


def metric(name: str) -> dict[str, float]:
    text = urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=10).read().decode()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)
    }


class TestTheEnd:
    def test_taken_back(self, agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
        """With its task a credential is revoked at the provider; the audit has how it ended and for how long it was left."""
        task = client.begin_task("orders").id
        token = client.get_token(task, ORDERS, READ).token
        (held_one,) = show(agent, task)["external_credentials"]
        assert ("held", "corp", ORDERS, READ) == tuple(
            held_one[key] for key in ("state", "provider", "resource", "actions")
        )
        assert server.active(token)
        client.complete_task(task)
        (event,) = gone(agent)
        assert not server.active(token)
        assert ("recalled", task, "completed: success") == tuple(event[key] for key in ("how", "task", "reason"))
        assert 0 <= event["residual_ms"] < 10_000
        assert event["accepted_until"] > time.time()  # services that verify by keys alone do not ask
        assert ([], 0) == tuple(show(agent, task)[key] for key in ("external_credentials", "residual_credentials"))
        assert {"external_credential_issued", "external_credential_ending"} <= {
            each["event"] for each in agent.json("task", "why", task)["records"]
        }

    def test_no_secret_anywhere(self, agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
        """Neither log, nor audit, nor database, nor what operators are shown has the token."""
        task = client.begin_task("orders").id
        token = client.get_token(task, ORDERS, READ).token
        shown = agent.run("task", "show", task).stdout + agent.run("task", "show", task, "--output", "json").stdout
        client.complete_task(task)
        gone(agent)
        files = [agent.log, *agent.data_dir.glob("sojourn.db*")]
        everything = shown.encode() + b"".join(each.read_bytes() for each in files)
        assert b"ext_" in everything
        assert token.encode() not in everything
        assert 0o600 == (agent.data_dir / "keys" / "handles.key").stat().st_mode & 0o777

    def test_the_end_waits_for_nobody(
        self, agent: AgentProcess, client: SyncClient, server: AuthServer, other: AuthServer
    ) -> None:
        """While a provider hangs, tasks end, another's credentials are taken back, and what is left is shown."""
        go_on = threading.Event()
        server.always["revoke"] = held(go_on)
        slow, fast = client.begin_task("orders").id, client.begin_task("stock").id
        client.get_token(slow, ORDERS, READ)
        client.get_token(fast, STOCK, READ)
        client.complete_task(slow)
        client.complete_task(fast)
        assert [fast] == [each["task"] for each in gone(agent)]
        assert (["ending"], 1, []) == (
            states(agent, slow),
            show(agent, slow)["residual_credentials"],
            states(agent, fast),
        )
        (left,) = agent.json("provider", "residuals")["credentials"]
        assert (slow, "ending", "corp") == (left["task_id"], left["state"], left["provider"])
        assert "RESIDUAL: 1 outlives the task" in agent.run("task", "show", slow).stdout
        assert (
            1 == metric("sojourn_external_credentials")['sojourn_external_credentials{provider="corp",state="ending"}']
        )
        assert 0 < metric("sojourn_external_residual")['sojourn_external_residual_seconds_max{provider="corp"}']
        go_on.set()
        server.always.clear()
        gone(agent, 2)
        assert [] == agent.json("provider", "residuals")["credentials"]
        found = metric("sojourn_external_re")
        assert 1 == found['sojourn_external_residual_seconds_count{how="recalled",provider="corp"}']
        assert 1 <= found['sojourn_external_recalls_total{provider="corp",result="confirmed"}']

    def test_a_provider_that_is_down(self, agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
        """Taking back is tried again until the provider is up, and shown with how often it was tried and why it failed."""
        server.always["revoke"] = status(503)
        task = client.begin_task("orders").id
        token = client.get_token(task, ORDERS, READ).token
        client.complete_task(task)
        until(lambda: show(agent, task)["external_credentials"][0]["attempts"] > 1, "it is tried again")
        (left,) = show(agent, task)["external_credentials"]
        assert ("ending", True, True) == (left["state"], bool(left["fault"]), server.active(token))
        server.always.clear()
        (event,) = gone(agent)
        assert ("recalled", False) == (event["how"], server.active(token))
        assert event["residual_ms"] > 500

    def test_refused_for_good(self, agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
        """What the provider will not revoke is open until it expires, and is shown and recorded as that."""
        server.always["revoke"] = refuse("unsupported_token_type")
        server.lifetime = 10
        task = client.begin_task("orders").id
        client.get_token(task, ORDERS, READ)
        client.complete_task(task)
        until(lambda: states(agent, task) == ["open"], "it is open")
        assert show(agent, task)["residual_until"]
        (event,) = gone(agent)
        assert ("unrecallable", True) == (event["how"], event["residual_ms"] > 1000)

    def test_suspended(self, agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
        """A suspended task's credentials are taken back; once resumed it gets others."""
        task = client.begin_task("orders").id
        first = client.get_token(task, ORDERS, READ).token
        agent.run("task", "suspend", task)
        gone(agent)
        assert not server.active(first)
        agent.run("task", "resume", task)
        second = client.get_token(task, ORDERS, READ).token
        assert (True, True) == (first != second, server.active(second))

    def test_many_tasks_at_once(self, agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
        """All tasks of a type that is switched off are over at once, and every credential of theirs is taken back."""
        tokens = [client.get_token(client.begin_task("orders").id, ORDERS, READ).token for _ in range(60)]
        assert all(map(server.active, tokens))
        agent.run("task", "block", "--type", "orders", timeout=60)
        gone(agent, 60)
        assert not any(map(server.active, tokens))


class TestKilled:
    """kill -9, and a start: nothing that was obtained is forgotten."""

    @staticmethod
    def restart(agent: AgentProcess) -> None:
        agent.kill()
        agent.start()

    def test_after_the_hand_out(self, agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
        """What a task had that is over with the agent is revoked by the next run."""
        task = client.begin_task("orders").id
        token = client.get_token(task, ORDERS, READ).token
        self.restart(agent)
        (event,) = gone(agent)
        assert (False, task, "recalled") == (server.active(token), event["task"], event["how"])

    def test_a_task_that_lives_on(self, agent: AgentProcess, server: AuthServer) -> None:
        """A task whose holder comes back gets a new credential; the one of before is revoked, as nobody has it any more."""
        with Caller(agent.socket) as holder:
            task = holder.ask("begin", type="orders")["id"]
            first = agent_token(holder, task)
            self.restart(agent)
            gone(agent)
            assert not server.active(first)
            second = until(lambda: agent_token(holder, task), "the task has come back")
            assert (True, True) == (second != first, server.active(second))

    def test_between_exchange_and_journal(self, agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
        """An answer that the agent did not live to note is recorded as lost: nobody had it, until when it may be good."""
        came, go_on = threading.Event(), threading.Event()
        server.script("token", granted_and_held(came, go_on))
        task = client.begin_task("orders").id
        asking = threading.Thread(target=lambda: ignore(lambda: client.get_token(task, ORDERS, READ)))
        asking.start()
        assert came.wait(15)
        agent.kill()
        go_on.set()
        asking.join()
        agent.start()
        (event,) = until(lambda: records(agent, "external_credential_lost"), "it is told as lost")
        assert (task, False) == (event["task"], event["handed_out"])
        assert event["accepted_until"] > time.time()
        shown = until(
            lambda: found if (found := show(agent, task))["residual_credentials"] else None, "the task is over"
        )
        assert ["open"] == [each["state"] for each in shown["external_credentials"]]

    @pytest.mark.parametrize("during", [False, True], ids=["between end and recall", "during the recall"])
    def test_between_end_and_recall(
        self, agent: AgentProcess, client: SyncClient, server: AuthServer, during: bool
    ) -> None:
        """What was not taken back when the agent was killed is taken back by the next run, and counts from the end."""
        go_on = threading.Event()
        server.always["revoke"] = held(go_on) if during else status(503)
        task = client.begin_task("orders").id
        token = client.get_token(task, ORDERS, READ).token
        client.complete_task(task)
        until(lambda: server.calls("revoke"), "it is being taken back")
        until(lambda: states(agent, task) == ["ending"], "it is on its way")
        agent.kill()
        go_on.set()
        server.always.clear()
        (over_at,) = [each["at_ms"] for each in journal(agent, "external_credential_ending")]
        agent.start()
        (event,) = gone(agent)
        (ended_at,) = [each["at_ms"] for each in journal(agent, "external_credential_ended")]
        assert ("recalled", "completed: success", False) == (event["how"], event["reason"], server.active(token))
        assert abs(ended_at - over_at - event["residual_ms"]) < 500

    def test_stopped_while_a_provider_hangs(self, agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
        """An agent that is told to stop does not wait for a provider; the next run goes on."""
        go_on = threading.Event()
        server.always["revoke"] = held(go_on)
        task = client.begin_task("orders").id
        token = client.get_token(task, ORDERS, READ).token
        client.complete_task(task)
        until(lambda: server.calls("revoke"), "it is being taken back")
        assert 0 == agent.stop(signal.SIGTERM)
        go_on.set()
        server.always.clear()
        agent.start()
        gone(agent)
        assert not server.active(token)

    def test_a_provider_that_is_not_configured_any_more(
        self, agent: AgentProcess, client: SyncClient, server: AuthServer
    ) -> None:
        """Credentials of a provider that is no longer configured stay listed with the reason until they expire, and are taken back if it comes back before."""
        server.always["revoke"] = status(503)
        task = client.begin_task("orders").id
        token = client.get_token(task, ORDERS, READ).token
        client.complete_task(task)
        until(lambda: states(agent, task) == ["ending"], "it is on its way")
        before = agent.config.read_text()
        agent.stop()
        agent.config.write_text(before.replace(provider("corp", server), ""))
        (agent.folder / "types" / "orders.toml").rename(agent.folder / "orders.toml")
        (agent.folder / "types" / "orders.cedar").rename(agent.folder / "orders.cedar")
        server.always.clear()
        agent.start()
        (left,) = agent.json("provider", "residuals", "--task", task)["credentials"]
        assert ("open", "provider 'corp' is not configured any more") == (left["state"], left["fault"])
        assert "ended" == show(agent, task)["state"]
        agent.stop()
        agent.config.write_text(before)
        for name in ("orders.toml", "orders.cedar"):
            (agent.folder / name).rename(agent.folder / "types" / name)
        agent.start()
        gone(agent)
        assert not server.active(token)


class TestDisk:
    def test_nothing_is_handed_out_that_is_not_noted(
        self, agent: AgentProcess, client: SyncClient, server: AuthServer
    ) -> None:
        """While the journal cannot be written no provider is asked."""
        task = client.begin_task("orders").id
        with failing(agent), pytest.raises(SojournError):
            client.get_token(task, ORDERS, READ)
        assert [] == server.given()

    def test_obtained_and_not_noted(self, agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
        """What was obtained when the journal failed is not handed out, and is revoked at once."""
        came, go_on = threading.Event(), threading.Event()
        server.script("token", granted_and_held(came, go_on))
        task, got = client.begin_task("orders").id, []
        asking = threading.Thread(target=lambda: ignore(lambda: got.append(client.get_token(task, ORDERS, READ))))
        asking.start()
        assert came.wait(15)
        with failing(agent):
            go_on.set()
            asking.join()
            until(lambda: server.given() and not any(map(server.active, server.given())), "it is revoked")
        assert [] == got
        assert ["recalled"] == [each["how"] for each in gone(agent)]

    def test_an_end_that_cannot_be_written(self, agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
        """An end that the disk does not take is an end: the credential is revoked, and the record follows."""
        task = client.begin_task("orders").id
        token = client.get_token(task, ORDERS, READ).token
        with failing(agent):
            ending = threading.Thread(target=lambda: ignore(lambda: client.complete_task(task)))
            ending.start()
            until(lambda: not server.active(token), "it is revoked")
        ending.join()
        assert [("recalled", task)] == [(each["how"], each["task"]) for each in gone(agent)]


def test_an_answer_that_is_lost(agent: AgentProcess, client: SyncClient, server: AuthServer) -> None:
    """A grant whose answer got lost on its way is recorded as lost, and the task gets another one."""
    server.script("token", granted_then_drop)
    task = client.begin_task("orders").id
    got = client.get_token(task, ORDERS, READ).token
    first, second = server.given()
    assert (second, True) == (got, server.active(first))
    (event,) = until(lambda: records(agent, "external_credential_lost"), "it is recorded")
    assert (False, task) == (event["handed_out"], event["task"])
    client.complete_task(task)
    assert ["recalled"] == [each["how"] for each in gone(agent)]


def agent_token(holder: Caller, task: str) -> str:
    """A credential through the task that `holder` holds; empty while the agent is not back."""
    return holder.ask("task_token", task=task, resource=ORDERS, actions=READ).get("token", "")


def ignore(call) -> None:
    try:
        call()
    except Exception:
        return
