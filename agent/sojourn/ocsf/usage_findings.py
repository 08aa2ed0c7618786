"""What tasks were granted against what was used of it, as findings of OCSF: one for each task type and workload.

A privilege counts as unused where no task took a token or an outside credential for it. The other grades of evidence,
and all else of the report, stand in `unmapped.sojourn`. The same report gives the same bytes.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sojourn.jose.canonical_json import canonical
from sojourn.ocsf.parts import Value
from sojourn.ocsf.schema import ANALYSIS, INFORMATIONAL, LOW, NEW, VERSION
from sojourn.ocsf.translation import PRODUCT

_CREATE: Final = 1
_CONFIDENCE_LOW, _CONFIDENCE_HIGH = 1, 3
_SERVICE: Final = {"type_id": 4}
_PER_WORKLOAD: Final = ("actions", "workloads")
Report = Mapping[str, Any]


def findings(types: Sequence[Report]) -> Iterator[bytes]:
    """Lines without a newline, of types as `sojourn usage --output json` has them."""
    for use in types:
        began = {each["workload"] for each in (*use["workloads"], *use["actions"])}
        for workload in sorted(began | set(use["unused"]["workloads"])):
            yield canonical(_finding(use, workload)).encode()


def _finding(use: Report, workload: str) -> Value:
    actions = [each for each in use["actions"] if each["workload"] == workload]
    unused = [each for each in actions if not each["taken"]]
    since, until = _milliseconds(use["since"]), _milliseconds(use["until"])
    idle = not actions
    concludes = use["enough"] and (unused or idle)
    ours = {
        **{name: value for name, value in use.items() if name not in _PER_WORKLOAD},
        **{name: [each for each in use[name] if each["workload"] == workload] for name in _PER_WORKLOAD},
        "kind": "usage",
    }
    return {
        "activity_id": _CREATE,
        "activity_name": ANALYSIS.activity_name(_CREATE),
        "category_uid": ANALYSIS.category,
        "class_name": ANALYSIS.name,
        "class_uid": ANALYSIS.uid,
        "confidence_id": _CONFIDENCE_HIGH if use["enough"] else _CONFIDENCE_LOW,
        "end_time": until,
        "finding_info": _about(use, workload, since, until, idle=idle, unused=len(unused)),
        "message": _sentence(use, workload, idle=idle, unused=len(unused), of=len(actions)),
        "metadata": {
            "event_code": "usage",
            "product": PRODUCT,
            "uid": hashlib.sha256(canonical(ours).encode()).hexdigest(),
            "version": VERSION,
        },
        "permission_analysis_results": [_permissions(use, actions)],
        "resources": [{"role_id": 4, "uid": each} for each in _resources(actions)],
        "severity_id": LOW if concludes else INFORMATIONAL,
        "start_time": since,
        "status_id": NEW,
        "time": until,
        "type_uid": ANALYSIS.type_uid(_CREATE),
        "unmapped": {"sojourn": ours},
        "user": {**_SERVICE, "uid": workload},
        **({"status_detail": use["lacking"]} if use["lacking"] else {}),
    }


def _about(use: Report, workload: str, since: int, until: int, *, idle: bool, unused: int) -> Value:
    """`uid` is the same for the same type, as long as its files stay as they are: a later report is of this finding."""
    what = "no task" if idle else "unused privileges" if unused else "used privileges"
    of = f"{use['type']}\n{use['digest']}\n{workload}"
    return {
        "first_seen_time": since,
        "last_seen_time": until,
        "title": f"Task type {use['type']}: {what} of {workload}",
        "types": ["usage"],
        "uid": f"usage-{hashlib.sha256(of.encode()).hexdigest()}",
    }


def _sentence(use: Report, workload: str, *, idle: bool, unused: int, of: int) -> str:
    if idle:
        return f"{workload} may begin tasks of type {use['type']}, and none of its tasks ended in this time."
    return f"Of {of} actions that tasks of type {use['type']} of {workload} were granted, {unused} were not used."


def _permissions(use: Report, actions: Sequence[Report]) -> Value:
    services = [_service(each, actions) for each in _resources(actions)]
    return {
        "analyzed_privileges_count": len(actions),
        "granted_privileges": [f"{each['action']} {each['resource']}" for each in actions],
        "policy": {"name": use["type"], "type": "task type", "uid": use["digest"]},
        "service_privilege_analysis_list": services,
        "unused_privileges_count": sum(not each["taken"] for each in actions),
        "unused_services_count": sum(each["all_privileges_unused"] for each in services),
    }


def _service(resource: str, actions: Sequence[Report]) -> Value:
    own = [each for each in actions if each["resource"] == resource]
    unused = sum(not each["taken"] for each in own)
    last = max((_milliseconds(each["last"]) for each in own if each["last"]), default=None)
    return {
        "all_privileges_unused": unused == len(own),
        "analyzed_privileges_count": len(own),
        "name": resource,
        "unused_privileges_count": unused,
        **({} if last is None else {"last_used_time": last}),
    }


def _resources(actions: Sequence[Report]) -> list[str]:
    return list(dict.fromkeys(each["resource"] for each in actions))


def _milliseconds(moment: str) -> int:
    """Of RFC 3339."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
