"""What `sojourn authority show` and `sojourn status` tell of the authority, as lines for people."""

from collections.abc import Iterable
from typing import Any

from sojourn.cli.output import printable, table


def shown(value: dict[str, Any]) -> Iterable[str]:
    """All of it. A node has no more than what its server signs with."""
    if value["kind"] != "embedded":
        yield (
            f"a {value['kind']} server signs, by authority {value['root_serial']}, until {value['root_not_after']}:"
            " its keys are there, `spire-server localauthority x509 show`"
        )
        return
    rows = [
        [key["kind"], key["authority_id"], key["status"] + (", tainted" if key["tainted"] else ""), key["not_after"]]
        for key in value["keys"]
    ]
    yield from table(["KIND", "AUTHORITY ID", "STATE", "NOT AFTER"], rows)
    yield ""
    certificates = [[each["role"], each["authority_id"], each["not_after"], each["key"]] for each in value["chain"]]
    yield from table(["CHAIN", "AUTHORITY ID", "NOT AFTER", "KEY"], certificates)
    if not value["chain"] and not value["root_serial"] and value["upstream"] is None:
        yield "there is no root yet: the token is still to make it"
    if not value["issuer_serial"]:
        yield "no intermediate: X.509-SVIDs cannot be signed"
    yield ""
    roots = [[each["authority_id"], _use(each), each["not_after"]] for each in value["roots"]]
    yield from table(["ROOT IN THE BUNDLE", "USE", "NOT AFTER"], roots)
    for key in value["keys"]:
        if key["key_uri"] and key["key_uri"] not in {each["key"] for each in value["chain"]}:
            yield f"{key['authority_id']} is {key['key_uri']}"
    if value["upstream"] is not None:
        yield ""
        yield from _upstream(value["upstream"])
    elif value["fault"]:
        yield f"the next intermediate: {value['fault']}"


def tested(value: dict[str, Any]) -> Iterable[str]:
    """How each root's key has signed."""
    rows = [
        [each["authority_id"], each["status"], each["key"], "" if each["fault"] else f"{each['seconds'] * 1000:.1f} ms"]
        for each in value["roots"]
    ]
    yield from table(["ROOT", "STATE", "KEY", "SIGNED IN"], rows)
    for each in value["roots"]:
        if each["fault"]:
            yield printable(f"{each['authority_id']} has not signed: {each['fault']} [{each['code']}]")


def in_short(value: dict[str, Any]) -> str:
    """One line of it."""
    root = value["root_not_after"]
    told = f"{value['kind']}, root until {root}" if root else f"{value['kind']}, no root yet"
    upstream = value["upstream"]
    if upstream is None:
        return told
    if not upstream["fault"]:
        return f"{told}, below {upstream['kind']}: answered at {upstream['answered_at'] or 'no time yet'}"
    until = value["issuer_not_after"]
    still = f"X.509-SVIDs are signed until {until}" if until else "X.509-SVIDs cannot be signed"
    return printable(
        f"{told}, below {upstream['kind']}: FAILS since {upstream['since']} ({upstream['fault']}); {still}"
    )


def _use(root: dict[str, Any]) -> str:
    said = "signs" if root["signs"] else f"needed until {root['needed_until']}" if root["needed_until"] else "published"
    marks = [name for name in ("own", "tainted") if root[name]]
    return ", ".join([said, *marks])


def _upstream(told: dict[str, Any]) -> Iterable[str]:
    place = ", ".join(f"{name} {value}" for name, value in told["place"].items())
    yield f"{'upstream':<14} {told['kind']}: {printable(place)}"
    yield f"{'answered':<14} {told['answered_at'] or 'not in this run'}"
    if told["fault"]:
        yield f"{'fails since':<14} {told['since']}: {printable(told['fault'])} [{told['code']}]"
    if told["follows_at"]:
        yield f"{'next':<14} there, and signs at {told['follows_at']}: its root is published first"
    else:
        yield f"{'next':<14} {told['renewal_at'] or 'is asked for now'}"
