"""The key process: it alone has the PIN, loads the vendor's library, and signs by the keys where those are.

It has one socket, over which it is asked (messages.py), one question at a time, and ends when that does. After anything
but a question that it may not answer it ends by itself: the agent starts another, which begins with nothing.
"""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from sojourn.authority.token import messages
from sojourn.authority.token.building import Builder, encoded
from sojourn.authority.token.messages import fields, frame_of
from sojourn.errors import FailedPrecondition, InvalidInput, KeysUnavailable, LimitExceeded, PinRefused, Unavailable
from sojourn.keyprocess import confinement, opening
from sojourn.keyprocess.opening import Found, Opened

_READ_BYTES: Final = 65_536


def main(descriptor: int, agent: int, network: bool) -> None:  # as the program's arguments have it
    """Serve until the socket `descriptor` ends. `agent`: the pid of whoever started this."""
    confinement.end_with(agent)
    confinement.confine(network=network)
    with socket.socket(fileno=descriptor) as channel:
        serve(channel)
    os._exit(0)  # whatever threads a vendor's library has do not keep it


def serve(channel: socket.socket) -> None:
    """Answer what is asked over a socket, until it ends or an answer was the last one."""
    host, frames = Host(), messages.Frames()
    while data := channel.recv(_READ_BYTES):
        for message in frames.feed(data):
            channel.sendall(frame_of(host.answer(message)))
            if host.over:
                return


class Host:
    """Answers questions. `over`: nothing is to be asked any more."""

    def __init__(self, find: Callable[[Mapping[str, Any]], Found] = opening.asked_for) -> None:
        """`find` finds the place of the keys, as the first question has it."""
        self.over = False
        self._find = find
        self._found: Found | None = None
        self._opened: Opened | None = None

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What is answered to a message. Raise ValueError if it is no question."""
        number = message.get("id")
        if type(number) is not int:
            raise ValueError("a question without a number")
        asked = {name: value for name, value in message.items() if name not in {"id", "do"}}
        try:
            return {"id": number, "ok": self._done(message.get("do"), asked)}
        except PinRefused as error:
            self.over = True
            return _failed(number, messages.PIN_REFUSED, error.public, error.detail)
        except KeysUnavailable as error:
            self.over = True
            return _failed(number, messages.TOKEN_AWAY, error.public)
        except LimitExceeded as error:
            return _failed(number, messages.LIMIT, error.public)
        except (InvalidInput, FailedPrecondition, Unavailable) as error:
            return _failed(number, messages.NOT_BUILT, error.public)

    def _done(self, what: object, asked: dict[str, Any]) -> dict[str, Any]:
        if self._found is None:
            if what != "open":
                raise ValueError("the first question is another")
            self._found = self._find(asked)
            tried = self._found.pin
            return {"salt": "", "digest": ""} if tried is None else {"salt": tried.salt, "digest": tried.digest}
        if what == "look":
            fields(asked)
            self._place().look()
            return {}
        [login] = fields({"login": asked.pop("login", "")}, login=str)
        if what == "login" and self._opened is None:
            fields(asked)
            self._opened = self._found.finish(login)
            return {}
        place = self._place()
        with place.logged_in(login):
            return _built(place.builder, what, asked)

    def _place(self) -> Opened:
        if self._opened is None:
            raise ValueError("the second question is another")
        return self._opened


def _built(builder: Builder, what: object, asked: Mapping[str, Any]) -> dict[str, Any]:
    match what:
        case "next":
            fields(asked)
            return {"number": builder.next_number()}
        case "create":
            return {"made": builder.create(*fields(asked, number=int))}
        case "make":
            made, label = builder.make(*fields(asked, number=int, made=str))
            return {"certificate": messages.encoded(encoded(made)), "object": label}
        case "sign":
            signed = builder.sign(*fields(asked, root=bytes, object=str, key=bytes, ttl=int))
            return {"certificate": messages.encoded(encoded(signed))}
        case "list":
            listed = builder.list(*fields(asked, root=bytes, object=str, list=bytes))
            return {"list": messages.encoded(encoded(listed))}
        case "test":
            signature = builder.test(*fields(asked, root=bytes, object=str, nonce=bytes))
            return {"signature": messages.encoded(signature)}
    raise ValueError("a question that there is not")


def _failed(number: int, code: str, said: str, more: str = "") -> dict[str, Any]:
    return {"id": number, "failed": code, "said": said, "more": more}


def run() -> None:
    """The program: its arguments are the socket's descriptor, the agent's pid, and whether it may use the network."""
    main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "network")
