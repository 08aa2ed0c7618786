"""The attestor `bound_key` of a node: a key of its own, which a token has bound to its name at the server.

What it has lies sealed in a folder of its own, and is on disk before the server hears of it: whatever is broken off,
the next join goes on. A node that has a token which it has not used yet makes another key for that.
"""

import asyncio
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from sojourn.authority.key_seal import KeySeal
from sojourn.errors import InvalidInput, SojournError, StoreFailed, told_as
from sojourn.files.token_file import token_in
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spireapi import bound_key as messages
from sojourn.spireapi.bound_key import Answer, Asked, digest_of
from sojourn.upstream.sealed_files import SealedFiles

log = structlog.get_logger()
_FILE: Final = "bound"


@dataclass(frozen=True, repr=False)
class Binding:
    """A key, and what tells it from its copies. `token`: the digest of the token that binds it; `name`: as which node,
    empty as long as that is not known. The server knows it by `stamp`, or by `following` if it has heard of that; None:
    there is none.
    """

    key: ec.EllipticCurvePrivateKey
    token: str = ""
    name: str = ""
    stamp: bytes | None = None
    following: bytes | None = None

    @property
    def held(self) -> tuple[bytes, ...]:
        return tuple(each for each in (self.stamp, self.following) if each is not None)


@dataclass(frozen=True, repr=False)
class Kept:
    """What is on disk: the key by which this is a node, and one by which it wants to become one by another token."""

    bound: Binding | None = None
    wanted: Binding | None = None


@dataclass(frozen=True, repr=False)
class BoundKey:
    """One attestation by a binding, whose `following` is there. `token`: empty: it is by the key alone."""

    binding: Binding
    trust_domain: str
    taken: Callable[[Binding], None]
    token: str = ""
    name: str = ""  # as which node it is known
    type: str = messages.TYPE

    @property
    def _asked(self) -> Asked:
        return Asked(self.binding.key.public_key(), self.token, self.name)

    @property
    def payload(self) -> bytes:
        return self._asked.text()

    def answer(self, challenge: bytes) -> bytes:
        theirs, ours = messages.nonce_of(challenge), os.urandom(messages.NONCE_BYTES)
        assert self.binding.following is not None  # it is made with one
        following = bytes.fromhex(digest_of(self.binding.following))
        said = messages.proof(self.trust_domain, theirs, ours, self._asked, following)
        signature = self.binding.key.sign(said, ec.ECDSA(hashes.SHA256()))
        return Answer(ours, signature, self.binding.held, following).text()

    def taken_as(self, spiffe_id: SpiffeId) -> None:
        name = spiffe_id.path.rpartition("/")[2]
        self.taken(replace(self.binding, name=name, stamp=self.binding.following, following=None))


class BoundKeyFiles:
    """Makes them of what is on disk, and of a token in a file if there is one. For threads, of which one is in it at a
    time.
    """

    def __init__(self, folder: Path, trust_domain: TrustDomain, token_file: Path | None, seal: KeySeal | None) -> None:
        """`seal`: what keys are sealed with on disk, if they are."""
        self._folder = folder
        self._trust_domain = trust_domain
        self._token_file = token_file
        self._seal = seal
        self._sealed: SealedFiles | None = None
        self._tried = ""  # the digest of the token with which it was tried last

    def __call__(self) -> BoundKey:
        """Raise InvalidInput if there is neither a key nor a token, and CannotStart, FileUnreadable or StoreFailed if
        what is kept cannot be read or written.
        """
        files, kept = self._files(), self._read()
        token = self._token(kept)
        digest = digest_of(token.encode()) if token else ""
        # A token that is no good must not keep a node from its key, nor a key that is locked from a token: they take
        # turns until one is taken.
        if digest and kept.bound is not None and digest in {kept.bound.token, self._tried}:
            token = digest = ""
        self._tried = digest
        if digest:
            known = kept.wanted is not None and kept.wanted.token == digest
            chosen = kept.wanted if known else Binding(ec.generate_private_key(ec.SECP256R1()), digest)
        else:
            chosen = kept.bound or kept.wanted
        if chosen is None:
            raise InvalidInput(
                "this agent has no key that is bound to a node's name: set token_file to a file with a token of"
                " `sojourn token generate --bound`"
            )
        chosen = replace(chosen, following=chosen.following or os.urandom(messages.STAMP_BYTES))
        is_bound = not digest and kept.bound is not None
        name = "" if kept.bound is None else kept.bound.name
        self._write(files, replace(kept, bound=chosen) if is_bound else replace(kept, wanted=chosen))
        return BoundKey(chosen, self._trust_domain.name, self._taken, token, name)

    def _taken(self, binding: Binding) -> None:
        """The server knows this node by a binding. If that cannot be written, what is on disk is good once more."""
        try:
            self._write(self._files(), Kept(binding))
        except SojournError as error:
            log.error("node_not_kept", file=_FILE, reason=error.public)

    def _token(self, kept: Kept) -> str:
        """The token in the file, if there is one. Raise InvalidInput if it cannot be read, and there is no key."""
        if self._token_file is None:
            return ""
        try:
            with told_as(InvalidInput, str(self._token_file)):
                token = token_in(self._token_file)
                if not token.startswith(messages.TOKEN_PREFIX):
                    raise InvalidInput("the token binds no key: make one with `sojourn token generate --bound`")
        except InvalidInput:
            if kept.bound is None and kept.wanted is None:
                raise
            return ""  # it may be gone: it was good once
        return token

    # --- on disk ----------------------------------------------------------------------------------------------------

    def _files(self) -> SealedFiles:
        if self._sealed is None:
            self._sealed = SealedFiles(self._folder, f"bound_key {self._trust_domain.name}", self._seal)
        return self._sealed

    def _read(self) -> Kept:
        """Raise FileUnreadable, InvalidInput: a new key in the place of one that cannot be read would be no node's."""
        text = self._files().read(_FILE)
        if text is None:
            return Kept()
        try:
            found = json.loads(text)
            return Kept(*(None if each is None else _binding(each) for each in (found["bound"], found["wanted"])))
        except (ValueError, TypeError, KeyError, UnsupportedAlgorithm) as error:
            raise InvalidInput(f"what is kept in {str(self._folder)!r} cannot be read") from error

    def _write(self, files: SealedFiles, kept: Kept) -> None:
        """Raise StoreFailed."""
        asyncio.run(files.prepare())  # this is a thread, which has no loop
        said = {name: None if each is None else _text(each) for name, each in vars(kept).items()}
        try:
            files.write(_FILE, json.dumps(said).encode())
        except OSError as error:
            raise StoreFailed(f"the node's key cannot be kept in {str(self._folder)!r}: {error.strerror}") from error


def _text(binding: Binding) -> dict[str, Any]:
    key = binding.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    stamps = {"stamp": binding.stamp, "following": binding.following}
    said = {name: None if each is None else b64encode(each).decode() for name, each in stamps.items()}
    return {"key": b64encode(key).decode(), "token": binding.token, "name": binding.name, **said}


def _binding(found: dict[str, Any]) -> Binding:
    key = load_der_private_key(b64decode(found["key"], validate=True), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("its key is of another kind")
    stamps = (None if found[each] is None else b64decode(found[each], validate=True) for each in ("stamp", "following"))
    return Binding(key, str(found["token"]), str(found["name"]), *stamps)
