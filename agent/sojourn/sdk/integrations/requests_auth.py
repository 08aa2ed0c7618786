"""requests with a task's authority. Needs the library `requests`."""

import http.client
from collections.abc import Iterable, Mapping
from typing import Any

from sojourn.errors import InvalidInput
from sojourn.sdk.client.extras import extra
from sojourn.sdk.request.authorization import AUTHORIZATION, CHALLENGE, DPOP, DPOP_NONCE, HttpAnswer, attach, want
from sojourn.sdk.request.token_fetch import AsyncAsking, SyncAsking

with extra("requests"):
    import requests
    from requests.adapters import HTTPAdapter


class TaskAdapter(HTTPAdapter):
    """For a `requests.Session`: `session.mount("https://", task.adapter())`. It does what TaskAuth does for httpx.

    requests asks it again for each step of a redirect, so each is within the task or raises OutsideTask.
    """

    def __init__(self, asking: AsyncAsking | SyncAsking, *, actions: Iterable[str] = (), bound: bool = True) -> None:
        if isinstance(asking, AsyncAsking):
            raise InvalidInput("this task was begun with `async with`: requests is for one begun with `with`")
        super().__init__()
        self._asking = asking
        self._actions = tuple(actions)
        self._bound = bound

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send one request. `proxies` are not used: the token is for the service alone."""
        del proxies
        content = request.body.encode() if isinstance(request.body, str) else request.body or b""
        repeatable = isinstance(content, bytes)

        def read() -> bytes:
            if not isinstance(content, bytes):
                raise InvalidInput("a token is for this request alone: give its content as bytes")
            return content

        wanted = want(
            self._asking.task,
            request.method or "",
            request.url or "",
            self._actions,
            bound=self._bound,
            repeatable=repeatable,
        )
        flow = attach(wanted, self._asking.shelf)
        send = self._asking.advance(flow, None, read)
        while send is not None:
            sent = request.copy()
            for name in (AUTHORIZATION, DPOP, "Host"):
                sent.headers.pop(name, None)
            sent.headers.update(send.headers)
            response = super().send(sent, stream=stream, timeout=timeout, verify=verify, cert=cert)
            send = self._asking.advance(flow, _answer(response), read)
            if send is not None:
                response.close()
        response.request = request
        return response

    def __getstate__(self) -> dict[str, Any]:
        raise InvalidInput("a task's authority stays in its process")


def _answer(response: requests.Response) -> HttpAnswer:
    headers: http.client.HTTPMessage = response.raw.headers
    return HttpAnswer.of(response.status_code, headers.get_all(CHALLENGE) or [], headers.get_all(DPOP_NONCE) or [])
