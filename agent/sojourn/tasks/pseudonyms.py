"""What records call the people whom tasks are for: nobody reads from it who that is without the agent's key.

A pseudonym is HMAC-SHA256 of `iss` and `sub` under a key of the agent's own. Whoever deletes the key makes all records
of before nobody's.
"""

import hmac
import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from sojourn.authority import key_files
from sojourn.authority.key_seal import KeySeal
from sojourn.errors import CannotStart
from sojourn.limits import PEOPLE_NAMED_KEPT
from sojourn.people.person import PSEUDONYM_PREFIX, Person
from sojourn.tasks.for_person import ForPerson

PEOPLE_KEY = "people.key"  # in the folder of keys
_KEY_BYTES = 32
_SHOWN_BYTES = 16  # 128 bits: no two people are called the same, and no key is guessed from it


class Pseudonyms:
    """Names people for records."""

    def __init__(self, key: bytes, plain: Collection[str] = ()) -> None:
        """`plain`: names of issuers whose people audit records name as they are; nothing else does."""
        self._key = key
        self._plain = frozenset(plain)
        self._named = lru_cache(PEOPLE_NAMED_KEPT)(self._named_anew)

    @classmethod
    def of_this_run(cls) -> "Pseudonyms":
        """By a key that is in no file."""
        return cls(secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def at(cls, path: Path, plain: Collection[str] = (), seal: KeySeal | None = None) -> "Pseudonyms":
        """By the key in a file, which is made if there is none. `seal`: what keys are sealed with, if they are.

        Raise CannotStart if others could have read it, if it is none, or if it cannot be written.
        """
        key = key_files.read(path, seal)
        if key is not None and len(key) != _KEY_BYTES:
            raise CannotStart(f"key file {str(path)!r} is damaged: restore it, or remove it, and another is made")
        if key is None:
            key = secrets.token_bytes(_KEY_BYTES)
            try:
                key_files.write(path, key, seal)
            except OSError as error:
                raise CannotStart(f"key file {str(path)!r} cannot be written: {error.strerror}") from error
        return cls(key, plain)

    @property
    def key_of_inputs(self) -> bytes:
        """Another key that follows from this one: for digests of what was decided on."""
        return hmac.digest(self._key, b"inputs of decisions", "sha256")

    @property
    def key_of_sessions(self) -> bytes:
        """Another key that follows from this one: for digests of sessions that have ended."""
        return hmac.digest(self._key, b"ended sessions", "sha256")

    def is_plain(self, issuer: str) -> bool:
        """Whether audit records name the people of an issuer of the configuration as they are."""
        return issuer in self._plain

    def of(self, person: Person, pseudonym: str = "") -> str:
        """What audit records call this person. `pseudonym`: theirs, where it is known."""
        if self.is_plain(person.issuer):
            return person.name
        return pseudonym or self.of_person(person)

    def shown(self, whom: ForPerson | None) -> dict[str, str]:
        """Whom a task is for, as the field of its audit records; none, if it is for nobody."""
        return {} if whom is None else {"person": self.of(whom.person, whom.pseudonym)}

    def of_person(self, person: Person) -> str:
        """Their pseudonym."""
        return self.named(person.url, person.subject)

    def named(self, url: str, subject: str) -> str:
        """The pseudonym of whoever has this `sub` at the issuer with this `iss`."""
        return self._named(url, subject)

    def _named_anew(self, url: str, subject: str) -> str:
        both = json.dumps([url, subject]).encode()  # an array: where one ends is not for them to say
        digest = hmac.digest(self._key, both, "sha256")[:_SHOWN_BYTES]
        return PSEUDONYM_PREFIX + urlsafe_b64encode(digest).rstrip(b"=").decode()
