"""Becoming a node where nothing is configured yet: by the one text that the server's operator has given."""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sojourn.config.model import Config
from sojourn.errors import AlreadyExists, CannotStart
from sojourn.files import atomic
from sojourn.spireapi import bound_key
from sojourn.upstream.first_bundle import bundle_at
from sojourn.upstream.join_string import JoinString


@dataclass(frozen=True, slots=True)
class FirstFiles:
    """The files that a node's configuration is: itself, the bundle and the token, side by side."""

    config: Path

    @property
    def bundle(self) -> Path:
        return self.config.with_name(f"{self.config.stem}-bundle.pem")

    @property
    def token(self) -> Path:
        return self.config.with_name(f"{self.config.stem}-join-token")

    def check_free(self) -> None:
        """Raise AlreadyExists if one is there: nothing of an operator's is written over."""
        for each in (self.config, self.bundle, self.token):
            if os.path.lexists(each):
                raise AlreadyExists(
                    f"{str(each)!r} is there already: name another file with --config, or, if it is a node's, run"
                    " `sojourn agent join` without --server"
                )

    def remove(self) -> None:
        """What was written for nothing is gone again."""
        for each in (self.config, self.bundle, self.token):
            with suppress(OSError):
                each.unlink()


def prepare(files: FirstFiles, servers: Sequence[str], said: JoinString, load: Callable[[Path], Config]) -> Config:
    """Write a node's configuration, with the bundle of the server, and return it as `load` reads it.

    Raise AlreadyExists if there is one, CannotStart if it cannot be written, InvalidConfig, and what `bundle_at` does.
    Nothing is left of it then.
    """
    files.check_free()
    bundle = asyncio.run(bundle_at(servers[0], said))
    attestor = bound_key.TYPE if said.token.startswith(bound_key.TOKEN_PREFIX) else "join_token"
    text = (
        f"trust_domain = {json.dumps(said.trust_domain.name)}\n\n"
        f"[upstream]  # this agent is a node of a server\n"
        f'kind = "spire"\nservers = {json.dumps(list(servers))}\nbundle = {json.dumps(files.bundle.name)}\n'
        f'attestor = "{attestor}"\ntoken_file = {json.dumps(files.token.name)}  # used up by joining\n'
    )
    try:
        atomic.write(files.bundle, bundle.x509_pem, 0o644)
        atomic.write(files.token, f"{said.token}\n".encode(), 0o600)
        atomic.write(files.config, text.encode(), 0o644)
        return load(files.config)
    except OSError as error:
        files.remove()
        raise CannotStart(f"the configuration cannot be written at {str(files.config)!r}: {error.strerror}") from error
    except BaseException:
        files.remove()
        raise
