"""docs/reference/grpc.md: services, calls and messages, from the comments of proto/."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reference_pages import MADE, code, paragraph, table

PROTO = Path(__file__).resolve().parents[2] / "proto"
OURS = ("tasks", "validation", "approvals", "admin")
# Standards', and where they are spoken.
THEIRS = {
    "workload.proto": "public",
    "envoy/service/secret/v3/sds.proto": "public",
    "envoy/service/auth/v3/external_auth.proto": "public",
    "spire/api/server/entry/v1/entry.proto": "admin",
    "spire/api/server/bundle/v1/bundle.proto": "admin",
    "spire/api/server/trustdomain/v1/trustdomain.proto": "admin",
    "spire/api/server/localauthority/v1/localauthority.proto": "admin",
    "spire/api/server/agent/v1/agent.proto": "admin",
    "spire/api/server/svid/v1/svid.proto": "admin",
    "spire/api/server/logger/v1/logger.proto": "admin",
    "spire/api/server/debug/v1/debug.proto": "admin",
}
_HEAD = f"""# gRPC

{MADE}

Two Unix sockets speak gRPC: the public one (`socket`) to workloads, and the admin one (`admin_socket`) to root and the
agent's own user. Over mutual TLS `listen.tcp` has `sojourn.v1.Validation`. Health and server reflection are on both
sockets. Calls of workloads carry the metadata `workload.spiffe.io: true`. An error has its stable code in the trailing
metadata `sojourn-code`.

A number of a field that was released is never used again. The files are in [proto/](../../proto).
"""
_RPC = re.compile(r"rpc (\w+)\((stream )?([\w.]+)\)\s*returns \((stream )?([\w.]+)\);")
_FIELD = re.compile(r"(repeated |optional )?(map<[^>]+>|[\w.]+) (\w+) = (\d+)\s*(?:\[[^]]*\])?;(?:\s*// ?(.*))?")
_VALUE = re.compile(r"(\w+) = (\d+);(?:\s*// ?(.*))?")


@dataclass(slots=True)
class Member:
    """A call, asked with `kind` and answered with `answer`; a field, of its type and number; a value of an enum."""

    name: str
    kind: str
    text: str
    answer: str = ""
    number: str = ""


@dataclass(slots=True)
class Block:
    """A service or a message, with the names of those that it stands in before its own."""

    what: str
    name: str
    text: str
    members: list[Member] = field(default_factory=list)


@dataclass(slots=True)
class File:
    """What a .proto file says."""

    package: str = ""
    text: str = ""
    blocks: list[Block] = field(default_factory=list)


def parse(text: str) -> File:
    """The services and messages of a file, in its order. Reads the style of proto/, and not every .proto file."""
    found = File()
    comments: list[str] = []
    inside: list[Block | None] = []  # None: a oneof, whose fields are the message's
    for line in _statements(text):
        if line.startswith("//"):
            comments.append(line.removeprefix("//").strip())
            continue
        said, comments = " ".join(comments), []
        if line.startswith("syntax"):
            found.text = said
        elif named := re.match(r"package ([\w.]+);", line):
            found.package = named[1]
        elif opened := re.match(r"(service|message|enum|oneof) (\w+) \{(\})?", line):
            _open(found, inside, opened, said)
        elif line.startswith("}"):
            inside.pop()
        elif inside:
            _member(next(each for each in reversed(inside) if each is not None), line, said)
    return found


def _statements(text: str) -> Iterator[str]:
    """Each line without what is around it; a call that goes on in the next line is one. Empty lines end comments."""
    begun = ""
    for line in text.splitlines():
        stripped = f"{begun} {line.strip()}".strip()
        if stripped.startswith("rpc ") and not stripped.endswith((";", "{}", "{")):
            begun = stripped
            continue
        begun = ""
        yield stripped


def _open(found: File, inside: list["Block | None"], opened: "re.Match[str]", said: str) -> None:
    what, name, closed = opened.groups()
    outer = next((each for each in reversed(inside) if each is not None), None)
    if what == "oneof":
        inside.append(None)
        return
    block = Block(what, f"{outer.name}.{name}" if outer is not None else name, said)
    found.blocks.append(block)
    if not closed:
        inside.append(block)


def _member(block: Block, line: str, said: str) -> None:
    if call := _RPC.match(line):
        name, stream, asked, streamed, answer = call.groups()
        block.members.append(Member(name, f"{stream or ''}{asked}", said, answer=f"{streamed or ''}{answer}"))
    elif block.what == "enum" and (value := _VALUE.match(line)):
        block.members.append(Member(value[1], "", _joined(said, value[3]), number=value[2]))
    elif told := _FIELD.match(line):
        label, kind, name, number, beside = told.groups()
        block.members.append(Member(name, f"{label or ''}{kind}", _joined(said, beside), number=number))


def _joined(above: str, beside: str | None) -> str:
    return " ".join(each for each in (above, beside or "") if each)


def page() -> str:
    """docs/reference/grpc.md, whole."""
    lines = [*_HEAD.splitlines(), "", *_theirs()]
    for name in OURS:
        lines += _ours(parse((PROTO / "sojourn" / "v1" / f"{name}.proto").read_text("utf-8")))
    return "\n".join(lines).rstrip("\n") + "\n"


def _theirs() -> Iterator[str]:
    yield from ("## Services of standards", "", "Their calls mean what the standard says.", "")
    for path, socket in THEIRS.items():
        found = parse((PROTO / path).read_text("utf-8"))
        for each in found.blocks:
            if each.what == "service":
                calls = ", ".join(code(call.name) for call in each.members)
                yield from paragraph(f"**{f'{found.package}.{each.name}'.lstrip('.')}**, {socket} socket: {calls}.")


def _ours(found: File) -> Iterator[str]:
    for each in found.blocks:
        if each.what == "service":
            yield from (f"## {found.package}.{each.name}", "")
            if found.text:
                yield from paragraph(found.text)
            yield from table(
                ("Call", "Asked with", "Answered with", "What it does"),
                ((code(one.name), code(one.kind), code(one.answer), one.text) for one in each.members),
            )
    yield from ("Its messages:", "")
    for each in found.blocks:
        if each.what != "service":
            yield from (f"### {each.name}", "")
            if each.text:
                yield from paragraph(each.text)
            if each.members:
                rows = ((code(one.name), code(one.kind), one.number, one.text) for one in each.members)
                yield from table(("Field", "Type", "Number", "What it is"), rows)
            else:
                yield from ("It has no fields.", "")
