"""With what the one-shot tasks of clients live: the caller, or whoever ran it; nothing, on another machine."""

from sojourn.attestation.peer import Peer
from sojourn.attestation.process import Process
from sojourn.errors import AttestationFailed, SojournError
from sojourn.identity.identities import Identities
from sojourn.limits import RUNNERS_KEPT
from sojourn.oauth.client_auth import OAuthClient
from sojourn.quota.lru import Lru
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.begin import Bond
from sojourn.tasks.holders import NoProcess
from sojourn.tasks.kept_fields import ONE_SHOT
from sojourn.tasks.requester import Asker, Remote


class Runners:
    """Finds the process that ran a caller. Who calls is often a helper, whose runner takes over what it has fetched.

    The last RUNNERS_KEPT are kept pinned, so that what was proved of one is as good for the next request as what was
    proved of a caller: the process is looked at each time, and attested in full once that is ATTESTATION_FRESH_SECONDS
    old. `close` lets go of them.
    """

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._kept: Lru[int, Peer] = Lru(RUNNERS_KEPT)  # by pid

    def __len__(self) -> int:
        return len(self._kept)

    async def of(self, caller: Peer, spiffe_id: SpiffeId) -> Process | None:
        """The process that ran the caller, if of the same user and identity; whoever gets it closes it."""
        try:
            pid = caller.process.parent
            if pid <= 1:
                return None
            kept = self._kept.get(pid)
            if kept is not None:
                try:
                    return await self._checked(kept, caller, spiffe_id)
                except AttestationFailed:  # gone, changed, or let go of meanwhile: who has the pid is looked at anew
                    self._forget(kept)
            runner = Peer.of_pid(pid)
            try:
                found = await self._checked(runner, caller, spiffe_id)
            except BaseException:
                runner.close()
                raise
            self._keep(runner)
        except SojournError:
            return None
        return found

    async def _checked(self, runner: Peer, caller: Peer, spiffe_id: SpiffeId) -> Process | None:
        """A handle of its own on the runner, if it is one. Raise AttestationFailed if it is not what it was."""
        if runner.uid != caller.uid or runner.process.pid != caller.process.parent:  # asked anew: it is pinned now
            runner.check_unchanged()
            return None
        return runner.process.again() if await self._identities.has(runner, {spiffe_id}) else None

    def _keep(self, runner: Peer) -> None:
        before = self._kept.drop(runner.process.pid)
        gone = self._kept.put(runner.process.pid, runner)
        for each in (before, gone and gone[1]):
            if each is not None:
                each.close()

    def _forget(self, runner: Peer) -> None:
        if self._kept.get(runner.process.pid) is runner:
            self._kept.drop(runner.process.pid)
        runner.close()

    def close(self) -> None:
        for runner in self._kept.values():
            runner.close()
        self._kept.clear()


def asker_of(client: OAuthClient) -> Asker:
    return client.peer if client.peer is not None else Remote()


def bond_of(client: OAuthClient, runner: Process | None, *, waits: bool) -> Bond:
    """With what a one-shot task lives: the caller, which may be a helper of its runner; nothing, on another machine.

    One that waits for approval is its runner's from the beginning, and may be asked for by any helper of that. Raise
    AttestationFailed if either has gone.
    """
    if client.peer is None:
        return Bond(NoProcess(), ONE_SHOT)
    caller = client.peer.process
    if waits:
        return Bond((runner or caller).again(), ONE_SHOT, session=True)
    heir = runner.again() if runner is not None else None
    try:
        return Bond(caller.again(), ONE_SHOT, heir=heir)
    except BaseException:
        if heir is not None:
            heir.close()
        raise
