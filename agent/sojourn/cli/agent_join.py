"""`sojourn agent join` and `sojourn agent detach`: a node of a SPIRE server, and an authority of its own again."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sojourn.cli.agent import ConfigOption, DataDirOption, TrustDomainOption
from sojourn.cli.given_files import read_given
from sojourn.cli.options import Output, OutputOption
from sojourn.cli.output import emit, moment
from sojourn.config.paths import default_config_file
from sojourn.errors import CannotStart, InvalidInput
from sojourn.extras import how_to_install

if TYPE_CHECKING:
    from sojourn.agent.joining import Joined
    from sojourn.config.model import Config

_JOIN_MAX_BYTES = 1_024
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it: without it the command says what it means.")]
_MEANS = (
    "detaching destroys this node's own SVID and what it keeps of the server, and it cannot come back by them. From its"
    " next start on the agent is its own authority: by a root of its own, which nobody elsewhere trusts until they are"
    " given it; with the entries that were registered here before, and none of the server's. SVIDs that the server has"
    " signed stay good until they end. Say --yes to do it"
)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the noun."""
    app.command("join")(join)
    app.command("detach")(detach)


def join(
    join: Annotated[
        str | None,
        typer.Argument(
            metavar="JOIN",
            help="What `sojourn token generate` printed at the server, - for standard input. With --server.",
        ),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            "--server", metavar="HOST:PORT", help="Where the server is, for an agent that has no configuration yet."
        ),
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    trust_domain: TrustDomainOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Join the SPIRE server that the configuration names in [upstream], while the agent is stopped.

    Checks the bundle, whether a server answers, and whether it attests this agent. What it is given is kept for the
    next start of the agent, so that a join token is not lost. On a node it makes sure that the server still takes it
    for one.

    With --server it writes the configuration, too, of an agent that has none: by what `sojourn token generate` printed
    behind `join`. Who answers there is believed if it is the server at which that was printed.
    """
    if join is not None or server:
        found, loaded = _first(join, server or [], config, data_dir)
    else:
        from sojourn.agent.joining import join as joining

        loaded = _config(config, data_dir, trust_domain)
        found = joining(loaded)
    command = (
        f"spire-server entry create -parentID {found.node_id}"
        f" -spiffeID spiffe://{loaded.trust_domain}/NAME -selector unix:uid:{os.getuid()}"
    )
    value = {
        "node_id": str(found.node_id),
        "server": found.server,
        "svid_until": moment(int(found.svid_ends.timestamp())),
        "reattestable": found.reattestable,
        "entries": found.entries,
        "was_node": found.before,
        "entry_create": command,
        "caution": found.caution,
    }
    again = "" if found.reattestable else "; once it has ended, another join token is needed"
    lines = [
        *([f"CAUTION    {found.caution}"] if found.caution else []),
        f"{'is' if found.before else 'joined as'} {found.node_id} at {found.server}",
        f"its SVID is good until {value['svid_until']}, and is renewed by the running agent{again}",
        f"entries    {found.entries}; another one, at the server:",
        f"  {command}",
        "next       start the agent: it goes on as this node",
    ]
    emit(output, value, lines)


def detach(
    yes: YesOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    trust_domain: TrustDomainOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Be a node no more, while the agent is stopped: it is its own authority from its next start on.

    Take the table [upstream] out of the configuration first. Without --yes it says what that means, and does nothing.
    """
    loaded = _config(config, data_dir, trust_domain)
    if not yes:
        raise InvalidInput(_MEANS)
    from sojourn.agent.joining import detach as detaching

    found = detaching(loaded)
    name = None if found.node_id is None else str(found.node_id)
    value = {"node_id": name, "new_root": found.new_root}
    lines = [f"detached {name or 'what was kept of a node'}: what it kept is destroyed"]
    if name is not None:
        lines.append(f"at the server: spire-server agent evict -spiffeID {name}")
    root = "makes a root" if found.new_root else "uses the root of before"
    lines.append(f"the next start {root}; `sojourn entry list` then shows what was registered here before")
    emit(output, value, lines)


def _first(text: str | None, servers: list[str], config: Path | None, data_dir: str | None) -> "tuple[Joined, Config]":
    """Join by what a server's operator has printed, and leave a configuration behind, or nothing if that fails."""
    from sojourn.config.paths import CONFIG_NAME, config_dir
    from sojourn.upstream.join_string import JoinString

    if text is None or not servers:
        raise InvalidInput(
            "JOIN and --server go together: what `sojourn token generate` printed, and where that server is"
        )
    given = read_given(text, _JOIN_MAX_BYTES).decode(errors="replace") if text == "-" else text
    said, folder = JoinString.parse(given), config_dir()
    if config is None and folder is None:
        raise InvalidInput("--config says where the configuration is to be written: this user has no folder of it")
    from sojourn.agent.first_join import FirstFiles, prepare
    from sojourn.agent.joining import join as joining

    files = FirstFiles((config or (folder or Path()) / CONFIG_NAME).absolute())
    made = prepare(files, servers, said, lambda path: _config(path, data_dir, None))
    try:
        return joining(made), made
    except BaseException:
        files.remove()
        raise


def _config(config: Path | None, data_dir: str | None, trust_domain: str | None) -> "Config":
    """The configuration as the agent would have it."""
    try:
        from sojourn.runtime.lean_imports import import_structlog

        import_structlog()
        from sojourn.config.load import load
        from sojourn.runtime import logs
    except ModuleNotFoundError as error:
        raise CannotStart(
            f"the daemon's libraries are not installed ({error.name} is not there): {how_to_install('agent')}"
        ) from None
    logs.silence()
    flags = {"data_dir": data_dir, "trust_domain": trust_domain}
    return load(config or default_config_file(), flags, server=False).config
