"""The record says what was done: uses of tasks however short they were, requests of class high, and what was refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import pytest
from harness.looking import until
from harness.ordershop import SHOP, SUPPORT, OrderShop, order_shop
from harness.ports import free_port
from sojourn.errors import Refused

TRIES = 250


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrderShop]:
    with order_shop(tmp_path_factory.mktemp("shop")) as running:
        until(lambda: "sojourn_validators 1.0" in metrics(running), "the shop's guard hears of tasks")
        yield running


def metrics(shop: OrderShop) -> str:
    with urlopen(f"http://127.0.0.1:{shop.metrics}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def value(shop: OrderShop, series: str) -> float:
    found = [line.rpartition(" ")[2] for line in metrics(shop).splitlines() if line.startswith(series)]
    return sum(map(float, found))


def shown(shop: OrderShop, task_id: str) -> dict[str, Any]:
    made: dict[str, Any] = shop.agent.json("task", "show", task_id)
    return made


def used(record: dict[str, Any]) -> dict[str, int]:
    return {each["action"]: each["calls"] for each in record["use"]}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class TestUses:
    def test_a_task_that_is_over_at_once(self, shop: OrderShop) -> None:
        """Three calls of a task that ends behind them are three in its record, in `task show` and in `task list`."""
        before = value(shop, 'sojourn_task_calls_total{type="support"}')
        with shop.client.task("support", params={"order": "O-1"}) as task:
            headers = bearer(task.token().token)
            for method, path in (("GET", "/orders/O-1"), ("POST", "/orders/O-1/refunds"), ("GET", "/orders/O-1")):
                assert 200 == httpx.request(method, shop.url + path, headers=headers, timeout=20).status_code
        until(lambda: shown(shop, task.id)["calls"] == 3, "all calls to be told")
        listed = {each["id"]: each["calls"] for each in shop.agent.json("task", "list", "--all")["tasks"]}
        assert 3 == listed[task.id]
        told = [each for each in shop.records(task.id) if each["event"] in {"task_ended", "task_used"}]
        assert "task_ended" == told[0]["event"]
        assert {"order:read": 2, "order:refund": 1} == used(told[-1])
        assert len(told) <= 3
        assert before + 3 == value(shop, 'sojourn_task_calls_total{type="support"}')
        assert value(shop, 'sojourn_task_tokens_issued_total{type="support"}') >= 1
        assert value(shop, 'sojourn_tasks_ended_total{state="completed",type="support"}') >= 1

    @pytest.mark.forked
    def test_over_kills(self, shop: OrderShop, tmp_path: Path) -> None:
        """What a service has told, and was answered, is there after the service was killed, and after the agent was."""
        task = shop.client.begin_task("support", params={"order": "O-1"})
        headers = bearer(task.token().token)
        port, log = free_port(), shop.log
        with shop.serving(port, tmp_path) as service:
            for _ in range(3):
                url = f"http://127.0.0.1:{port}/orders/O-1"
                assert 200 == httpx.get(url, headers=headers, timeout=20).status_code
            until(lambda: shown(shop, task.id)["calls"] == 3, "all calls to be told")
            service.kill()
        shop.log = log
        shop.agent.kill()
        shop.agent.start()
        assert 3 == shown(shop, task.id)["calls"]
        shop.agent.run("task", "revoke", task.id)
        (ended,) = [each for each in shop.records(task.id) if each["event"] == "task_ended"]
        assert {"order:read": 3, "order:refund": 0} == used(ended)
        until(lambda: "sojourn_validators 1.0" in metrics(shop), "the shop's guard hears of tasks again")

    @pytest.mark.forked
    def test_of_class_high(self, shop: OrderShop) -> None:
        """What each token of class high was used for is on disk before the service serves it, without the values of a
        query; and broken glass is read from that by whoever reviews it.
        """
        with shop.client.task("careful", params={"order": "O-7"}) as task, task.client() as http:
            url = f"{shop.url}/orders/O-7/refunds?secret=hunter2&note=a"
            assert 200 == http.post(url, json={"cents": 9900}, timeout=20).status_code
            (record,) = [each for each in shop.records(task.id) if each["event"] == "token_used"]
        assert ("POST", "/orders/O-7/refunds?secret&note", "order:refund", {"order": "O-7"}) == (
            record["method"],
            record["target"],
            record["action"],
            record["params"],
        )
        assert shop.url == record["resource"]
        assert "hunter2" not in shop.agent.run("audit", "tail", "-n", "1000").stdout
        until(lambda: shown(shop, task.id)["calls"] == 1, "the call to be told")
        seen = [each["event"] for each in shop.agent.json("review", "show", task.id)["records"]]
        assert ["token_used", "task_ended"] == seen[:2]


class TestRefusals:
    def test_denials_of_the_agent(self, shop: OrderShop) -> None:
        """What the agent itself denies is counted by type and code."""
        series = 'sojourn_task_denials_total{code="policy_denied",type="support"}'
        before = value(shop, series)
        with pytest.raises(Refused), shop.client.task("support", params={"order": "forbidden"}):
            pass
        assert before + 1 == value(shop, series)

    @pytest.mark.forked
    def test_tries_at_the_orders_of_others(self, shop: OrderShop) -> None:
        """Hundreds of tries at others' orders are counted with the task, some of them told one by one, and the journal
        does not grow by them.
        """
        with shop.client.task("support", params={"order": "O-1"}) as task, httpx.Client(timeout=20) as http:
            headers = bearer(task.token().token)
            for number in range(TRIES):
                url = f"{shop.url}/orders/O-{2_000 + number}?token=hunter2"
                assert 403 == http.get(url, headers=headers).status_code
            found = until(lambda: (seen := shown(shop, task.id))["refused"] == TRIES and seen, "all to be told")
            assert {"wrong_params"} == {each["code"] for each in found["refusals"]}
            records = [each for each in shop.records(task.id) if each["event"] == "request_refused"]
        first = records[0]
        assert (SHOP, "GET", "/orders/O-2000?token", "order:read", SUPPORT) == (
            first["by"],
            first["method"],
            first["target"],
            first["action"],
            first["spiffe_id"],
        )
        assert len(records) <= 20
        assert value(shop, 'sojourn_requests_refused_total{code="wrong_params",type="support"}') >= TRIES
        pretty = shop.agent.run("task", "show", task.id).stdout
        assert f"{TRIES} requests" in pretty
        assert "wrong_params" in pretty

    def test_what_is_no_token(self, shop: OrderShop) -> None:
        """Requests without a token of a task are counted, and nothing of what they say is recorded anywhere."""
        series = 'sojourn_requests_refused_total{code="no_token",type=""}'
        before = value(shop, series)
        assert 401 == httpx.get(f"{shop.url}/orders/marked-by-nobody", timeout=20).status_code
        headers = bearer("marked.by.nobody")
        assert 401 == httpx.get(f"{shop.url}/orders/marked-by-nobody", headers=headers, timeout=20).status_code
        until(lambda: value(shop, series) == before + 1, "it to be counted")
        assert "marked" not in shop.agent.run("audit", "tail", "-n", "1000").stdout

    def test_log_of_the_service(self, shop: OrderShop) -> None:
        """The service's own log says at once which task was refused what and why, and never a token."""
        with shop.client.task("support", params={"order": "O-1"}) as task:
            token = task.token().token
            assert 403 == httpx.get(f"{shop.url}/orders/O-3", headers=bearer(token), timeout=20).status_code
            found = until(lambda: [each for each in shop.log.read_text().splitlines() if task.id in each])
        assert f"refused: task {task.id}, action order:read, GET /orders/O-3: " in found[0]
        assert "(wrong_params)" in found[0]
        assert token[:40] not in shop.log.read_text()
