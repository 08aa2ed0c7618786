"""Puts one kind of Workload API call on a socket, from so many clients at once: in Python, as go/main.go does in Go.

Usage: pyload.py -library sojourn|spiffe -socket PATH -call CALL -clients N -seconds S. The SDK's clients are coroutines of
one thread, those of the SPIFFE library are threads; each has a connection of its own. It prints the same line of JSON.
"""

import argparse
import asyncio
import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from time import perf_counter, process_time, time_ns
from typing import Any

import uvloop
from figures import percentile
from sojourn import Client
from spiffe import WorkloadApiClient

CALLS = ("x509", "jwt", "jwt-new", "validate", "connect")
NUMBERS = itertools.count()
PREFIX = f"new-{os.getpid()}-{time_ns()}"


class Found:
    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self.failed: Counter[str] = Counter()

    def told(self, passed: float, spent: float) -> dict[str, Any]:
        calls = len(self.milliseconds)
        spread = {f"p{share}": percentile(self.milliseconds, share) if calls else 0 for share in (50, 99)}
        rate = {"calls": calls, "rate": calls / passed, "seconds": passed, "client_cpu": spent / max(1, calls)}
        return {**rate, **spread, "failed": dict(self.failed)}


def new_audience() -> str:
    return f"{PREFIX}-{next(NUMBERS)}"


# --- Sojourn's SDK ---


async def with_sdk(options: argparse.Namespace) -> dict[str, Any]:
    clients = [await Client(options.socket).__aenter__() for _ in range(options.clients)]
    for client in clients:
        await client.fetch_x509_svids()  # the connection is up
    token = (await clients[0].fetch_jwt_svid("known")).token if options.call == "validate" else ""

    async def anew(_: Client) -> None:
        async with Client(options.socket) as fresh:
            await fresh.fetch_x509_svids()

    calls: dict[str, Callable[[Client], Any]] = {
        "x509": Client.fetch_x509_svids,
        "jwt": lambda client: client.fetch_jwt_svid("known"),
        "jwt-new": lambda client: client.fetch_jwt_svid(new_audience()),
        "validate": lambda client: client.validate_jwt_svid(token, "known"),
        "connect": anew,
    }
    call, found = calls[options.call], Found()

    async def put(client: Client) -> None:
        while (sent := perf_counter()) < ends:
            try:
                await call(client)
            except Exception as error:
                found.failed[type(error).__name__] += 1
            else:
                found.milliseconds.append((perf_counter() - sent) * 1000)

    spent, began = process_time(), perf_counter()
    ends = began + options.seconds
    await asyncio.gather(*map(put, clients))
    return found.told(perf_counter() - began, process_time() - spent)


# --- the SPIFFE library ---


def with_library(options: argparse.Namespace) -> dict[str, Any]:
    address = f"unix:{options.socket}"
    clients = [WorkloadApiClient(address) for _ in range(options.clients)]
    for client in clients:
        client.fetch_x509_svid()
    token = clients[0].fetch_jwt_svid({"known"}).token if options.call == "validate" else ""

    def anew(_: WorkloadApiClient) -> None:
        with WorkloadApiClient(address) as fresh:
            fresh.fetch_x509_svid()

    calls: dict[str, Callable[[WorkloadApiClient], Any]] = {
        "x509": WorkloadApiClient.fetch_x509_svid,
        "jwt": lambda client: client.fetch_jwt_svid({"known"}),
        "jwt-new": lambda client: client.fetch_jwt_svid({new_audience()}),
        "validate": lambda client: client.validate_jwt_svid(token, "known"),
        "connect": anew,
    }
    call, founds = calls[options.call], [Found() for _ in clients]

    def put(client: WorkloadApiClient, found: Found) -> None:
        while (sent := perf_counter()) < ends:
            try:
                call(client)
            except Exception as error:
                found.failed[type(error).__name__] += 1
            else:
                found.milliseconds.append((perf_counter() - sent) * 1000)

    spent, began = process_time(), perf_counter()
    ends = began + options.seconds
    threads = [threading.Thread(target=put, args=each) for each in zip(clients, founds, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed, spent = perf_counter() - began, process_time() - spent
    found = Found()
    for each in founds:
        found.milliseconds += each.milliseconds
        found.failed += each.failed
    return found.told(passed, spent)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-library", choices=("sojourn", "spiffe"), required=True)
    parser.add_argument("-socket", required=True)
    parser.add_argument("-call", choices=CALLS, required=True)
    parser.add_argument("-clients", type=int, default=1)
    parser.add_argument("-seconds", type=float, default=1.0)
    options = parser.parse_args()
    told = uvloop.run(with_sdk(options)) if options.library == "sojourn" else with_library(options)
    print(json.dumps(told), flush=True)
    os._exit(0)  # connections need no farewell


if __name__ == "__main__":
    main()
