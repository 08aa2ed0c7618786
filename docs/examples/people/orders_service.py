"""A shop's orders, refunded by an agent for the customer whose order it is, and for nobody else.

    python docs/examples/people/orders_service.py    # needs fastapi and uvicorn; Ctrl-C ends it

The guard holds the request against the task: who asks for what. Whose an order is, the shop knows (orders.json).
"""

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel
from sojourn.web import Action, TaskTokenMiddleware, body

SHOP = os.environ.get("SHOP", "http://localhost:8096")
OWNERS: dict[str, str] = json.loads(Path(__file__).with_name("orders.json").read_text())
app = FastAPI()


class Refund(BaseModel):
    cents: int


def owned(order: str, customer: str) -> None:
    """That `customer` is the token's person, the guard has seen to; that the order is theirs is for the shop to say."""
    if OWNERS.get(order) != customer:
        raise HTTPException(404, "no such order")


@app.get("/customers/{customer}/orders/{order}")
async def read(customer: str, order: str) -> dict[str, str]:
    owned(order, customer)
    return {"order": order}


@app.post("/customers/{customer}/orders/{order}/refunds")
async def refund(customer: str, order: str, refund: Refund, request: Request) -> dict[str, str | int]:
    owned(order, customer)
    token = request.scope["sojourn.task"]
    return {
        "order": order,
        "refunded": refund.cents,
        "for": token.person.subject,
        "issuer": token.person.issuer,
        "by": str(token.actor),
    }


app.add_middleware(
    TaskTokenMiddleware,
    audience=SHOP,
    actions={
        "GET /customers/{customer}/orders/{order}": Action(
            "order:read", unchecked=("cents",), person="required", person_params={"customer": "sub"}
        ),
        "POST /customers/{customer}/orders/{order}/refunds": Action(
            "refund:create", params={"cents": body()}, person="required", person_params={"customer": "sub"}
        ),
    },
    strict=True,  # it does not start where a task's parameter would be compared with nothing
)

if __name__ == "__main__":
    uvicorn.run(app, host="localhost", port=urlsplit(SHOP).port or 80, log_level="warning")
