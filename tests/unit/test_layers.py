"""Imports go one way: values → rules → services → doors → main (DESIGN.md, 3)."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import sojourn

ROOT = Path(sojourn.__file__).parent
ATTESTORS = ROOT.parent.parent / "attestors" / "sojourn_attestors"

# Each layer may import itself and those above it in this list, nothing below. A package stands for all its modules.
LAYERS = [
    ["descriptors", "errors", "hooks", "installing", "limits", "lean", "pathowners", "shares", "wholefile"],
    ["oautherrors"],
    [
        "allowance",
        "background",
        "clock",
        "documents",
        "durations",
        "recent",
        "spiffe",
        "address",
        "keyupdates",
        "tlslevel",
        "waitbreaker",
        "networks",
        "_pb",
        "oversight.logs",
        "oversight.failures",
    ],
    [
        "attestation.cgroups",
        "attestation.selectors",
        "identity.spelling",
        "identity.cautions",
        "identity.claims",
        "identity.declared",
        "identity.entries",
        "identity.lifetime",
        "identity.matching",
        "identity.nodes",
        "identity.plan",
        "identity.relationship",
        "identity.shapes",
        "identity.templates",
        "tasks.grants",
        "tasks.duties",
        "tasks.tokentimes",
        "tasks.tokens",
        "tasks.bound",
        "tasks.fitting",
        "tasks.senders",
        "tasks.served",
        "tasks.assertions",
        "tasks.clauses",
        "tasks.policy",
        "tasks.approvalneed",
        "tasks.reasons",
        "tasks.standing",
        "oversight.secevent",
    ],
    ["oversight.caep"],
    ["configtables", "plugins", "settings", "trusted", "folders", "attestation.files"],
    ["providers"],
    ["notifierconfig"],
    [
        *("config", "process_setup", "attestation.process"),
        *("tasks.params", "tasks.typefile", "tasks.binding", "tasks.types"),
    ],
    [
        "oversight.approvals",
        "tasks.audiences",
        "tasks.conditions",
        "tasks.forms",
        "tasks.exchange",
        "tasks.rules",
        "tasks.lint",
    ],
    ["tasks.asking"],
    ["tasks.cases", "tasks.explaining", "tasks.lastgood"],
    ["attestation.confinement"],
    ["attestation.attestor", "attestation.peer", "identity.explain", "oversight.audit"],
    ["contracts", "configreload"],
    ["oversight.publications"],
    ["oversight.readings"],
    ["oversight.facts"],
    [
        "tasks.holders",
        "tasks.task",
        "tasks.feed",
        "tasks.live",
        "tasks.journal",
        "tasks.repeats",
        "tasks.blocks",
        "tasks.singleuse",
    ],
    [
        "tasks.holding",
        "tasks.tokenkeys",
        "tasks.shadow",
        "tasks.deadlines",
        "tasks.family",
        "tasks.tickets",
        "tasks.waiting",
        "oversight.reviews",
    ],
    ["tasks.limiting", "tasks.statuslist"],
    ["tasks.issuing"],
    [
        "attestation.keptopen",
        "attestation.looks",
        "attestation.shared",
        "attestation.subordinate",
        "attestation.tally",
        "attestation.frames",
        "attestation.host",
        "attestation.hosted",
        "attestation.hostprocess",
    ],
    ["identity.changes"],
    [
        "attestation.loading",
        "attestation.service",
        "authority",
        "identity.registry",
        "identity.svids",
        "identity.jwtsvids",
        "identity.issued",
    ],
    ["identity.revoked"],
    ["identity.adopting", "identity.foreign", "identity.revocations", "identity.issuing"],
    ["identity.programs", "identity.streams"],
    ["identity.subscriptions"],
    ["identity.federating", "identity.following", "identity.identities", "tasks.engine"],
    ["identity.lookout"],
    ["tasks.ending"],
    ["tasks.asker", "tasks.evidence"],
    ["tasks.approving"],
    ["tasks.beginning", "tasks.changing", "tasks.proving", "tasks.recovery"],
    ["tasks.attaching", "tasks.clients", "tasks.delegating", "oversight.signalkeys"],
    ["oversight.signals"],
    ["tasks.given", "tasks.refusals", "tasks.running", "tasks.uses"],
    ["tasks.counting", "tasks.granting", "tasks.inspecting", "tasks.judging", "tasks.reloading", "tasks.redeciding"],
    ["tasks.typefolder"],
    ["tasks.policies"],
    ["sdk"],  # it knows values alone: what speaks TLS to the outside uses its
    ["outward"],
    ["store"],
    ["doors"],
    ["building"],
    ["serving"],
    ["daemon"],
    ["cli"],
    ["__main__"],
]
PURE = [
    "errors",
    "installing",
    "hooks",
    "oautherrors",
    "limits",
    "documents",
    "durations",
    "spiffe",
    "attestation.cgroups",
    "attestation.selectors",
    "identity.cautions",
    "identity.spelling",
    "identity.declared",
    "identity.entries",
    "identity.matching",
    "identity.nodes",
    "identity.explain",
    "identity.lifetime",
    "identity.plan",
    "identity.relationship",
    "oversight.approvals",
    "tasks.grants",
    "tasks.duties",
    "tasks.tokentimes",
    "tasks.tokens",
    "tasks.bound",
    "tasks.fitting",
    "tasks.senders",
    "tasks.served",
    "tasks.assertions",
    "tasks.approvalneed",
    "tasks.asking",
    "tasks.audiences",
    "tasks.cases",
    "tasks.clauses",
    "tasks.conditions",
    "tasks.explaining",
    "tasks.lint",
    "tasks.params",
    "tasks.policy",
    "tasks.reasons",
    "tasks.standing",
    "tasks.typefile",
    "tasks.types",
    "tasks.exchange",
    "tasks.forms",
    "tasks.rules",
    "oversight.secevent",
    "oversight.caep",
]
IMPURE_LIBRARIES = {
    *("alembic", "asyncio", "google", "grpc", "joserfc", "prometheus_client", "socket", "sqlalchemy", "starlette"),
    *("structlog", "subprocess", "threading", "time", "typer", "uvicorn", "uvloop"),
}
# Which libraries may be imported where, and nowhere else.
HOMES = {
    "alembic": ["store"],
    "sqlalchemy": ["store"],
    "grpc": ["doors.spire_types", "sdk", "cli"],
    "hpack": ["doors.http2"],
    "hyperframe": ["doors.http2"],
    "grpc_health": ["doors.servers"],
    "grpc_reflection": ["doors.servers"],
    "google": ["doors", "sdk", "cli", "_pb"],
    "joserfc": ["spiffe.jose"],
    "cedarpy": ["tasks.clauses", "tasks.policy", "tasks.standing"],
    "yaml": ["identity.declared", "cli.entry"],
    "starlette": ["doors"],
    "uvicorn": ["doors.conversation", "sdk.uvicorn_tls"],
    "uvloop": ["daemon"],
    "typer": ["cli"],
    "pydantic": [
        "config",
        "configtables",
        "notifierconfig",
        "providers",
        "settings",
        "tasks.cases",
        "tasks.params",
        "tasks.typefile",
        "tasks.types",
    ],
    "prometheus_client": ["doors"],
    "mcp": ["sdk.mcpclient", "sdk.mcpserver"],
    "mcp_types": ["sdk.mcpclient"],
    "httpx2": ["sdk.mcpclient"],
    "httpx": ["sdk.httpauth", "sdk.taskuse"],
    "httpcore": [
        *("outward.bundles", "providers.connecting", "providers.guardedhttp", "providers.pooling"),
        *("sdk.egress", "sdk.egressleg", "sdk.localcredentials.vault"),
    ],
    "h11": ["sdk.egressleg", "sdk.egresswire"],
    "requests": ["sdk.requestsauth"],
}
SEES_PROC = [
    "attestation.host",
    "pathowners",
    "contracts.attestorcase",
    "attestation.attestor",
    "attestation.cgroups",
    "attestation.process",
    "attestation.peer",
    "attestation.confinement",
    "process_setup",
    "doors.askers",
    "doors.standstills",
    "store.bootid",
    "sdk.tls",
    "sdk.isolation",
    "sdk.connection",
    "cli.delivering",
    "sdk.localcredentials.peers",
]
SDK_SEES = [
    *(
        "address",
        "allowance",
        "errors",
        "installing",
        "keyupdates",
        "limits",
        "pathowners",
        "oautherrors",
        "spiffe",
        "sdk",
        "tlslevel",
        "wholefile",
        "_pb",
    ),
    *(
        "tasks.bound",
        "tasks.duties",
        "tasks.fitting",
        "tasks.grants",
        "tasks.reasons",
        "tasks.senders",
        "tasks.served",
        "tasks.tokens",
        "tasks.tokentimes",
    ),
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
            yield name, ast.parse(path.read_text("utf-8"))


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
    """The imports of a module that come from a layer above its own."""
    return [name for name in ours(tree) if (layer_of(name) or 0) > layer_of(module)]


FRONT = {"__init__"}  # the package itself: lazy names, checked in tests/unit/sdk
EMPTY = {"attestation", "identity", "tasks", "oversight"}  # packages that are cut over several layers


class TestLayers:
    def test_every_module_has_a_layer(self):
        """No module stands outside of the layers."""
        assert [] == [name for name in modules() if layer_of(name) is None and name not in FRONT | EMPTY]

    @pytest.mark.parametrize("package", sorted(EMPTY))
    def test_packages_over_several_layers_are_empty(self, package):
        """A package whose modules lie in different layers imports nothing itself."""
        assert () == imports(modules()[package])

    def test_imports_go_one_way(self):
        """A module imports its own layer or those before it."""
        found = {name: backward(name, tree) for name, tree in modules().items() if name not in FRONT | EMPTY}
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
            "from sojourn.doors.door import Door",
            "import sojourn.doors.door",
            "from sojourn.doors import door",
            "def f():\n    from sojourn.doors.door import Door",
        ],
    )
    def test_a_backward_import_is_found(self, source):
        """This test finds a store that imports a door, however that is written."""
        assert backward("store.tasks", ast.parse(source))

    def test_a_forward_import_is_not(self):
        """This test lets a door import the store."""
        assert [] == backward("doors.admin", ast.parse("from sojourn.store.audit import AuditTable"))


class TestPurity:
    def test_values_and_rules_import_nothing_impure(self):
        """Values and rules import no event loop, network, database, log, clock or protobuf."""
        pure = {name: tree for name, tree in modules().items() if inside(name, PURE)}
        assert len(pure) > 50
        impure = {name: libraries(tree) & IMPURE_LIBRARIES for name, tree in pure.items()}
        assert {"spiffe.jose": {"joserfc"}} == {name: names for name, names in impure.items() if names}
        assert [] == [name for name, tree in pure.items() if any(inside(each, ["_pb", "clock"]) for each in ours(tree))]

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
        """Generated stubs are used by doors, SDK and command only."""
        users = [name for name, tree in modules().items() if any(inside(each, ["_pb"]) for each in ours(tree))]
        assert [] == [name for name in users if not inside(name, ["doors", "sdk", "cli"])]

    def test_proc_is_read_in_few_places(self):
        """Only the modules that are named here know paths below /proc."""
        found = {
            (name, node.value)
            for name, tree in modules().items()
            if name not in SEES_PROC
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "/proc/" in node.value
        }
        assert set() == found

    def test_only_main_builds(self):
        """Nobody imports the daemon but the command."""
        users = [name for name, tree in modules().items() if any(inside(each, ["daemon"]) for each in ours(tree))]
        assert ["cli.agent"] == users

    def test_the_agent_has_no_use_for_contracts(self):
        """The tests that come for plugins' authors are imported by nothing that runs."""
        users = [name for name, tree in modules().items() if any(inside(each, ["contracts"]) for each in ours(tree))]
        assert [] == [name for name in users if not inside(name, ["contracts"])]

    def test_attestors_use_what_a_third_party_may(self):
        """Our own attestors import the plugin interface and values, and nothing else of the daemon."""
        for path in ATTESTORS.rglob("*.py"):
            tree = ast.parse(path.read_text("utf-8"))
            allowed = [
                "descriptors",
                "errors",
                "limits",
                "attestation.attestor",
                "attestation.cgroups",
                "attestation.selectors",
            ]
            assert [] == [name for name in ours(tree) if not inside(name, allowed)]


class TestSdk:
    def test_knows_no_room_of_the_daemon(self):
        """The SDK imports values and itself, and no library of the daemon's."""
        sdk = {name: tree for name, tree in modules().items() if inside(name, ["sdk"])}
        assert len(sdk) > 20
        rooms = {name: [each for each in ours(tree) if not inside(each, SDK_SEES)] for name, tree in sdk.items()}
        assert {} == {name: found for name, found in rooms.items() if found}
        theirs = {name: libraries(tree) & set(NOT_IN_THE_SDK) for name, tree in sdk.items()}
        # That one is for who runs uvicorn anyway.
        assert {"sdk.uvicorn_tls": {"uvicorn"}} == {name: found for name, found in theirs.items() if found}

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
        packages = {"tasks"}
        assert set() == {name for name in modules if not inside(name, SDK_SEES)} - packages


class TestDaemon:
    def test_starting_loads_nothing_that_is_not_used(self):
        """The daemon is imported without what only some need: migrations, HTTP in and out, tracebacks in colour."""
        loaded = loaded_by("from sojourn.lean import import_structlog; import_structlog(); import sojourn.daemon")
        later = {
            "alembic",
            "attr",
            "click",
            "grpc",
            "h11",
            "httpcore",
            "httptools",
            "multiprocessing",
            "pygments",
            "rich",
        }
        assert set() == loaded & {*later, "typer", "uvicorn", "yaml"}

    def test_hidden_packages_come_back(self):
        """What was hidden from one import can be imported after it."""
        loaded = loaded_by("from sojourn.lean import import_structlog; import_structlog(); import rich.text")
        assert "rich.text" in loaded


def loaded_by(statement):
    """The names of all modules that a fresh interpreter has after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())
