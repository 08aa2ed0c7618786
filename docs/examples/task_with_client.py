"""A task for a block of code, with an HTTP client that has its authority; what the block calls finds the task.

    python docs/examples/task_with_client.py         # guarded_service.py must be running

No token is to be seen: each request has one, bound to a key in the agent, with a proof of its own.
"""

import os

import sojourn

TICKETS = os.environ.get("TICKETS", "http://localhost:8091")


def read(ticket: str) -> None:
    """Knows nothing of tasks but that there is one."""
    with sojourn.current_task().client(TICKETS) as client:
        answer = client.get(f"/tickets/{ticket}")
        print("read", ticket, answer.status_code, answer.json().get("text", answer.json().get("error")))


def main() -> None:
    with sojourn.task("read-tickets", params={"ticket": "42"}, on_end=lambda why: print("ended:", why)) as task:
        read("42")
        read("43")  # the service refuses it: the task is for ticket 42
        try:
            task.client().get("https://elsewhere.example.org/")
        except sojourn.SojournError as error:
            print("not sent:", error)


if __name__ == "__main__":
    main()
