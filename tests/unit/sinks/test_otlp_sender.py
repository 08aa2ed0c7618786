"""otlp_sender.py: what is posted is OTLP/HTTP in JSON, and what each answer means."""

import json
from collections.abc import Iterator

import pytest
from fakes.sinks import items
from harness.sinkplace import SinkPlace
from sojourn.settings.audit import SinkConfig
from sojourn.sinks.items import Item
from sojourn.sinks.make import sender_of
from sojourn.sinks.sender import ItemsRefused, Sender, SinkDown
from sojourn.spiffe.ids import SpiffeId

NODE = SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/here")


@pytest.fixture
def place() -> Iterator[SinkPlace]:
    with SinkPlace() as running:
        running.answer = lambda _body: (200, {"content-type": "application/json"}, b"{}")
        yield running


def sender(place: SinkPlace) -> Sender:
    return sender_of(SinkConfig(name="otel", kind="otlp", url=place.url), NODE, None)


async def test_log_records(place: SinkPlace) -> None:
    """Each item is one log record: its line the body, its number and kind attributes, and whose it is in the resource."""
    to = sender(place)
    gap = Item.of_gap(1, 5, 1_700_000_000_123)
    taken = await to.send([gap, *items(6, 2)])
    assert 0 == taken.refused
    ((headers, body),) = place.posts
    assert "application/json" == headers["content-type"]
    (resource,) = json.loads(body)["resourceLogs"]
    said = {each["key"]: each["value"]["stringValue"] for each in resource["resource"]["attributes"]}
    assert {"service.name": "sojourn", "service.instance.id": str(NODE), "host.name": "here"} == said
    records = resource["scopeLogs"][0]["logRecords"]
    assert [gap.line, *(each.line for each in items(6, 2))] == [
        each["body"]["stringValue"].encode() for each in records
    ]
    assert ("1700000000123000000", "sojourn.audit_gap", 9) == (
        records[0]["timeUnixNano"],
        records[0]["eventName"],
        records[0]["severityNumber"],
    )
    attributes = [{each["key"]: each["value"] for each in record["attributes"]} for record in records]
    assert [("5", "gap"), ("6", "record"), ("7", "record")] == [
        (each["sojourn.audit.seq"]["intValue"], each["sojourn.audit.kind"]["stringValue"]) for each in attributes
    ]
    await to.close()


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (b'{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}', 2),
        (b'{"partialSuccess":{"rejectedLogRecords":3}}', 3),
        (b'{"partialSuccess":{"errorMessage":"only a warning"}}', 0),
        (b'{"partialSuccess":null}', 0),
        (b"{}", 0),
        (b"", 0),
        (b"not json", 0),
        (b"[]", 0),
        (b'{"partialSuccess":{"rejectedLogRecords":"many"}}', 0),
        (b'{"partialSuccess":{"rejectedLogRecords":-1}}', 0),
    ],
)
async def test_partial_success(place: SinkPlace, body: bytes, refused: int) -> None:
    """What the receiver rejected of a batch is counted, whatever else it says."""
    place.answer = lambda _body: (200, {}, body)
    to = sender(place)
    taken = await to.send(items(1, 5))
    assert refused == taken.refused
    assert ("rejected" in taken.reason) == bool(refused) or not refused
    await to.close()


@pytest.mark.parametrize(("status", "kind"), [(400, ItemsRefused), *((s, SinkDown) for s in (401, 429, 502, 503, 504))])
async def test_statuses(place: SinkPlace, status: int, kind: type[Exception]) -> None:
    """A status about the content halves the batch; all else is tried again."""
    place.answer = lambda _body: status
    to = sender(place)
    with pytest.raises(kind):
        await to.send(items(1, 2))
    await to.close()
