"""What a support agent does for one ticket: looks at its order, and refunds it once.

python docs/examples/shop/support.py              # needs httpx, and one of the shop's twins
"""

import os
import sys

import httpx
import sojourn
from sojourn import SojournError

URL = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SHOP_API", "http://localhost:8095")


def said(answer: httpx.Response) -> str:
    found = answer.json()
    return f"{answer.status_code} {found.get('error_description') or found.get('refunded') or found['order']}"


with (
    sojourn.task("refund-order", params={"order": "O-1001", "cents": 2500}) as task,
    task.client(URL, actions=["order:read"]) as orders,
    task.client(URL, actions=["refund:create"]) as refunds,
):
    print("look        ", said(orders.get("/orders/O-1001")))
    print("look again  ", said(orders.get("/orders", params={"order": "O-1001"})))
    print("another one ", said(orders.get("/orders/O-9999")))
    print("too much    ", said(refunds.post("/orders/O-1001/refunds", json={"cents": 9900})))
    print("refund      ", said(refunds.post("/orders/O-1001/refunds", json={"cents": 2500})))
    try:
        print("once more   ", said(refunds.post("/orders/O-1001/refunds", json={"cents": 2500})))
    except SojournError as error:  # the agent gives no more token for it
        print("once more   ", error.remote_code or error.code)
    print("look        ", said(orders.get("/orders/O-1001")))
