"""The stream of a transmitter by which it keeps events for this agent (SSF 1.0, 8.1.1): found, or created where there
is none.

The token is shown at the issuer's own origin and nowhere else, whatever its documents say: whoever writes those would
have it elsewhere.

What it will send stands in `events_delivered`, and nowhere else: a transmitter may create a stream without a word for
less than was asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import structlog

from sojourn.jose import strict_json
from sojourn.limits import AUDIENCE_MAX_BYTES, AUDITED_TEXT, SIGNAL_STREAMS_READ
from sojourn.net.urls import parse_url
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import Http, HttpResponse
from sojourn.ssf.caep import CAEP, KNOWN
from sojourn.ssf.transmitter import TransmitterDiscovery, is_of

log = structlog.get_logger()
STEP: Final = "stream"
POLL: Final = "urn:ietf:rfc:8936"
# Without these nobody's logout is heard: a stream that lacks one is told of aloud.
_ENDS: Final = frozenset({f"{CAEP}session-revoked"})
_CREATED: Final = frozenset({200, 201})
_NOT_TAKEN: Final = frozenset({401, 403})


class Authorization(Protocol):
    """What a transmitter is asked with."""

    async def header(self) -> dict[str, str]: ...

    def forget(self) -> None:
        """It was not taken."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One of ours: where it is polled, what `aud` its events have, and which of those asked for it will not send."""

    id: str
    url: str
    audience: str  # "": it does not say, or has several
    lacks: tuple[str, ...]


class Streams:
    """Finds the agent's stream by its description, which is the agent's own SPIFFE ID."""

    def __init__(
        self, discovery: TransmitterDiscovery, issuer: str, http: Http, bearer: Authorization, description: str
    ) -> None:
        self._discovery = discovery
        self._issuer = issuer
        self._http = http
        self._bearer = bearer
        self._description = description

    async def ours(self) -> Stream:
        """Raise ProviderUnavailable, or ProviderRefused if there can be none."""
        endpoint = (await self._discovery.metadata()).configuration_endpoint
        if not endpoint:
            raise ProviderRefused("the transmitter's metadata name no configuration_endpoint: set poll", step=STEP)
        self._check_place("configuration_endpoint", endpoint)
        found = next(filter(self._is_ours, await self._all(endpoint)), None)
        if found is None:
            found = await self._created(endpoint)
        stream = _read(found)
        self._check_place("delivery.endpoint_url", stream.url)
        if stream.lacks:
            missing = log.error if _ENDS & set(stream.lacks) else log.warning
            missing("signal_stream_lacks", stream=stream.id, events=list(stream.lacks))
        return stream

    def _check_place(self, name: str, url: str) -> None:
        """Raise ProviderRefused if a URL that the token would be shown at is elsewhere than its issuer is."""
        if not is_of(url, self._issuer):
            raise ProviderRefused(
                f"{name} is at {parse_url(url).authority}, elsewhere than the issuer: no token is shown there; "
                "set poll if it is right",
                step=STEP,
            )

    async def status(self, stream: Stream) -> str | None:
        """Whether a transmitter says that a stream is `enabled`, `paused` or `disabled` (SSF 1.0, 8.1.2); None if it
        cannot be told now.
        """
        try:
            endpoint = (await self._discovery.metadata()).status_endpoint
            if not endpoint or not is_of(endpoint, self._issuer):
                return None
            url = f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode({'stream_id': stream.id})}"
            answer = await self._http.get(url, step=STEP, headers=await self._headers())
        except (ProviderUnavailable, ProviderRefused):
            return None
        status = answer.told().get("status") if answer.status == 200 else None
        return status[:AUDITED_TEXT] if isinstance(status, str) else None

    def _odd(self, answer: HttpResponse) -> ProviderUnavailable:
        """What an answer is that is none. A token that was not taken is shown no more."""
        if answer.status in _NOT_TAKEN:
            self._bearer.forget()
        return ProviderUnavailable(
            f"the transmitter's configuration of streams answers {answer.status}",
            step=STEP,
            hint="the client that it is asked by needs the scopes of `scope`",
        )

    async def _all(self, endpoint: str) -> list[Mapping[str, Any]]:
        answer = await self._http.get(endpoint, step=STEP, headers=await self._headers())
        if answer.status == 404:
            return []
        if answer.status != 200:
            raise self._odd(answer)
        try:
            value = strict_json.loads(answer.body.decode())
        except ValueError as error:
            raise ProviderUnavailable("the list of streams is not JSON", step=STEP) from error
        listed = value if isinstance(value, list) else [value]  # one alone comes as such
        return [each for each in listed[:SIGNAL_STREAMS_READ] if isinstance(each, dict)]

    async def _created(self, endpoint: str) -> Mapping[str, Any]:
        asked = {
            "events_requested": sorted(KNOWN),
            "delivery": {"method": POLL},
            "description": self._description,
        }
        answer = await self._http.post_json(endpoint, asked, step=STEP, headers=await self._headers())
        if answer.status not in _CREATED:
            raise self._odd(answer)
        log.info("signal_stream_created", description=self._description)
        return answer.json(STEP)

    async def _headers(self) -> dict[str, str]:
        return {"accept": "application/json", **await self._bearer.header()}

    def _is_ours(self, stream: Mapping[str, Any]) -> bool:
        delivery = stream.get("delivery")
        polled = isinstance(delivery, dict) and delivery.get("method") == POLL
        return polled and stream.get("description") == self._description


def _read(document: Mapping[str, Any]) -> Stream:
    """A stream as its transmitter describes it. Raise ProviderUnavailable if it cannot be polled."""
    name, delivery, delivered = (document.get(each) for each in ("stream_id", "delivery", "events_delivered"))
    url = delivery.get("endpoint_url") if isinstance(delivery, dict) else None
    if not isinstance(name, str) or not isinstance(url, str) or not isinstance(delivered, list):
        raise ProviderUnavailable("the stream lacks stream_id, events_delivered or where it is polled", step=STEP)
    try:
        parse_url(url)
    except ValueError as error:
        raise ProviderUnavailable(f"where the stream is polled {error}", step=STEP) from error
    audience = document.get("aud")
    if isinstance(audience, list) and len(audience) == 1:
        audience = audience[0]
    fits = isinstance(audience, str) and len(audience) <= AUDIENCE_MAX_BYTES
    lacks = tuple(sorted(each for each in KNOWN if each not in delivered))
    return Stream(name[:AUDIENCE_MAX_BYTES], url, str(audience) if fits else "", lacks)
