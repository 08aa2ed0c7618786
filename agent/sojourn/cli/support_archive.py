"""The archive for a support case: what explains a fault, and nothing that gives anybody anything.

No keys, no tokens, no parameters of tasks, no values of secrets, no log lines: a list of what may be in it, and what is
not on it is left out.
"""

import io
import json
import os
import platform
import re
import tarfile
import time
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sojourn.cli import remote
from sojourn.cli.messages import told
from sojourn.doctor.scene import Scene
from sojourn.errors import InvalidInput, SojournError
from sojourn.limits import AUDIT_LISTED
from sojourn.settings.upstream import KINDS

LEFT_OUT: Final = "(left out)"
# Quoted to the quote that ends it, or to the end where it was cut off (an apostrophe is none); what may be a token.
_QUOTED: Final = re.compile(
    r"(?<!\w)b?'(?:\\.|[^\\])*?(?:'(?!\w)|\Z)|b?\"(?:\\.|[^\"\\])*(?:\"|\\?\Z)|[A-Za-z0-9_=-]{40,}(?:\.[A-Za-z0-9_=-]+)*",
    re.DOTALL,
)
_URL: Final = re.compile(r"\b(?!spiffe:|unix:)([a-z][a-z0-9+.-]*://[^\s/?#]+)[/?#][^\s]*", re.IGNORECASE)
_USER: Final = re.compile(r"(?<=://)[^\s/@]*@")
_REASONS: Final = frozenset({"fault", "found", "reason", "failure", "without", "subject"})  # fields of a status
_PLUGINS: Final = frozenset({"attestors", "providers"})  # tables of anybody's, in which anything may be a secret
_SECRET: Final = re.compile(
    r"secret|token|password|passphrase|credential|key(?!_type|_ttl|_overlap)|header", re.IGNORECASE
)
_NAMES_A_FILE: Final = re.compile(r"(_path|_file|_dir|_env|_type|_ttl)$")
# What of a status is told. Reasons of failures may quote what callers have said, and are told without what they quote.
_STATUS: Final = (
    *("trust_domain", "node_id", "version", "started_at", "epoch", "entries", "live_tasks", "connections", "state"),
    *("faults", "limitations", "task_types", "authority", "config", "listeners", "attestors", "other_nodes"),
    *("approvals_waiting", "followed", "policy", "shadow", "signals", "federation", "task_owners", "standstills"),
    *("streams_left_out", "svids_left_out", "pid", "data_dir", "socket", "admin_socket"),
)
_README: Final = """\
Of `sojourn doctor --bundle`: verdicts (doctor.json), the agent's own account (status.json), the configuration
(configuration.json), the machine (machine.json), installed Python packages (packages.json) and how often each event
stands in the newest part of the audit journal (journal.json).

Left out: keys, tokens, parameters of tasks, values of secrets, all texts in the tables of attestors and providers,
paths of URLs, and log lines. In all reasons what was quoted or looks like a token is replaced by '...'.
"""


def write(path: Path, scene: Scene, verdicts: Mapping[str, Any], admin_socket: str | None) -> None:
    """Write the archive, which only this user can read. Raise InvalidInput if it cannot be made."""
    parts = {
        "doctor.json": {**verdicts, "checks": [_without_quotes(each) for each in verdicts["checks"]]},
        "status.json": None if scene.status is None else _status(scene.status),
        "configuration.json": _configuration(scene),
        "machine.json": _machine(),
        "packages.json": {each.name: each.version for each in sorted(distributions(), key=lambda each: each.name)},
        "journal.json": _journal(admin_socket) if scene.status is not None else None,
    }
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInput(f"--bundle: {str(path)!r} cannot be made: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        _add(archive, "README.txt", _README)
        for name, content in parts.items():
            _add(archive, name, json.dumps(content, indent=2, default=str))


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    member = tarfile.TarInfo(f"sojourn-support/{name}")
    member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
    archive.addfile(member, io.BytesIO(content))


def unquoted(text: str) -> str:
    """A reason without what it quotes, paths of URLs, and what may be a token."""
    return _without_paths(_QUOTED.sub("'...'", text))


def _without_paths(text: str) -> str:
    return _URL.sub(r"\1/...", _USER.sub("", text))


def _status(status: Any) -> dict[str, Any]:
    whole = told(status)
    found = {name: whole[name] for name in (*_STATUS, "failures")}
    if found["config"]:
        found["config"].pop("digest", None)  # by which a short secret in the file could be guessed
    if found["standstills"]:
        found["standstills"].pop("last_caller", None)
    return {name: _without_quotes(value, name) for name, value in found.items()}


def _without_quotes(value: Any, name: str = "") -> Any:
    """A verdict or a status: reasons, wherever they stand, may have been said by others."""
    if isinstance(value, Mapping):
        return {key: _without_quotes(each, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_quotes(each, name) for each in value]
    if not isinstance(value, str):
        return value
    return unquoted(value) if name in _REASONS else _without_paths(value)


def _configuration(scene: Scene) -> Any:
    """Keys with their values, without secrets; why there are none, if it cannot be used."""
    if scene.config is None:
        return {"fault": unquoted(scene.config_fault)}
    return _redacted("", scene.config.model_dump(mode="json"))


def _redacted(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: (_names if _is_anybodys(key, each) else _redacted)(str(key), each) for key, each in value.items()}
    if name == "command":
        return [value[0], LEFT_OUT] if value else value
    if isinstance(value, list | tuple):
        return [_redacted(name, each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if _SECRET.search(name) and not _NAMES_A_FILE.search(name):
        return LEFT_OUT
    parts = urlsplit(text) if "://" in text and not text.startswith(("spiffe://", "unix://")) else None
    return text if parts is None else f"{parts.scheme}://{parts.hostname}/..."


def _is_anybodys(key: str, value: Any) -> bool:
    """Whether a table is read by a plugin."""
    above = key == "upstream" and isinstance(value, Mapping)
    return key in _PLUGINS or (above and value.get("kind") not in {None, *KINDS})


def _names(_: str, value: Any) -> Any:
    """The keys of a plugin's table. Of values those alone that are no text, as only the plugin knows what is secret."""
    if isinstance(value, Mapping):
        return {key: _names(str(key), each) for key, each in value.items()}
    return value if value is None or isinstance(value, bool | int) else LEFT_OUT


def _machine() -> dict[str, Any]:
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        system = ""
    return {
        "kernel": " ".join(os.uname()[each] for each in (0, 2, 3, 4)),
        "system": system,
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "processors": os.cpu_count(),
        "variables": sorted(name for name in os.environ if name.startswith(("SOJOURN_", "SPIFFE_"))),
    }


def _journal(admin_socket: str | None) -> dict[str, int] | None:
    """How often each event stands among the newest records: what they say of tasks stays where it is."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    try:
        records = remote.admin(admin_socket, pb.ListAuditRequest(limit=AUDIT_LISTED)).records
    except SojournError:
        return None
    return dict(sorted(Counter(each.event for each in records).items()))
