"""Weaknesses published of other systems, each tried here under its name (docs/security-cases.md lists them)."""

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.certificates import NOW, authority, issue, san
from harness.agent import AgentProcess
from harness.partner import befriend, rejected, token, validate
from harness.raw import BUNDLE_API, ENTRY_API, HEADER, WORKLOAD_API, Admin, Wire, entry, module_agent, refusal
from sojourn._pb import workload_pb2 as pb
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2
from sojourn._pb.spire.api.server.svid.v1 import svid_pb2
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.errors import InvalidBundle, InvalidSpiffeId, InvalidSvid
from sojourn.spiffe import bundle as bundles
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import check_leaf, verify_chain

CANARY = "canary-7f3a9c"
HERE = TrustDomain("example.org")


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent('[log]\nlevel = "debug"\n') as running:
        yield running


@pytest.fixture(scope="module")
def admin(agent: AgentProcess) -> Iterator[Admin]:
    """Our users federate with partner.org, whose JWT key is ours to sign with."""
    with Admin(agent.admin_socket) as admin:
        befriend(admin)
        admin.register("/self", f"unix:uid:{os.getuid()}", federates_with=["partner.org"], hint=CANARY)
        yield admin


# --- SPIRE and the SPIFFE libraries -----------------------------------------------------------------------------------


def test_CVE_2021_27098_only_the_asked_identity_is_signed(admin: Admin) -> None:
    """Of a certificate request that asks for a CA, other names and usages, the leaf has the ID and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier("spiffe://example.org/minted"),
            x509.RFC822Name("root@example.org"),
            x509.IPAddress(__import__("ipaddress").ip_address("127.0.0.1")),
            x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x0c\x01x"),
        ]
    )
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "spiffe://example.org/admin")]))
        .add_extension(wanted, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CODE_SIGNING]), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName("example.org")], None), critical=True)
        .sign(key, hashes.SHA256())
    )
    request = svid_pb2.MintX509SVIDRequest(csr=csr.public_bytes(Encoding.DER))
    answer = admin.unary("/spire.api.server.svid.v1.SVID/MintX509SVID", request, svid_pb2.MintX509SVIDResponse)
    leaf = x509.load_der_x509_certificate(answer.svid.cert_chain[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [x509.UniformResourceIdentifier("spiffe://example.org/minted")] == list(names)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert "admin" not in leaf.subject.rfc4514_string()
    assert SpiffeId.parse("spiffe://example.org/minted") == check_leaf(leaf)
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.NameConstraints)


def test_CVE_2021_27098_an_identity_that_is_not_the_callers(wire: Wire) -> None:
    """An ID in the request chooses among the caller's own, and earns no other."""
    for path in ("/admin", "/spire/server", "/SELF", "/self/"):
        request = pb.JWTSVIDRequest(audience=["a"], spiffe_id=f"spiffe://example.org{path}")
        assert refusal(lambda request=request: wire.unary(WORKLOAD_API + "FetchJWTSVID", request))[0] in {
            "PERMISSION_DENIED",
            "INVALID_ARGUMENT",
        }


@pytest.mark.parametrize(
    "path",
    ["/a/../b", "/a/./b", "/a//b", "/a/%2e%2e/b", "/a%2fb", "/..", "/a/", "/a\\b", "/a;b", "/a b", "/{{x}}", "/$x"],
)
def test_CVE_2021_27099_paths_are_never_made_normal(admin: Admin, path: str) -> None:
    """A path that another reader could take for another one is refused, not made into it."""
    before = admin.status().entries
    [result] = admin.create(entry(path, "unix:uid:1"))
    assert (3, before) == (result.status.code, admin.status().entries)
    with pytest.raises(InvalidSpiffeId):
        SpiffeId.parse(f"spiffe://example.org{path}")


REUSE = """
import os, socket, sys
# In a process namespace of our own: a caller connects and ends, and a process of root's gets its number.
path, uid, entry = sys.argv[1], int(sys.argv[2]), sys.argv[3]
here, there = socket.socketpair()
caller = os.fork()
if caller == 0:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    socket.send_fds(there, [b"."], [connection.fileno()])
    there.recv(1)  # nothing comes
    os._exit(0)
_, [descriptor], _, _ = socket.recv_fds(here, 1, 1)
os.kill(caller, 9)
os.waitpid(caller, 0)
for _ in range(50):
    open("/proc/sys/kernel/ns_last_pid", "w").write(str(caller - 1))
    again = os.fork()
    if again == caller:
        break
    if again == 0:
        os._exit(0)
    os.waitpid(again, 0)
    again = -1
if again == 0:
    sys.stdin.read()
    os._exit(0)
assert again == caller, "the number was not given again"
socket.send_fds(socket.socket(fileno=int(entry)), [b"."], [descriptor])
sys.stdin.read()
"""


@pytest.mark.root
def test_SPIRE_886_a_process_number_that_is_used_again(agent: AgentProcess, admin: Admin, wire: Wire) -> None:
    """The connection of a caller that has ended is good for nothing, though a process of root's has its number now."""
    import socket

    from harness.raw import over

    admin.register("/short", "unix:uid:4870")
    here, there = socket.socketpair()
    command = [
        "unshare",
        "-pf",
        "--kill-child",
        "--mount-proc",
        sys.executable,
        "-I",
        "-c",
        REUSE,
        agent.socket,
        "4870",
        str(there.fileno()),
    ]
    with here, there, subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[there.fileno()]) as process:
        there.close()
        here.settimeout(20)
        try:
            _, [descriptor], _, _ = socket.recv_fds(here, 1, 1)
            with over(socket.socket(fileno=descriptor)) as borrowed:
                assert "UNAVAILABLE" == refusal(borrowed.x509)[0]
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.kill()
    assert ["spiffe://example.org/self"] == wire.x509_ids()


def test_SPIRE_982_a_process_name_that_looks_like_its_state() -> None:
    """A process whose name holds what /proc/PID/stat is made of is read by the kernel's own fields."""
    from sojourn.attestation.process import stat_of

    program = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, b') S 1 1 (', 0, 0, 0); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert b") S 1 1 (" in Path(f"/proc/{process.pid}/stat").read_bytes()
        found = stat_of(process.pid)
        assert (os.getpid(), True) == (found.parent, found.start_time > 1)
        process.communicate()


DYING = """
import os, random, socket, sys
path, count, request = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
random.seed(int(sys.argv[4]))
for _ in range(count):
    if os.fork() == 0:
        os.setgroups([]); os.setgid(4871); os.setuid(4871)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.send(request[: random.randrange(len(request) + 1)])
        for _ in range(random.randrange(3000)): pass
        os._exit(0)
    if random.random() < 0.5:
        os.waitpid(-1, 0)
while True:
    try: os.waitpid(-1, 0)
    except ChildProcessError: break
"""


@pytest.mark.root
@pytest.mark.timeout(400)
def test_SPI_01_006_callers_that_die_leave_nothing(agent: AgentProcess, admin: Admin) -> None:
    """Ten thousand callers that die at any moment of being served leave no descriptor, no stream and no traceback."""
    from harness.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, call_headers, frame, message

    admin.register("/dying", "unix:uid:4871")
    body = frame(HEADERS, END_HEADERS, 1, call_headers(WORKLOAD_API + "FetchX509SVID"))
    request = PREFACE + frame(SETTINGS) + body + frame(DATA, END_STREAM, 1, message(b""))
    before = agent.descriptors()
    done = subprocess.run([sys.executable, "-I", "-c", DYING, agent.socket, "10000", request.hex(), "1"], timeout=400)
    assert 0 == done.returncode
    assert agent.settled_descriptors(before + 4) <= before + 4
    assert [] == [stream for stream in admin.status().streams if stream.uid == 4871]
    assert [] == [line for line in agent.log_lines() if line["event"] in {"attestor_raised", "call_failed"}]


def test_SPI_01_002_CVE_2021_38553_files_are_the_agents_alone(agent: AgentProcess) -> None:
    """Keys and database can be read by nobody else."""
    files = [path for path in agent.data_dir.rglob("*") if path.is_file()]
    assert {"sojourn.db", "jwt.pem"} <= {path.name for path in files}
    assert [] == [
        path
        for path in [agent.data_dir, *agent.data_dir.rglob("*")]
        if path.stat().st_mode & 0o077 and not path.is_socket()
    ]


def test_py_spiffe_029_key_files_are_private_also_when_they_were_not(
    agent: AgentProcess, wire: Wire, tmp_path: Path
) -> None:
    """A key is written with mode 0600, also over a file that others could read, and not through a link."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "svid.0.key").write_text("old")
    (tmp_path / "svid.0.key").chmod(0o666)
    agent.run("svid", "x509", "--write", str(tmp_path))
    key = tmp_path / "svid.0.key"
    assert (0o600, True) == (key.stat().st_mode & 0o777, "PRIVATE KEY" in key.read_text())
    key.unlink()
    key.symlink_to(victim)
    agent.run("svid", "x509", "--write", str(tmp_path), check=False)
    assert "mine" == victim.read_text()


@pytest.mark.parametrize("issuer", ["foreign root", "no chain", "its own"])
def test_SPIRE_655_chains_of_a_foreign_root(issuer: str) -> None:
    """A leaf with the right ID that does not chain to its own trust domain's bundle is refused."""
    root, foreign = authority(), authority(subject="foreign")
    leaf = issue({"foreign root": foreign, "no chain": authority(subject="other"), "its own": None}[issuer])
    chain = [leaf.certificate] + ([foreign.certificate] if issuer == "foreign root" else [])
    with pytest.raises(InvalidSvid):
        verify_chain(chain, [root.certificate], HERE, NOW)
    assert str(verify_chain([issue(root).certificate], [root.certificate], HERE, NOW)).startswith(
        "spiffe://example.org/"
    )


@pytest.mark.parametrize("claim", ["sub", "aud", "exp"])
@pytest.mark.parametrize("value", [..., None, "", "x", True, [], {}, [[]], -1, 1.5, ["a", 1]], ids=repr)
def test_SPIRE_1123_claims_that_must_be_there(wire: Wire, claim: str, value: Any) -> None:
    """A token without a claim that must be there, or with one of another type, is rejected."""
    rejected(wire, token(**{claim: value}))


def test_SPIRE_1143_GO_2024_2978_nothing_secret_is_logged(agent: AgentProcess, admin: Admin, wire: Wire) -> None:
    """At the level debug the log has no token, no metadata and no selector of a caller."""
    secret = f"{CANARY}-selector"
    admin.create(entry("/x/canary", f"unix:path:/{secret}"))
    svid = (
        wire.unary(WORKLOAD_API + "FetchJWTSVID", pb.JWTSVIDRequest(audience=["a"]), pb.JWTSVIDResponse).svids[0].svid
    )
    validate(wire, svid)
    rejected(wire, svid[:-4] + "AAAA")
    metadata = (*HEADER, ("authorization", f"{CANARY}-metadata"))
    wire.unary(WORKLOAD_API + "FetchJWTSVID", pb.JWTSVIDRequest(audience=["a"]), metadata=metadata)
    refusal(lambda: wire.unary(WORKLOAD_API + "FetchJWTSVID", b"\xff", metadata=metadata))
    log = agent.log.read_text()
    assert len(log) > 100
    for canary in (secret, f"{CANARY}-metadata", svid.split(".")[1], svid.split(".")[2]):
        assert canary not in log


def test_CVE_2024_8365_no_token_in_the_audit(agent: AgentProcess, wire: Wire) -> None:
    """The audit names a token by its `jti` and does not hold it."""
    svid = (
        wire.unary(WORKLOAD_API + "FetchJWTSVID", pb.JWTSVIDRequest(audience=["audited"]), pb.JWTSVIDResponse)
        .svids[0]
        .svid
    )
    payload = json.loads(base64.urlsafe_b64decode(svid.split(".")[1] + "=="))
    shown = agent.run("audit", "tail", "--output", "json").stdout
    assert payload["jti"] in shown
    assert [] == [part for part in svid.split(".")[1:] if part in shown]


@pytest.mark.parametrize("bits", [1024, 2047, 8193, 16384])
def test_SPIRE_1142_key_sizes_are_bounded(admin: Admin, bits: int) -> None:
    """A request for a certificate with too small or too large a key is refused before anything is computed with it."""
    from unittest import mock

    from sojourn.spiffe.x509svid import check_key

    sized = mock.Mock(spec=rsa.RSAPublicKey, key_size=bits)
    with pytest.raises(InvalidSvid):
        check_key(sized)
    assert [] == [name for name, *_ in sized.method_calls if name not in {"key_size"}]


@pytest.mark.parametrize("size", [-1, 0, 1, 2**31 - 1])
def test_SPIRE_193_page_sizes(admin: Admin, size: int) -> None:
    """A page of any size is answered by what there is, at once."""
    began = time.monotonic()
    answer = admin.list(page_size=size)
    assert 1 <= len(answer.entries) <= admin.status().entries
    assert time.monotonic() - began < 5


LIMITS: list[tuple[str, Any, int]] = [
    ("hint", lambda size: entry(f"/limit/{size}", "a:b", hint="h" * size), 1_024),
    ("selector", lambda size: entry(f"/limit/{size}", "a:" + "b" * size), 4_096),
    ("selector type", lambda size: entry(f"/limit/{size}", "a" * size + ":b"), 255),
    ("selectors", lambda size: entry(f"/limit/{size}", *(f"a:{number}" for number in range(size))), 100),
    ("DNS names", lambda size: entry(f"/limit/{size}", "a:d", dns_names=[f"n{n}.org" for n in range(size)]), 100),
    ("entry ID", lambda size: entry(f"/limit/{size}", "a:i", id="i" * size), 255),
    ("SPIFFE ID", lambda size: entry("/" + "p" * (size - len("spiffe://example.org/")), "a:p"), 2_048),
    ("trust domain", lambda size: types.Bundle(trust_domain="t" * size), 255),
    ("TTL", lambda size: entry("/limit/t", f"a:{size}", x509_svid_ttl=size), 604_800),
]


@pytest.mark.parametrize(("name", "make", "limit"), LIMITS, ids=[name for name, *_ in LIMITS])
def test_SPIRE_1131_limits_are_where_they_are_said(admin: Admin, name: str, make: Any, limit: int) -> None:
    """One under a limit and at the limit is taken, one over it is not."""

    def code(size: int) -> int:
        made = make(size)
        if isinstance(made, types.Bundle):
            request = bundle_pb2.BatchSetFederatedBundleRequest(bundle=[made])
            answer = admin.unary(
                BUNDLE_API + "BatchSetFederatedBundle", request, bundle_pb2.BatchSetFederatedBundleResponse
            )
            return answer.results[0].status.code
        return admin.create(made)[0].status.code

    assert [0, 0, 3] == [code(limit + off) for off in (-1, 0, 1)]


def test_SPIRE_1143_starts_and_stops_under_load() -> None:
    """An agent that is stopped in the midst of calls, again and again, leaves no traceback and ends with 0."""
    with AgentProcess() as own:
        own.register("/self", f"unix:uid:{os.getuid()}")
        for _ in range(6):
            with Wire(own.socket) as wire:
                streams = [wire.x509_stream() for _ in range(20)]
                calls = [
                    wire._channel.unary_unary(WORKLOAD_API + "FetchJWTSVID").future(b"\x0a\x01a", metadata=HEADER)
                    for _ in range(40)
                ]
                next(streams[0])
                assert 0 == own.stop()
                for each in (*streams, *calls):
                    each.cancel()
            own.start()
        assert "Traceback" not in own.log.read_text()


def test_go_spiffe_27_what_parsing_refuses_verifying_refuses_too() -> None:
    """A leaf for a whole trust domain is refused where it is read and where it is verified."""
    root = authority()
    leaf = issue(root, san=(san("spiffe://example.org"), False)).certificate
    for check in (lambda: check_leaf(leaf), lambda: verify_chain([leaf], [root.certificate], HERE, NOW)):
        with pytest.raises(InvalidSvid):
            check()


@pytest.mark.parametrize(
    "name",
    [
        "example.org\n",
        "\u212aelvin.org",
        "\u0130.org",
        "\u017fpiffe.org",
        "ex\u0430mple.org",
        "EXAMPLE.org",
        "a\0",
        "a.org\r",
        "\uff41.org",
    ],
)
def test_py_spiffe_names_that_look_alike(name: str) -> None:
    """A name that folds or strips into a good one is refused, wherever names are read."""
    for read in (
        lambda: TrustDomain.parse(name),
        lambda: SpiffeId.parse(f"spiffe://{name}/web"),
        lambda: SpiffeId.from_parts(name, "/web"),
        lambda: SpiffeId.parse(f"spiffe://example.org/{name}\n"),
    ):
        with pytest.raises(InvalidSpiffeId):
            read()


# --- step-ca and Vault ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, 4, 99, 2**31 - 1])
def test_CVE_2026_30836_unknown_values_of_an_enum(admin: Admin, value: int) -> None:
    """An enum value that nobody knows is refused, and never taken for another one."""
    selectors = types.SelectorMatch(selectors=[types.Selector(type="unix", value="uid:0")], match=value)  # type: ignore[arg-type]
    domains = types.FederatesWithMatch(trust_domains=["partner.org"], match=value)  # type: ignore[arg-type]
    for wanted in (
        entry_pb2.ListEntriesRequest.Filter(by_selectors=selectors),
        entry_pb2.ListEntriesRequest.Filter(by_federates_with=domains),
    ):
        assert "INVALID_ARGUMENT" == refusal(lambda wanted=wanted: admin.list(filter=wanted))[0]
    delete = bundle_pb2.BatchDeleteFederatedBundleRequest(trust_domains=["partner.org"], mode=value)  # type: ignore[arg-type]
    assert "INVALID_ARGUMENT" == refusal(lambda: admin.unary(BUNDLE_API + "BatchDeleteFederatedBundle", delete))[0]


@pytest.mark.parametrize(
    "method",
    [
        "/sojourn.v1.Admin/GetStatus",
        "/sojourn.v1.Admin/Explain",
        ENTRY_API + "BatchCreateEntry",
        BUNDLE_API + "BatchSetFederatedBundle",
        "/spire.api.server.svid.v1.SVID/MintX509SVID",
        "/spire.api.server.svid.v1.SVID/NewJWTSVID",
        "/spire.api.server.agent.v1.Agent/AttestAgent",
        "/spire.api.server.logger.v1.Logger/SetLogLevel",
        "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/SubscribeToX509SVIDs",
        "/SpiffeWorkloadAPI/Unlisted",
    ],
)
def test_CVE_2026_30836_methods_that_are_not_for_workloads(wire: Wire, method: str) -> None:
    """A method that is not listed at the public socket does not exist there, for whoever it is."""
    assert "UNIMPLEMENTED" == refusal(lambda: wire.unary(method, b""))[0]


def test_CVE_2026_40097_empty_lists() -> None:
    """Where the first of a list is looked at, an empty list is refused and breaks nothing."""
    root = authority()
    oid = x509.ExtendedKeyUsage.oid
    for name, extension in (
        ("extended", x509.UnrecognizedExtension(oid, b"\x30\x00")),
        ("san", x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x00")),
        ("usage", x509.UnrecognizedExtension(x509.KeyUsage.oid, b"\x03\x01\x00")),
    ):
        leaf = issue(root, **{name: (extension, False)}).certificate
        with pytest.raises(InvalidSvid):
            verify_chain([leaf], [root.certificate], HERE, NOW)
    with pytest.raises(InvalidSvid):
        verify_chain([], [root.certificate], HERE, NOW)
    for keys in ([], [{}], [[]], [None], [{"kty": "EC", "use": "x509-svid", "x5c": []}]):
        assert () == bundles.parse(HERE, {"keys": keys}).x509_authorities
    for x5c in ([[]], [None], [""], "", {"0": "x"}, [{}]):
        if x5c:
            with pytest.raises(InvalidBundle):
                bundles.parse(HERE, {"keys": [{"kty": "EC", "use": "x509-svid", "x5c": x5c}]})


@pytest.mark.root
def test_CVE_2020_16250_who_calls_is_not_what_the_caller_says(agent: AgentProcess, admin: Admin) -> None:
    """What a caller writes into its request or metadata about itself counts for nothing."""
    from harness.borrowed import wire_of

    with wire_of(agent.socket, 4872) as stranger:
        metadata = (
            *HEADER,
            ("x-spiffe-id", "spiffe://example.org/self"),
            ("x-forwarded-client-cert", "URI=spiffe://example.org/self"),
            ("uid", "0"),
            (":authority", "root"),
        )[:-1]
        request = pb.JWTSVIDRequest(audience=["a"], spiffe_id="spiffe://example.org/self")
        call = lambda: stranger.unary(WORKLOAD_API + "FetchJWTSVID", request, metadata=metadata)  # noqa: E731
        assert ("PERMISSION_DENIED", "no identity issued") == refusal(call)


def test_CVE_2025_6037_a_leaf_is_no_trust_anchor() -> None:
    """A certificate that is no authority vouches for nobody, although it lies in the bundle."""
    root = authority()
    leaf = issue(root)
    below = issue(leaf, subject="below").certificate
    for chain in ([leaf.certificate], [below], [below, leaf.certificate]):
        with pytest.raises(InvalidSvid):
            verify_chain(chain, [leaf.certificate], HERE, NOW)


@pytest.mark.root
def test_CVE_2019_19921_CVE_2025_52881_a_false_proc() -> None:
    """An agent does not start where /proc is not the kernel's, and says what to do."""
    script = 'mount -t tmpfs none /proc && mkdir -p /proc/self/fd && exec "$@"'
    deceived = AgentProcess(under=("unshare", "-m", "sh", "-c", script, "sh"))
    try:
        with pytest.raises(RuntimeError, match="/proc is not the kernel's"):
            deceived.start()
    finally:
        deceived.__exit__()


# --- gRPC -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["SpiffeWorkloadAPI/FetchX509SVID", "//SpiffeWorkloadAPI/FetchX509SVID", "/SpiffeWorkloadAPI//FetchX509SVID",
     "/SpiffeWorkloadAPI/FetchX509SVID/", "/spiffeworkloadapi/fetchx509svid", "/SpiffeWorkloadAPI/FetchX509SVID?x",
     "/SpiffeWorkloadAPI/%46etchX509SVID", "/x/../SpiffeWorkloadAPI/FetchX509SVID", "/grpc.health.v1.Health/../SpiffeWorkloadAPI/FetchX509SVID"],
)  # fmt: skip
def test_CVE_2026_33186_CVE_2026_26205_other_spellings_of_a_path(agent: AgentProcess, wire: Wire, path: str) -> None:
    """A path that is not written exactly as the method's reaches no handler, with the security header or without."""
    from harness.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, Connection, call_headers, frame, message

    for header in (b"true", b"false"):
        with Connection(agent.socket) as connection:
            connection.open()
            connection.send(
                frame(HEADERS, END_HEADERS, 1, call_headers(path, {b"workload.spiffe.io": header})),
                frame(DATA, END_STREAM, 1, message(b"")),
            )
            connection.socket.settimeout(2.0)
            answers = []
            with contextlib.suppress(TimeoutError):
                for kind, flags, stream, body in connection.frames():
                    answers += [body] if kind == DATA else []
                    if stream == 1 and flags & END_STREAM:
                        break
        assert [] == answers
    assert ["spiffe://example.org/self"] == wire.x509_ids()
