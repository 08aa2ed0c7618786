"""Status lists over HTTP: GET /status/{epoch}/{number}, and GET /status, which are there (draft-ietf-oauth-status-list,
8 and 9).
"""

import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sojourn.errors import NotFound
from sojourn.limits import STATUS_LIST_TTL_SECONDS
from sojourn.tasks.engine import TaskEngine

PATH = "/status"  # of the aggregation; the lists are below it
MEDIA_TYPE = "application/statuslist+jwt"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_HEADERS = {"Cache-Control": f"max-age={STATUS_LIST_TTL_SECONDS}"}


def routes(engine: TaskEngine) -> list[Route]:
    """Anyone may have the lists: they say of numbers what only whoever has a token can read."""

    async def status_list(request: Request) -> Response:
        epoch, number = request.path_params["epoch"], request.path_params["number"]
        try:
            if not _NUMBER.fullmatch(epoch) or not _NUMBER.fullmatch(number):
                raise NotFound("there is no such status list")
            token = engine.issuing.lists.token(int(epoch), int(number))
        except NotFound as error:
            body = {"error": error.oauth_error, "error_description": error.public, "code": error.code}
            return JSONResponse(body, status_code=404, headers={"Cache-Control": "no-store"})
        return Response(token, media_type=MEDIA_TYPE, headers=_HEADERS)

    async def aggregation(request: Request) -> Response:
        del request
        return JSONResponse({"status_lists": engine.issuing.lists.uris}, headers=_HEADERS)

    return [
        Route(PATH, aggregation, methods=["GET"]),
        Route(PATH + "/{epoch}/{number}", status_list, methods=["GET"]),
    ]
