"""Guards of web services: middleware for ASGI and WSGI, and what a route's action and parameters are."""

from sojourn.sdk.guard.guard import Guard
from sojourn.sdk.guard.param_places import body, form, header, path, query
from sojourn.sdk.guard.routes import Action
from sojourn.sdk.guard.serving_token import serving_token
from sojourn.sdk.integrations.asgi import TaskTokenMiddleware
from sojourn.sdk.integrations.wsgi import TaskTokenWsgi

__all__ = [
    "Action",
    "Guard",
    "TaskTokenMiddleware",
    "TaskTokenWsgi",
    "body",
    "form",
    "header",
    "path",
    "query",
    "serving_token",
]
