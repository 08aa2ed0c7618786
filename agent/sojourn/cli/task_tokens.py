"""`sojourn task token`, `proof` and `digest`: tokens of tasks, and what goes with them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.given_files import read_given
from sojourn.cli.options import ActionOption, Output, OutputOption, ResourceOption, SocketOption
from sojourn.cli.output import emit, moment
from sojourn.cli.task import ExpectPersonOption, TaskArgument, acting
from sojourn.errors import InvalidInput
from sojourn.limits import CONFIG_MAX_BYTES, TOKEN_MAX_BYTES

_CONTENT_MAX = 64 * 1024 * 1024  # bytes of a request's content
BoundOption = Annotated[
    bool, typer.Option("--bound", help="Bind it to a key of the task in the agent: `sojourn task proof` goes with it.")
]
CertificateOption = Annotated[
    Path | None,
    typer.Option("--certificate", metavar="FILE", help="Bind it to this X.509-SVID of the task's workload, PEM."),
]
DigestOption = Annotated[
    str,
    typer.Option("--params-digest", metavar="DIGEST", help="Of the one request that it is for: see `task digest`."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `sojourn task`."""
    for command in (token, proof, digest):
        app.command()(command)


def token(
    task: TaskArgument,
    resource: ResourceOption = "",
    action: ActionOption = None,
    bound: BoundOption = False,
    certificate: CertificateOption = None,
    params_digest: DigestOption = "",
    expect_person: ExpectPersonOption = "",
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Get an access token under a task, and print the token alone.

    For a resource whose credentials a provider outside gives it prints what that gave: --output json says how to read
    it, and what becomes of it when the task ends.
    """
    options: dict[str, Any] = {"params_digest": params_digest, "bound": "agent" if bound else None}
    options["expect_person"] = expect_person
    if certificate is not None:
        options["certificate"] = _certificate(certificate)
    got = remote.public(socket, lambda client: client.get_token(task, resource, tuple(action or ()), **options))
    value = {
        "access_token": got.token,
        "token_type": got.token_type,
        "issued_token_type": got.issued_type,
        "resource": got.resource,
        "actions": list(got.actions),
        "expires_at": moment(got.expires_at),
        "task_id": task,
        "provider": got.provider or None,
        "recall": got.recall or None,
    }
    emit(output, value, [got.token])


def proof(
    task: TaskArgument,
    url: Annotated[str, typer.Option("--url", help="The URL of the request.")],
    method: Annotated[str, typer.Option("--method", help="Its method.")] = "GET",
    nonce: Annotated[str, typer.Option("--nonce", help="That the service asked for, in its header DPoP-Nonce.")] = "",
    token_file: Annotated[
        str, typer.Option("--token-file", metavar="FILE", help="The token that goes with it. Default: standard input.")
    ] = "-",  # noqa: S107  # a file
    expect_person: ExpectPersonOption = "",
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Print the header `DPoP` of one request with a token that `sojourn task token --bound` got.

    The token is read from a file or from standard input, and never stands among the arguments.
    """
    text = read_given(token_file, TOKEN_MAX_BYTES + 2).decode("ascii", "replace").strip()
    if not text:
        raise InvalidInput("there is no token: give the output of `sojourn task token --bound`")
    with acting(expect_person):
        made = remote.public(socket, lambda client: client.create_proof(task, method, url, text, nonce or None))
    emit(output, {"proof": made, "method": method, "url": url, "task_id": task}, [made])


def digest(
    method: Annotated[str, typer.Option("--method", help="Of an HTTP request: its method.")] = "",
    target: Annotated[
        str, typer.Option("--target", help="Its target as it is sent: the path, and the query if there is one.")
    ] = "",
    content: Annotated[
        str, typer.Option("--content", metavar="FILE", help="Its content, or - for standard input. Default: none.")
    ] = "",
    tool: Annotated[str, typer.Option("--tool", help="Of a tool's call, in the place of those: the tool's name.")] = "",
    arguments: Annotated[
        str, typer.Option("--arguments", metavar="FILE", help="Its arguments, JSON, or - for standard input.")
    ] = "",
    output: OutputOption = Output.PRETTY,
) -> None:
    """Print the digest of one request, which `sojourn task token --params-digest` gets a token for. Asks no agent."""
    from sojourn.tasktoken import request_digest

    if bool(tool) == bool(method) or bool(method) != bool(target) or (tool and content) or (method and arguments):
        raise InvalidInput("name an HTTP request with --method and --target, or a tool's call with --tool")
    if tool:
        made = request_digest.of_tool(tool, _object(read_given(arguments, CONFIG_MAX_BYTES) if arguments else b"{}"))
    else:
        if not target.startswith("/"):
            raise InvalidInput(
                "the target is the request's path and query, from its first / on: services compare those"
            )
        made = request_digest.of_http(method, target, read_given(content, _CONTENT_MAX) if content else b"")
    emit(output, {"params_digest": made}, [made])


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the arguments are not JSON") from error
    if not isinstance(value, dict):
        raise InvalidInput("the arguments are not a JSON object")
    return value


def _certificate(file: Path) -> bytes:
    """The first certificate of a PEM file, DER."""
    from cryptography import x509

    from sojourn.spiffe.x509svid import DER

    try:
        return x509.load_pem_x509_certificate(read_given(str(file), CONFIG_MAX_BYTES)).public_bytes(DER)
    except ValueError as error:
        raise InvalidInput("the file has no certificate in PEM") from error
