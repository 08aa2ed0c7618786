"""An agent that refunds an order for the person who asks: their token comes in, and the service sees whose it is.

    python docs/examples/agent_for_user.py 1001 2500 < alice.jwt    # docs/people.md has the rest

The ID token comes on the standard input, as a front end would hand it on: it is in no argument and no file of ours.
With a third argument, the agent names that customer and not its own: a model that was talked into it would do the same.
"""

import os
import sys

import httpx
import sojourn

SHOP = os.environ.get("SHOP", "http://localhost:8096")


def said(answer: httpx.Response) -> str:
    found = answer.json()
    return f"{answer.status_code} {found.get('error_description') or found.get('detail') or found}"


def main() -> None:
    order, cents, *customers = sys.argv[1:]
    person = sojourn.PersonToken.id_token(sys.stdin.read())
    params: dict[str, str | int] = {"order": order, "cents": int(cents)}
    with sojourn.task("refund-for", person=person, params=params) as task, task.client(SHOP) as client:
        customer = customers[0] if customers else task.person.subject
        print("for", task.person.name, "in", task.id)
        answer = client.post(f"/customers/{customer}/orders/{order}/refunds", json={"cents": int(cents)})
        print(said(answer))


if __name__ == "__main__":
    try:
        main()
    except sojourn.SojournError as error:
        sys.exit(f"refused: {error.remote_code or error.code}: {error}")
