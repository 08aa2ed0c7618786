"""The door by which issuers of people's tokens say that somebody has logged out, and nothing else.

It asks nobody for a certificate: who may say so is told by the signature of what is said.
"""

from contextlib import AsyncExitStack

from sojourn.endpoints.listener.https import WebDoor, open_web
from sojourn.endpoints.listener.own_svid import AgentSvid
from sojourn.endpoints.listener.tls import Listener, TlsPeer
from sojourn.limits import (
    LOGOUT_CONNECTIONS,
    LOGOUT_CONNECTIONS_PER_ADDRESS,
    LOGOUT_CONNECTIONS_PER_SECOND,
    LOGOUT_DESCRIPTORS_SHARE,
)
from sojourn.runtime.clock import Clock
from sojourn.settings.tables import ListenConfig


class PeopleDoor(WebDoor):
    """The listener and its connections. Whoever comes is nobody, and an address has its share and no more."""

    name = "people"

    new_per_second = LOGOUT_CONNECTIONS_PER_SECOND

    def places(self, peer: TlsPeer, connections: int) -> int:
        del peer
        return self.places_of_nobody(connections)

    def places_of_nobody(self, connections: int) -> int:
        return min(LOGOUT_CONNECTIONS_PER_ADDRESS, max(1, connections // 2))


def open_people(
    listen: ListenConfig, door: PeopleDoor, own: AgentSvid, clock: Clock, descriptors: int, stack: AsyncExitStack
) -> list[Listener]:
    """Open the listener, if there is to be one. Raise CannotStart.

    Of `descriptors` it takes LOGOUT_DESCRIPTORS_SHARE.
    """
    if listen.people is None:
        return []
    return [
        open_web(
            "people",
            listen.people,
            (listen.people_certificate, listen.people_key),
            door,
            own,
            None,
            min(LOGOUT_CONNECTIONS, max(1, int(descriptors * LOGOUT_DESCRIPTORS_SHARE))),
            clock,
            stack,
        )
    ]
