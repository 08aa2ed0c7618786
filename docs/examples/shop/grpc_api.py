"""The shop over gRPC. README.md says how orders_pb2.py is made of orders.proto.

python docs/examples/shop/grpc_api.py             # needs grpcio-tools, to make that; Ctrl-C ends it
"""

import os
from concurrent import futures
from typing import Any
from urllib.parse import urlsplit

import grpc
import orders_pb2  # type: ignore[import-not-found]  # it is made when it is needed
import orders_pb2_grpc  # type: ignore[import-not-found]
from sojourn.grpc import Action, TaskTokenInterceptor, field

GRPC_API = os.environ.get("SHOP_GRPC", "http://localhost:8097")


class Orders(orders_pb2_grpc.OrdersServicer):  # type: ignore[misc]
    def Read(self, request: Any, context: Any) -> Any:
        return orders_pb2.Order(id=request.id)

    def Refund(self, request: Any, context: Any) -> Any:
        return orders_pb2.RefundResponse(refunded=request.cents)


guard = TaskTokenInterceptor(
    audience=GRPC_API,
    actions={
        "/shop.v1.Orders/Read": Action("order:read", params={"order": field("id")}),
        "/shop.v1.Orders/Refund": Action("refund:create", params={"order": field("order.id")}),  # cents by its name
    },
    strict=True,
)

if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(), interceptors=[guard])
    orders_pb2_grpc.add_OrdersServicer_to_server(Orders(), server)
    server.add_insecure_port(urlsplit(GRPC_API).netloc)
    server.start()
    server.wait_for_termination()
