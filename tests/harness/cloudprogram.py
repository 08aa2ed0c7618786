"""A program with the SDKs of clouds, and no line of Sojourn: prints what each of them got, one JSON document a line.

Its argument says what it does: `use` asks once; `renew` asks until each gives something new; `last` asks, and once more
when it gets SIGTERM.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import boto3
import google.auth
import hvac
from azure.identity import DefaultAzureCredential
from google.auth.transport.requests import Request

SCOPE = "https://vault.azure.net/.default"


def sdks() -> dict[str, Callable[[], str]]:
    """What asks each SDK for a credential, as it would before a request."""
    session = boto3.Session().get_credentials()
    account, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    azure = DefaultAzureCredential()
    vault = hvac.Client()

    def google_token() -> str:
        account.before_request(Request(), "GET", "https://example.org", {})
        return str(account.token)

    def vault_read() -> str:
        return str(vault.secrets.kv.v1.read_secret("x")["data"]["used"])

    return {
        "aws": lambda: str(session.get_frozen_credentials().access_key),
        "gcp": google_token,
        "azure": lambda: azure.get_token(SCOPE).token,
        "vault": vault_read,
    }


def tell(**value: object) -> None:
    print(json.dumps(value), flush=True)


def tried(ask: Callable[[], str]) -> str:
    try:
        return f"still good: {ask()}"
    except Exception as error:  # each SDK has its own
        return f"{type(error).__name__}: {error}"


def main() -> None:
    asked_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.set())
    asks = sdks()
    first = {name: ask() for name, ask in asks.items()}
    tell(first=first, pid=os.getpid())
    if sys.argv[1] == "renew":
        then = dict(first)
        while any(then[name] == first[name] for name in asks):
            time.sleep(0.2)
            then = {name: ask() if then[name] == first[name] else then[name] for name, ask in asks.items()}
        tell(then=then)
    if sys.argv[1] == "last":
        with contextlib.suppress(KeyboardInterrupt):
            asked_to_stop.wait(60)
        tell(last={name: tried(ask) for name, ask in asks.items()})


if __name__ == "__main__":
    main()
