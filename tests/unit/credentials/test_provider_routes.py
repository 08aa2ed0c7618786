"""The providers of the configuration as task types name them."""

from datetime import timedelta

import pytest
from fakes.handing_room import CEILING, CLOUD, ORDERS, OutsideRoom, outside_type
from fakes.providers import ScriptedProvider
from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE
from sojourn.credentials.provider_routes import ProviderRoutes, deadlines
from sojourn.errors import InvalidTarget
from sojourn.policy.task_types import parse
from sojourn.spiffe.ids import SpiffeId

HELPER = "spiffe://example.org/agent/helper"
TOML = f"""
allowed_workloads = ["{TRIAGE}"]

[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:read"]

[[ceiling]]
resource = "{ORDERS}"
actions = ["orders:read"]
provider = "corp"
ask = {{ audience = "orders" }}

[[ceiling]]
resource = "{CLOUD}"
actions = ["cloud:use"]
provider = "cloud"
[ceiling.ask]
audience = "cloud"
"""


@pytest.fixture
def outlets(clock):
    return ProviderRoutes({"corp": ScriptedProvider(clock), "cloud": ScriptedProvider(clock)}, clock)


@pytest.mark.parametrize(
    ("audience", "name"),
    [
        ("https://idp.example.org/realms/x", "corp"),
        ("https://idp.example.org/realms/x/", "corp"),
        ("https://idp.example.org/realms/x/protocol/openid-connect/token", "corp"),
        ("https://idp.example.org/realms/xy", ""),
        ("https://idp.example.org/realms", ""),
        ("sts.amazonaws.com", "cloud"),
        ("", ""),
    ],
)
def test_taking(clock, audience, name):
    """What an outside system takes a JWT-SVID by is its provider's: its audiences, and URLs below them. A plugin that
    names none has none.
    """
    corp, cloud, plugin = ScriptedProvider(clock), ScriptedProvider(clock), ScriptedProvider(clock)
    corp.audiences, cloud.audiences = {"https://idp.example.org/realms/x"}, {"sts.amazonaws.com"}
    outlets = ProviderRoutes({"plugin": plugin, "corp": corp, "cloud": cloud}, clock)
    assert [each for each in [name] if each] == outlets.taking(audience)


def test_reserved(clock):
    """An audience is kept from those workloads whose tasks the provider gives credentials, and from nobody else."""
    corp, other = ScriptedProvider(clock), ScriptedProvider(clock)
    corp.audiences = other.audiences = {"https://idp.example.org"}
    outlets = ProviderRoutes({"corp": corp, "other": other}, clock)
    handed = f'[delegation]\nto = ["{HELPER}"]\n'
    toml = TOML.replace('provider = "cloud"', 'provider = "corp"').replace("\n\n", f"\n{handed}\n", 1)
    types = {"triage": parse("triage", toml, PERMIT_ALL)}
    for workload, name in ((TRIAGE, "corp"), (HELPER, "corp"), ("spiffe://example.org/web", "")):
        assert name == outlets.reserving(types, SpiffeId.parse(workload), "https://idp.example.org")
        assert not outlets.reserving(types, SpiffeId.parse(workload), "https://example.org")
        assert not outlets.reserving({}, SpiffeId.parse(workload), "https://idp.example.org")


class TestFaults:
    def test_good_types(self, outlets):
        """Types that name what is there, and ask what it knows, have none."""
        assert [] == outlets.faults({"triage": parse("triage", TOML, PERMIT_ALL)})

    def test_no_such_provider(self, outlets):
        """A provider that the configuration does not have is a fault of the line that names it."""
        kind = parse("triage", TOML.replace('provider = "corp"', 'provider = "crop"'), PERMIT_ALL)
        (fault,) = outlets.faults({"triage": kind})
        assert ("triage.toml", 11) == (fault.file, fault.line)
        assert "no [providers.crop]; there are: cloud, corp" in fault.message

    def test_no_providers_at_all(self, clock):
        """An agent without providers says that there are none."""
        faults = ProviderRoutes({}, clock).faults({"triage": parse("triage", TOML, PERMIT_ALL)})
        assert [11, 17] == [each.line for each in faults]
        assert "there are: none" in faults[0].message

    def test_what_the_provider_does_not_know(self, outlets):
        """What a provider cannot be asked is a fault of the line that asks it."""
        kind = parse("triage", TOML.replace("{ audience", "{ colour = 1, audience"), PERMIT_ALL)
        (fault,) = outlets.faults({"triage": kind})
        assert (12, f"ceiling: ask: {ORDERS}: colour: unknown key") == (fault.line, fault.message)

    def test_a_table_of_its_own(self, outlets):
        """An `ask` that is a table of its own is found by its resource at least."""
        kind = parse("triage", TOML + "colour = 1\n", PERMIT_ALL)
        (fault,) = outlets.faults({"triage": kind})
        assert fault.line > 12
        assert CLOUD in fault.message

    def test_an_inline_array(self, outlets):
        """Of a ceiling in one line it is that line."""
        kind = outside_type(ceiling=CEILING.replace('"corp"', '"crop"'))
        (fault,) = outlets.faults({"triage": kind})
        assert fault.line == kind.lines["ceiling"]

    def test_a_plugin_that_fails(self, outlets):
        """A plugin that raises anything is a fault, without its words."""

        def fails(_ask, _actions):
            raise KeyError("s3cret")

        outlets.find("corp").provider.read_ask = fails
        (fault,) = outlets.faults({"triage": parse("triage", TOML, PERMIT_ALL)})
        assert fault.message.endswith("cannot be read: KeyError")

    def test_all_are_told(self, outlets):
        """All that is wrong with what task types ask of providers is told at once, each with its file."""
        kinds = [outside_type(name, CEILING.replace("audience", "colour")) for name in ("one", "two")]
        assert ["one.toml", "two.toml"] == [each.file for each in outlets.faults({each.name: each for each in kinds})]


class TestRoute:
    def test_of_ours(self, outlets):
        """A resource without provider has no route to one."""
        assert outlets.route(outside_type(), TICKETS) is None

    def test_of_a_provider(self, outlets):
        """What the provider is asked with is what it made of it, for the actions that the type has there."""
        route = outlets.route(outside_type(), ORDERS)
        assert ("corp", "orders", ("orders:list", "orders:read")) == (
            route.outlet.name,
            route.ask.audience,
            route.ask.actions,
        )

    def test_it_is_read_once(self, outlets):
        """Of each type it is read once, however often it is asked for, and again of a type that says something else."""
        kind, other = outside_type(), outside_type(ceiling=CEILING.replace('"orders"', '"others"'))
        assert outlets.route(kind, ORDERS).ask is outlets.route(kind, ORDERS).ask
        assert ["orders", "others"] == [outlets.route(each, ORDERS).ask.audience for each in (kind, other)]

    def test_what_is_kept_has_a_limit(self, outlets, monkeypatch):
        """Types that were in force long ago are forgotten, and read again when they are asked about."""
        monkeypatch.setattr(outlets._asks, "room", 2)
        kinds = [outside_type(ceiling=CEILING.replace('"orders"', f'"o{number}"')) for number in range(4)]
        for _ in range(2):
            assert ["o0", "o1", "o2", "o3"] == [outlets.route(each, ORDERS).ask.audience for each in kinds]
        assert len(outlets._asks) == 2

    def test_one_that_is_not_there(self, clock):
        """A type that was not checked and names no provider is refused."""
        with pytest.raises(InvalidTarget):
            ProviderRoutes({}, clock).route(outside_type(), ORDERS)


class TestDescribed:
    async def test_what_programs_must_know(self):
        """Of the resources that a task has, those of providers, with what each says of itself."""
        async with OutsideRoom().running() as room:
            task = await room.begin()
            found = room.outlets.described(task)
            assert [(ORDERS, "corp", {"audience": "orders"}), (CLOUD, "cloud", {"audience": ""})] == [
                (resource, outlet.name, details) for resource, outlet, details in found
            ]

    async def test_a_provider_that_fails_to(self):
        """A plugin that raises leaves its resource out, and the task is told of all the same."""
        async with OutsideRoom().running() as room:
            task = await room.begin()
            room.corp.describe = None
            assert [CLOUD] == [resource for resource, _, _ in room.outlets.described(task)]


def test_who_names_a_provider(outlets):
    """The task types that name a provider, by their names."""
    types = {name: outside_type(name) for name in ("b", "a")}
    assert ["a", "b"] == outlets.types_of("corp", types)
    assert [] == outlets.types_of("elsewhere", types)


async def test_closing(outlets):
    """Every provider is closed, also beside one that fails to."""
    corp, cloud = (each.provider for each in outlets.all())
    corp.close = None
    await outlets.close()
    assert cloud.closed


def test_deadlines():
    """A provider's deadline is its table's `timeout`, or the usual one."""
    tables = {"a": {"timeout": "500ms"}, "b": {}, "c": {"timeout": timedelta(seconds=3)}, "d": {"timeout": 7}}
    assert {"a": 0.5, "b": 10.0, "c": 3.0, "d": 7.0} == deadlines(tables)
