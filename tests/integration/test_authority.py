"""Rotation and revocation of what signs and of what was signed, on the real agent, in force when the call returns."""

import json
import os
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from cryptography import x509
from harness.agent import AgentProcess
from harness.exchanges import form, post
from harness.looking import until
from harness.raw import Admin, Wire, module_agent
from sojourn.authority.x509_profile import signer_id
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import parse_certificates, verify_chain
from sojourn.workloadapi.messages import x509_context

pytestmark = pytest.mark.full

ME = f"unix:uid:{os.getuid()}"


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running, Admin(running.admin_socket) as admin:
        admin.register("/me", ME)
        yield running


def keys(agent: AgentProcess, kind: str) -> dict[str, str]:
    """The authority IDs of a kind and their states."""
    shown = agent.json("authority", "show")["keys"]
    return {
        each["authority_id"]: each["status"] + (" tainted" if each["tainted"] else "")
        for each in shown
        if each["kind"] == kind
    }


def active(agent: AgentProcess, kind: str) -> str:
    return next(name for name, status in keys(agent, kind).items() if status == "active")


def chain(svid: object) -> tuple[x509.Certificate, ...]:
    return parse_certificates(svid.x509_svid)  # type: ignore[attr-defined]


def root_of(svid: object) -> str:
    return signer_id(chain(svid)[-1])


class Follower:
    """Reads a stream of X.509-SVIDs in a thread and checks each message: its SVID verifies by its own bundle."""

    def __init__(self, wire: Wire) -> None:
        self.messages: list[object] = []
        self.error: Exception | None = None
        self._stream = wire.x509_stream()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            for message in self._stream:
                certificates = chain(message.svids[0])
                now = certificates[0].not_valid_before_utc
                verify_chain(certificates, parse_certificates(message.svids[0].bundle), TrustDomain("example.org"), now)
                self.messages.append(message)
        except Exception as error:  # the test looks at it
            self.error = error

    def wait(self, count: int) -> object:
        until(lambda: len(self.messages) >= count or self.error is not None)
        assert len(self.messages) >= count, self.error
        return self.messages[count - 1]


def test_a_root_from_prepared_to_revoked(agent: AgentProcess) -> None:
    """Over the whole life of a root the stream's SVID verifies: published, signing, then all of the old one replaced."""
    with Wire(agent.socket) as wire:
        follower = Follower(wire)
        first = root_of(follower.wait(1).svids[0])
        assert active(agent, "x509") == first
        made = agent.json("authority", "prepare", "x509")["authority_id"]
        published = follower.wait(2)
        assert (2, first) == (len(parse_certificates(published.svids[0].bundle)), root_of(published.svids[0]))
        agent.run("authority", "activate", made)
        assert {first: "old", made: "active"} == keys(agent, "x509")
        agent.run("authority", "taint", first)
        replaced = follower.wait(3)
        assert made == root_of(replaced.svids[0])
        assert {first: "old tainted", made: "active"} == keys(agent, "x509")
        agent.run("authority", "revoke", first)
        last = follower.wait(4)
        assert (1, replaced.svids[0].x509_svid) == (
            len(parse_certificates(last.svids[0].bundle)),
            last.svids[0].x509_svid,
        )
        assert {made: "active"} == keys(agent, "x509")


def test_taint_and_revoke_at_once(agent: AgentProcess) -> None:
    """A revoke right behind a taint leaves nothing of the old root, on streams or for who comes new, however fast."""
    with Wire(agent.socket) as wire, Admin(agent.admin_socket) as admin:
        follower = Follower(wire)
        follower.wait(1)
        for _ in range(4):
            old = active(agent, "x509")
            made = admin.local_authority("PrepareX509Authority").prepared_authority.authority_id
            admin.local_authority("ActivateX509Authority", made)
            admin.local_authority("TaintX509Authority", old)
            admin.local_authority("RevokeX509Authority", old)
            fresh = wire.x509().svids[0]
            assert (made, 1) == (root_of(fresh), len(parse_certificates(fresh.bundle)))
            until(lambda fresh=fresh: follower.messages[-1].svids[0].x509_svid == fresh.x509_svid)
        assert follower.error is None


def test_jwt_keys(agent: AgentProcess) -> None:
    """A JWT-SVID verifies until its key is revoked; from the taint on a new one is signed by the new key."""
    with Wire(agent.socket) as wire:
        token = wire.jwt("a").svids[0].svid
        old = active(agent, "jwt")
        assert old == kid(token)
        agent.run("authority", "rotate", "jwt", "--overlap", "0s")
        assert token == wire.jwt("a").svids[0].svid
        agent.run("authority", "taint", old)
        fresh = wire.jwt("a").svids[0].svid
        assert active(agent, "jwt") == kid(fresh)
        assert "/me" in wire.validate("a", token).spiffe_id
        agent.run("authority", "revoke", old)
        with pytest.raises(grpc.RpcError) as refused:
            wire.validate("a", token)
        assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()
        assert "/me" in wire.validate("a", fresh).spiffe_id


def kid(token: str) -> str:
    from sojourn.jose.jws import parse_unverified

    found = parse_unverified(token).kid
    assert found is not None
    return found


def test_authorities_stay_over_a_restart() -> None:
    """What was prepared, activated and tainted is so after a restart, and the bundle's sequence number grows."""
    with AgentProcess() as agent:
        first = active(agent, "x509")
        agent.run("authority", "rotate", "x509", "--overlap", "0s")
        agent.run("authority", "taint", first)
        agent.run("authority", "prepare", "jwt")
        before = {kind: keys(agent, kind) for kind in ("x509", "jwt")}
        sequence = agent.json("bundle", "show")["bundle"]["spiffe_sequence"]
        agent.stop()
        agent.start()
        assert before == {kind: keys(agent, kind) for kind in ("x509", "jwt")}
        assert sequence == agent.json("bundle", "show")["bundle"]["spiffe_sequence"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("taint", "nobody"), "no authority"),
        (("activate", ""), "no authority"),
        (("prepare", "wit"), "identity.wit_svids"),
        (("rotate", "x509", "--overlap", "soon"), "--overlap"),
    ],
)
def test_what_cannot_be_done(agent: AgentProcess, arguments: tuple[str, ...], words: str) -> None:
    """What cannot be done is refused with what to do, and changes nothing."""
    before = agent.json("authority", "show")["keys"]
    done = agent.run("authority", *arguments, check=False)
    assert (True, True) == (done.returncode in {1, 2}, words in done.stderr)
    assert before == agent.json("authority", "show")["keys"]


def test_the_active_one_cannot_be_revoked(agent: AgentProcess) -> None:
    """What signs can be neither tainted nor revoked: it says to activate another first."""
    for verb in ("taint", "revoke"):
        done = agent.run("authority", verb, active(agent, "x509"), check=False)
        assert (1, True) == (done.returncode, "activate another first" in done.stderr)


class TestRotate:
    def test_one_entry(self, agent: AgentProcess) -> None:
        """`svid rotate --entry` replaces that entry's SVIDs: the stream has the new one, the old one stays good."""
        entry = agent.json("entry", "list")["entries"][0]["id"]
        with Wire(agent.socket) as wire:
            follower = Follower(wire)
            before = follower.wait(1).svids[0].x509_svid
            token = wire.jwt("a").svids[0].svid
            assert {"rotated": 1} == agent.json("svid", "rotate", "--entry", entry)
            assert before != follower.wait(2).svids[0].x509_svid
            assert token != wire.jwt("a").svids[0].svid
            assert "/me" in wire.validate("a", token).spiffe_id

    def test_a_process(self, agent: AgentProcess) -> None:
        """`svid rotate --pid` replaces those of the identities that a process has; a stranger has none."""
        with Wire(agent.socket) as wire:
            follower = Follower(wire)
            follower.wait(1)
            assert {"rotated": 1} == agent.json("svid", "rotate", "--pid", str(os.getpid()))
            follower.wait(2)
        done = agent.run("svid", "rotate", "--pid", "999999999", check=False)
        assert (1, True) == (done.returncode, "explain" in done.stderr)

    def test_all_and_nothing(self, agent: AgentProcess) -> None:
        """`svid rotate --all` replaces all in use; without an option it says what is needed."""
        with Wire(agent.socket) as wire:
            follower = Follower(wire)
            follower.wait(1)
            assert 1 == agent.json("svid", "rotate", "--all")["rotated"]
            follower.wait(2)
        assert 2 == agent.run("svid", "rotate", check=False).returncode
        assert 1 == agent.run("svid", "rotate", "--entry", "nobody", check=False).returncode


class TestRevoke:
    @pytest.fixture
    def own(self) -> Iterator[AgentProcess]:
        with AgentProcess() as running, Admin(running.admin_socket) as admin:
            admin.register("/me", ME)
            yield running

    def test_a_serial(self, own: AgentProcess) -> None:
        """One SVID is revoked: its stream has another at once and ends, and the CRL names it."""
        with Wire(own.socket) as wire:
            follower = Follower(wire)
            first = follower.wait(1).svids[0]
            serial = f"{chain(first)[0].serial_number:x}"
            revoked = own.json("svid", "revoke", "--serial", serial, "--reason", "stolen")
            assert [("x509", serial)] == [(each["kind"], each["id"]) for each in revoked["revoked"]]
            assert serial != f"{chain(follower.wait(2).svids[0])[0].serial_number:x}"
            until(lambda: follower.error is not None)
            assert isinstance(follower.error, grpc.RpcError)
            assert (grpc.StatusCode.UNAVAILABLE, True) == (follower.error.code(), "revoked" in follower.error.details())
            message = wire.x509()
            assert serial != f"{chain(message.svids[0])[0].serial_number:x}"
            leaf = chain(first)[0]
            assert {(leaf.issuer.public_bytes(), leaf.serial_number)} == x509_context(message).revoked
        [shown] = own.json("svid", "revoked")["revoked"]
        assert (serial, "spiffe://example.org/me") == (shown["id"], shown["spiffe_id"])
        [record] = [each for each in own.json("audit", "tail")["records"] if each["event"] == "svids_revoked"]
        assert ("stolen", [serial]) == (record["fields"]["reason"], record["fields"]["x509_svids"])

    def test_other_streams_hear_of_it(self, own: AgentProcess) -> None:
        """A revocation reaches the streams of those who might meet the revoked one, and bundle watchers."""
        other = own.register("/other", ME)["id"]
        serial = {each["spiffe_id"]: each for each in own.json("svid", "x509")["svids"]}["spiffe://example.org/other"]
        own.run("entry", "delete", other)
        with Wire(own.socket) as wire:
            bundles = wire.x509_bundles_stream()
            assert [] == list(next(bundles).crl)
            follower = Follower(wire)
            follower.wait(1)
            own.run("svid", "revoke", "--serial", serial["serial"])
            assert 1 == len(follower.wait(2).crl) == len(next(bundles).crl)

    def test_after_a_restart(self, own: AgentProcess) -> None:
        """After a restart what was revoked is: in the CRL, and refused as a token."""
        with Wire(own.socket) as wire:
            token = wire.jwt("a").svids[0].svid
            leaf = chain(wire.x509().svids[0])[0]
        own.run("svid", "revoke", "--spiffe-id", "spiffe://example.org/me")
        own.stop()
        own.start()
        with Wire(own.socket) as wire:
            assert {(leaf.issuer.public_bytes(), leaf.serial_number)} == x509_context(wire.x509()).revoked
            with pytest.raises(grpc.RpcError, match="revoked"):
                wire.validate("a", token)

    @pytest.mark.parametrize("by", ["entry", "spiffe-id"])
    def test_an_identity(self, own: AgentProcess, by: str) -> None:
        """All SVIDs of an identity are revoked, X.509 and JWT, here and at exchange, and its tasks end."""
        own.register("/agent/triage", ME)
        with Wire(own.socket) as wire:
            entry = {each["spiffe_id"]: each["id"] for each in own.json("entry", "list")["entries"]}
            mine = "spiffe://example.org/agent/triage"
            token = own.json("svid", "jwt", "--audience", "https://sojourn.example.org", "--spiffe-id", mine)["token"]
            held = {svid.spiffe_id: svid for svid in wire.x509().svids}[mine]
            task = own.json("task", "begin", "--type", "triage-ticket")["id"]
            value = entry[mine] if by == "entry" else mine
            answer = own.json("svid", "revoke", f"--{by}", value)
            assert ({"x509"}, 1) == ({each["kind"] for each in answer["revoked"]}, answer["ended_tasks"])
            identity = answer["identity"]
            assert (value, 1, 0, True) == (
                identity["entry_id" if by == "entry" else "spiffe_id"],
                identity["x509_svids"],
                identity["left_out"],
                identity["written"],
            )
            assert "identity_revoked" == own.json("task", "show", task)["reason"]
            with pytest.raises(grpc.RpcError, match="revoked"):
                wire.validate("https://sojourn.example.org", token)
            exchanged = post(own.socket, form(token))
            assert (400, True) == (exchanged.status_code, "revoked" in exchanged.json()["error_description"])
            leaf = chain(held)[0]
            assert (leaf.issuer.public_bytes(), leaf.serial_number) in x509_context(wire.x509()).revoked
        verdict = own.run(
            "validate", token, "--audience", "https://sojourn.example.org", "--output", "json", check=False
        )
        assert (1, "revoked") == (verdict.returncode, json.loads(verdict.stdout)["code"])

    def test_what_cannot_be_revoked(self, own: AgentProcess) -> None:
        """What was never issued, and what is not named, is refused with a reason."""
        for arguments, status in (
            ((), 2),
            (("--serial", "abcdef"), 1),
            (("--entry", "n" * 256), 1),
            (("--spiffe-id", "nobody"), 1),
            (("--serial", "a", "--entry", "b"), 2),
        ):
            done = own.run("svid", "revoke", *arguments, check=False)
            assert (status, True) == (done.returncode, done.stderr.startswith("error: "))
        assert {"revoked": [], "identities": [], "left_out": 0} == own.json("svid", "revoked")

    def test_an_entry_that_nobody_knows(self, own: AgentProcess) -> None:
        """An entry's ID is revoked whatever is known of it, and the answer says if that is nothing; again, it says so too."""
        for _ in range(2):
            answer = own.json("svid", "revoke", "--entry", "nobody")
            assert {"revoked", "ended_tasks", "identity", "unknown"} == answer.keys()
            assert (True, [], 0, "nobody") == (
                answer["unknown"],
                answer["revoked"],
                answer["ended_tasks"],
                answer["identity"]["entry_id"],
            )
        line = "no such entry is registered, and nothing of it was found: was that its ID?"
        assert line in own.run("svid", "revoke", "--entry", "nobody").stdout.splitlines()
        assert ["nobody"] == [each["entry_id"] for each in own.json("svid", "revoked")["identities"]]

    def test_a_spiffe_id_that_nobody_has(self, own: AgentProcess) -> None:
        """A SPIFFE ID is revoked whatever is known of it, and the answer says if that is nothing, as of a mistyped one."""
        own.register("/known", "unix:uid:4294")
        known, typed = (f"spiffe://example.org/{name}" for name in ("known", "knwon"))
        assert [False, True] == [own.json("svid", "revoke", "--spiffe-id", each)["unknown"] for each in (known, typed)]
        line = "no such SPIFFE ID is registered, and nothing of it was found: was that its ID?"
        assert line in own.run("svid", "revoke", "--spiffe-id", typed).stdout.splitlines()
        assert line not in own.run("svid", "revoke", "--spiffe-id", known).stdout.splitlines()

    def test_a_deleted_entry(self, own: AgentProcess) -> None:
        """What an entry earned can be revoked after it was deleted."""
        made = own.register("/gone", ME)["id"]
        with Wire(own.socket) as wire:
            wire.x509()
        time.sleep(0.1)
        own.run("entry", "delete", made)
        answer = own.json("svid", "revoke", "--entry", made)
        assert (["spiffe://example.org/gone"], False) == (
            [each["spiffe_id"] for each in answer["revoked"]],
            answer["unknown"],
        )
