"""What a node needs to serve after a restart although the server is away, sealed on disk: its own SVID, the bundles,
the entries, and if it is to, the X.509-SVIDs of workloads.

What cannot be read is told and left out. What was given for another node, or another trust domain, is not believed.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeVar

import structlog

from sojourn.authority.key_seal import KeySeal
from sojourn.errors import InvalidInput, InvalidSvid, SojournError
from sojourn.identity.entries import Entry
from sojourn.limits import (
    UPSTREAM_KEEP_SECONDS,
    UPSTREAM_KEPT_SVIDS,
    UPSTREAM_RETRY_MAX_SECONDS,
    UPSTREAM_WRITE_AGAIN_SECONDS,
)
from sojourn.runtime.background import Background, whole
from sojourn.runtime.clock import Alarm, Alarms, Clock
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import X509Svid, verify_chain
from sojourn.upstream import kept_values
from sojourn.upstream.authorized_entries import Authorized
from sojourn.upstream.kept_values import KeptNode, KeptSvid, SignedSvid
from sojourn.upstream.node_attestation import AttestedNode
from sojourn.upstream.sealed_files import FileUnreadable, SealedFiles

log = structlog.get_logger()
Read = TypeVar("Read")
Keep = Literal["entries", "svids"]
NODE: Final = "node"
BUNDLES: Final = "bundles"
ENTRIES: Final = "entries"
_SVIDS: Final = "svids-"


@dataclass(frozen=True)
class Kept:
    """What was kept. `bundle`: None if it could not be read. `joined_by`: see `digest`."""

    node: AttestedNode
    joined_by: str
    bundle: Bundle | None = None
    federated: Mapping[TrustDomain, Bundle] = field(default_factory=dict)
    authorized: Authorized = field(default_factory=Authorized)


def digest(bundle: Bundle) -> str:
    """SHA-256 of a bundle's X.509 authorities, in hex: whether an operator has given another one since."""
    return hashlib.sha256(bundle.x509_der).hexdigest()


class NodeKeep:
    """The folder of one node. Changes are written together, a moment after the first one, in a thread."""

    def __init__(
        self,
        folder: Path,
        trust_domain: TrustDomain,
        keep: Keep,
        clock: Clock,
        alarms: Alarms,
        *,
        seal: KeySeal | None = None,
    ) -> None:
        """`seal`: what keys are sealed with on disk, the folder's own too. Raise CannotStart if others could have read
        that, or put files into the folder.
        """
        self._files = SealedFiles(folder, f"node of {trust_domain.name}", seal)
        self._trust_domain = trust_domain
        self._svids_too = keep == "svids"
        self._clock = clock
        self._alarms = alarms
        self._texts: dict[str, Callable[[], bytes]] = {}  # what is to be written, by file: made in the thread
        self._svids: dict[str, Mapping[str, KeptSvid | SignedSvid]] = {}  # by file, and by the entry's ID
        self._written: dict[str, tuple[Mapping[str, KeptSvid | SignedSvid], Mapping[str, KeptSvid]]] = {}
        self._count = 0
        self._of_earlier_run: set[str] = set()  # entries whose SVIDs nobody has asked for yet in this one
        self._node_id: SpiffeId | None = None
        self._writing = asyncio.Lock()
        self._background = Background("node_fault")
        self._alarm: Alarm | None = None
        self._failed: dict[str, str] = {}  # files that could not be written last, and why

    # --- reading, at the start --------------------------------------------------------------------------------------

    async def load(self) -> Kept | None:
        """What an earlier run has kept; None: nothing that is of use."""
        return await asyncio.to_thread(self._load)

    def _load(self) -> Kept | None:
        found = self._read(NODE, lambda text: kept_values.read_node(text, self._trust_domain))
        if found is None:
            self._remove(name for name in self._files.names() if name.startswith(_SVIDS))  # keys of nobody's any more
            return None
        self._node_id = node_id = found.node.spiffe_id
        bundles = self._read(BUNDLES, lambda text: kept_values.read_bundles(text, self._trust_domain))
        entries = self._read(ENTRIES, lambda text: kept_values.read_entries(text, node_id)) or Authorized()
        for name in sorted(self._files.names()):
            if name.startswith(_SVIDS) and self._svids_too:
                self._load_svids(name, node_id, entries)
            elif name.startswith(_SVIDS):
                self._remove([name])  # keys are not kept any more
        bundle, federated = bundles if bundles is not None else (None, {})
        return Kept(found.node, found.joined_by, bundle, federated, entries)

    def _load_svids(self, name: str, node_id: SpiffeId, authorized: Authorized) -> None:
        found = self._read(name, lambda text: kept_values.read_svids(text, node_id))
        if found is None:
            self._remove([name])  # it is of another node, or of no use
            return
        now = self._clock.now().timestamp()
        kept: dict[str, KeptSvid | SignedSvid] = {
            each: svid for each, svid in found.items() if now < svid.not_after and each in authorized.entries
        }
        if kept:
            self._svids[name] = kept
            self._count += len(kept)
            self._of_earlier_run.update(kept)

    def _read(self, name: str, read: Callable[[bytes], Read]) -> Read | None:
        try:
            text = self._files.read(name)
            return None if text is None else read(text)
        except (FileUnreadable, InvalidInput) as error:
            log.error("node_kept_unusable", file=name, reason=error.public, detail=error.detail)
            return None

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._files.remove(name)
            except OSError as error:  # the others go all the same
                log.error("node_not_kept", file=name, reason=f"it cannot be removed: {error.strerror}")

    # --- what is kept -----------------------------------------------------------------------------------------------

    async def keep_node(self, node: AttestedNode, bootstrap: Bundle) -> None:
        """Have the node's own SVID on disk before it is used. What fails is told, and `kept_within` says so."""
        if self._node_id not in {None, node.spiffe_id}:
            for name in list(self._svids):
                self._mark_svids(name, {})
            self._texts[ENTRIES] = lambda: kept_values.entries_text(node.spiffe_id, Authorized())
        self._node_id = node.spiffe_id
        kept = KeptNode(node, digest(bootstrap))
        self._texts[NODE] = lambda: kept_values.node_text(kept)
        await self._write()

    async def kept_within(self, seconds: float) -> str:
        """Have the node's own SVID on disk. Return why it is not after so many seconds, or nothing."""
        ends = self._clock.boot() + seconds
        while NODE in self._failed and self._clock.boot() < ends:
            await asyncio.sleep(UPSTREAM_WRITE_AGAIN_SECONDS)
            await self._write()
        return self._failed.get(NODE, "")

    def keep_bundles(self, own: Bundle, federated: Mapping[TrustDomain, Bundle]) -> None:
        self._texts[BUNDLES] = lambda: kept_values.bundles_text(own, federated)
        self._soon()

    def keep_entries(self, authorized: Authorized) -> None:
        node_id = self._node_id
        if node_id is not None:
            self._texts[ENTRIES] = lambda: kept_values.entries_text(node_id, authorized)
            self._soon()

    def keep_svid(self, entry: Entry, svid: X509Svid) -> None:
        """The newest SVID of an entry. Beyond UPSTREAM_KEPT_SVIDS none is kept of further entries."""
        self._of_earlier_run.discard(entry.id)
        if not self._svids_too:
            return
        name = _file_of(entry.id)
        before = self._svids.get(name, {})
        if entry.id in before or self._count < UPSTREAM_KEPT_SVIDS:
            self._mark_svids(name, {**before, entry.id: SignedSvid(entry, svid)})

    def forget(self, entry_id: str) -> None:
        """Drop the SVID of an entry that is gone."""
        self._of_earlier_run.discard(entry_id)
        name = _file_of(entry_id)
        before = self._svids.get(name, {})
        if entry_id in before:
            self._mark_svids(name, {each: svid for each, svid in before.items() if each != entry_id})

    def forget_svids(self) -> None:
        """Use none of an earlier run any more: what is asked for is signed."""
        self._of_earlier_run.clear()

    def take(self, entry: Entry, bundle: Bundle) -> X509Svid | None:
        """The SVID that an earlier run had of an entry, if it is good; each is given once."""
        if entry.id not in self._of_earlier_run:
            return None
        self._of_earlier_run.discard(entry.id)
        kept = self._svids.get(_file_of(entry.id), {}).get(entry.id)
        if not isinstance(kept, KeptSvid) or kept.revision != entry.revision or kept.spiffe_id != str(entry.spiffe_id):
            return None
        try:
            svid = kept.svid()
            found = verify_chain(svid.chain, bundle.x509_authorities, self._trust_domain, self._clock.now())
            if found != entry.spiffe_id:
                raise InvalidSvid("it is another one's")
        except (SojournError, ValueError) as error:
            log.error("node_kept_unusable", file=_file_of(entry.id), entry_id=entry.id, reason=str(error))
            self.forget(entry.id)
            return None
        return svid

    def _mark_svids(self, name: str, kept: Mapping[str, KeptSvid | SignedSvid]) -> None:
        now, node_id = self._clock.now().timestamp(), self._node_id
        left = {each: svid for each, svid in kept.items() if now < svid.not_after}
        self._count += len(left) - len(self._svids.get(name, {}))
        if left:
            self._svids[name] = left
        else:
            self._svids.pop(name, None)
        if node_id is not None:
            self._texts[name] = lambda: self._svids_text(name, node_id, left)
            self._soon()

    def _svids_text(self, name: str, node_id: SpiffeId, svids: Mapping[str, KeptSvid | SignedSvid]) -> bytes:
        """In the thread: what stands in a file of SVIDs, of which no more than that is held in memory from then on."""
        kept = {each: svid.kept() for each, svid in svids.items()}
        self._written[name] = svids, kept
        return kept_values.svids_text(node_id, kept) if kept else b""

    # --- writing ----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Write what is not written yet."""
        if self._alarm is not None:
            self._alarm.cancel()
        await self._write()
        await self._background.quiet()

    @whole
    async def destroy(self) -> None:
        """Remove all that is kept: this node may use nothing of it any more."""
        async with self._writing:
            self._texts.clear()
            self._svids.clear()
            self._of_earlier_run.clear()
            self._count, self._node_id, self._failed = 0, None, {}
            try:
                await asyncio.to_thread(self._files.destroy)
            except OSError as error:
                log.error("node_not_kept", reason=f"what is kept cannot be removed: {error.strerror}")

    def _soon(self, seconds: float = UPSTREAM_KEEP_SECONDS) -> None:
        if self._alarm is None or self._alarm.cancelled:
            self._alarm = self._alarms.after(seconds, lambda: self._background.run(self._write()))

    @whole
    async def _write(self) -> None:
        async with self._writing:
            texts, self._texts = self._texts, {}
            if not texts:
                return
            failed: dict[str, Exception] = {}
            try:
                await self._files.prepare()
                failed = await asyncio.to_thread(self._write_now, texts)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                failed = dict.fromkeys(texts, error)
            self._hold_written()
            self._texts = {**{name: texts[name] for name in failed}, **self._texts}
            if failed:
                self._tell_failed(failed)
                self._soon(UPSTREAM_RETRY_MAX_SECONDS)
            self._failed = {name: str(error) for name, error in failed.items()}

    def _tell_failed(self, failed: Mapping[str, Exception]) -> None:
        """Say once what cannot be written, and once more if the node's own SVID cannot be either."""
        if not self._failed or (NODE in failed and NODE not in self._failed):
            name = NODE if NODE in failed else next(iter(failed))
            log.error("node_not_kept", file=name, reason=str(failed[name]))

    def _hold_written(self) -> None:
        written, self._written = self._written, {}
        for name, (svids, kept) in written.items():
            if self._svids.get(name) is svids:
                self._svids[name] = kept

    def _write_now(self, texts: Mapping[str, Callable[[], bytes]]) -> dict[str, Exception]:
        """Return what has failed, by file. The node's own SVID is first: nothing else takes the room that it needs."""
        failed: dict[str, Exception] = {}
        for name in sorted(texts, key=lambda each: each != NODE):
            try:
                content = texts[name]()
                if content:
                    self._files.write(name, content)
                else:
                    self._files.remove(name)
            except Exception as error:  # noqa: BLE001  # the other files are written all the same
                self._written.pop(name, None)
                failed[name] = error
        return failed


def _file_of(entry_id: str) -> str:
    """One of 256 files, so that one SVID more does not have all of them written anew."""
    return f"{_SVIDS}{hashlib.sha256(entry_id.encode()).hexdigest()[:2]}"
