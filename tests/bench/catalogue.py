"""Which lines there are, and in which order they are measured and shown.

A line is a number for good, a title, and a generator that is given the bench and yields what it finds.
"""

from collections.abc import Callable, Iterator

from attestlines import ATTEST_LINES
from controllines import CONTROL_LINES
from evidencelines import EVIDENCE_LINES
from factlines import FACT_LINES
from figures import Figure, Growth
from floodlines import FLOOD_LINES
from ground import Bench
from growthlines import GROWTH_LINES
from keycloaklines import KEYCLOAK_LINES
from keylines import KEY_LINES
from lines import LINES
from logoutlines import LOGOUT_LINES
from nodelines import NODE_LINES
from operatelines import OPERATE_LINES
from peoplelines import PEOPLE_LINES
from policylines import POLICY_LINES
from providerlines import PROVIDER_LINES
from replaylines import REPLAY_LINES
from servicelines import SERVICE_LINES
from sinklines import SINK_LINES
from stormlines import STORM_LINES
from tokenlines import TOKEN_LINES
from usagelines import USAGE_LINES
from workloadlines import WORKLOAD_LINES

Measure = Callable[[Bench], Iterator[Figure | Growth | str]]
Spec = tuple[int, str, Measure]

_ALL: tuple[Spec, ...] = (
    *WORKLOAD_LINES,
    *STORM_LINES,
    *FLOOD_LINES,
    *LINES,
    *FACT_LINES,
    *KEYCLOAK_LINES,
    *POLICY_LINES,
    *GROWTH_LINES,
    *TOKEN_LINES,
    *PROVIDER_LINES,
    *ATTEST_LINES,
    *OPERATE_LINES,
    *PEOPLE_LINES,
    *LOGOUT_LINES,
    *SERVICE_LINES,
    *EVIDENCE_LINES,
    *CONTROL_LINES,
    *SINK_LINES,
    *USAGE_LINES,
    *REPLAY_LINES,
    *NODE_LINES,
    *KEY_LINES,
)
BY_NUMBER: dict[int, Spec] = {line[0]: line for line in _ALL}
GROUPS: dict[str, tuple[int, ...]] = {
    "Workload API, users and groups attested": (30, 32, 33, 56),
    "Workload API, programs attested too": (31, 23, 2, 3),
    "Attestation": (22, 24),
    "Pushes": (40, 41, 42, 4, 5),
    "Many clients": (43, 44),
    "Beside a flood": (34,),
    "The agent and the command": (1, 10),
    "Token service": (50, 55),
    "Policy": (51,),
    "Tasks": (6, 7, 11, 20, 21),
    "In the services": (16, 8, 17, 18),
    "Growth": (53, 54, 52, 12),
    "Operating it": (60, 61, 62, 69, 70, 71, 72, 73, 74, 75, 76, 80, 81),
    "As a node of a SPIRE server": (77, 78, 79),
    "For people": (63, 64, 65, 66, 67, 68),
}


def catalogue() -> list[tuple[str, Spec]]:
    """Every line with its group."""
    return [(group, BY_NUMBER[number]) for group, numbers in GROUPS.items() for number in numbers]
