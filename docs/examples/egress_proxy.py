"""A program that knows nothing of tasks, here curl, gets a task's authority from an egress proxy, and never a token.

    python docs/examples/egress_proxy.py             # guarded_service.py must be running

The same from a shell: sojourn task run --type read-tickets --param ticket=42 --proxy -- curl http://localhost:8091/tickets/42
"""

import os
import subprocess

import sojourn

TICKETS = os.environ.get("TICKETS", "http://localhost:8091")


def main() -> None:
    with sojourn.task("read-tickets", params={"ticket": "42"}) as task, task.proxy() as proxy:
        environment = proxy.of(os.environ)  # the proxy's address and secret; no token, no key
        for url in (f"{TICKETS}/tickets/42", "http://elsewhere.example.org/"):
            command = proxy.command(["curl", "-sS", url])
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            print(done.stdout)


if __name__ == "__main__":
    main()
