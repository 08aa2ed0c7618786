"""All that agents, commands and callers are made of, imported at once: for processes that import nothing later."""

import importlib
import pkgutil


def load() -> None:
    """Import all of Sojourn, in the order in which an agent does it, and what of other packages it may want later."""
    import asyncio
    import concurrent.futures.thread
    import encodings.ascii
    import encodings.idna
    import sqlite3

    import sojourn.agent.run
    import sojourn_attestors.unix
    import uvloop

    for each in pkgutil.walk_packages(sojourn.__path__, "sojourn."):  # what is imported only where it is used, too
        if not each.name.endswith("__main__"):
            _load_one(each.name)
    del asyncio, concurrent, encodings, sqlite3, sojourn, sojourn_attestors, uvloop


def _load_one(name: str) -> None:
    """Import a module, unless it is for an extra that is not installed."""
    from sojourn.errors import FailedPrecondition

    try:
        importlib.import_module(name)
    except FailedPrecondition as error:
        if not isinstance(error.__cause__, ModuleNotFoundError):
            raise
    except ModuleNotFoundError as error:
        if (error.name or "sojourn").partition(".")[0] in ("sojourn", "sojourn_attestors"):
            raise
