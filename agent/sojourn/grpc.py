"""Guards and clients of gRPC services. The interceptors whose names begin with `Aio` or `aio` are for `grpc.aio`."""

from sojourn.sdk.guard.param_places import field
from sojourn.sdk.guard.routes import Action
from sojourn.sdk.guard.serving_token import serving_token
from sojourn.sdk.integrations.grpc_client import aio_interceptors, interceptors
from sojourn.sdk.integrations.grpc_server import AioTaskTokenInterceptor, TaskTokenInterceptor

__all__ = [
    "Action",
    "AioTaskTokenInterceptor",
    "TaskTokenInterceptor",
    "aio_interceptors",
    "field",
    "interceptors",
    "serving_token",
]
