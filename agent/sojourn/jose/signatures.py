"""Tokens whose signatures were good, so that one that comes back is not checked and read again."""

from collections import OrderedDict

from sojourn.jose.jws import PublicKey, UnverifiedJws, parse_unverified
from sojourn.limits import SIGNATURES_KEPT


class Signatures:
    """Remembers the last tokens whose signatures were good, each with the key that made it.

    The last `read` tokens that came back are kept as they were read: a text reads the same each time.
    """

    def __init__(self, room: int = SIGNATURES_KEPT, read: int = 0) -> None:
        self._room = room
        self._read_room = read
        self._good: OrderedDict[str, PublicKey] = OrderedDict()
        self._read: OrderedDict[str, UnverifiedJws] = OrderedDict()

    def parse_unverified(self, token: str) -> UnverifiedJws:
        """As the function of that name; what it gives is not to be changed. Nothing is said of the signature."""
        return self._read.get(token) or parse_unverified(token)

    def came_back(self, token: str) -> UnverifiedJws | None:
        """A token that came before, as it was read then; None: it is none of the last. Nothing is said of its
        signature now: its key may be no key any more.
        """
        return self._read.get(token)

    def __len__(self) -> int:
        return len(self._good)

    def check(self, unverified: UnverifiedJws, key: PublicKey) -> None:
        """UnverifiedJws.check_signature, which is not done again for the very same token and key."""
        if self._good.get(unverified.text) is key:
            self._good.move_to_end(unverified.text)
        else:
            unverified.check_signature(key)
            self.made(unverified.text, key)
        self._read[unverified.text] = unverified
        self._read.move_to_end(unverified.text)
        if len(self._read) > self._read_room:
            self._read.popitem(last=False)

    def made(self, token: str, key: PublicKey) -> None:
        """The signature of a token is good, and was made by this key."""
        self._good[token] = key
        if len(self._good) > self._room:
            self._good.popitem(last=False)
