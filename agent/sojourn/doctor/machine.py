"""Checks of the machine: what the kernel offers, what keeps the agent from seeing it, and the clock."""

import os
import re
from pathlib import Path
from typing import Final

from sojourn.doctor.findings import Finding, fail, ok, unknown, warn
from sojourn.doctor.scene import START, Scene, lines_of
from sojourn.limits import LISTEN_BACKLOG
from sojourn.runtime.clock import synchronised

# The kernel's first namespaces have these numbers (include/linux/proc_ns.h).
_FIRST_PID, _FIRST_USER = "pid:[4026531836]", "user:[4026531837]"
_ATTESTS_OUTSIDE: Final = "run the agent in the host's PID namespace (docker and podman: --pid=host; pods: hostPID)"
_UNCONFINED: Final = (
    "docker and podman: --security-opt apparmor=unconfined; Kubernetes: appArmorProfile Unconfined; or a profile of the"
    " agent's own that allows `ptrace read`"
)
_UNLABELLED: Final = "docker and podman: --security-opt label=type:spc_t; Kubernetes: seLinuxOptions type spc_t"


def kernel(_scene: Scene) -> Finding:
    """Whether the kernel has pidfds, by which callers and holders are pinned."""
    release = os.uname().release
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return fail(
            f"Linux {release} gives no pidfd: {error.strerror}",
            "run Linux 5.4 or newer; in a container allow pidfd_open in its seccomp profile",
        )
    return ok(f"Linux {release}")


def proc(scene: Scene) -> Finding:
    """Whether /proc shows other users' processes."""
    hidden = _hidepid(scene)
    if hidden is None:
        return unknown("the mounts cannot be read")
    if hidden in {"", "0", "off"}:
        return ok("/proc shows all processes")
    seen = _sees_all(scene)
    if seen is None:
        return unknown(f"/proc is mounted with hidepid={hidden}, and the agent's capabilities are not known", START)
    if seen:
        return ok(f"/proc is mounted with hidepid={hidden}, which does not hold for the agent")
    return fail(
        f"/proc is mounted with hidepid={hidden}: callers of other users cannot be attested",
        "give the agent CAP_SYS_PTRACE, or mount /proc without hidepid",
    )


def _hidepid(scene: Scene) -> str | None:
    """The option hidepid of the last mount at /proc, as the agent sees it if that can be read; '' if it has none."""
    for place in (scene.process, scene.proc / "self"):
        options = None
        for line in lines_of(place / "mountinfo") if place is not None else ():
            before, _, after = line.partition(" - ")
            if before.split()[4:5] == ["/proc"] and after.split()[:1] == ["proc"]:
                options = after.split()[-1]
        if options is not None:
            found = re.search(r"hidepid=(\w+)", options)
            return found[1] if found else ""
    return None


def _sees_all(scene: Scene) -> bool | None:
    """Whether the agent sees the processes of all users whatever hidepid is."""
    held = scene.process_status("CapEff")
    return None if held is None else bool(int(held, 16) >> 19 & 1)


def pid_namespace(scene: Scene) -> Finding:
    """Whether the agent sees the machine's processes, and not those of a container alone."""
    place, whose = _where(scene, "pid")
    if place is None:
        return unknown(f"{whose} PID namespace cannot be read", "run `sojourn doctor` as root")
    if scene.status is not None and scene.process is None:
        return warn("the agent runs in another PID namespace than this command", _ATTESTS_OUTSIDE)
    if place != _FIRST_PID:
        return warn(
            f"{whose} PID namespace is not the machine's first: callers outside of it cannot be attested",
            _ATTESTS_OUTSIDE,
        )
    return ok(f"{whose} PID namespace is the machine's")


def user_namespace(scene: Scene) -> Finding:
    """Whether users have the same numbers for the agent as for the machine."""
    place, whose = _where(scene, "user")
    if place is None:
        return unknown(f"{whose} user namespace cannot be read", "run `sojourn doctor` as root")
    if place != _FIRST_USER:
        return warn(
            f"{whose} user namespace is not the machine's first: users have other numbers, and"
            " those without one are all the same user",
            "run the agent without userns-remap, and without PrivateUsers= in its unit",
        )
    return ok(f"{whose} user namespace is the machine's")


def _where(scene: Scene, kind: str) -> tuple[str | None, str]:
    """The namespace of a kind that the agent is in, and whose it is: the agent's, or else this command's."""
    places = [] if scene.process is None else [(scene.process, "the agent's")]
    for place, whose in [*places, (scene.proc / "self", "this command's")]:
        try:
            return os.readlink(place / "ns" / kind), whose
        except OSError:
            continue
    return None, "the agent's"


def cgroup(scene: Scene) -> Finding:
    """Whether cgroups are of the second version, by which units, containers and pods are told."""
    folder = scene.sys / "fs" / "cgroup"
    if (folder / "cgroup.controllers").exists():
        return ok("cgroups are of version 2")
    if folder.is_dir() and any(folder.iterdir()):
        return warn(
            "cgroups are of version 1, or mixed",
            "boot with systemd.unified_cgroup_hierarchy=1; otherwise see attestors.md for what is told of containers",
        )
    return warn(
        f"there are no cgroups at {folder}",
        "mount cgroup2 there: without, no attestor can tell units, containers or pods",
    )


def apparmor(scene: Scene) -> Finding:
    """Whether an AppArmor profile keeps the agent from reading about others' processes."""
    if (scene.read(scene.sys / "module" / "apparmor" / "parameters" / "enabled") or "").strip() != "Y":
        return ok("AppArmor is not in force in this kernel")
    label = _label(scene, "apparmor", "current")
    if label is None:
        return unknown("AppArmor is in force, and the agent's profile cannot be read", START)
    if label == "unconfined" or label.endswith(("(complain)", "(unconfined)")):
        return ok(f"the agent runs as {label!r}")
    return warn(
        f"the agent runs under the AppArmor profile {label!r}, which may deny it to read about"
        " processes of others: no unix:path, no containers, no pods",
        _UNCONFINED,
    )


def selinux(scene: Scene) -> Finding:
    """Whether SELinux keeps the agent within a container's type."""
    enforces = (scene.read(scene.sys / "fs" / "selinux" / "enforce") or "").strip()
    if enforces != "1":
        return ok("SELinux is permissive" if enforces == "0" else "SELinux is not in force in this kernel")
    label = _label(scene, "current")
    if label is None:
        return unknown("SELinux is in force, and the agent's label cannot be read", START)
    if ":container_t:" in label:
        return warn(
            f"the agent runs as {label!r}: it may not read about processes of others, and pods may not"
            " write to its socket",
            _UNLABELLED,
        )
    return ok(f"the agent runs as {label!r}")


def _label(scene: Scene, *names: str) -> str | None:
    """What the agent's process is confined by, as a security module says."""
    if scene.process is None:
        return None
    for path in (Path("attr", *names), Path("attr", "current")):
        text = scene.read(scene.process / path)
        if text:
            return text.strip("\0\n ")
    return None


def clock(_scene: Scene) -> Finding:
    """Whether something keeps the wall clock right, by which SVIDs and tokens are judged everywhere."""
    if synchronised():
        return ok("the kernel's clock is synchronised")
    return warn(
        "nothing keeps the clock right: SVIDs and tokens are judged by it, here and elsewhere",
        "run systemd-timesyncd, chrony or ntpd; `timedatectl` says whether it works",
    )


def backlog(scene: Scene) -> Finding:
    """Whether the kernel lets as many connections wait as the agent wants."""
    found = (scene.read(scene.proc / "sys" / "net" / "core" / "somaxconn") or "").strip()
    if not found.isdecimal():
        return unknown("net.core.somaxconn cannot be read")
    if int(found) < LISTEN_BACKLOG:
        return warn(
            f"net.core.somaxconn is {found}: of more connections that come at once some are refused",
            f"sysctl -w net.core.somaxconn={LISTEN_BACKLOG}, and restart the agent",
        )
    return ok(f"{LISTEN_BACKLOG} connections may wait")
