"""Kind `https`: batches are posted as NDJSON; an answer of 2xx says that all of it is taken."""

import asyncio
import re
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sojourn.errors import InvalidInput, SojournError
from sojourn.files import trusted
from sojourn.operating_limits import SINK_RETRY_MAX_SECONDS, SINK_TOKEN_MAX_BYTES
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.guarded_http import GuardedHttp
from sojourn.providers.http import HttpResponse
from sojourn.sinks.items import Item, lines
from sojourn.sinks.sender import ItemsRefused, Sender, SinkDown, Taken
from sojourn.spiffe.x509svid import X509Svid
from sojourn.spiffetls.context import load_svid

NDJSON: Final = "application/x-ndjson"
# These are about what was posted. All other statuses are about the receiver, or how it is asked: nothing is given up
# because a token has expired or a path is misspelt.
_OF_CONTENT: Final = frozenset({400, 413, 422})
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1
_SECONDS: Final = re.compile(r"[0-9]{1,6}")  # RFC 9110, 10.2.3; a date is left alone


class ShownSvid:
    """The agent's own X.509-SVID, as a client's certificate. `now` gives the one that is in use."""

    def __init__(self, now: Callable[[], X509Svid]) -> None:
        self._now = now
        self._shown: X509Svid | None = None

    def show(self, context: ssl.SSLContext) -> bool:
        """Have connections under this context show it. True: it is another one than before. Raise SinkDown."""
        try:
            svid = self._now()
            if svid is self._shown:
                return False
            load_svid(context, svid)
        except (SojournError, ssl.SSLError) as error:
            public = error.public if isinstance(error, SojournError) else "it cannot be loaded"
            raise SinkDown(f"the agent's X.509-SVID cannot be shown: {public}", detail=str(error)) from error
        self._shown = svid
        return True


class Posting:
    """Posts to one URL, with the bearer token of a file and the agent's SVID if they are wanted."""

    def __init__(
        self,
        url: str,
        http: GuardedHttp,
        token_file: Path | None = None,
        svid: ShownSvid | None = None,
    ) -> None:
        self._url = url
        self._http = http
        self._token_file = token_file
        self._svid = svid

    async def post(self, content: bytes, content_type: str) -> HttpResponse:
        """The answer, which is 2xx. Raise ItemsRefused, SinkDown."""
        try:
            if self._svid is not None and self._svid.show(self._http.context):
                await self._http.let_go()
            headers = {"content-type": content_type, **await asyncio.to_thread(self._authorization)}
            answer = await self._http.post_content(self._url, content, step="sink", headers=headers)
        except ProviderUnavailable as error:
            raise SinkDown.of(error) from error
        if 200 <= answer.status < 300:
            return answer
        said = f"it answered with status {answer.status}"
        if answer.status in _OF_CONTENT:
            raise ItemsRefused(said)
        raise SinkDown(said, after=_asked_pause(answer))

    async def close(self) -> None:
        await self._http.close()

    def _authorization(self) -> dict[str, str]:
        """The token is read anew each time: it may be renewed."""
        if self._token_file is None:
            return {}
        try:
            token = trusted.read(self._token_file, SINK_TOKEN_MAX_BYTES).strip()
        except InvalidInput as error:
            raise SinkDown(f"token_file: {error.public}") from error
        if not _TOKEN.fullmatch(token):
            raise SinkDown("token_file: it has no bearer token in it, and nothing else")
        return {"authorization": f"Bearer {token}"}


def _asked_pause(answer: HttpResponse) -> float:
    """Seconds for which an answer asks not to be tried again."""
    said = answer.headers.get("retry-after", "")
    return min(float(said), SINK_RETRY_MAX_SECONDS) if _SECONDS.fullmatch(said) else 0.0


class NdjsonSender(Sender):
    """Lines, by a `Posting`."""

    def __init__(self, posting: Posting) -> None:
        self._posting = posting

    async def send(self, items: Sequence[Item]) -> Taken:
        await self._posting.post(lines(items), NDJSON)
        return Taken()

    async def close(self) -> None:
        await self._posting.close()
