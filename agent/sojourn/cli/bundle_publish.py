"""`sojourn bundle publish`: what outside parties fetch to trust this agent, as files for a static web server."""

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, table
from sojourn.errors import FailedPrecondition, InvalidInput, Unavailable, Unreachable
from sojourn.files import atomic
from sojourn.files.trusted import check_owner
from sojourn.limits import PUBLISHED_LOOK_SECONDS

_DISCOVERY = "/.well-known/openid-configuration"
_OPEN = 0o755
_FILES = {_DISCOVERY: "oidc", "/keys": "oidc", "/bundle": "spiffe"}


class DocumentFormat(StrEnum):
    """Which documents to write."""

    ALL = "all"
    OIDC = "oidc"
    SPIFFE = "spiffe"


FormatOption = Annotated[
    DocumentFormat, typer.Option("--format", help="all, or oidc (discovery and keys), or spiffe (the bundle) alone.")
]
IssuerOption = Annotated[
    str | None,
    typer.Option(
        "--issuer-url",
        metavar="URL",
        help="Where the folder will be served: refused if the documents' issuer is another, as nobody would take them.",
    ),
]


@dataclass(frozen=True, slots=True)
class _File:
    """A document and where below the folder it goes."""

    name: str
    body: bytes
    max_age_seconds: int


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn bundle`."""
    app.command()(publish)


def publish(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder; it is made if it is not there.")],
    format_: FormatOption = DocumentFormat.ALL,
    issuer_url: IssuerOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and keep them current until Ctrl-C.")] = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Write the discovery document, the JWT keys and the SPIFFE bundle into a folder, to be served from there.

    Each file is written whole or not at all, and one that is as it should be is left alone.
    """
    value = _published(to, format_, issuer_url, admin_socket)
    if not watch:
        _print(value, output)
        return
    waiting = False
    try:
        _print(value, output)
        while True:
            time.sleep(PUBLISHED_LOOK_SECONDS)
            try:
                value = _published(to, format_, issuer_url, admin_socket)
            except (Unreachable, Unavailable) as error:
                if not waiting:
                    print(f"waiting: {error.public}", file=sys.stderr, flush=True)
                waiting = True
                continue
            waiting = False
            if any(each["changed"] for each in value["files"]):
                _print(value, output)
    except KeyboardInterrupt:
        return


def _print(value: dict[str, Any], output: Output) -> None:
    rows = [
        [each["file"], "written" if each["changed"] else "unchanged", each["url"], each["max_age"]]
        for each in value["files"]
    ]
    lines = [*table(["FILE", "", "SERVE IT AT", "MAX-AGE"], rows), ""]
    lines.append(f"serve them below {value['base']} as application/json, over https, with Cache-Control: max-age")
    if value["keys_url"] and not any(each["url"] == value["keys_url"] for each in value["files"]):
        lines.append(f"the keys are looked for at {value['keys_url']}, as listen.trust_url says")
    emit(output, value, lines)
    sys.stdout.flush()


def _published(to: Path, wanted: DocumentFormat, issuer_url: str | None, admin_socket: str | None) -> dict[str, Any]:
    """Write what has changed, and say what there is."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb
    from sojourn.jose import strict_json

    answer = remote.admin(admin_socket, pb.GetBundleRequest())
    if not answer.documents:
        raise FailedPrecondition("the agent is of an earlier version, and has no such documents: bring it up to date")
    if issuer_url is not None and issuer_url != answer.issuer:  # byte for byte, as those who read it compare them
        raise FailedPrecondition(
            f"the documents' issuer is {answer.issuer!r} and they would be served at {issuer_url[:200]!r}, where nobody"
            " would take them: set tasks.issuer in the agent's configuration to where the folder is served"
        )
    files = [
        _File(
            each.path.removeprefix("/") + (".json" if each.path == "/bundle" else ""), each.body, each.max_age_seconds
        )
        for each in answer.documents
        if wanted in (DocumentFormat.ALL, _FILES.get(each.path))
    ]
    discovery = next(each.body for each in answer.documents if each.path == _DISCOVERY)
    keys_url = strict_json.loads(discovery.decode())["jwks_uri"] if wanted is not DocumentFormat.SPIFFE else ""
    written = _write(to, files)
    return {
        "folder": str(to),
        "trust_domain": answer.trust_domain,
        "base": answer.issuer,
        "keys_url": keys_url,
        "files": [
            {
                "file": str(to / each.name),
                "changed": each.name in written,
                "url": f"{answer.issuer}/{each.name}",
                "content_type": "application/json",
                "max_age": each.max_age_seconds,
            }
            for each in files
        ],
    }


def _write(to: Path, files: list[_File]) -> set[str]:
    """Write those that are not there as they should be; return their names. Raise InvalidInput, with what is wrong."""
    written = set()
    try:
        if not to.exists():
            os.makedirs(to)
            os.chmod(to, _OPEN)  # for the web server, whatever our umask
        with _folder(to) as base:
            # The keys first: a discovery document never leads to keys that are not there.
            for each in sorted(files, key=lambda file: file.name.startswith(".well-known")):
                parent, _, name = each.name.rpartition("/")
                if not parent:
                    changed = _put(base, name, each.body, to)
                else:
                    if parent not in os.listdir(base):
                        os.mkdir(parent, dir_fd=base)
                        os.chmod(parent, _OPEN, dir_fd=base)
                    with _folder(to / parent, parent, base) as below:
                        changed = _put(below, name, each.body, to / parent)
                if changed:
                    written.add(each.name)
    except OSError as error:
        raise InvalidInput(f"cannot write to {str(to)!r}: {error.strerror}") from error
    return written


@contextmanager
def _folder(path: Path, name: str | None = None, within: int | None = None) -> Iterator[int]:
    """A descriptor of a folder that nobody else can write to. Raise InvalidInput."""
    # Below our own folder no symbolic link is followed; that itself may be one, as an operator has it.
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if within is not None else 0)
    descriptor = os.open(name or path, flags, dir_fd=within)
    try:
        try:
            check_owner(os.fstat(descriptor))
        except InvalidInput as error:
            raise InvalidInput(f"the folder {str(path)!r} {error.public}") from error
        yield descriptor
    finally:
        os.close(descriptor)


def _put(folder: int, name: str, content: bytes, path: Path) -> bool:
    """Have a file with this content, readable by everybody; say whether it was written."""
    if name in os.listdir(folder):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"{str(path / name)!r} is there, and is not a file: it was left alone")
        if status.st_size == len(content) and _content(folder, name) == content:
            return False
    atomic.write(Path(name), content, 0o644, within=folder)
    return True


def _content(folder: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()
