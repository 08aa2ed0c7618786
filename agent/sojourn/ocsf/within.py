"""Our own line within an event of OCSF: what is checked of it.

Whatever stands beside `unmapped.sojourn` is for the receiver's convenience, and no part of what is checked.
"""

import json

from sojourn.errors import InvalidInput
from sojourn.jose.canonical_json import canonical


def line_within(unverified_line: bytes) -> bytes:
    """The line of a record, a checkpoint or a gap, as the agent has it. Raise InvalidInput if there is none within.

    A receiver may have written the event's JSON anew, in another order or with spaces.
    """
    try:
        ours = json.loads(unverified_line)["unmapped"]["sojourn"]
        if isinstance(ours, str):  # of a damaged record
            return ours.encode()
        return canonical(ours).encode()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput("the line has no record within") from error
