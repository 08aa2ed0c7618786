"""The agent's keys on disk at a start: sealed or in clear, as the configuration has it."""

from typing import Final

import structlog

from sojourn.audit.journal import Audit
from sojourn.authority import keys_at_rest
from sojourn.authority.key_seal import KeySeal
from sojourn.config.model import Config
from sojourn.files.data_folder import KEYS, NODE, NODE_KEY, UPSTREAM

log = structlog.get_logger()
FOLDERS: Final = (KEYS, NODE, NODE_KEY, UPSTREAM)  # of the data folder, in which keys lie


class KeySealing:
    """What keys are sealed with in this run, and which files had to be changed for that."""

    def __init__(self, config: Config) -> None:
        """Raise KeysSealed, or CannotStart, if keys cannot be opened or written."""
        given = None if config.keys.seal_key is None else KeySeal.at(config.keys.seal_key)
        self._sealed = config.keys.manager == "sealed" or (config.keys.manager == "pkcs11" and given is not None)
        self.seal = given if self._sealed else None
        self._changed = [
            name
            for folder in FOLDERS
            for name in keys_at_rest.settle(config.data_dir / folder, given, sealed=self._sealed)
        ]

    def tell(self, audit: Audit) -> None:
        """Say which keys lie otherwise on disk from now on."""
        if self._changed:
            event = "keys_sealed" if self._sealed else "keys_unsealed"
            files = ", ".join(self._changed)
            log.warning(event, files=files)
            audit.note(event, files=files)
