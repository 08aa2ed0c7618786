"""Where the agent's sockets and files are. The agent and its clients use these same functions."""

import os
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from sojourn.errors import InvalidInput

PUBLIC_NAME = "agent.sock"
ADMIN_NAME = "admin.sock"
CONFIG_NAME = "agent.toml"
SYSTEM_RUN = Path("/run/sojourn")
_SYSTEM_CONFIG = Path("/etc/sojourn")
_SYSTEM_STATE = Path("/var/lib/sojourn")
_SYSTEM_MARK = Path("/var/lib/sojourn-mark")
SERVER_CONFIG_NAME = "server.toml"
_SYSTEM_SERVER_STATE = Path("/var/lib/sojourn-server")
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
    """Return the path of the admin socket: `explicit`, SOJOURN_ADMIN_SOCKET, or the default. Raise InvalidInput.

    A server's is the default where there is no agent's.
    """
    chosen = explicit or os.environ.get("SOJOURN_ADMIN_SOCKET")
    if chosen:
        return socket_path(chosen)
    found = _default(ADMIN_NAME)
    return found if _exists(Path(found)) else server_socket(or_else=found)


def server_socket(explicit: str | None = None, *, or_else: str = "") -> str:
    """Return the path of a server's admin socket, for what is said to servers alone: `explicit`, SOJOURN_ADMIN_SOCKET,
    this user's, or the machine's. `or_else`: where neither is there. Raise InvalidInput.
    """
    chosen = explicit or os.environ.get("SOJOURN_ADMIN_SOCKET")
    if chosen:
        return socket_path(chosen)
    system = _server_beside(SYSTEM_RUN) / ADMIN_NAME
    try:
        own = _server_beside(default_run_dir()) / ADMIN_NAME
    except InvalidInput:
        own = system
    return str(next((each for each in (own, system) if _exists(each)), or_else or own))


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
        return SYSTEM_RUN
    runtime = _folder("XDG_RUNTIME_DIR")
    if runtime is not None:
        return runtime / "sojourn"
    users = _USERS_RUN / str(os.geteuid())
    return users / "sojourn" if users.is_dir() else _state_home() / "sojourn" / "run"


def agent_run_dir() -> Path:
    """Return the folder in which an agent that runs here makes its sockets: RUNTIME_DIRECTORY's, or that of its user.

    Clients do not go by RUNTIME_DIRECTORY: in a service it is that service's own. Raise InvalidInput.
    """
    return _of_service("RUNTIME_DIRECTORY", os.environ.get("RUNTIME_DIRECTORY", "")) or default_run_dir()


def config_dir() -> Path | None:
    """Return the folder of the agent's configuration: CONFIGURATION_DIRECTORY's, or the system's for root.

    None: another user's agent has none. Raise InvalidInput.
    """
    given = _of_service("CONFIGURATION_DIRECTORY", os.environ.get("CONFIGURATION_DIRECTORY", ""))
    return given or (_SYSTEM_CONFIG if os.geteuid() == 0 else None)


def default_config_file(name: str = CONFIG_NAME) -> Path | None:
    """Return the configuration file of this `name` in `config_dir`, where none is named. None: it is not there.

    One that cannot be looked at counts as there, so that reading it says why. Raise InvalidInput.
    """
    folder = config_dir()
    if folder is None:
        return None
    try:
        os.stat(folder / name)
    except (FileNotFoundError, NotADirectoryError):
        # A link that leads nowhere was meant to lead somewhere.
        return folder / name if (folder / name).is_symlink() else None
    except OSError:
        pass
    return folder / name


def default_state_dir() -> Path:
    """Return the folder in which this user's agent keeps its database and keys. It need not exist.

    STATE_DIRECTORY, which systemd sets, comes first. Raise InvalidInput if nothing says where.
    """
    given = _of_service("STATE_DIRECTORY", os.environ.get("STATE_DIRECTORY", ""))
    if given is not None:
        return given
    return _SYSTEM_STATE if os.geteuid() == 0 else _state_home() / "sojourn"


def default_server_state_dir() -> Path:
    """The same of this user's server. Raise InvalidInput if nothing says where."""
    given = _of_service("STATE_DIRECTORY", os.environ.get("STATE_DIRECTORY", ""))
    if given is not None:
        return given
    return _SYSTEM_SERVER_STATE if os.geteuid() == 0 else _state_home() / "sojourn-server"


def server_run_dir() -> Path:
    """Return the folder in which a server that runs here makes its socket: RUNTIME_DIRECTORY's, or beside an agent's of
    this user. Raise InvalidInput.
    """
    return _of_service("RUNTIME_DIRECTORY", os.environ.get("RUNTIME_DIRECTORY", "")) or _server_beside(
        default_run_dir()
    )


def _server_beside(run_dir: Path) -> Path:
    return run_dir.with_name(run_dir.name + "-server")


def default_mark_dir(data_dir: Path) -> Path | None:
    """Return the folder of the mark of this data folder where nobody has named one; None: there is none."""
    return _SYSTEM_MARK if data_dir == _SYSTEM_STATE and _SYSTEM_MARK.is_dir() else None


def _default(name: str) -> str:
    system = SYSTEM_RUN / name
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


def _of_service(variable: str, value: str) -> Path | None:
    """The first of the folders that systemd has made for a service (systemd.exec(5)). None: there is none."""
    first = value.partition(":")[0]
    if value and not first.startswith("/"):
        raise InvalidInput(f"{variable} is {value[:200]!r}: systemd sets it to absolute paths, with ':' between them")
    return Path(first) if first else None


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
