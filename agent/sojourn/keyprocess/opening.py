"""Opening the place of the keys, in the key process: logging in to a token, or making what asks a service."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sojourn.authority.token.building import Builder
from sojourn.authority.token.messages import fields
from sojourn.authority.token.pin import TriedPin, read_pin
from sojourn.authority.token.places import AwsKmsPlace, FolderPlace, Pkcs11Place, TransitPlace
from sojourn.authority.token.settings import TokenSettings
from sojourn.errors import PinRefused
from sojourn.keyprocess.file_keys import FileKeys

if TYPE_CHECKING:
    from sojourn.keyprocess.aws_kms import AwsKms
    from sojourn.keyprocess.transit import Transit

LoggedIn = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Opened:
    """`look` raises KeysUnavailable if the place is not there any more. `logged_in` is what each question of `builder`
    is done within: it is given the agent's JWT-SVID, or "" where the place asks for none.
    """

    builder: Builder
    look: Callable[[], None]
    logged_in: LoggedIn = lambda _: nullcontext()


@dataclass(frozen=True)
class Found:
    """The place of the keys, before anything is tried there.

    `pin`: what is to be recorded before `finish`, which tries it; None: there is no PIN. `finish` is given a JWT-SVID
    of the agent's, or "", and raises KeysUnavailable, PinRefused.
    """

    pin: TriedPin | None
    finish: Callable[[str], Opened]


def asked_for(asked: Mapping[str, Any]) -> Found:
    """Find what a first question names. Raise ValueError if it is none, KeysUnavailable, PinRefused."""
    settings = TokenSettings.of({name: value for name, value in asked.items() if name != "tried"})
    known, told = None, asked.get("tried")
    if told is not None:
        salt, digest, refused = fields(told, salt=str, digest=str, refused=bool)
        known = TriedPin(settings.place.label, salt, digest, refused)
    return found(settings, known)


def found(settings: TokenSettings, known: TriedPin | None) -> Found:
    """Find the place of the keys. `known`: a PIN that was tried there before.

    Raise KeysUnavailable; PinRefused if this PIN is not to be tried.
    """
    place = settings.place
    # Each has a library of its own, which is imported where it is used alone.
    if isinstance(place, Pkcs11Place):
        return _of_token(settings, place, known or TriedPin(place.token))
    if isinstance(place, TransitPlace):
        from sojourn.keyprocess.transit import Transit

        return Found(None, partial(_log_in, settings, Transit(place.config)))
    if isinstance(place, AwsKmsPlace):
        from sojourn.keyprocess.aws_kms import AwsKms

        return Found(None, partial(_look, settings, AwsKms(place.config)))
    assert isinstance(place, FolderPlace)
    return Found(None, partial(_look, settings, FileKeys(Path(place.folder), place.seal)))


def _of_token(settings: TokenSettings, place: Pkcs11Place, known: TriedPin) -> Found:
    """A token and its PIN, which is not tried yet. Raise PinRefused if the token has refused it before."""
    given = read_pin(Path(place.pin_file))
    told = known.of(given)
    same = told.digest == known.digest
    if same and known.refused:
        raise PinRefused(
            f"the token {place.token!r} has refused this PIN before, and it is not tried again: put the right one into"
            f" {place.pin_file!r}"
        )
    from sojourn.keyprocess.library import Token

    token = Token(place.module, place.token)
    was_wrong = token.check_flags()
    if same and was_wrong:
        raise PinRefused(
            f"this PIN was tried, it is not known what came of it, and the token {place.token!r} says that the last PIN"
            f" was wrong: it is not tried again; put the right one into {place.pin_file!r}",
            detail=f"{told.salt} {told.digest}",
        )

    def finish(_: str) -> Opened:
        token.log_in(given)
        return Opened(Builder(token, settings), token.look)

    return Found(told, finish)


def _log_in(settings: TokenSettings, transit: "Transit", login: str) -> Opened:
    with transit.logged_in(login):
        transit.next_number(settings.prefix)  # who may not do that is told now, and not when a root is due
    return Opened(Builder(transit, settings), transit.look, transit.logged_in)


def _look(settings: TokenSettings, keys: "AwsKms | FileKeys", _: str) -> Opened:
    keys.look()
    return Opened(Builder(keys, settings), keys.look)
