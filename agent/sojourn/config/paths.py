"""Where the agent's sockets and files are. The agent and its clients use these same functions."""

import os
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from sojourn.errors import InvalidInput

PUBLIC_NAME = "agent.sock"
ADMIN_NAME = "admin.sock"
_SYSTEM_RUN = Path("/run/sojourn")
_SYSTEM_STATE = Path("/var/lib/sojourn")
_USERS_RUN = Path("/run/user")


def public_socket(explicit: str | None = None) -> str:
    """Return the path of the public socket: `explicit`, SOJOURN_SOCKET, SPIFFE_ENDPOINT_SOCKET, or the default.

    The first two may be a plain path or a `unix:` URI; the third is a URI (SPIFFE Workload Endpoint, 4). Raise
    InvalidInput if what is given is neither.
    """
    chosen = explicit or os.environ.get("SOJOURN_SOCKET")
    if chosen:
        return socket_path(chosen)
    endpoint = os.environ.get("SPIFFE_ENDPOINT_SOCKET")
    if endpoint:
        return _uri_path(endpoint, "SPIFFE_ENDPOINT_SOCKET")
    return _default(PUBLIC_NAME)


def admin_socket(explicit: str | None = None) -> str:
    """Return the path of the admin socket: `explicit`, SOJOURN_ADMIN_SOCKET, or the default. Raise InvalidInput."""
    chosen = explicit or os.environ.get("SOJOURN_ADMIN_SOCKET")
    return socket_path(chosen) if chosen else _default(ADMIN_NAME)


def operates(explicit: str | None = None) -> bool:
    """Whether this process may connect to the admin socket, so that operators' commands are for it."""
    try:
        return os.access(admin_socket(explicit), os.W_OK)
    except InvalidInput:
        return False


def socket_path(text: str) -> str:
    """Return the path in a plain path or a `unix:` URI. Raise InvalidInput for any other scheme."""
    if text.startswith(("unix-abstract:", "@")):
        raise InvalidInput(f"{text[:100]!r} is an abstract socket: those have no file permissions, so name a path")
    if text.startswith(("unix:", "tcp:")) or "://" in text:
        return _uri_path(text, "socket address")
    return str(Path(text).absolute())


def default_run_dir() -> Path:
    """Return the folder in which this user's agent makes its sockets. It need not exist.

    Raise InvalidInput if nothing says where.
    """
    if os.geteuid() == 0:
        return _SYSTEM_RUN
    runtime = _folder("XDG_RUNTIME_DIR")
    if runtime is not None:
        return runtime / "sojourn"
    users = _USERS_RUN / str(os.geteuid())
    return users / "sojourn" if users.is_dir() else _state_home() / "sojourn" / "run"


def default_state_dir() -> Path:
    """Return the folder in which this user's agent keeps its database and keys. It need not exist.

    Raise InvalidInput if nothing says where.
    """
    return _SYSTEM_STATE if os.geteuid() == 0 else _state_home() / "sojourn"


def _default(name: str) -> str:
    system = _SYSTEM_RUN / name
    try:
        own = default_run_dir() / name
    except InvalidInput:  # a user without a home, as in many containers, has no agent of their own there
        return str(system)
    return str(system if not _exists(own) and _exists(system) else own)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder on the way may not be ours to look into
        return False


def _state_home() -> Path:
    try:
        return _folder("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise InvalidInput(
            "this user has no home directory: set HOME or XDG_STATE_HOME, or name data folder and sockets"
        ) from error


def _folder(variable: str) -> Path | None:
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else None  # XDG base directories: relative ones are ignored


def _uri_path(uri: str, what: str) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidInput(f"{what} {uri[:200]!r} is not a URI") from error
    if parts.scheme == "tcp":
        raise InvalidInput(f"{what} {uri[:200]!r}: tcp is not supported, since callers are attested; use unix:///path")
    if parts.scheme != "unix":
        raise InvalidInput(
            f"{what} {uri[:200]!r} does not begin with unix://: it is a URI, such as"
            f" unix://{quote(uri[:200]) if uri.startswith('/') else '/run/sojourn/agent.sock'}"
        )
    # The splitter overlooks an empty query or fragment and drops some control characters: so look at the text itself.
    odd = any(each in uri for each in "?#") or not uri.isprintable()
    if odd or parts.netloc or not parts.path.startswith("/"):
        raise InvalidInput(f"{what} {uri[:200]!r} is not unix:// and an absolute path, with nothing else")
    return unquote(parts.path)
