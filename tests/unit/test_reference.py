"""docs/reference/: the pages that come from the code are what it says now, and leave nothing out."""

import re
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from harness.cicode import load
from sojourn.cli import root
from sojourn.config.description import described
from sojourn.endpoints.http1.app import HttpApi
from sojourn.endpoints.oauth import ssf_events, status_lists
from sojourn.identity import selector_spelling

ROOT = Path(__file__).resolve().parents[2]
reference = load("reference")
commands, configuration, grpc_api, http_api, plugin_keys, selectors = (
    import_module(f"reference_pages.{name}")
    for name in ("commands", "configuration", "grpc_api", "http_api", "plugin_keys", "selectors")
)
table = import_module("reference_pages").table

LONGEST = 300


@pytest.mark.parametrize("name", reference.PAGES)
def test_it_is_what_the_code_says(name: str) -> None:
    """A page is what `make reference` makes of the code, and no line of it is longer than people read."""
    text = reference.PAGES[name]()
    assert text == (reference.FOLDER / name).read_text("utf-8")
    assert [] == [line for line in text.splitlines() if len(line) > LONGEST]


def test_each_command_and_option_is_there() -> None:
    """The page of the command line has each command that can be run, with every option of it."""
    sections = dict(re.findall(r"^## (sojourn .+)\n((?:(?!## ).*\n)+)", commands.page(), re.MULTILINE))
    options = 0
    for name in (*root.COMMANDS, *root.NOUNS):
        made = root.load(name)
        for typed, command in getattr(made, "commands", {"": made}).items():
            text = sections.pop(f"sojourn {name} {typed}".rstrip())
            for parameter in command.params:
                assert parameter.opts[0] in text or parameter.name.strip("_").upper() in text
                options += 1
    assert {} == sections
    assert options > 300


def test_each_key_is_there() -> None:
    """The page of the configuration has a row for each key of the agent's, and of every attestor and provider of ours."""
    text = configuration.page()
    assert [] == [key.name for key in described() if f"\n| `{key.name}` |" not in text]
    assert set(selector_spelling.OURS) == set(configuration.ATTESTORS)
    assert {each.name for each in entry_points(group="sojourn.providers")} == set(configuration.PROVIDERS)


def test_each_key_of_a_plugin_has_a_meaning() -> None:
    """No row of the configuration's page is without a meaning, and none is said of a key that there is not."""
    rows = re.findall(r"^\| (`[^|]+`) \|.* \| ([^|]+) \|$", configuration.page(), re.MULTILINE)
    assert [] == [key for key, meaning in rows if meaning == "-"]
    assert "| `socket` | text | /run/dbus/system_bus_socket |" in configuration.page()
    for kind, meanings in plugin_keys.KINDS.items():
        assert set(meanings) <= set(configuration.PROVIDERS[kind].model_fields)


def test_each_call_and_field_is_there() -> None:
    """What is read of a .proto file is all that the compiler sees in it: services, calls, messages and fields."""
    for name in grpc_api.OURS:
        compiled: Any = import_module(f"sojourn._pb.sojourn.v1.{name}_pb2").DESCRIPTOR
        found = {each.name: {one.name for one in each.members}
                 for each in grpc_api.parse((grpc_api.PROTO / f"sojourn/v1/{name}.proto").read_text()).blocks}  # fmt: skip
        expected = {each.name: {one.name for one in each.methods} for each in compiled.services_by_name.values()}
        for message in compiled.message_types_by_name.values():
            expected |= members(message, "")
        enums = {each.name: {one.name for one in each.values} for each in compiled.enum_types_by_name.values()}
        assert expected | enums == found


def members(message: Any, outer: str) -> dict[str, set[str]]:
    """The fields of a message and of those within it, but for maps' entries, which nobody writes."""
    name = f"{outer}{message.name}"
    found = {name: {each.name for each in message.fields}}
    for inner in message.nested_types:
        if not inner.GetOptions().map_entry:
            found |= members(inner, f"{name}.")
    return found | {f"{name}.{each.name}": {one.name for one in each.values} for each in message.enum_types}


def test_each_route_is_there() -> None:
    """The page of HTTP has every path that the public socket and the HTTPS listener answer."""
    nobody: Any = None

    class Anything:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    anything: Any = Anything()
    app: Any = HttpApi(nobody, nobody, anything, anything, anything).app()
    made = {(route.path, min(route.methods - {"HEAD"})) for route in app._others.routes}
    told = {
        (path, method)
        for method, path, where, _ in http_api.DOCUMENTS
        if where not in {"`listen.trust`", "`listen.people`"}
    }
    beside = {
        (status_lists.PATH, "GET"),
        (status_lists.PATH + "/{epoch}/{number}", "GET"),
        (ssf_events.PATH, "POST"),
        ("/metrics", "GET"),
    }
    posts = {("/token", "POST"), ("/introspect", "POST"), ("/revoke", "POST")}
    assert {(path.removesuffix("/{path:path}"), method) for path, method in made} == told - beside | posts
    assert all(f"\n## POST {path}\n" in http_api.page() for path, _ in posts)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("| `unix:colour:TEXT` | What is not there. |", ["docs/attestors.md has a row of `unix:colour`"]),
        ("", []),
    ],
)
def test_kinds_of_selectors(row: str, said: list[str]) -> None:
    """A kind that the tables of attestors.md have, and that the agent does not know, is found."""
    told = selectors.rows(selectors.ATTESTORS.read_text("utf-8") + f"\n{row}\n")
    assert said == [each.partition(",")[0] for each in selectors.differences(told)]


def test_a_kind_without_a_row() -> None:
    """A kind that the agent knows, and that the tables of attestors.md lack, is found."""
    text = selectors.ATTESTORS.read_text("utf-8").replace("| `unix:sha256:HEX` |", "| digest |")
    assert ["docs/attestors.md has no row of `unix:sha256`, which the agent knows"] == selectors.differences(
        selectors.rows(text)
    )


def test_what_is_long_stands_below() -> None:
    """A row that is longer than people read says so, and its text follows the table in short lines."""
    lines = list(table(("Name", "What"), [("`a`", "word " * 80), ("`b`", "")]))
    assert ["| `a` | Below. |", "| `b` | - |", ""] == lines[2:5]
    assert lines[5].startswith("`a`: word word")
    assert max(map(len, lines)) <= 120
