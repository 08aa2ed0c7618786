"""Opening the listeners for other machines, each of the rooms that it is for."""

from contextlib import AsyncExitStack

from sojourn.agent.build import Rooms
from sojourn.agent.door_parts import DoorParts
from sojourn.config.model import Config
from sojourn.endpoints.api import validation
from sojourn.endpoints.api.trust_documents import TrustDocuments
from sojourn.endpoints.http1.app import HttpApi
from sojourn.endpoints.http1.protocol import HttpProtocols
from sojourn.endpoints.listener import people_logout, remote_validators, token_service, trust_bundle
from sojourn.endpoints.listener.tls import Listener
from sojourn.endpoints.oauth import status_lists
from sojourn.endpoints.oauth.people_logout import LogoutApp


async def open_listeners(
    config: Config,
    rooms: Rooms,
    api: HttpApi,
    documents: TrustDocuments,
    descriptors: int,
    stack: AsyncExitStack,
) -> list[Listener]:
    """Those for other machines that the configuration has."""
    own = rooms.own_svid
    remote_http = HttpProtocols(api.app(status_lists.routes(rooms.engine)))
    listeners = token_service.open_https(
        config.listen,
        token_service.HttpsDoor(remote_http, rooms.authority, rooms.revocations, rooms.clock, rooms.alarms),
        own,
        rooms.revocations,
        rooms.clock,
        descriptors,
        stack,
    )
    stack.callback(remote_http.close)
    trust_http = HttpProtocols(trust_bundle.TrustApp(documents))
    listeners += trust_bundle.open_trust(
        config.listen,
        trust_bundle.TrustDoor(trust_http, rooms.authority, rooms.revocations, rooms.clock, rooms.alarms),
        own,
        rooms.clock,
        descriptors,
        stack,
    )
    stack.callback(trust_http.close)
    logouts = LogoutApp(rooms.people, rooms.ending_people, rooms.audit, rooms.clock, rooms.alarms)
    stack.push_async_callback(logouts.close)
    people_http = HttpProtocols(logouts)
    listeners += people_logout.open_people(
        config.listen,
        people_logout.PeopleDoor(people_http, rooms.authority, rooms.revocations, rooms.clock, rooms.alarms),
        own,
        rooms.clock,
        descriptors,
        stack,
    )
    stack.callback(people_http.close)
    listeners += await remote_validators.open_listener(
        config.listen,
        remote_validators.RemoteDoor(rooms.authority, rooms.revocations, rooms.clock, rooms.alarms),
        own,
        lambda callers: validation.ValidationApi(
            rooms.judging, rooms.engine, rooms.audiences, rooms.clock, callers, rooms.refusals
        ),
        rooms.audit,
        rooms.readiness,
        descriptors,
        stack,
    )
    parts = DoorParts(own, rooms.readiness, rooms.revocations, rooms.pruning.room.check, descriptors, stack)
    return [*listeners, *rooms.signing.open_listeners(parts)]
