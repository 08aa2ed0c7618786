"""A token by its PKCS#11 library, in the key process alone: no other part of Sojourn loads a vendor's code.

Keys are looked up anew each time: of a token that went away and came back every handle is invalid, and some libraries
are not usable at all. So whatever fails but for the PIN ends the process; another one begins with nothing.
"""

import hashlib
import stat
from contextlib import suppress
from typing import Any, Final

import pkcs11
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, TokenFlag
from pkcs11.constants import DEFAULT
from pkcs11.util.ec import encode_ec_public_key, encode_ecdsa_signature, encode_named_curve_parameters

from sojourn.authority.token.building import CURVES
from sojourn.authority.token.held_key import HeldKey
from sojourn.authority.token.labels import next_of, numbers_in
from sojourn.errors import FailedPrecondition, KeysUnavailable, PinRefused
from sojourn.files.path_owners import Exposed, walk

_RANDOM_BITS: Final = 64
_NAMES: Final = {256: "secp256r1", 384: "secp384r1"}
_WRONG_PIN: Final = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange)
# What the library would ask of a key beyond what the key is for: some tokens refuse a template that names it.
_LEFT_OUT: Final = dict.fromkeys(
    (
        *(Attribute.ENCRYPT, Attribute.DECRYPT, Attribute.WRAP, Attribute.UNWRAP, Attribute.DERIVE),
        *(Attribute.ENCAPSULATE, Attribute.DECAPSULATE, Attribute.MODIFIABLE),
    ),
    DEFAULT,
)


def check_module(path: str) -> None:
    """Raise KeysUnavailable unless a vendor's library is root's, and nobody else can write it, or where it lies."""
    try:
        if not path.startswith("/"):
            raise Exposed("by a name that is not absolute")
        found = walk(path, folders_of={0}, sticky_of={0})
    except OSError as error:
        raise KeysUnavailable(f"the PKCS#11 library {path!r} cannot be read: {error.strerror}") from error
    except Exposed as error:
        raise KeysUnavailable(f"the PKCS#11 library {path!r} is not to be trusted: it lies {error}") from error
    if not stat.S_ISREG(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise KeysUnavailable(f"the PKCS#11 library {path!r} must be a file of root's that nobody else can write")


class Token:
    """A token with a session in which the user is logged in."""

    def __init__(self, module: str, label: str) -> None:
        """Find the token with this label. Raise KeysUnavailable."""
        check_module(module)
        self._label = label
        try:
            self._token = pkcs11.lib(module).get_token(token_label=label)
            self.flags = self._token.flags
        except pkcs11.NoSuchToken:
            raise KeysUnavailable(f"there is no token {label!r}: is it plugged in, and its service there?") from None
        except pkcs11.MultipleTokensReturned:
            raise KeysUnavailable(f"there are several tokens {label!r}: give them labels that differ") from None
        except Exception as error:
            raise KeysUnavailable(
                f"the PKCS#11 library {module!r} has no token, or cannot be used: {_told(error)}"
            ) from error
        self._session: Any = None

    def check_flags(self) -> bool:
        """Raise KeysUnavailable if no PIN may be tried. Return whether the token says that the last one was wrong."""
        if self.flags & TokenFlag.USER_PIN_LOCKED:
            raise KeysUnavailable(f"the token {self._label!r} is locked after wrong PINs: unlock it by its own means")
        if self.flags & TokenFlag.USER_PIN_FINAL_TRY:
            raise KeysUnavailable(
                f"the token {self._label!r} takes one more PIN before it locks itself: log in by its own means first"
            )
        return bool(self.flags & TokenFlag.USER_PIN_COUNT_LOW)

    def log_in(self, pin: str) -> None:
        """Try a PIN; `check_flags` comes before. Raise PinRefused, whereupon the same one is not to be tried again, and
        KeysUnavailable if something else is wrong.
        """
        try:
            self._session = self._token.open(rw=True, user_pin=pin)
        except _WRONG_PIN as error:
            raise PinRefused(f"the token {self._label!r} refuses the PIN: {_told(error)}") from None
        except Exception as error:
            raise KeysUnavailable(f"no login to the token {self._label!r}: {_told(error)}") from error

    def look(self) -> None:
        """Raise KeysUnavailable if the token is not there any more."""
        try:
            for _ in self._session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: "-"}):
                pass
            if self._token.slot.get_token().label != self._label:
                raise KeysUnavailable(f"another token is in the place of {self._label!r}")
            # A library may know all of that without the device, as that of TPMs does: only the device has this.
            with suppress(pkcs11.RandomNoRNG, pkcs11.FunctionNotSupported):
                self._session.generate_random(_RANDOM_BITS)
        except KeysUnavailable:
            raise
        except Exception as error:
            raise KeysUnavailable(f"the token {self._label!r} is away: {_told(error)}") from error

    def next_number(self, prefix: str) -> int:
        """One that no key has yet. Raise KeysUnavailable, FailedPrecondition."""
        try:
            labels = {
                each.label or "" for each in self._session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
            }
        except Exception as error:
            raise self._failed("looking for keys", error) from error
        return next_of(numbers_in(labels, prefix), f"the token {self._label!r}")

    def find(self, label: str) -> HeldKey | None:
        """The key with a label; None: there is none. Raise KeysUnavailable, also if there are two."""
        try:
            wanted = {Attribute.KEY_TYPE: KeyType.EC, Attribute.LABEL: label}
            private = list(self._session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, **wanted}))
            public = list(self._session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, **wanted}))
            if not private:
                return None
            if len(private) > 1 or len(public) != 1:
                raise KeysUnavailable(
                    f"the token {self._label!r} has to have one private and one public key {label!r}, and has"
                    f" {len(private)} and {len(public)}"
                )
            key = load_der_public_key(encode_ec_public_key(public[0]))
        except KeysUnavailable:
            raise
        except Exception as error:
            raise self._failed(f"reading key {label!r}", error) from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
            raise KeysUnavailable(f"key {label!r} of the token {self._label!r} is neither P-256 nor P-384")

        def sign(digest: bytes, _: hashes.HashAlgorithm) -> bytes:
            try:
                return bytes(encode_ecdsa_signature(private[0].sign(digest, mechanism=Mechanism.ECDSA)))
            except Exception as error:
                raise self._failed("signing", error) from error

        return HeldKey(key, sign)

    def create(self, label: str, curve: ec.EllipticCurve) -> str:
        """Make a key that never leaves the token. It has its label at once.

        Raise FailedPrecondition if the token is there and makes none, as one that is full; KeysUnavailable.
        """
        try:
            parameters = self._session.create_domain_parameters(
                KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters(_NAMES[curve.key_size])}, local=True
            )
            parameters.generate_keypair(
                mechanism=Mechanism.EC_KEY_PAIR_GEN,
                store=True,
                label=label,
                id=hashlib.sha256(label.encode()).digest()[:16],
                capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
                public_template={**_LEFT_OUT, Attribute.SIGN: DEFAULT},
                private_template={
                    **_LEFT_OUT,
                    Attribute.VERIFY: DEFAULT,
                    Attribute.SENSITIVE: True,
                    Attribute.EXTRACTABLE: False,
                },
            )
        except Exception as error:
            self.look()
            raise FailedPrecondition(
                f"the token {self._label!r} has made no key {label!r}, and is there: has it room? ({_told(error)})"
            ) from error
        return ""

    def name(self, label: str, made: str) -> None:
        """A key has its label already."""

    def _failed(self, what: str, error: Exception) -> KeysUnavailable:
        return KeysUnavailable(f"{what} failed in the token {self._label!r}: {_told(error)}")


def _told(error: Exception) -> str:
    """What failed, by the name that PKCS#11 has for it; what a library writes of its own may have anything in it."""
    return type(error).__name__
