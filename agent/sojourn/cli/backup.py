"""`sojourn backup`: backups of the data folder, made beside an agent that runs or not, and looking at one."""

import hashlib
import os
import stat
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli.agent import ConfigOption, DataDirOption
from sojourn.cli.options import Output, OutputOption
from sojourn.cli.output import emit, moment
from sojourn.errors import InvalidInput

app = typer.Typer(no_args_is_help=True)
_PASSPHRASE_MAX = 4096
_POLITE = 10
_SEAL_KEY = "seal-key"

PassphraseOption = Annotated[
    str | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="The file with the passphrase, or - for standard input. Default: it is asked for on the terminal.",
    ),
]


SealKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--seal-key",
        metavar="FILE",
        help="The key that the agent's keys are sealed with on disk. Default: the file that keys.seal_key names.",
    ),
]


@app.command()
def create(
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE", help="The backup; or a folder, in which it has a name of its own.")
    ],
    passphrase_file: PassphraseOption = None,
    keep: Annotated[
        int, typer.Option("--keep", metavar="N", min=1, max=10_000, help="In a folder: how many backups stay there.")
    ] = 30,
    seal_key: SealKeyOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Make a backup of the agent's database and keys, sealed with a passphrase. The agent may run meanwhile."""
    from sojourn.backup import create as making

    folder = data_folder(config, data_dir)
    passphrase = read_passphrase(passphrase_file, again=True)
    digest = "" if config is None else hashlib.sha256(config.read_bytes()).hexdigest()
    at, target = time.time(), to
    if to.is_dir():
        target = making.name_in(to, making.trust_domain_in(folder), at)
    seal = seal_of(seal_key, config, data_dir)
    _give_way()
    made = making.create(folder, target, passphrase, digest, seal)
    gone = making.prune(to, made.manifest.trust_domain, keep) if to.is_dir() else []
    value: dict[str, Any] = {
        **manifest_value(made.manifest),
        "file": str(made.path),
        "size": made.written.size,
        "sha256": made.written.sha256,
        "removed": list(map(str, gone)),
        "root_in_token": made.root_in_token,
    }
    apart = (
        "the root's key is not in it: it is in the token, which has to be there where this is restored"
        if made.root_in_token
        else "keep it and its passphrase apart: both together are the trust domain's root key"
    )
    lines = [
        f"made {value['file']}: {value['size']} bytes, SHA-256 {value['sha256']}",
        *(f"removed {each}" for each in value["removed"]),
        apart,
    ]
    emit(output, value, lines)


def _give_way() -> None:
    """The agent's callers are not to wait for a backup that is made beside it, nor somebody for a backup without end.

    A priority below which there is more: at the lowest, as its unit has it, a busy machine takes minutes for it.
    """
    os.nice(_POLITE)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")],
    passphrase_file: PassphraseOption = None,
    sealed: Annotated[
        bool, typer.Option("--sealed", help="Without its passphrase: whether it is whole, and not whether it opens.")
    ] = False,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Check a backup without an agent: that it is as it was written, and that it opens. Exit status 1 if not."""
    from sojourn.backup import restore as restoring

    if sealed and passphrase_file is not None:
        raise InvalidInput("--sealed and --passphrase-file exclude each other")
    passphrase = None if sealed else read_passphrase(passphrase_file)
    found = restoring.check(file, passphrase)
    value: dict[str, Any] = {
        **manifest_value(found),
        "file": str(file),
        "opened": passphrase is not None,
        "restorable": restoring.is_restorable(found.schema, found.readable_by),
    }
    lines = [
        f"whole{', and opens' if value['opened'] else ''}",
        f"trust domain {value['trust_domain']}, made {value['created_at']} by Sojourn {value['release']}",
        f"journal until record {value['journal_seq']} of {value['journal_at'] or 'no time'}",
    ]
    if not value["restorable"]:
        lines.append(f"this release cannot restore it: it is of a newer one (schema {value['schema']})")
    emit(output, value, lines)


def manifest_value(found: Any) -> dict[str, Any]:
    """What a backup says of itself, as it is printed."""
    return {
        "created_at": moment(found.created_at),
        "release": found.release,
        "trust_domain": found.trust_domain,
        "schema": found.schema,
        "readable_by": found.readable_by,
        "epoch": found.epoch,
        "journal_seq": found.journal.seq,
        "journal_at": moment(found.journal.at_ms / 1000),
        "journal_digest": found.journal.digest,
        "config_digest": found.config_digest or None,
        "parts": [{"name": each.name, "size": each.size, "sha256": each.sha256} for each in found.parts],
    }


def data_folder(config: Path | None, data_dir: str | None) -> Path:
    """The agent's data folder, as the agent finds it. Where it is named nothing else need be right."""
    from sojourn.config.load import load

    if data_dir:
        return Path(data_dir).absolute()
    return load(config, {"data_dir": data_dir}, in_service=False).config.data_dir


def seal_of(seal_key: Path | None, config: Path | None, data_dir: str | None) -> Any:
    """What keys are sealed with: by the option, by systemd's credential `seal-key`, or by the configuration; None: by
    nothing that is known. Raise CannotStart if that cannot be read.
    """
    from sojourn.authority.key_seal import KeySeal
    from sojourn.config.load import load
    from sojourn.config.paths import default_config_file

    given = Path(os.environ.get("CREDENTIALS_DIRECTORY") or "/nonexistent", _SEAL_KEY)
    if seal_key is None and given.exists():
        seal_key = given
    if seal_key is None and not (data_dir and config is None):  # where the folder is named nothing else need be right
        named = load(config or default_config_file(), {"data_dir": data_dir}, in_service=False).config.keys.seal_key
        seal_key = named if named is not None and named.is_absolute() else None
    return None if seal_key is None else KeySeal.at(seal_key)


def read_passphrase(file: str | None, *, again: bool = False) -> bytes:
    """The passphrase: what is in a file, without the end of its line, or what is typed, twice with `again`.

    Raise InvalidInput.
    """
    if file is None:
        return _typed(again=again)
    content = sys.stdin.buffer.read(_PASSPHRASE_MAX + 1) if file == "-" else _content(Path(file))
    if len(content) > _PASSPHRASE_MAX:
        raise InvalidInput(f"the passphrase has more than {_PASSPHRASE_MAX} bytes")
    return content.removesuffix(b"\n").removesuffix(b"\r")


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            if stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o007:
                raise InvalidInput(f"the passphrase's file {str(file)!r} can be read by everybody: chmod o-rwx it")
            return opened.read(_PASSPHRASE_MAX + 1)
    except OSError as error:
        raise InvalidInput(f"the passphrase's file {str(file)!r} cannot be read: {error.strerror}") from error


def _typed(*, again: bool) -> bytes:
    import getpass

    if not sys.stdin.isatty():
        raise InvalidInput("there is no terminal to ask for the passphrase on: give --passphrase-file")
    typed = getpass.getpass("passphrase of the backup: ")
    if again and typed != getpass.getpass("once more: "):
        raise InvalidInput("these were two different passphrases")
    return typed.encode()
