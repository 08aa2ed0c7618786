"""The agent program of the demo for people: a process for each of them. It prints JSON, one object a line."""

import base64
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import sojourn

SHOP = os.environ["SHOP"]
CENTS = 2500
EACH_SECONDS = 0.005
REASON_SECONDS = 5.0


def say(**value: Any) -> None:
    print(json.dumps(value), flush=True)


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def reason(task: Any) -> str:
    """Why it is over: that comes a moment after the refusal."""
    ends = time.monotonic() + REASON_SECONDS
    while not task.reason and time.monotonic() < ends:
        time.sleep(0.01)
    return str(task.reason or "")


def refusal(task: Any, client: Any, order: str) -> tuple[str, float]:
    """Look at the order again and again, until that is refused: why, and when. '' if it is told to end instead."""
    told = []
    signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
    while not told:
        try:
            answer = client.get(f"/customers/{task.person.subject}/orders/{order}")
        except sojourn.SojournError as error:
            at = time.time()
            return reason(task) or error.code, at
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.json().get('error', '')}", time.time()
        time.sleep(EACH_SECONDS)
    return "", time.time()


def main() -> None:
    file, order, other_order, other = sys.argv[2:]
    person = sojourn.PersonToken.id_token(Path(file).read_text())
    before = time.monotonic()
    with sojourn.task("refund-for", person=person, params={"order": order, "cents": CENTS}) as task:
        say(event="begun", task=task.id, person=task.person.name, milliseconds=(time.monotonic() - before) * 1000)
        say(event="token", claims=claims_of(task.token(SHOP, bound="agent").token))
        with task.client(SHOP) as client:
            hers = f"/customers/{task.person.subject}/orders"
            for name, path in (
                ("person", f"/customers/{other}/orders/{order}/refunds"),
                ("order", f"{hers}/{other_order}/refunds"),
                ("refund", f"{hers}/{order}/refunds"),
            ):
                before = time.monotonic()
                answer = client.post(path, json={"cents": CENTS})
                took = (time.monotonic() - before) * 1000
                say(event=name, status=answer.status_code, answer=answer.json(), milliseconds=took)
            why, at = refusal(task, client, order)
            say(event="over", why=why, at=at)


if __name__ == "__main__":
    main()
