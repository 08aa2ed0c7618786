"""With what the one-shot tasks of clients live: the caller, or whoever ran it; nothing, on another machine."""

from sojourn.attestation.process import Process, stat_of
from sojourn.errors import SojournError
from sojourn.identity.identities import Identities
from sojourn.tasks.asker import Asker, Remote
from sojourn.tasks.beginning import Bond
from sojourn.tasks.clients import Client
from sojourn.tasks.holders import NoProcess
from sojourn.tasks.task import ONE_SHOT


async def runner_of(identities: Identities, client: Client) -> Process | None:
    """The process that ran the caller, if of the same user and identity: it takes over what a helper fetched."""
    if client.peer is None:
        return None
    peer, subject = client.peer, client.identities[0]
    runner = None
    try:
        pid = stat_of(peer.process.pid).parent
        if pid <= 1:
            return None
        runner = Process.open(pid)
        if runner.credentials().uid == peer.uid and runner.start_time <= peer.process.start_time:
            entries = await identities.of_process(pid)
            if any(entry.spiffe_id == subject for entry in entries):
                runner.check_alive()
                found, runner = runner, None
                return found
    except SojournError:
        return None
    finally:
        if runner is not None:
            runner.close()
    return None


def asker_of(client: Client) -> Asker:
    return client.peer if client.peer is not None else Remote()


def bond_of(client: Client, runner: Process | None, *, waits: bool) -> Bond:
    """With what a one-shot task lives: the caller, which may be a helper of its runner; nothing, on another machine.

    One that waits for approval is its runner's from the beginning, and may be asked for by any helper of that.
    """
    if client.peer is None:
        return Bond(NoProcess(), ONE_SHOT)
    caller = client.peer.process
    if waits:
        return Bond((runner or caller).again(), ONE_SHOT, session=True)
    return Bond(caller.again(), ONE_SHOT, heir=runner.again() if runner is not None else None)
