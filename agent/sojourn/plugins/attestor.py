"""What an attestor of one's own is made of."""

from sojourn.attestation.attestor import (
    Answer,
    AttestationFailed,
    Attestor,
    AttestorPlugin,
    Cgroup,
    Checking,
    Closing,
    Duration,
    PinnedSubject,
    Subject,
    Table,
    between,
    parse_cgroups,
    read_settings,
)

__all__ = [
    "Answer",
    "AttestationFailed",
    "Attestor",
    "AttestorPlugin",
    "Cgroup",
    "Checking",
    "Closing",
    "Duration",
    "PinnedSubject",
    "Subject",
    "Table",
    "between",
    "parse_cgroups",
    "read_settings",
]
