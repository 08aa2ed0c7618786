"""Kind `otlp`: log records of OpenTelemetry by OTLP/HTTP, in its JSON encoding (opentelemetry-proto, logs/v1).

A record's body is its line, so that whoever has it can check it. PartialSuccess says how many were rejected and not
which: they are counted and told, and by the protocol nothing of that batch is sent again. Statuses are read as those of
the sink `https`: where OTLP would drop what is not retryable, an audit record waits.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sojourn.jose.canonical_json import canonical
from sojourn.sinks.http_sender import Posting
from sojourn.sinks.items import Item
from sojourn.sinks.sender import Sender, Taken

_JSON: Final = "application/json"
_INFO: Final = 9  # SEVERITY_NUMBER_INFO
_REASON_MAX: Final = 200  # characters of what a receiver says of rejected records


class OtlpSender(Sender):
    """Log records, by a `Posting`."""

    def __init__(self, posting: Posting, resource: Mapping[str, str]) -> None:
        """`resource`: attributes of whose records these are."""
        self._posting = posting
        self._resource = [_attribute(name, {"stringValue": value}) for name, value in resource.items()]

    async def send(self, items: Sequence[Item]) -> Taken:
        answer = await self._posting.post(self.encoded(items), _JSON)
        return _taken(answer.body)

    async def close(self) -> None:
        await self._posting.close()

    def encoded(self, items: Sequence[Item]) -> bytes:
        """An ExportLogsServiceRequest."""
        logs = {"scope": {"name": "sojourn.audit"}, "logRecords": [_log_record(each) for each in items]}
        resource = {"resource": {"attributes": self._resource}, "scopeLogs": [logs]}
        return canonical({"resourceLogs": [resource]}).encode()


def _log_record(item: Item) -> dict[str, Any]:
    """64-bit numbers are texts, as proto3's JSON has them."""
    nanoseconds = str(item.at_ms * 1_000_000)
    return {
        "timeUnixNano": nanoseconds,
        "observedTimeUnixNano": nanoseconds,
        "severityNumber": _INFO,
        "severityText": "INFO",
        "eventName": f"sojourn.{item.event}",
        "body": {"stringValue": item.line.decode()},
        "attributes": [
            _attribute("sojourn.audit.seq", {"intValue": str(item.seq)}),
            _attribute("sojourn.audit.kind", {"stringValue": item.kind}),
        ],
    }


def _attribute(key: str, value: Mapping[str, str]) -> dict[str, Any]:
    return {"key": key, "value": dict(value)}


def _taken(unverified_body: bytes) -> Taken:
    """What an ExportLogsServiceResponse says. One that is empty, or is none, says that all is taken."""
    try:
        said = json.loads(unverified_body or b"{}").get("partialSuccess") or {}
        rejected = int(said.get("rejectedLogRecords") or 0)
        reason = str(said.get("errorMessage") or "it does not say why")
    except (ValueError, AttributeError, TypeError, RecursionError):
        return Taken()
    return Taken(max(0, rejected), f"it rejected {rejected} log records: {reason[:_REASON_MAX]}")
