"""Imports go one way: values → rules → services → endpoints → agent (docs/architecture.md)."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import sojourn
from harness.trees import parsed, tree_of

ROOT = Path(sojourn.__file__).parent
TESTS = Path(__file__).parents[1]
ATTESTORS = ROOT.parent.parent / "attestors" / "sojourn_attestors"

# A package may import those above it, those on its own line, and nothing below.
LAYERS = [
    ("http2",),
    ("operating_limits",),
    ("limits", "errors", "extras"),
    ("quota", "files", "net", "runtime", "jose", "_pb"),
    ("httpclient",),
    ("spiffe",),
    ("tasktoken", "tlog"),
    ("settings", "workloadapi", "authority"),
    ("audit",),
    ("ocsf",),
    ("evidence",),
    ("spiffetls", "config", "installing"),
    ("providers", "attestation", "sdk"),
    ("identity", "testing", "plugins", "grpc", "mcp", "mtls", "request_digest", "tools", "uvicorn", "web"),
    ("people",),
    ("federation", "keyprocess", "policy", "server", "spireapi", "upstream"),
    ("facts", "oversight"),
    ("ssf",),
    ("tasks",),
    ("oauth",),
    ("credentials", "notices", "sinks", "witness"),
    ("store",),
    ("backup",),
    ("endpoints",),
    ("agent", "doctor"),
    ("cli",),
    ("__main__",),
]
PURE = [
    *(
        "errors",
        "extras",
        "jose",
        "limits",
        "ocsf",
        "operating_limits",
        "oversight",
        "policy",
        "spiffe",
        "tasktoken",
        "tlog",
    ),
    *("runtime.hooks", "settings.durations", "ssf.caep", "ssf.security_events", "ssf.subjects"),
    *("attestation.cgroups", "attestation.selectors"),
    *(
        "people.claims",
        "people.id_jag",
        "people.issuer_rules",
        "people.logout",
        "people.person",
        "people.token_kind",
        "people.verification",
    ),
    *("identity.entries", "identity.entry_documents", "identity.entry_warnings", "identity.explain"),
    *("identity.federation_relationship", "identity.matcher", "identity.nodes", "identity.reconciliation"),
    *("identity.selector_spelling", "identity.svid_lifetime"),
]
IMPURE_LIBRARIES = {
    *("alembic", "asyncio", "google", "grpc", "joserfc", "prometheus_client", "socket", "sqlalchemy", "starlette"),
    *("structlog", "subprocess", "threading", "time", "typer", "uvicorn", "uvloop"),
}
# Which libraries may be imported where, and nowhere else.
HOMES = {
    "alembic": ["store"],
    "sqlalchemy": ["store"],
    "grpc": ["spireapi.messages", "upstream", "sdk", "testing.fake_agent", "cli"],
    "hpack": ["http2"],
    "hyperframe": ["http2"],
    "grpc_health": ["endpoints.grpc.servers"],
    "grpc_reflection": ["endpoints.grpc.servers"],
    "google": ["endpoints", "sdk", "spireapi", "upstream", "workloadapi", "cli", "_pb"],
    "joserfc": ["jose.jws"],
    "cedarpy": ["policy.clauses", "policy.cedar", "policy.clause_verdicts"],
    "yaml": ["identity.entry_documents", "cli.entry_export", "server.kubeconfig"],
    "starlette": ["endpoints"],
    "uvicorn": ["endpoints.http1.connection", "sdk.integrations.uvicorn_tls"],
    "uvloop": ["agent.run"],
    "typer": ["cli"],
    "pydantic": [
        *("config", "providers", "settings", "upstream.aws_pca", "upstream.cert_manager"),
        *("policy.asked_task", "policy.asked_user", "policy.cases", "policy.cedar_schema", "policy.params"),
        *("policy.task_type_tables", "policy.task_types", "policy.type_faults"),
    ],
    "prometheus_client": ["endpoints", "agent.measuring"],
    "mcp": ["sdk.integrations.mcp_client", "sdk.integrations.mcp_server"],
    "mcp_types": ["sdk.integrations.mcp_client"],
    "rfc3161_client": ["evidence.timestamps"],
    "httpx2": ["sdk.integrations.mcp_client"],
    "httpx": ["sdk.integrations.httpx_auth", "sdk.task.clients"],
    "httpcore2": ["httpclient", "sdk.egress", "sdk.cloud.vault"],
    "h11": ["sdk.egress"],
    "pkcs11": ["keyprocess.library"],
    "botocore": ["keyprocess.aws_kms"],
    "requests": ["sdk.integrations.requests_auth"],
}
SEES_PROC = [
    *("agent.process", "attestation", "files.path_owners", "store.boot_id", "testing.attestor_case"),
    *("endpoints.listener.current_call", "endpoints.listener.loop_watchdog"),
    *(
        "sdk.client.agent_socket",
        "sdk.client.connection",
        "sdk.cloud.peer_socket",
        "sdk.confinement.network",
        "spiffetls.context",
    ),
    "httpclient.unix",
    "doctor",
]
SDK_SEES = [
    *("_pb", "errors", "extras", "files", "httpclient", "jose", "limits", "net", "quota", "spiffe", "tasktoken"),
    *("config.paths", "config.service_unit", "operating_limits", "sdk", "spiffetls", "workloadapi"),
]
NOT_IN_THE_SDK = (
    *("alembic", "cedarpy", "prometheus_client", "pydantic", "sqlalchemy", "starlette", "structlog", "typer"),
    *("uvicorn", "uvloop"),
)


def inside(module, places):
    return any(module == place or module.startswith(f"{place}.") for place in places)


def sources():
    """Every module of ours with its syntax tree, by its name below `sojourn`; the generated stubs apart."""
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if not inside(name, ["_pb"]):
            yield name, tree_of(path)


@cache
def modules():
    return dict(sources())


@cache
def imports(tree):
    """Full names of all that a module imports, at its top or within functions."""
    return tuple(_imports(tree))


def _imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layers"
            # `from package import name`: the name may be a module; if it is not, the longer name does no harm.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(tree):
    return [name.removeprefix("sojourn.") for name in imports(tree) if name.startswith("sojourn.")]


def libraries(tree):
    return {name.partition(".")[0] for name in imports(tree)} - {"sojourn"}


@cache
def layer_of(module):
    return next((rank for rank, places in enumerate(LAYERS) if inside(module, places)), None)


def module_of(name):
    """The module that a full name is, or is in: the longest that there is."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name


def backward(module, tree):
    """The imports of a module that come from a package below its own."""
    return [name for name in ours(tree) if (layer_of(name) or 0) > layer_of(module)]


class TestLayers:
    def test_every_package_has_a_layer(self):
        """Every package has its place in the order: a new one is named here until it has."""
        assert [] == [name for name in modules() if layer_of(name) is None and name != "__init__"]

    def test_packages_hold_their_modules_alone(self):
        """What a package's own file imports is loaded with each of its modules: none does but the tests for plugins."""
        packages = {name for name in modules() if any(other.startswith(f"{name}.") for other in modules())}
        assert {"errors", "testing"} == {name for name in packages if imports(modules()[name])}

    def test_imports_go_one_way(self):
        """A module imports of its own layer or those before it."""
        placed = {name: tree for name, tree in modules().items() if layer_of(name) is not None}
        found = {name: backward(name, tree) for name, tree in placed.items()}
        assert {} == {name: names for name, names in found.items() if names}

    def test_no_cycles(self):
        """No module imports itself by way of others, within functions either."""
        edges = {name: {module_of(each) for each in ours(tree)} - {name, ""} for name, tree in modules().items()}
        while leaves := {name for name, found in edges.items() if not found}:
            edges = {name: found - leaves for name, found in edges.items() if name not in leaves}
        assert {} == edges

    @pytest.mark.parametrize(
        "source",
        [
            "from sojourn.endpoints.listener.unix_listener import Door",
            "import sojourn.endpoints.listener.unix_listener",
            "from sojourn.endpoints import door",
            "def f():\n    from sojourn.endpoints.listener.unix_listener import Door",
        ],
    )
    def test_a_backward_import_is_found(self, source):
        """This test finds a store that imports an endpoint, however that is written."""
        assert backward("store.tasks", parsed(source))

    def test_a_forward_import_is_not(self):
        """This test lets an endpoint import the store."""
        assert [] == backward("endpoints.admin.status", parsed("from sojourn.store.audit import AuditTable"))


class TestPurity:
    def test_values_and_rules_import_nothing_impure(self):
        """Values and rules import no event loop, network, database, log, clock or protobuf."""
        pure = {name: tree for name, tree in modules().items() if inside(name, PURE)}
        assert len(pure) > 50
        impure = {name: libraries(tree) & IMPURE_LIBRARIES for name, tree in pure.items()}
        assert {"jose.jws": {"joserfc"}} == {name: names for name, names in impure.items() if names}
        assert [] == [
            name for name, tree in pure.items() if any(inside(each, ["_pb", "runtime.clock"]) for each in ours(tree))
        ]

    def test_values_and_rules_do_not_wait(self):
        """Values and rules have no coroutines."""
        waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
        pure = {name: tree for name, tree in modules().items() if inside(name, PURE)}
        assert [] == [name for name, tree in pure.items() if any(isinstance(each, waits) for each in ast.walk(tree))]


class TestHomes:
    @pytest.mark.parametrize("library", sorted(HOMES))
    def test_each_library_has_its_home(self, library):
        """A library is imported where it is wrapped, and nowhere else."""
        found = [name for name, tree in modules().items() if library in libraries(tree)]
        assert [] == [name for name in found if not inside(name, HOMES[library])]
        assert found

    def test_stubs_stay_at_the_edges(self):
        """Generated stubs are used by endpoints, by clients (SDK, command, a SPIRE server's node), and by what both share."""
        users = [name for name, tree in modules().items() if any(inside(each, ["_pb"]) for each in ours(tree))]
        edges = ["endpoints", "sdk", "spireapi", "testing.fake_agent", "upstream", "workloadapi", "cli"]
        assert [] == [name for name in users if not inside(name, edges)]

    def test_proc_is_read_in_few_places(self):
        """Only the modules that are named here know paths below /proc."""
        found = {
            (name, node.value)
            for name, tree in modules().items()
            if not inside(name, SEES_PROC)
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "/proc/" in node.value
        }
        assert set() == found

    def test_only_main_builds(self):
        """Nobody imports the agent as a whole but the commands that run it, its key process or a server, or have it join one."""
        users = [name for name, tree in modules().items() if any(inside(each, ["agent"]) for each in ours(tree))]
        assert ["cli.agent", "cli.agent_join", "cli.keys", "cli.server"] == [
            name for name in users if not inside(name, ["agent"])
        ]

    def test_the_agent_has_no_use_for_testing(self):
        """The tests that come for plugins' authors are imported by nothing that runs."""
        users = [name for name, tree in modules().items() if any(inside(each, ["testing"]) for each in ours(tree))]
        assert [] == [name for name in users if not inside(name, ["testing"])]

    def test_attestors_use_what_a_third_party_may(self):
        """Our own attestors import the plugin interface, values and such as a cache, and nothing else of the daemon."""
        for path in ATTESTORS.rglob("*.py"):
            tree = tree_of(path)
            allowed = [
                *("httpclient", "net.sockets", "net.urls", "errors", "limits", "plugins.attestor"),
                *("attestation.account_files", "attestation.machine", "attestation.selectors"),
                *("quota", "runtime.single_flight"),
            ]
            assert [] == [name for name in ours(tree) if not inside(name, allowed)]


class TestHttp2:
    def test_stands_alone(self):
        """The package `http2` imports nothing of Sojourn outside itself, and two libraries: who reads it has read all."""
        alone = {name: tree for name, tree in modules().items() if inside(name, ["http2"])}
        assert len(alone) > 10
        others = {name: [each for each in ours(tree) if not inside(each, ["http2"])] for name, tree in alone.items()}
        assert {} == {name: found for name, found in others.items() if found}
        used = {library for tree in alone.values() for library in libraries(tree)}
        assert {"hpack", "hyperframe"} == used - sys.stdlib_module_names

    def test_is_loaded_alone(self):
        """A server of HTTP/2 is imported without any other room."""
        loaded = loaded_by("import sojourn.http2.connection")
        assert "sojourn.http2.server" in loaded
        assert {"sojourn"} == {name for name in loaded if inside(name, ["sojourn"])} - {
            name for name in loaded if inside(name, ["sojourn.http2"])
        }

    @pytest.mark.parametrize(
        "file", ["fuzz/test_http2.py", "fakes/http2host.py", "fakes/http2peer.py", "harness/http2.py"]
    )
    def test_is_fuzzed_alone(self, file):
        """What fuzzes it imports nothing of Sojourn but the package."""
        assert [] == [name for name in ours(tree_of(TESTS / file)) if not inside(name, ["http2"])]


class TestSdk:
    def test_knows_no_room_of_the_daemon(self):
        """The SDK imports values and itself, and no library of the daemon's."""
        sdk = {name: tree for name, tree in modules().items() if inside(name, ["sdk"])}
        assert len(sdk) > 20
        rooms = {name: [each for each in ours(tree) if not inside(each, SDK_SEES)] for name, tree in sdk.items()}
        assert {} == {name: found for name, found in rooms.items() if found}
        theirs = {name: libraries(tree) & set(NOT_IN_THE_SDK) for name, tree in sdk.items()}
        # That one is for who runs uvicorn anyway.
        assert {"sdk.integrations.uvicorn_tls": {"uvicorn"}} == {name: found for name, found in theirs.items() if found}

    def test_importing_sojourn_costs_nothing(self):
        """`import sojourn` loads neither gRPC nor pydantic, nor anything of ours."""
        loaded = loaded_by("import sojourn")
        assert set() == loaded & {"grpc", "google", "pydantic", "cryptography", "joserfc", *NOT_IN_THE_SDK}
        assert set() == {name for name in loaded if name.startswith("sojourn.")}

    def test_using_the_sdk_loads_no_daemon(self):
        """With every public name in use, no library and no room of the daemon is loaded."""
        loaded = loaded_by("import sojourn; [getattr(sojourn, name) for name in sojourn.__all__]")
        assert set() == loaded & set(NOT_IN_THE_SDK)
        modules = {name.removeprefix("sojourn.") for name in loaded if name.startswith("sojourn.")}
        packages = {"config"}
        assert set() == {name for name in modules if not inside(name, SDK_SEES)} - packages


class TestDaemon:
    def test_starting_loads_nothing_that_is_not_used(self):
        """The daemon is imported without what only some need: migrations, HTTP in and out, tracebacks in colour."""
        loaded = loaded_by(
            "from sojourn.runtime.lean_imports import import_structlog; import_structlog(); import sojourn.agent.run"
        )
        later = {
            "alembic",
            "attr",
            "click",
            "grpc",
            "h11",
            "httpcore2",
            "httptools",
            "multiprocessing",
            "pygments",
            "rich",
        }
        assert set() == loaded & {*later, "typer", "uvicorn", "yaml"}

    def test_hidden_packages_come_back(self):
        """What was hidden from one import can be imported after it."""
        loaded = loaded_by(
            "from sojourn.runtime.lean_imports import import_structlog; import_structlog(); import rich.text"
        )
        assert "rich.text" in loaded


def loaded_by(statement):
    """The names of all modules that a fresh interpreter has after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())
