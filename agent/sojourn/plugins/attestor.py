"""What an attestor of one's own is made of."""

from sojourn.attestation.attestor import Answer, Attestor, AttestorPlugin, Checking, Closing, PinnedSubject, Subject
from sojourn.attestation.cgroups import Cgroup, parse_cgroups
from sojourn.attestation.descent import parent_and_birth
from sojourn.errors import AttestationFailed
from sojourn.settings.models import read_settings
from sojourn.settings.tables import Duration, Table, between

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
    "parent_and_birth",
    "parse_cgroups",
    "read_settings",
]
