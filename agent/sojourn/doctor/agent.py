"""Checks of the agent by its own account: whether it answers and is ready, and what it says is wrong."""

import time
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Final

from sojourn.config.load import digest_of
from sojourn.config.service_unit import START as UNIT_START
from sojourn.doctor.files import PUT_BACK, foreign_root
from sojourn.doctor.findings import Finding, fail, ok, unknown, warn
from sojourn.doctor.scene import ASK_AS_ROOT, SILENT, START, Scene
from sojourn.errors import InvalidConfig
from sojourn.operating_limits import WITNESS_OLD_SECONDS

_AUTHORITY_WARN, _AUTHORITY_FAIL = 0.75, 0.9
_STOOD_RECENTLY_SECONDS: Final = 3_600
_STOOD_LONG_SECONDS: Final = 1.0
_TOLD: Final = 3
_HELD_MUCH: Final = 0.8  # as the alert JournalFills has it
_LAG_LONG: Final = 300.0  # seconds, as the alert AuditSinkBehind has it
_BACKUP_OLD_SECONDS: Final = 2 * 86_400  # as the alert BackupOld has it
_RESTORED_RECENTLY_SECONDS: Final = 7 * 86_400


def _answered(look: Callable[[Any], Finding]) -> Callable[[Scene], Finding]:
    """Makes a check of what looks at the agent's own account, `Scene.status`: unknown where no agent answers."""

    @wraps(look)
    def check(scene: Scene) -> Finding:
        return unknown(SILENT, START) if scene.status is None else look(scene.status)

    return check


def agent(scene: Scene) -> Finding:
    """Whether the agent answers at its admin socket, and if not, what keeps it from starting."""
    if scene.status is not None:
        told = scene.status
        return ok(f"process {told.pid}, trust domain {told.trust_domain}, {told.node_id}")
    why = foreign_root(scene)
    if why:
        return fail(f"{scene.silent}; it does not start: {why}", PUT_BACK)
    if scene.has_unit:
        return fail(scene.silent, f"{UNIT_START}; operators are root and the agent's user")
    return fail(
        scene.silent,
        "start it with `sojourn agent run`, or by what runs it here; its log says why it does not run; operators are"
        " root and the agent's user",
    )


@_answered
def ready(status: Any) -> Finding:
    """Whether the agent is ready, as `sojourn agent health` says."""
    faults = "; ".join(f"{each.name}: {each.found}" for each in status.faults)
    if status.state == "unready":
        return fail(faults, "see the condition's row under “Is it ready”")
    return ok(status.state + (f" ({faults})" if faults else ""))


@_answered
def version(status: Any) -> Finding:
    """Whether this command is of the same release as the agent."""
    own = installed("sojourn")
    if status.version != own:
        return warn(
            f"the agent is {status.version}, and this command {own}",
            "restart the agent after an upgrade, and use the command that was installed with it",
        )
    return ok(own)


def configuration(scene: Scene) -> Finding:
    """Whether the configuration can be read, and is in force."""
    where = str(scene.config_file or "no file")
    if scene.config is None:
        return fail(scene.config_fault, "mend it; `sojourn config show --config FILE` checks it")
    if scene.status is None:
        return ok(f"{where}: can be used")
    told = scene.status.config
    reload = "`systemctl reload sojourn`" if scene.has_unit else "reload the agent (SIGHUP)"
    if told.fault:
        return fail(
            f"{told.file} was not taken when it was read again: {told.fault}",
            f"mend it, and {reload}",
        )
    if told.file:
        try:
            edited = digest_of(Path(told.file)) != told.digest
        except InvalidConfig as error:
            return unknown(f"whether what runs is what {told.file} says: {error.public}", ASK_AS_ROOT)
        if not told.digest:
            return unknown(f"the agent does not say what {told.file} was when it read it", "restart the agent")
        if edited:
            return warn(f"{told.file} was edited since the agent has read it, and that is not in force", reload)
    if "trust_domain" in told.restart_needed:
        return fail("not in force: trust_domain; with it the agent will not start", PUT_BACK)
    if told.restart_needed:
        restart = "`systemctl restart sojourn`" if scene.has_unit else "restart the agent"
        return warn(f"not in force: {', '.join(told.restart_needed)}", restart)
    return ok(f"{told.file or 'no file'}: in force")


def node(told: Any) -> Finding:
    """Whether a node's server answers and takes it for one, and how long its own SVID is good."""
    until = f"the node's own SVID is good until {_moment(told.svid_until)}" if told.svid_until else "it has none"
    if told.refused:
        return fail(f"the server refuses this node ({told.refused}); {until}", told.remedy)
    if not told.svid_until or told.svid_until < time.time():
        return fail(f"it is no node: {told.fault or until}", told.remedy or "operate/spire-node.md")
    if told.HasField("away_seconds"):
        away = f"no server has answered for {told.away_seconds:.0f} s: {told.fault}"
        return warn(f"{away}; {until}", "see that a server runs and can be reached; operate/spire-node.md")
    return ok(f"{until}, and {told.server} answers")


@_answered
def authority(status: Any) -> Finding:
    """How much of its life the root certificate has left, if it is the agent's own. A node's is its server's."""
    if status.HasField("upstream"):
        return node(status.upstream)
    if status.authority.HasField("upstream"):
        ends = status.authority.root_not_after
        return ok(f"the root is an upstream authority's{f', and ends at {_moment(ends)}' if ends else ''}")
    roots = [each for each in status.authority.keys if each.kind == "x509" and each.status == "active"]
    if not roots:
        return unknown("the agent tells of no active root")
    root = roots[0]
    share = (time.time() - root.created_at) / max(1, root.not_after - root.created_at)
    said = f"the root ends at {_moment(root.not_after)}"
    do = "`sojourn authority prepare x509`; when all have the new bundle, `sojourn authority activate x509`"
    if share > _AUTHORITY_FAIL:
        return fail(f"{said}: more than nine tenths of its life are over", do)
    if share > _AUTHORITY_WARN:
        return warn(f"{said}: more than three quarters of its life are over", do)
    return ok(said)


@_answered
def upstream(status: Any) -> Finding:
    """Whether the upstream authority signs the agent's intermediate, if there is one."""
    authority = status.authority
    if status.HasField("upstream"):
        return ok("a node's server signs: see authority")
    if not authority.HasField("upstream"):
        return ok("there is none: the root is the agent's own")
    told = authority.upstream
    if not told.fault:
        return ok(f"{told.kind}: answered at {_moment(told.answered_at)}")
    do = "mend what it says; the agent asks again by itself"
    if not authority.issuer_serial:
        return fail(f"{told.kind}: {told.fault}; no X.509-SVID can be issued", do)
    return warn(f"{told.kind}: {told.fault}; SVIDs are issued until {_moment(authority.issuer_not_after)}", do)


@_answered
def attestors(status: Any) -> Finding:
    """Whether each attestor could tell when it was last asked."""
    failing = [f"{each.name}: {each.failure}" for each in status.attestors if each.failing]
    if failing:
        return fail(
            "; ".join(failing),
            "attestors.md says what each needs; `sojourn explain --pid PID` asks it again",
        )
    unasked = [each.name for each in status.attestors if not each.asked]
    if unasked:
        return unknown(f"not asked yet: {', '.join(unasked)}", "`sojourn explain --pid $$` asks them")
    return ok(", ".join(each.name for each in status.attestors))


def kubelet(scene: Scene) -> Finding:
    """Whether the kubelet answers, and proves that it is the kubelet."""
    if scene.config is None:
        return unknown(scene.config_fault)
    settings = scene.config.attestors.get("k8s")
    if settings is None:
        return ok("the attestor k8s is not configured")
    state = next((each for each in scene.status.attestors if each.name == "k8s"), None) if scene.status else None
    if state is None or not (state.asked or state.failing):
        return unknown("the agent has not asked it yet", "`sojourn explain --pid PID` of a pod's process asks it")
    if state.failing:
        return fail(state.failure, "attestors.md, under Kubernetes, has what the kubelet wants of the agent")
    if "kubelet_read_only_port" in settings:
        return warn(
            "it is asked at its read-only port: whoever takes that port tells who is in which pod",
            "use the secure port: remove kubelet_read_only_port",
        )
    return ok(f"{state.asked - state.failed} of {state.asked} answers told")


@_answered
def task_types(status: Any) -> Finding:
    """Whether the task types of the folder are in force."""
    policy = status.policy
    if policy.fault:
        make = fail if not status.task_types else warn
        force = ", ".join(status.task_types) or "none: every task is refused"
        return make(f"{policy.fault}; in force: {force}", "mend the file; `sojourn policy check` looks at it")
    return ok(", ".join(status.task_types) or "none")


@_answered
def reviews(status: Any) -> Finding:
    """Whether each task type was reviewed in time."""
    if not status.HasField("review_dates"):
        return ok("the agent knows of no reviews")
    dates = status.review_dates
    if dates.overdue:
        more = f", and {dates.overdue - _TOLD} more" if dates.overdue > _TOLD else ""
        return warn(f"overdue: {', '.join(dates.items[:_TOLD])}{more}", "`sojourn review list --overdue`")
    return ok(f"none is overdue, {dates.due} due within two weeks")


@_answered
def nodes(status: Any) -> Finding:
    """Whether there are entries of other nodes, which this one does not serve."""
    others = [f"{each.entries} of {each.spiffe_id}" for each in status.other_nodes]
    if others:
        return warn(
            f"entries that are not served here: {', '.join(others)}",
            "if this host was renamed, `sojourn"
            " entry adopt` or node_aliases; entries of real other nodes belong to their agents",
        )
    return ok(f"all {status.entries} entries are this node's")


@_answered
def entries_folder(status: Any) -> Finding:
    """Whether the followed folder of entry files is in force."""
    if not status.HasField("followed"):
        return ok("no folder is followed")
    followed = status.followed
    if followed.fault:
        return fail(
            f"{followed.folder}: {followed.fault}",
            "mend the file; `sojourn entry apply --dry-run -f DIR` looks at it",
        )
    return ok(f"{followed.folder}: {followed.entries} entries")


@_answered
def federation(status: Any) -> Finding:
    """Whether the bundles of other trust domains could be fetched."""
    failing = [f"{each.trust_domain}: {each.fault}" for each in status.federation if each.fault]
    if failing:
        return warn(
            "; ".join(failing),
            "`sojourn federation refresh` tries again; what was fetched stays in force",
        )
    return ok(f"{len(status.federation)} trust domains are followed")


@_answered
def signals(status: Any) -> Finding:
    """Whether the issuers of signed events can be heard."""
    deaf = [f"{each.issuer}: {each.fault}" for each in status.signals if each.fault]
    if deaf:
        return fail(
            "; ".join(deaf), "mend the file that `jwks` of [[signals]] names, or let the issuer be asked for its keys"
        )
    unpolled = [f"{each.issuer}: {each.poll_fault}" for each in status.signals if each.poll_fault]
    if unpolled:
        return fail(
            "; ".join(unpolled), "see `poll` of [[signals]], and at the transmitter the client that it is asked by"
        )
    paused = [f"{each.issuer}: its stream is {each.stream_status}" for each in status.signals if each.stream_status]
    if paused:
        return fail("; ".join(paused), "enable the agent's stream at the transmitter: nothing comes by it")
    return ok(f"{len(status.signals)} issuers are heard")


@_answered
def audit_sinks(status: Any) -> Finding:
    """Whether each sink of the journal takes records, and has had all of them."""
    failing = [f"{each.name}: {each.fault}" for each in status.audit_sinks if each.fault]
    if failing:
        return fail("; ".join(failing), "`sojourn audit sinks` has how far each is; nothing else waits for them")
    behind = [f"{each.name}: {each.lag_seconds:.0f} s" for each in status.audit_sinks if each.lag_seconds > _LAG_LONG]
    if behind:
        return warn(f"behind: {', '.join(behind)}", "`sojourn audit sinks` has how far each is")
    lacking = [f"{each.name}: {each.refused} refused, {each.gap} pruned before" for each in status.audit_sinks
               if each.refused or each.gap]  # fmt: skip
    if lacking:
        return warn(
            f"records that a sink has not had: {'; '.join(lacking)}",
            "`sojourn audit tail --event sink_refused --event sink_gap` has which",
        )
    return ok(f"{len(status.audit_sinks)} sinks have all")


@_answered
def audit_witnesses(status: Any) -> Finding:
    """Whether each witness cosigns the signed journal, and none knows of another head of it."""
    forked = [f"{each.name}: {each.fault}" for each in status.audit_witnesses if each.forked]
    if forked:
        return fail(
            "; ".join(forked),
            "find the copy of the data folder that another agent runs on, or who has changed this one; the witness"
            " has what contradicts it",
        )
    failing = [f"{each.name}: {each.fault}" for each in status.audit_witnesses if each.fault]
    if failing:
        return warn("; ".join(failing), "see the witness; the journal is signed on without it")
    old = [f"{each.name}: {each.age_seconds:.0f} s" for each in status.audit_witnesses
           if each.age_seconds > WITNESS_OLD_SECONDS]  # fmt: skip
    if old:
        return warn(f"cosigned last, so long ago: {', '.join(old)}", "see the witness, and the agent's log")
    return ok(f"{len(status.audit_witnesses)} witnesses cosign")


@_answered
def audit_timestamps(status: Any) -> Finding:
    """Whether the time-stamp authority stamps the signed journal."""
    if not status.HasField("audit_timestamps"):
        return ok("no checkpoint is time-stamped")
    found = status.audit_timestamps
    if found.fault:
        return warn(f"{found.to}: {found.fault}", "see the authority, and tsa_ca of [audit.timestamps]")
    return ok(f"{found.to}: stamped last at {_moment(found.stamped_at)}" if found.size else f"{found.to}: not yet")


@_answered
def journal_room(status: Any) -> Finding:
    """Whether records that may not be pruned leave room for more."""
    if not status.HasField("journal_room"):
        return ok("no record is held: the oldest make room")
    room = status.journal_room
    said = f"{room.held:.0%} of audit.max_bytes is held by audit.keep or a required sink"
    do = "raise audit.max_bytes, or lower audit.keep; `sojourn audit sinks` says what a required sink lacks"
    if room.full:
        return fail(f"{said}: no task begins, and no token is given", do)
    if room.held > _HELD_MUCH:
        return warn(said, do)
    return ok(said)


@_answered
def backup(status: Any) -> Finding:
    """Whether there is a backup that is not too old."""
    if not status.data_folder.HasField("backup"):
        return warn("the agent knows of no backup", "`sojourn backup create`, or its timer: back-up.md")
    made = status.data_folder.backup
    said = f"{made.file}, made at {_moment(made.made_at)}"
    if time.time() - made.made_at > _BACKUP_OLD_SECONDS:
        return warn(f"{said}: more than two days ago", "`systemctl status sojourn-backup.timer`, or make one")
    return ok(said)


@_answered
def restored(status: Any) -> Finding:
    """Whether the data folder was put back of late, so that what was revoked since has to be revoked again."""
    folder = status.data_folder
    if folder.HasField("restored") and time.time() - folder.restored.restored_at < _RESTORED_RECENTLY_SECONDS:
        found = folder.restored
        return warn(
            f"{found.how} at {_moment(found.restored_at)}: {', '.join(found.unknown)} since"
            f" {_moment(found.unknown_after)} are not known",
            "revoke again what must stay revoked: back-up.md, “Restore one”",
        )
    if folder.HasField("mark") and folder.mark.fault:
        return warn(
            f"the mark outside of the folder does not follow: {folder.mark.fault}",
            "let the agent write its folder: a folder that is put back whole is not noticed without",
        )
    marked = (
        "a folder that is put back is noticed" if folder.HasField("mark") else "no mark stands outside of the folder"
    )
    return ok(f"not of late; {marked}")


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else "the beginning"


@_answered
def loop(status: Any) -> Finding:
    """Whether the agent stood still, so that nobody was answered for a while."""
    if not status.HasField("standstills"):
        return ok("the agent never stood still")
    found = status.standstills
    said = f"{found.count} times, {found.longest_seconds:.3g} s at most, last for {found.last_seconds:.3g} s"
    recent = time.time() - found.last_at < _STOOD_RECENTLY_SECONDS
    if found.longest_seconds >= _STOOD_LONG_SECONDS and recent:
        return warn(
            f"the agent stood still {said}: {found.last_doing}",
            "give it processor time (CPUWeight=, requests of its pod); `sojourn status` says whose call it was",
        )
    return ok(f"the agent stood still {said}")


@_answered
def failures(status: Any) -> Finding:
    """Whether the agent logged failures of late."""
    recent = status.failures
    if recent:
        said = ", ".join(f"{each.what} ({each.count})" for each in recent[:_TOLD])
        more = f" and {len(recent) - _TOLD} more" if len(recent) > _TOLD else ""
        return warn(said + more, "`sojourn status` has their reasons, logs.md what each event means")
    return ok("none of late")
