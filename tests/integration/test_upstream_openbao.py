"""A real OpenBao signs a real agent's intermediate, is rotated under load, and is killed for a while."""

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from harness import pagelines
from harness.agent import ROOT, AgentProcess
from harness.looking import until
from harness.mesh import mesh, root_id
from harness.openbao import ROOT_TOKEN, OpenBao, find_bao, openbao
from harness.raw import Admin, Wire
from harness.tlsload import TlsLoad, tls_load

pytestmark = [pytest.mark.full, pytest.mark.forked]
ME = f"unix:uid:{os.getuid()}"
NODE = "spiffe://example.org/spire/agent/sojourn/one"
ISSUER = "https://sojourn.example.org"
LEAD_SECONDS = 3
SHORT = '[authority]\nissuer_ttl = "1m"\n[identity]\nx509_svid_ttl = "15s"\n'
LONGER = '[authority]\nissuer_ttl = "3m"\n[identity]\nx509_svid_ttl = "1m"\n'  # than an agent is down
POLICY = 'path "pki/issuer/default/sign-intermediate" { capabilities = ["update"] }'


def configured(
    address: str, more: str = 'auth_role = "sojourn"', *, lives: str = SHORT, lead: int = LEAD_SECONDS
) -> str:
    return (
        f'node_name = "one"\n{lives}'
        f'[authority.upstream]\nkind = "openbao"\naddress = "{address}"\nplain_http = true\ntimeout = "5s"\n'
        f'lead = "{lead}s"\nlook_every = "1s"\n{more}\n'
    )


@pytest.fixture
def bao(free_port: int) -> Iterator[OpenBao]:
    with openbao(free_port) as running:
        enable(running)
        yield running


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def enable(bao: OpenBao) -> str:
    """A PKI engine with a root, and a policy for the agent. Return the root's authority ID."""
    bao.write("sys/mounts/pki", {"type": "pki", "config": {"max_lease_ttl": "87600h"}})
    bao.write("sys/policies/acl/sojourn", {"policy": POLICY})
    told = bao.write("pki/root/generate/internal", {"common_name": "Company Root", "ttl": "1000h", "key_type": "ec"})
    return root_id(x509.load_pem_x509_certificate(told["data"]["certificate"].encode()))


def trust(bao: OpenBao, agent: AgentProcess) -> None:
    """Have it take the agent's JWT-SVIDs, by its keys of now."""
    keys = [key for key in agent.json("bundle", "show")["bundle"]["keys"] if key["use"] == "jwt-svid"]
    bao.trust_keys([{name: key[name] for name in ("kty", "crv", "x", "y", "kid")} for key in keys], ISSUER)
    bao.role("sojourn", NODE, token_policies=["sojourn"], token_ttl="5m", token_max_ttl="5m")


@contextmanager
def joined(bao: OpenBao, **lives: Any) -> Iterator[tuple[AgentProcess, str]]:
    """An agent below it, with this user registered, and the authority ID of the root."""
    with AgentProcess(config=configured(bao.address, **lives)) as agent, Admin(agent.admin_socket) as admin:
        admin.register("/me", ME)
        trust(bao, agent)
        until(lambda: agent.run("svid", "x509", check=False).returncode == 0, seconds=60)
        [root] = shown(agent)["roots"]
        yield agent, root["authority_id"]


def shown(agent: AgentProcess) -> dict:
    return agent.json("authority", "show")


def roots(agent: AgentProcess) -> set[str]:
    return {each["authority_id"] for each in shown(agent)["roots"]}


def test_signs_by_the_agents_own_jwt_svid(bao: OpenBao) -> None:
    """Without any secret to begin with OpenBao signs the intermediate, exactly as SPIFFE has it, and the token that signed it
    is revoked. The journal has the assertion.
    """
    with joined(bao) as (agent, _):
        value = shown(agent)
        assert ["intermediate", "root"] == [each["role"] for each in value["chain"]]
        assert ("openbao", "", "JWT-SVID") == (
            *(value["upstream"]["kind"], value["upstream"]["fault"]),
            value["upstream"]["place"]["login"],
        )
        with Wire(agent.socket) as wire:
            svid = wire.x509().svids[0]
        from sojourn.spiffe.x509svid import parse_certificates

        intermediate = parse_certificates(svid.x509_svid)[1]
        extensions = intermediate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        assert (True, 0) == (constraints.value.ca, constraints.value.path_length)
        [uri] = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert "spiffe://example.org" == uri.value
        accessors = bao.root.request("LIST", "/v1/auth/token/accessors").json()["data"]["keys"]
        paths = [bao.write("auth/token/lookup-accessor", {"accessor": each})["data"]["path"] for each in accessors]
        assert "auth/jwt/login" not in paths
        events = agent.json("audit", "tail", "--lines", "1000")["records"]
        assert {NODE} == {each["fields"]["spiffe_id"] for each in events if each["event"] == "assertion_issued"}


def test_rotated_under_load(bao: OpenBao) -> None:
    """OpenBao's root is replaced by another while workloads verify each other at each moment, and new ones come: no client
    notices. The new root is published before anything is signed below it, and the old one leaves when nothing is any more.
    """
    with joined(bao) as (agent, old), mesh(agent.socket) as workloads:
        until(lambda: workloads.ready and workloads.fetched > 3)
        told = bao.write(
            "pki/root/rotate/internal", {"common_name": "Company Root 2", "ttl": "1000h", "key_type": "ec"}
        )
        new = root_id(x509.load_pem_x509_certificate(told["data"]["certificate"].encode()))
        time.sleep(2)
        assert {old} == roots(agent)  # it is not the default yet
        bao.write("pki/config/issuers", {"default": told["data"]["issuer_id"]})
        until(lambda: {old, new} == roots(agent), seconds=30)
        published = time.monotonic()
        until(lambda: [old, new] == workloads.roots_seen, seconds=60)
        assert time.monotonic() - published > LEAD_SECONDS - 2
        until(lambda: {new} == roots(agent), seconds=120)
        until(lambda: frozenset({new}) == workloads.bundles[-1])
    assert [{old}, {old, new}, {new}] == list(map(set, workloads.bundles))


def replace_root(bao: OpenBao) -> str:
    """Have it sign by another root from now on. Return its authority ID."""
    told = bao.write("pki/root/rotate/internal", {"common_name": "Company Root 2", "ttl": "1000h", "key_type": "ec"})
    bao.write("pki/config/issuers", {"default": told["data"]["issuer_id"]})
    return root_id(x509.load_pem_x509_certificate(told["data"]["certificate"].encode()))


def signs_under(agent: AgentProcess) -> str:
    return next((each["authority_id"] for each in shown(agent)["chain"] if each["role"] == "root"), "")


def published_at(agent: AgentProcess, authority_id: str) -> float:
    """When a root came into the bundle, as the agent has it on disk: a wall time."""
    kept = json.loads((agent.data_dir / "keys" / "upstream.json").read_text())["roots"]
    since = {root_id(x509.load_pem_x509_certificate(each["certificate"].encode())): each["since"] for each in kept}
    return float(since[authority_id])


def killed(agent: AgentProcess, load: TlsLoad) -> None:
    """Kill the agent and start it. Return when each workload has its stream again: one that had not might verify nobody."""
    load.may_be_down = True
    agent.kill()
    before = load.versions
    agent.start()
    until(lambda: all(map(int.__gt__, load.versions, before)), "all streams are there again", seconds=60)
    load.may_be_down = False


@pytest.mark.timeout(500)
def test_killed_in_the_middle_of_a_rotation(bao: OpenBao) -> None:
    """OpenBao's root is replaced while workloads shake hands by TLS, have JWT-SVIDs validated and come anew, and the agent is
    killed: as the new root is published, in the middle of the lead, at its end, and once the new root signs. Nothing fails;
    nothing is below the new root before that was in the bundle for the lead; and the old one stays for what is below it.
    """
    lead = 10
    with joined(bao, lives=LONGER, lead=lead) as (agent, old), tls_load(agent.socket) as load:
        until(lambda: load.ready, "all of it works", seconds=60)
        new = replace_root(bao)
        time.sleep(random.uniform(0, 1.5))
        killed(agent, load)  # perhaps before it has seen the new root, or as it writes that
        until(lambda: {old, new} == roots(agent), "it is published", seconds=60)
        since = published_at(agent, new)
        killed(agent, load)
        assert since == published_at(agent, new)
        assert {old, new} == roots(agent)
        for part in (0.5, 0.95):
            time.sleep(max(0.0, since + lead * part - time.time()))
            killed(agent, load)
            assert {old, new} == roots(agent)
        until(lambda: new == signs_under(agent), "the new root signs", seconds=90)
        killed(agent, load)
        until(lambda: new == signs_under(agent), "it signs still", seconds=30)
        until(lambda: new in load.first_seen, "workloads have SVIDs below it", seconds=90)
        assert {old, new} == roots(agent)
        before = load.handshakes, load.validated, load.fetched
        until(lambda: all(map(int.__gt__, (load.handshakes, load.validated, load.fetched), before)), "it goes on")
        assert load.first_seen[new] - since > lead - 1


def test_killed_for_a_while(free_port: int) -> None:
    """OpenBao is killed: it is told within seconds, and workloads notice nothing while the intermediate lives, over a restart
    of the agent too. With OpenBao back, of another root even, since this one keeps nothing, the agent goes on.
    """
    with openbao(free_port) as first:
        enable(first)
        agent_of = joined(first)
        agent, _ = agent_of.__enter__()
    try:  # it is killed by now
        with mesh(agent.socket, 2) as workloads:
            until(lambda: workloads.ready and workloads.fetched > 3)
            fault = until(lambda: shown(agent)["upstream"]["fault"], seconds=30)
            assert "does not accept connections" in fault
            assert "below openbao: FAILS since" in agent.run("status").stdout
            workloads.may_be_down = True
            agent.stop()
            agent.start()
            workloads.may_be_down = False
            before = workloads.fetched
            until(lambda: workloads.fetched > before + 20)
            with openbao(free_port) as second:
                root = enable(second)
                trust(second, agent)
                until(lambda: root in roots(agent), seconds=60)
                until(lambda: "" == shown(agent)["upstream"]["fault"], seconds=90)
        assert '"upstream_failing"' in agent.log.read_text()
        assert '"upstream_answers_again"' in agent.log.read_text()
    finally:
        agent_of.__exit__(None, None, None)


def test_away_to_the_end(bao: OpenBao) -> None:
    """When it refuses until the intermediate has ended, X.509-SVIDs stop with a reason, and JWT-SVIDs and validation go on;
    when it signs again, so does the agent.
    """
    with joined(bao) as (agent, _), Wire(agent.socket) as wire:
        bao.write("sys/policies/acl/sojourn", {"policy": POLICY.replace("update", "deny")})
        refused = until(lambda: _refused(agent), seconds=100)
        assert "no valid intermediate" in refused
        assert "its policy has to allow update of" in shown(agent)["upstream"]["fault"]
        token = wire.jwt("a").svids[0].svid
        assert "spiffe://example.org/me" == wire.validate("a", token).spiffe_id
        bao.write("sys/policies/acl/sojourn", {"policy": POLICY})
        until(lambda: agent.run("svid", "x509", check=False).returncode == 0, seconds=150)


def _refused(agent: AgentProcess) -> str:
    done = agent.run("svid", "x509", check=False)
    return done.stderr if done.returncode else ""


def test_by_a_token_in_a_file(bao: OpenBao, tmp_path: Path) -> None:
    """The token may be in a file, which is read each time: the one that is there first is not good, the next one is."""
    path = tmp_path / "token"
    path.write_text("s.nothing\n")
    path.chmod(0o600)
    with AgentProcess(config=configured(bao.address, f'token_file = "{path}"')) as agent:
        with Admin(agent.admin_socket) as admin:
            admin.register("/me", ME)
        assert shown(agent)["upstream"]["fault"]
        made = bao.write("auth/token/create", {"policies": ["sojourn"], "ttl": "5m"})["auth"]["client_token"]
        path.write_text(f"{made}\n")
        until(lambda: agent.run("svid", "x509", check=False).returncode == 0, seconds=60)
        assert 200 == bao.look_up(made)  # it is not the agent's to revoke
        assert made not in agent.log.read_text()


@pytest.mark.curl
def test_the_page(free_port: int, tmp_path: Path) -> None:
    """What docs/operate/upstream-authority.md has typed makes both kinds of authorities, and each signs an intermediate."""
    typed = pagelines.sections("operate/upstream-authority.md")
    elsewhere = {"A SPIRE server", "Taint and revoke a root"}
    assert {"An intermediate authority in files", "OpenBao, or Vault", "See how it is"} == set(typed) - elsewhere
    pagelines.run(typed["An intermediate authority in files"], tmp_path, {})
    files = {name: tmp_path / "company" / f"{file}" for name, file in
             {"certificate": "issuing.pem", "key": "issuing.key", "roots": "roots.pem"}.items()}  # fmt: skip
    table = "\n".join(f'{name} = "{path}"' for name, path in files.items())
    with AgentProcess(config=f'[authority.upstream]\nkind = "disk"\n{table}\n') as agent:
        assert ["intermediate", "upstream", "root"] == [each["role"] for each in shown(agent)["chain"]]
        environment = {**agent.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        printed = pagelines.run(typed["See how it is"], ROOT, environment)
        assert "below disk: answered at" in printed
    before, rotated = typed["OpenBao, or Vault"].split("bao write pki/root/rotate")
    with openbao(free_port, bare=True) as bao, AgentProcess(config=configured(bao.address)) as agent:
        keys = agent.folder / "keys.json"
        environment = {
            "PATH": f"{find_bao().parent}:{os.environ['PATH']}",
            "BAO_ADDR": bao.address,
            "BAO_TOKEN": ROOT_TOKEN,
            "HOME": str(tmp_path),
            "SOJOURN_ISSUER": ISSUER,
            "SOJOURN_NODE_ID": NODE,
            "SOJOURN_KEYS_URL": f"http://127.0.0.1:{served(agent, keys)}/keys",
        }
        pagelines.run(before, tmp_path, environment)
        until(lambda: len(shown(agent)["chain"]) == 2, seconds=60)
        first = roots(agent)
        pagelines.run(f"bao write pki/root/rotate{rotated}", tmp_path, environment)
        until(lambda: len(roots(agent)) == 2 and first < roots(agent), seconds=30)


def served(agent: AgentProcess, _keys: Path) -> int:
    """A web server on this machine that gives the agent's JWT keys, as the agent publishes them. Its port."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    document = agent.json("bundle", "show")["bundle"]["keys"]
    names = ("kty", "crv", "x", "y", "kid")
    keys = [{name: each[name] for name in names} | {"use": "sig", "alg": "ES256"} for each in document
            if each["use"] == "jwt-svid"]  # fmt: skip

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"keys": keys}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])
