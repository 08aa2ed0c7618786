"""All checks, in the order in which they are told: the agent first, then what it stands on."""

from collections.abc import Callable
from typing import Final

from sojourn.doctor import agent, files, machine, process, sockets
from sojourn.doctor.findings import Finding, unknown
from sojourn.doctor.scene import Scene

CHECKS: Final[dict[str, Callable[[Scene], Finding]]] = {
    "agent": agent.agent,
    "ready": agent.ready,
    "version": agent.version,
    "configuration": agent.configuration,
    "sockets": sockets.sockets,
    "listeners": sockets.listeners,
    "attestors": agent.attestors,
    "kubelet": agent.kubelet,
    "authority": agent.authority,
    "upstream": agent.upstream,
    "task-types": agent.task_types,
    "reviews": agent.reviews,
    "nodes": agent.nodes,
    "entries-folder": agent.entries_folder,
    "federation": agent.federation,
    "signals": agent.signals,
    "audit-sinks": agent.audit_sinks,
    "audit-witnesses": agent.audit_witnesses,
    "audit-timestamps": agent.audit_timestamps,
    "journal-room": agent.journal_room,
    "backup": agent.backup,
    "restored": agent.restored,
    "loop": agent.loop,
    "failures": agent.failures,
    "capabilities": process.capabilities,
    "descriptors": process.descriptors,
    "code": process.code,
    "data-folder": files.data_folder,
    "keys": files.keys,
    "disk": files.disk,
    "store": files.store,
    "journal": files.journal,
    "kernel": machine.kernel,
    "proc": machine.proc,
    "pid-namespace": machine.pid_namespace,
    "user-namespace": machine.user_namespace,
    "cgroup": machine.cgroup,
    "apparmor": machine.apparmor,
    "selinux": machine.selinux,
    "clock": machine.clock,
    "backlog": machine.backlog,
}


def examine(scene: Scene) -> dict[str, Finding]:
    """The finding of each check, by its name. A check that fails itself says so, and stops none of the others."""
    return {name: _examined(check, scene) for name, check in CHECKS.items()}


def _examined(check: Callable[[Scene], Finding], scene: Scene) -> Finding:
    try:
        return check(scene)
    except Exception as error:  # noqa: BLE001  # whatever it is, the other checks are wanted all the more
        return unknown(f"the check itself failed: {type(error).__name__}: {error}", "report it as a fault of Sojourn")
