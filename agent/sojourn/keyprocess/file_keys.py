"""Root keys that are files of the key process's own user, each in a file by its label, in clear or sealed.

The agent, which speaks with everybody on the machine, has no right to read them.
"""

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sojourn.authority import key_files
from sojourn.authority.key_seal import KeySeal
from sojourn.authority.token.building import CURVES
from sojourn.authority.token.labels import name_of, next_of, numbers_in
from sojourn.errors import CannotStart, KeysUnavailable

_ALLOWED: Final = ".-"  # in a file's name, beside letters, digits and underscores
_END: Final = ".pem"


class FileKeys:
    """The keys of a folder."""

    def __init__(self, folder: Path, seal: KeySeal | None) -> None:
        """`seal`: what they are sealed with. Raise CannotStart if others could put keys into the folder."""
        key_files.make_folder(folder)
        self._folder = folder
        self._seal = seal

    def look(self) -> None:
        """Raise KeysUnavailable if the folder is not there any more."""
        if not self._folder.is_dir():
            raise KeysUnavailable(f"the folder {str(self._folder)!r} is gone")

    def next_number(self, prefix: str) -> int:
        """One that no key has yet. Raise KeysUnavailable, FailedPrecondition."""
        try:
            names = [each.name.removesuffix(_END) for each in self._folder.iterdir() if each.name.endswith(_END)]
        except OSError as error:
            raise KeysUnavailable(f"the folder {str(self._folder)!r} cannot be read: {error.strerror}") from error
        return next_of(numbers_in(names, name_of(prefix, _ALLOWED)), f"the folder {str(self._folder)!r}")

    def find(self, label: str) -> ec.EllipticCurvePrivateKey | None:
        """The key with a label; None: there is none. Raise KeysUnavailable, also if it cannot be used."""
        path = self._path(label)
        try:
            content = key_files.read(path, self._seal)
            if content is None:
                return None
            key = load_pem_private_key(content, None)
        except CannotStart as error:
            raise KeysUnavailable(error.public) from error
        except (ValueError, TypeError) as error:
            raise KeysUnavailable(f"{str(path)!r} is no key: restore it from a backup") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, CURVES):
            raise KeysUnavailable(f"the key in {str(path)!r} is neither P-256 nor P-384")
        return key

    def create(self, label: str, curve: ec.EllipticCurve) -> str:
        """Make a key. It has its label at once. Raise KeysUnavailable."""
        key = ec.generate_private_key(curve)
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            key_files.write(self._path(label), content, self._seal)
        except OSError as error:
            raise KeysUnavailable(f"the key cannot be written to {str(self._folder)!r}: {error.strerror}") from error
        return ""

    def name(self, label: str, made: str) -> None:
        """A key has its label already."""

    def _path(self, label: str) -> Path:
        return self._folder / (name_of(label, _ALLOWED) + _END)
