"""One entry for a fleet: SPIFFE IDs and claims made of what is attested, on the real daemon with real processes."""

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.borrowed import Borrowed
from harness.callers import Caller
from harness.looking import until
from harness.raw import Admin, entry, module_agent, refusal
from harness.taskagent import TICKETS, make_agent, write_type
from sojourn._pb.spire.api.types import types_pb2 as types

pytestmark = pytest.mark.root
NUMBERS = itertools.count(4701)  # users, and a group for each test that wants one of its own
NO_IDENTITY = ("PERMISSION_DENIED", "no identity issued")
ID = "spiffe://example.org"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running:
        yield running


class Fleet:
    """Processes of two users that have one group, and nothing else, in common."""

    def __init__(self, agent: AgentProcess, admin: Admin) -> None:
        self.group, self.one, self.two = next(NUMBERS), next(NUMBERS), next(NUMBERS)
        self.selector = f"unix:supplementary_gid:{self.group}"
        self._agent = agent
        self._admin = admin

    def register(self, path: str, **fields: Any) -> types.Entry:
        return self._admin.register(path, self.selector, **fields)

    def member(self, uid: int) -> Borrowed:
        return Borrowed(self._agent.socket, uid, (self.group,))


@pytest.fixture
def fleet(agent: AgentProcess, admin: Admin) -> Fleet:
    return Fleet(agent, admin)


def ids(answer: Any) -> list[str]:
    return [svid.spiffe_id for svid in answer.svids]


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def test_each_member_has_its_own(admin: Admin, fleet: Fleet) -> None:
    """By one entry each process has the ID, the key and the claims that are made of what is attested of it."""
    made = fleet.register("/fleet/{unix.uid}")
    made.jwt_claims.update({"who": "user {unix.uid}", "level": 3, "more": {"groups": ["{unix.gid}"]}})
    [result] = admin.update(made)
    assert (0, "OK") == (result.status.code, result.status.message)
    keys = set()
    for uid in (fleet.one, fleet.two):
        with fleet.member(uid) as member, member.wire() as wire:
            answer = wire.x509()
            assert [f"{ID}/fleet/{uid}"] == ids(answer)
            keys.add(answer.svids[0].x509_svid_key)
            [svid] = wire.jwt("a").svids
            claims = claims_of(svid.svid)
            assert (f"{ID}/fleet/{uid}", f"user {uid}", 3) == (claims["sub"], claims["who"], claims["level"])
            assert {"groups": [str(uid)]} == claims["more"]
            assert f"{ID}/fleet/{uid}" == wire.validate("a", svid.svid).spiffe_id
    assert 2 == len(keys)


def test_streams(admin: Admin, fleet: Fleet) -> None:
    """A change of the template reaches every open stream, each with its own ID; when it goes, all of them end."""
    made = fleet.register("/fleet/{unix.uid}")
    with fleet.member(fleet.one) as one, fleet.member(fleet.two) as two, one.wire() as first, two.wire() as second:
        streams = [first.x509_stream(), second.x509_stream()]
        for stream, uid in zip(streams, (fleet.one, fleet.two), strict=True):
            assert [f"{ID}/fleet/{uid}"] == ids(next(stream))
        made.spiffe_id.path = "/moved/u{unix.uid}"
        admin.update(made)
        for stream, uid in zip(streams, (fleet.one, fleet.two), strict=True):
            assert [f"{ID}/moved/u{uid}"] == ids(next(stream))
        admin.delete(made.id)
        for stream in streams:
            assert NO_IDENTITY == refusal(lambda stream=stream: next(stream))  # type: ignore[misc]


@pytest.mark.forked
def test_rotation(admin: Admin, fleet: Fleet) -> None:
    """SVIDs of ten seconds are renewed on the streams of every member, and stay those of its own ID."""
    fleet.register("/brief/{unix.uid}", x509_svid_ttl=10)
    with fleet.member(fleet.one) as one, fleet.member(fleet.two) as two, one.wire() as first, two.wire() as second:
        streams = {fleet.one: first.x509_stream(), fleet.two: second.x509_stream()}
        for uid, stream in streams.items():
            before, after = next(stream), next(stream)
            assert [[f"{ID}/brief/{uid}"]] * 2 == [ids(before), ids(after)]
            assert before.svids[0].x509_svid != after.svids[0].x509_svid


def test_revocation(agent: AgentProcess, admin: Admin, fleet: Fleet) -> None:
    """Revoked by its SPIFFE ID one member gets another SVID, and no other does; revoked by the entry all do."""
    made = fleet.register("/revoked/{unix.uid}")
    with fleet.member(fleet.one) as one, fleet.member(fleet.two) as two, one.wire() as first, two.wire() as second:

        def certificates() -> list[bytes]:
            return [wire.x509().svids[0].x509_svid for wire in (first, second)]

        before = certificates()
        revoked = agent.json("svid", "revoke", "--spiffe-id", f"{ID}/revoked/{fleet.one}")["revoked"]
        assert {f"{ID}/revoked/{fleet.one}"} == {each["spiffe_id"] for each in revoked}
        middle = certificates()
        assert (False, True) == (before[0] == middle[0], before[1] == middle[1])
        revoked = agent.json("svid", "revoke", "--entry", made.id)["revoked"]
        assert {f"{ID}/revoked/{uid}" for uid in (fleet.one, fleet.two)} == {each["spiffe_id"] for each in revoked}
        assert not set(middle) & set(certificates())


def test_explained(agent: AgentProcess, fleet: Fleet) -> None:
    """`explain` shows what a template was filled in to, or which placeholder it is that cannot be, and why."""
    made = fleet.register("/fleet/{unix.uid}", jwt_claims={"who": "{unix.uid}"})
    with fleet.member(fleet.one) as member:
        found = agent.json("explain", "--pid", str(member.pid))
        [verdict] = [each for each in found["verdicts"] if each["entry_id"] == made.id]
        assert ("matched", f"{ID}/fleet/{fleet.one}", f"{ID}/fleet/{{unix.uid}}", {"who": str(fleet.one)}) == (
            verdict["verdict"],
            verdict["spiffe_id"],
            verdict["template"],
            verdict["jwt_claims"],
        )
        assert f"made of {ID}/fleet/{{unix.uid}}" in agent.run("explain", "--pid", str(member.pid)).stdout
    unfilled = agent.json("explain", "--selector", fleet.selector)
    assert [("unfilled", "{unix.uid}: no selector unix:uid:… is attested")] == [
        (each["verdict"], each["reason"]) for each in unfilled["verdicts"] if each["entry_id"] == made.id
    ]
    assert "matches but {unix.uid}: no selector unix:uid:… is attested" in unfilled["conclusion"]


def test_a_value_that_is_not_one(admin: Admin, fleet: Fleet) -> None:
    """Who has two of what a template asks for, or something that is no word, has no identity by it."""
    fleet.register("/many/{unix.supplementary_gid}")
    fleet.register("/path/{unix.path}")
    with Borrowed(fleet._agent.socket, fleet.one, (fleet.group, next(NUMBERS))) as both, both.wire() as wire:
        assert NO_IDENTITY == refusal(wire.x509)
        reasons = {each.template: each.reason for each in admin.explain(both.pid).verdicts if each.reason}
    assert "2 selectors" in reasons[f"{ID}/many/{{unix.supplementary_gid}}"]
    assert f"{ID}/path/{{unix.path}}" in reasons


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/a/{unix.uid}{unix.gid}", "nothing between"),
        ("/a/{unix.uid}-{unix.gid}", "could have that too"),
        ("/a/{unix.uid", "brace"),
        ("/a/{uid}", "placeholder"),
        ("/a/{unix.uid}/..", "dot segments"),
        ("/a/{unix.uid}/", "trailing slash"),
        ("/spire/{unix.uid}", "reserved"),
        ("x/{unix.uid}", "leading slash"),
    ],
)
def test_refused(admin: Admin, path: str, says: str) -> None:
    """A template that could make what is no ID, or two of one, is not registered, and the rule is told."""
    [result] = admin.create(entry(path, "unix:uid:1"))
    assert 3 == result.status.code
    assert says in result.status.message


@pytest.mark.parametrize("name", ["sub", "aud", "exp", "act", "cnf", "scope"])
def test_claims_refused(admin: Admin, name: str) -> None:
    """A claim that means something to a verifier is no entry's to set."""
    [result] = admin.create(entry("/a", "unix:uid:1", jwt_claims={name: "x"}))
    assert (3, True) == (result.status.code, "not an entry's to set" in result.status.message)


class TestCommand:
    def test_there_and_back(self, agent: AgentProcess) -> None:
        """Templates and claims are created, shown, changed, exported and applied by the command as they were given."""
        uid = next(NUMBERS)
        text = f"{ID}/cli/{{k8s.pod-label:app.kubernetes.io/name}}"
        made = agent.json(
            "entry", "create", "--spiffe-id", text, "--selector", f"unix:uid:{uid}",
            "--jwt-claim", "ns={k8s.ns}", "--jwt-claim", "level:=3", "--jwt-claim", 'list:=["a", {"b": true}]',
        )  # fmt: skip
        claims = {"ns": "{k8s.ns}", "level": 3, "list": ["a", {"b": True}]}
        assert (text, claims) == (made["spiffe_id"], made["jwt_claims"])
        (warning,) = made.pop("warnings")
        assert "[attestors.k8s]" in warning
        assert [made] == agent.json("entry", "show", "--spiffe-id", text)["entries"]
        assert 'level:=3 list:=["a", {"b": true}] ns:="{k8s.ns}"' in agent.run("entry", "show", made["id"]).stdout
        exported = agent.json("entry", "export")
        file = agent.folder / "exported.json"
        file.write_text(json.dumps(exported))
        assert [] == agent.json("entry", "apply", "-f", str(file), "--dry-run")["steps"]
        changed = agent.json("entry", "update", made["id"], "--jwt-claim", "only=this")
        assert (text, {"only": "this"}) == (changed["spiffe_id"], changed["jwt_claims"])
        [step] = agent.json("entry", "apply", "-f", str(file))["steps"]
        assert (["jwt_claims"], claims) == (step["changed"], step["entry"]["jwt_claims"])
        assert {} == agent.json("entry", "update", made["id"], "--jwt-claim", "")["jwt_claims"]
        agent.run("entry", "delete", made["id"])

    @pytest.mark.parametrize("claim", ["name", "=x", ":=1", "a:={", "sub=x"])
    def test_malformed(self, agent: AgentProcess, claim: str) -> None:
        """What is no NAME=TEXT, or a claim that no entry may set, is refused with a sentence."""
        done = agent.run(
            "entry", "create", "--spiffe-id", f"{ID}/x", "--selector", "a:b", "--jwt-claim", claim, check=False
        )
        assert done.returncode != 0
        assert "claim" in done.stderr
        assert "Traceback" not in done.stderr


def test_tasks_and_a_restart() -> None:
    """A task that was begun by a template's identity comes back after a restart, and ends when the template changes."""
    agent = make_agent()
    write_type(
        agent.folder / "types",
        "fleet",
        f'allowed_workloads = ["{ID}/agent/u0"]\n[[ceiling]]\nresource = "{TICKETS}"\nactions = ["ticket:read"]\n',
        '@id("all") permit (principal, action, resource);',
    )
    with agent:
        agent.run("entry", "create", "--spiffe-id", f"{ID}/agent/u{{unix.uid}}", "--selector", "unix:gid:0")
        with Caller(agent.socket) as holder:
            task = holder.ask("begin", type="fleet")["id"]
            agent.stop()
            agent.start()
            until(lambda: agent.json("task", "show", task)["state"] == "active", "the task is back")
            [made] = agent.json("entry", "list")["entries"]
            agent.run("entry", "update", made["id"], "--spiffe-id", f"{ID}/other/u{{unix.uid}}")
            shown = agent.json("task", "show", task)
            assert ("revoked", "attestation_changed") == (shown["state"], shown["reason"])
