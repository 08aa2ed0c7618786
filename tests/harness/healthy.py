"""An agent that does all that it is there for, with nothing wrong: `python -m harness.healthy SECONDS FOLDER`.

As a program it runs so for SECONDS beside a Prometheus with the alerts as operators have them, and fails if one fires.
"""

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from sojourn._pb import workload_pb2 as workload

from harness.backups import back_up
from harness.ordershop import OrderShop, order_shop
from harness.prometheus import Prometheus, rules
from harness.raw import WORKLOAD_API, Admin, Wire

PAUSE_SECONDS = 0.1  # between two things of one kind: some fifty calls a second of all kinds together
_LOOK_SECONDS = 15


@contextmanager
def healthy_load(folder: Path) -> Iterator[tuple[Any, int]]:
    """A running agent under load, and the port of its metrics. Raise what a load raised, at the end."""
    with order_shop(folder) as shop, ExitStack() as stack:
        back_up(shop.agent)
        wire = stack.enter_context(Wire(shop.agent.socket))
        request, method = workload.X509SVIDRequest(), f"{WORKLOAD_API}FetchX509SVID"
        stream = wire.stream(method, request, workload.X509SVIDResponse, timeout=86_400)
        next(stream)
        admin = stack.enter_context(Admin(shop.agent.admin_socket))
        over, failed = threading.Event(), list[BaseException]()
        number = itertools.count()
        loads: list[Callable[[], object]] = [
            wire.x509,
            lambda: wire.jwt(f"audience-{next(number)}"),
            lambda: _task(shop),
            lambda: admin.delete(admin.register(f"/passing/{next(number)}", "unix:uid:4242").id),
        ]

        def work(load: Callable[[], object]) -> None:
            try:
                while not over.wait(PAUSE_SECONDS):
                    load()
            except BaseException as error:  # whatever it is, it is raised below
                failed.append(error)

        threads = [threading.Thread(target=work, args=(each,)) for each in loads]
        for each in threads:
            each.start()
        try:
            yield shop.agent, shop.metrics
        finally:
            over.set()
            for each in threads:
                each.join(30)
        if failed:
            raise failed[0]


def _task(shop: OrderShop) -> None:
    with shop.client.task("support", params={"order": "O-1"}) as task:
        headers = {"Authorization": f"Bearer {task.token().token}"}
        assert 200 == httpx.get(f"{shop.url}/orders/O-1", headers=headers, timeout=60).status_code


def main() -> None:
    seconds, folder = float(sys.argv[1]), Path(sys.argv[2])
    with healthy_load(folder) as (_, port), Prometheus(folder, port, {"all": rules(1)}, "15s") as prometheus:
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            if firing := prometheus.firing():
                raise SystemExit(f"fires after {seconds - left:.0f} s: {prometheus.alerts()}, of {sorted(firing)}")
            time.sleep(min(left, _LOOK_SECONDS))
        said = {
            "seconds": seconds,
            "svids": prometheus.value("sum(sojourn_svids_issued_total)"),
            "tasks": prometheus.value("sum(sojourn_tasks_ended_total)"),
            "calls": prometheus.value("sum(sojourn_calls_total)"),
            "ever": sorted(prometheus.ever("1d")),
        }
        print(said)


if __name__ == "__main__":
    main()
