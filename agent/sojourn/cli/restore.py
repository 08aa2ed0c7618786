"""`sojourn restore`: putting a backup in the place of what is in the data folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli.agent import ConfigOption, DataDirOption
from sojourn.cli.backup import PassphraseOption, SealKeyOption, data_folder, read_passphrase, seal_of
from sojourn.cli.options import Output, OutputOption
from sojourn.cli.output import emit, moment


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup, or a copy in the data folder's before/.")],
    passphrase_file: PassphraseOption = None,
    new_root: Annotated[
        bool, typer.Option("--new-root", help="Make a new root key: then no X.509-SVID of before verifies anywhere.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Also where the data folder knows of more than the backup.")
    ] = False,
    seal_key: SealKeyOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Restore a backup while the agent is stopped. At its next start no token of before is good any more."""
    from sojourn.backup import restore as restoring
    from sojourn.backup.restoration import UNKNOWN

    folder = data_folder(config, data_dir)
    bare = passphrase_file is None and restoring.is_database(file)
    passphrase = None if bare else read_passphrase(passphrase_file)
    found = restoring.restore(
        file, folder, passphrase, new_root=new_root, accept_loss=accept_loss, seal=seal_of(seal_key, config, data_dir)
    )
    note = found.note
    value: dict[str, Any] = {
        "file": note.file,
        "trust_domain": found.trust_domain,
        "schema": found.state.schema,
        "made_at": moment(note.made_at),
        "restored_at": moment(note.restored_at),
        "unknown_after": moment(note.made_at),
        "unknown_until": moment(note.lost_until or note.restored_at),
        "unknown": list(UNKNOWN),
        "lost_records": None if note.lost_records < 0 else note.lost_records,
        "lost": [{"event": event, "count": count} for event, count in sorted(found.lost.items())],
        "new_root": note.new_root,
        "data_dir": str(folder),
    }
    lines = [
        f"restored {value['file']} of trust domain {value['trust_domain']}, as of {value['made_at']}",
        f"unknown from then until {value['unknown_until']}: {', '.join(UNKNOWN)}",
        *(f"  lost: {each['count']} {each['event']}" for each in value["lost"]),
        "start the agent; revoke and block again what must stay so; make sure of what was registered",
    ]
    emit(output, value, lines)
