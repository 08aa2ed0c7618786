"""The names that people have at one service each, so that two services cannot tell that they know the same person."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from pathlib import Path

from sojourn.authority.key_files import RandomKey
from sojourn.authority.key_seal import KeySeal
from sojourn.tasktoken.person_claims import PersonClaims

PAIRWISE_KEY = "pairwise.key"  # in the folder of the keys


class PairwiseNames:
    """Names people by a key of the agent's own, which is made at first use, in a folder that must be there by then.

    Without the key nobody finds a person by their name, and with another key everybody has another name.
    """

    def __init__(self, path: Path, seal: KeySeal | None = None) -> None:
        """Read the key if there is one. `seal`: what keys are sealed with, if they are.

        Raise CannotStart if others could have read it, or it is none.
        """
        self._key = RandomKey(path, "people are named with", "people get new names", seal)

    async def prepare(self) -> None:
        """Have a key, on disk. Raise StoreFailed if it cannot be written."""
        await self._key.prepare()

    def name(self, audience: str, person: PersonClaims, issuer: str) -> PersonClaims:
        """The person as this audience knows them: their subject is the name, and who gives it (`issuer`) is we.

        `prepare` was awaited before. Raise StoreFailed.
        """
        said = json.dumps([audience, person.issuer, person.subject]).encode()
        name = urlsafe_b64encode(hmac.digest(self._key.value, said, hashlib.sha256)).rstrip(b"=").decode()
        return person._replace(issuer=issuer, subject=name, prefix="")
