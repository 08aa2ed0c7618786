"""Which event of OCSF each record of the journal is. docs/reference/ocsf.md shows the table.

Who looks at an identity or a token finds an authentication; at what a task may do, a session's privileges; at what an
operator does, the entity that is managed; at refusals of an endpoint, API activity; at what a person should look into,
a finding. The journal's own life is that of an event log.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from sojourn.ocsf.schema import (
    ALLOWED,
    API,
    AUTHENTICATION,
    BASE,
    CRITICAL,
    DENIED,
    DETECTION,
    ENTITY,
    ERROR,
    FAILURE,
    HIGH,
    IN_PROGRESS,
    INFORMATIONAL,
    LIFECYCLE,
    LOG,
    LOW,
    MEDIUM,
    NEW,
    OAUTH,
    OPENID,
    RESOLVED,
    SESSION,
    SPIFFE,
    SUCCESS,
    Row,
)

_PERSON: Final = ("person", "issuer", "address")
_TASK: Final = ("task",)
_SET: Final = ("digest", "folder")
_SVID: Final = ("svid_id", "entry_id", "spiffe_id")


def _entity(
    activity: int | str,
    entity: str,
    *of: str,
    severity: int = INFORMATIONAL,
    status: int = SUCCESS,
    fails: tuple[str, str] | None = None,
) -> Row:
    return Row(ENTITY, activity, severity, status, entity=entity, of=of, fails=fails)


def _error(severity: int) -> Row:
    return Row(ERROR, 1, severity, FAILURE)


def _denied(row: Row) -> Row:
    return replace(row, severity=LOW, status=FAILURE, action=DENIED)


def _allowed(row: Row) -> Row:
    return replace(row, action=ALLOWED)


_ISSUED: Final = Row(AUTHENTICATION, 3, protocol=SPIFFE)
_TOKEN: Final = Row(AUTHENTICATION, 4, protocol=OAUTH)
_CREDENTIAL: Final = Row(AUTHENTICATION, 4)
_LOGOFF: Final = Row(AUTHENTICATION, 2)
_JOURNAL: Final = {
    "audit_exported": Row(LOG, 3),
    "audit_key_lost": _error(HIGH),
    "audit_key_rotated": _entity(3, "journal key", "vkey", severity=LOW),
    "audit_log_begun": Row(LOG, 6, LOW),
    "audit_log_forked": Row(DETECTION, 1, CRITICAL, NEW),
    "backup_created": _entity(1, "backup", "file", "sha256"),
    "database_lost": _error(HIGH),
    "database_restored": Row(LIFECYCLE, "Restore", HIGH),
    "denials_suppressed": Row(DETECTION, 1, MEDIUM, NEW),
    "journal_full": _error(CRITICAL),
    "journal_has_room": Row(LOG, 9, LOW),
    "journal_pruned": Row(LOG, 2),
    "journal_read": Row(API, 2),
    "keys_sealed": _entity(3, "key files", "files", severity=LOW),
    "keys_unsealed": _entity(3, "key files", "files", severity=MEDIUM),
    "records_lost": _error(HIGH),
    "root_lost": _error(HIGH),
    "sink_begun": _entity(1, "sink", "sink"),
    "sink_gap": Row(LOG, 2, HIGH, FAILURE),
    "sink_refused": _error(MEDIUM),
}
_AGENT: Final = {
    "agent_started": Row(LIFECYCLE, 3),
    "agent_stopped": Row(LIFECYCLE, 4),
    "config_refused": _error(MEDIUM),
    "config_reloaded": Row(LIFECYCLE, 8),
    "log_level_changed": Row(LIFECYCLE, 8),
    "join_token_made": _entity(1, "join token", "digest", severity=LOW),
    "node_banned_by_operator": _entity(9, "node", "spiffe_id", severity=HIGH),
    "node_evicted_by_operator": _entity(4, "node", "spiffe_id", severity=MEDIUM),
    "node_joined": _entity(6, "node", "spiffe_id", severity=LOW),
    "node_locked": _entity(9, "node", "spiffe_id", severity=HIGH),
    "node_not_joined": _denied(Row(AUTHENTICATION, 1)),
    "node_svid_renewed": _entity(3, "node", "spiffe_id"),
    "node_unbanned_by_operator": _entity(8, "node", "spiffe_id", severity=MEDIUM),
    "node_accepted": _entity(8, "node", "spiffe_id", severity=LOW),
    "node_attested": _entity(6, "node", "spiffe_id", severity=LOW),
    "node_banned": _entity(9, "node", "spiffe_id", severity=HIGH),
    "node_refused": _entity(9, "node", "spiffe_id", severity=MEDIUM, status=FAILURE),
    "node_renewed": _entity(3, "node", "spiffe_id"),
}
_CALLS: Final = {
    "call_denied": _denied(Row(API, "Call")),
    "exchange_denied": _denied(_TOKEN),
    "introspection_denied": _denied(Row(API, 2)),
    "revocation_denied": _denied(Row(API, 4)),
}
_ENTRIES: Final = {
    "entries_adopted": _entity(5, "registration entries", "from", severity=LOW),
    "entry_created": _entity(1, "registration entry", "entry_id"),
    "entry_deleted": _entity(4, "registration entry", "entry_id"),
    "entry_updated": _entity(3, "registration entry", "entry_id"),
    "followed_folder_refused": _error(MEDIUM),
}
_SVIDS: Final = {
    "authority_activated": _entity(10, "authority key", "authority_id", severity=LOW),
    "authority_prepared": _entity(1, "authority key", "authority_id", severity=LOW),
    "authority_revoked": _entity(4, "authority key", "authority_id", severity=MEDIUM),
    "authority_tainted": _entity(9, "authority key", "authority_id", severity=MEDIUM),
    "jwt_svid_issued": _ISSUED,
    "jwt_svid_minted": replace(_ISSUED, severity=LOW),
    "jwt_svid_refused": _denied(_ISSUED),
    "jwt_svid_rejected": _denied(Row(AUTHENTICATION, 1, protocol=SPIFFE)),
    "root_signed": _entity(1, "root signature", "authority_id", "what", severity=LOW),
    "svids_revoked": _entity(4, "SVID", *_SVID, severity=MEDIUM),
    "svids_rotated": _entity(3, "SVID", *_SVID),
    "wit_svid_issued": _ISSUED,
    "x509_svid_issued": _ISSUED,
    "x509_svid_minted": replace(_ISSUED, severity=LOW),
}
_FEDERATION: Final = {
    "bundle_deleted": _entity(4, "trust bundle", "trust_domain", severity=LOW),
    "bundle_set": _entity(3, "trust bundle", "trust_domain", severity=LOW),
    "federated_bundle_failed": _entity(3, "trust bundle", "trust_domain", severity=LOW, status=FAILURE),
    "federated_bundle_refreshed": _entity(3, "trust bundle", "trust_domain"),
    "federation_deleted": _entity(7, "trust domain", "trust_domain", severity=LOW),
    "federation_refreshed": _entity(3, "trust bundle", "trust_domain"),
    "federation_set": _entity(6, "trust domain", "trust_domain", severity=LOW),
}
_POLICY: Final = {
    "policy_last_good": _entity(10, "policy", *_SET, severity=MEDIUM),
    "policy_loaded": _entity(10, "policy", *_SET, severity=LOW),
    "policy_none": _entity(10, "policy", *_SET, severity=HIGH, status=FAILURE),
    "policy_refused": _entity(10, "policy", *_SET, severity=MEDIUM, status=FAILURE),
    "shadow_difference": Row(DETECTION, 1, LOW, NEW),
    "shadow_policy_dropped": _entity(11, "shadow policy", *_SET),
    "shadow_policy_loaded": _entity(10, "shadow policy", *_SET),
    "shadow_policy_refused": _entity(10, "shadow policy", *_SET, severity=LOW, status=FAILURE),
}
_TASKS: Final = {
    "begin_denied": _denied(Row(SESSION, 1)),
    "egress_passes": _entity(3, "task", *_TASK),
    "family_used": Row(BASE, "Count"),
    "person_renewed": Row(AUTHENTICATION, 5, user=("person", "spiffe_id"), protocol=OPENID),
    "task_begun": _allowed(Row(SESSION, 1)),
    "task_ended": _LOGOFF,
    "task_handed_over": _entity(5, "task", *_TASK),
    "task_narrowed": Row(SESSION, "Narrow Privileges", LOW),
    "task_pending": Row(SESSION, 1, status="Pending"),
    "task_resumed": _entity(13, "task", *_TASK),
    "task_resumed_by_operator": _entity(13, "task", *_TASK, severity=LOW),
    "task_revoked_by_operator": _entity(11, "task", *_TASK, severity=LOW),
    "task_suspended": _entity(12, "task", *_TASK),
    "task_suspended_by_operator": _entity(12, "task", *_TASK, severity=LOW),
    "task_used": Row(BASE, "Count"),
    "tasks_blocked": _entity(9, "task type, workload or person", "type", "spiffe_id", "person", severity=MEDIUM),
    "tasks_unblocked": _entity(8, "task type, workload or person", "type", "spiffe_id", "person", severity=MEDIUM),
    "delegation_accepted": _allowed(Row(SESSION, 1)),
    "delegation_denied": _denied(Row(SESSION, 1, user=("to", "spiffe_id", "uid"))),
    "task_delegated": _allowed(Row(SESSION, 1, user=("to", "spiffe_id"))),
    "approval_decided": _allowed(Row(SESSION, 1, LOW, fails=("verdict", "deny"))),
    "approval_notice_dropped": _error(MEDIUM),
    "review_owed": Row(DETECTION, 1, HIGH, NEW),
    "break_glass_begun": Row(DETECTION, 2, HIGH, IN_PROGRESS),
    "review_decided": _entity(3, "review", "item", severity=LOW),
    "review_overdue": Row(DETECTION, 1, MEDIUM, NEW),
    "review_done": Row(DETECTION, 3, MEDIUM, RESOLVED),
    "review_withdrawn": Row(DETECTION, 3, LOW, RESOLVED),
}
_TOKENS: Final = {
    "refusals_counted": _denied(Row(API, "Use")),
    "request_refused": _denied(Row(API, "Use")),
    "token_denied": _denied(_TOKEN),
    "token_issued": _allowed(_TOKEN),
    "token_used": Row(API, "Use"),
    "tokens_revoked": _entity(4, "tokens of a task", *_TASK, severity=LOW),
    "use_counted": Row(API, "Use"),
}
_FACTS: Final = {
    "fact_expired": _entity(4, "fact", "fact"),
    "fact_published": _entity(3, "fact", "fact"),
    "fact_unset": _entity(4, "fact", "fact"),
    "signal_accepted": Row(API, 1),
    "signal_refused": _denied(Row(API, 1)),
}
_OUTSIDE: Final = {
    "assertion_issued": _ISSUED,
    "external_credential_asked": replace(_CREDENTIAL, status="Asked"),
    "external_credential_damaged": _error(HIGH),
    "external_credential_ended": _entity(4, "credential", "credential"),
    "external_credential_ending": _entity(11, "credential", "credential"),
    "external_credential_handed_out": Row(SESSION, 1),
    "external_credential_issued": _CREDENTIAL,
    "external_credential_lost": replace(_CREDENTIAL, severity=HIGH, status=FAILURE),
    "external_credential_open": _entity(11, "credential", "credential", severity=MEDIUM, status=FAILURE),
    "external_credential_refused": _denied(_CREDENTIAL),
    "person_logout_refused": _denied(replace(_LOGOFF, user=_PERSON)),
    "person_session_ended": replace(_LOGOFF, user=_PERSON),
    "person_checked": Row(API, 2, fails=("outcome", "failed")),
    "provider_checked": Row(API, 2, fails=("outcome", "failed")),
}

ROWS: Final[Mapping[str, Row]] = {
    **_JOURNAL, **_AGENT, **_CALLS, **_ENTRIES, **_SVIDS, **_FEDERATION, **_POLICY, **_TASKS, **_TOKENS, **_FACTS,
    **_OUTSIDE,
}  # fmt: skip
UNKNOWN: Final = Row(BASE, "Other")
"""An event that the table does not have: an earlier or a later release has recorded it."""
NOTICES: Final[Mapping[str, tuple[Row, str, str]]] = {
    "checkpoint": (
        Row(LOG, "Sign"),
        "audit_checkpoint",
        "The signed log has grown; this checkpoint signs its records.",
    ),
    "gap": (Row(LOG, 2, HIGH, FAILURE), "audit_gap", "Records were pruned before this sink has had them."),
}
"""What a sink is sent beside records, by its kind: the row, the event's name, and the sentence that says it."""


def rows() -> Iterator[tuple[str, Row]]:
    """Each event with its row, notices last."""
    yield from sorted(ROWS.items())
    yield from ((event, row) for row, event, _ in NOTICES.values())
