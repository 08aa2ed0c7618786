"""Roots whose keys are in a token, as the configuration has it: the process that uses them, and what is told of it."""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from sojourn.audit.journal import Audit
from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.authority.file_root import FileRoot
from sojourn.authority.key_seal import KeySeal
from sojourn.authority.token.key_process import KeyProcess
from sojourn.authority.token.pin import PinRecord
from sojourn.authority.token.places import (
    AwsKmsPlace,
    FolderPlace,
    HeldPlace,
    Pkcs11Place,
    Place,
    ServicePlace,
    TransitPlace,
)
from sojourn.authority.token.settings import TokenSettings
from sojourn.authority.token.token_roots import RootMaker, TokenRoots
from sojourn.config.model import Config
from sojourn.errors import CannotStart
from sojourn.extras import how_to_install
from sojourn.files.data_folder import KEYS
from sojourn.providers.provider import Mint
from sojourn.runtime.clock import Clock
from sojourn.settings.keys import KeysConfig
from sojourn.spiffe.ids import TrustDomain

log = structlog.get_logger()
TRIED_PIN: Final = "tried-pin"


class TokenKeys:
    """The token of this agent."""

    def __init__(self, config: Config, trust_domain: TrustDomain, audit: Audit, clock: Clock, mint: Mint) -> None:
        """`mint` makes JWT-SVIDs of the agent. Raise CannotStart if a library that it takes is not installed."""
        folder, place = config.data_dir / KEYS, _place(config)
        settings = settings_of(config, trust_domain, place)
        audience = place.audience if isinstance(place, TransitPlace | ServicePlace) else None
        login = None if audience is None else partial(mint, audience, algorithm="ES256")
        self._audit = audit
        self._clock = clock
        self.process = KeyProcess(settings, PinRecord(folder / TRIED_PIN), clock, login)
        self.maker = RootMaker(self.process, settings, folder, self._told)
        if config.keys.seal_key is None and config.keys.manager != "file":
            log.warning("keys_in_clear", token=place.label)

    def root(self, own: FileRoot) -> TokenRoots:
        return TokenRoots(own, self.process, self._told, self._clock)

    def follow(self, authority: EmbeddedAuthority) -> None:
        """Look from now on whether the token is there; when it is back, what waits for it is asked at once."""
        self.process.on_back(authority.hurry)
        self.process.watch()

    def _told(self, what: str, root_id: str) -> None:
        self._audit.note("root_signed", what=what, authority_id=root_id)


def token_keys_of(
    config: Config, trust_domain: TrustDomain, audit: Audit, clock: Clock, mint: Mint
) -> TokenKeys | None:
    """Those that the configuration has, if any. Raise CannotStart."""
    if config.keys.socket is None and config.keys.manager in {"file", "sealed"}:
        return None
    return TokenKeys(config, trust_domain, audit, clock, mint)


def settings_of(config: Config, trust_domain: TrustDomain, place: Place) -> TokenSettings:
    """What is built by the keys of a place."""
    return TokenSettings(
        place=place,
        trust_domain=trust_domain,
        node=config.node_id.path.rpartition("/")[2],
        key_type=config.authority.key_type,
        root_ttl=config.authority.root_ttl,
        issuer_ttl=config.authority.issuer_ttl,
    )


def place_of(keys: KeysConfig, folder: Path, seal: KeySeal | None) -> HeldPlace:
    """Where the configuration has the keys of roots: with managers of files in this folder, sealed by this.

    Raise CannotStart if the library that speaks to the place is not installed.
    """
    if keys.openbao is not None:
        return TransitPlace(keys.openbao)
    if keys.aws_kms is not None:
        _check_installed(keys.manager, "botocore", "kms")
        return AwsKmsPlace(keys.aws_kms, keys.environment)
    if keys.manager != "pkcs11":
        return FolderPlace(str(folder), seal)
    assert keys.module is not None
    assert keys.token is not None
    assert keys.pin_file is not None
    _check_installed(keys.manager, "pkcs11", "pkcs11")
    return Pkcs11Place(str(keys.module), keys.token, str(keys.pin_file), keys.environment, keys.network)


def _place(config: Config) -> Place:
    """What the agent asks: a key process that is a service of its own, or one that it starts."""
    keys = config.keys
    if keys.socket is None:
        return place_of(keys, config.data_dir, None)
    return ServicePlace(str(keys.socket), None if keys.openbao is None else TransitPlace(keys.openbao).audience)


def _check_installed(manager: str, library: str, extra: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise CannotStart(f'keys.manager = "{manager}" needs the extra {extra!r}: {how_to_install(f"agent,{extra}")}')
