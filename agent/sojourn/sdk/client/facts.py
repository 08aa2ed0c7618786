"""What a workload says of the world."""

from typing import TYPE_CHECKING

from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.errors import InvalidInput
from sojourn.limits import LONG_MAX

if TYPE_CHECKING:
    from sojourn.sdk.client.connection import AgentConnection  # grpcio comes with it, which the agent does without


def fact_value(value: str | int | bool) -> tasks_pb2.FactValue:
    """A value as it is sent. Raise InvalidInput if it is none that policies can read."""
    if isinstance(value, bool):
        return tasks_pb2.FactValue(boolean_value=value)
    if isinstance(value, int):
        if abs(value) > LONG_MAX:
            raise InvalidInput("the value is not a whole number of at most 18 digits")
        return tasks_pb2.FactValue(long_value=value)
    return tasks_pb2.FactValue(string_value=value)


async def publish(
    connection: "AgentConnection",
    name: str,
    value: str | int | bool,
    subject: str,
    valid_seconds: float | None,
    spiffe_id: str,
    person: str,
) -> None:
    """Say it, and return when all that depends on it was decided again."""
    request = tasks_pb2.PublishFactRequest(
        name=name,
        subject=subject,
        value=fact_value(value),
        valid_seconds=valid_seconds or 0,
        spiffe_id=spiffe_id,
        person=person,
    )
    await connection.unary("/sojourn.v1.Tasks/PublishFact", request, tasks_pb2.PublishFactResponse)
