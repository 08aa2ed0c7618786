"""The shop in FastAPI: orders to look at, and to refund. What a request asks for is compared with its task.

python docs/examples/shop/api.py                  # needs fastapi and uvicorn; Ctrl-C ends it
python docs/examples/shop/api.py --behind-envoy   # the same without a guard, at port 8094, for envoy.yaml
"""

import os
import sys
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sojourn.web import Action, TaskTokenMiddleware, body, path, query

API = os.environ.get("SHOP_API", "http://localhost:8095")
BEHIND_ENVOY = os.environ.get("SHOP_BEHIND_ENVOY", "http://localhost:8094")
app = FastAPI()


class Refund(BaseModel):
    cents: int


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "well"}


@app.get("/orders/{order_id}")
async def read(order_id: str) -> dict[str, str]:
    return {"order": order_id}


@app.get("/orders")
async def find(order: str) -> dict[str, str]:
    return {"order": order}


@app.post("/orders/{order_id}/refunds")
async def refund(order_id: str, refund: Refund) -> dict[str, str | int]:
    return {"order": order_id, "refunded": refund.cents}


def main() -> None:
    if "--behind-envoy" in sys.argv:
        uvicorn.run(app, host="127.0.0.1", port=urlsplit(BEHIND_ENVOY).port or 80, log_level="warning")
        return
    the_order = path("order_id")  # is the task's parameter `order`
    app.add_middleware(
        TaskTokenMiddleware,
        audience=API,
        actions={
            "GET /orders/{order_id}": Action("order:read", params={"order": the_order}),
            "GET /orders": Action("order:read", params={"order": query()}),
            "POST /orders/{order_id}/refunds": Action("refund:create", params={"order": the_order, "cents": body()}),
        },
        public=["GET /health", "GET /openapi.json", "CORS preflight"],
        strict=True,  # it does not start where a task's parameter would be compared with nothing
        wait_for_agent=30,
    )
    uvicorn.run(app, host="localhost", port=urlsplit(API).port or 80, log_level="warning")


if __name__ == "__main__":
    main()
