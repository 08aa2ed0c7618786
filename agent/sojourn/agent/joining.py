"""Becoming a node of a server before the agent runs, and being one no more.

What joining keeps is what the next start begins with; nothing else is written.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sojourn.agent.key_sealing import KeySealing
from sojourn.agent.node_settings import settings_of
from sojourn.authority import keys_at_rest
from sojourn.authority.key_seal import KeySeal
from sojourn.config.model import Config
from sojourn.errors import InvalidInput, NotFound, Refused, SojournError, StoreFailed, UpstreamUnavailable
from sojourn.files import data_folder
from sojourn.limits import UPSTREAM_JOIN_WRITE_SECONDS
from sojourn.runtime.clock import Alarms, SystemClock
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.upstream import sealed_files
from sojourn.upstream.node import SpireNode
from sojourn.upstream.node_keep import NodeKeep


@dataclass(frozen=True, slots=True)
class Joined:
    """What the server has made of this agent. `before`: it was a node already, as an earlier run or join has kept.
    `caution`: what is amiss although it is a node, or empty.
    """

    node_id: SpiffeId
    server: str
    svid_ends: datetime
    reattestable: bool
    entries: int
    before: bool
    caution: str = ""


def join(config: Config) -> Joined:
    """Join the server of the configuration, or make sure that it still takes this agent for its node.

    Raise InvalidConfig, CannotStart if the agent runs, KeysSealed if keys cannot be opened, UpstreamUnavailable if no
    server answers, Refused if the answer is no, and StoreFailed if what the server gives cannot be written.
    """
    if config.upstream.kind is None:
        raise InvalidInput("the configuration has no table [upstream]: it says which server, and how to join it")
    trust_domain = TrustDomain(config.trust_domain)
    settings_of(config.upstream, trust_domain, config.data_dir)  # what is wrong with it is told first
    with data_folder.as_owner(config.data_dir), data_folder.claim(config.data_dir):
        seal = KeySealing(config).seal
        settings = settings_of(config.upstream, trust_domain, config.data_dir, seal)
        clock = SystemClock()
        return asyncio.run(_join(SpireNode(settings, clock, Alarms(clock))))


async def _join(node: SpireNode) -> Joined:
    try:
        await node.start(patience=None)  # a join token is used up by one try
        unwritten = await node.kept_within(UPSTREAM_JOIN_WRITE_SECONDS)
        if unwritten:
            raise StoreFailed(
                f"the SPIRE server takes this agent for its node {str(node.spiffe_id)!r}, but the SVID that it gives"
                f" cannot be written, and is lost: {unwritten}. A join token is used up by that: make another"
            )
        before = node.spiffe_id is not None and node.state.synced_at is None
        if before:
            await node.sync()
        state = node.state
        given = state.spiffe_id is not None and state.svid_ends is not None
        caution = state.fault if given and state.clock_behind_seconds else ""
        if (state.fault and not caution) or state.refused or state.spiffe_id is None or state.svid_ends is None:
            why = f"this agent has not become a node: {state.fault or state.refused}"
            if state.away_seconds is not None:
                raise UpstreamUnavailable(why)
            raise Refused(f"{why}; {state.remedy}".removesuffix("; "))
        return Joined(
            state.spiffe_id, state.server, state.svid_ends, state.reattestable, state.entries, before, caution
        )
    finally:
        await node.close()


@dataclass(frozen=True, slots=True)
class Detached:
    """What is gone. `node_id` None: what was kept could not be read."""

    node_id: SpiffeId | None
    new_root: bool  # the next start makes a root


def detach(config: Config) -> Detached:
    """Destroy what a node keeps: the agent is its own authority from the next start on.

    Raise InvalidInput if the configuration has a table [upstream] still, NotFound if there is nothing of a node,
    CannotStart if the agent runs, and StoreFailed if something cannot be removed. Sealed keys need not be opened.
    """
    if config.upstream.kind is not None:
        raise InvalidInput("the configuration has a table [upstream], by which the next start would join: take it out")
    folder = config.data_dir / data_folder.NODE
    with data_folder.as_owner(config.data_dir):
        if not folder.is_dir():
            raise NotFound(f"{str(config.data_dir)!r} keeps nothing of a node: the agent is its own authority")
        with data_folder.claim(config.data_dir):
            node_id = asyncio.run(_node_id(config, folder))
            for each in (config.data_dir / data_folder.NODE_KEY, folder):
                _remove(each)
            return Detached(node_id, new_root=not (config.data_dir / data_folder.KEYS / "root.pem").exists())


def _remove(folder: Path) -> None:
    """Remove a folder of sealed files, if it is there. Raise StoreFailed."""
    if not folder.is_dir():
        return
    try:
        sealed_files.destroy(folder)
        (folder / keys_at_rest.MARKER).unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:
        raise StoreFailed(
            f"the folder {str(folder)!r} cannot be removed whole: {error.strerror}: {error.filename}"
        ) from error


async def _node_id(config: Config, folder: Path) -> SpiffeId | None:
    """As what is kept says; None: it cannot be read, also as the key that keys are sealed with is gone."""
    clock = SystemClock()
    try:
        sealed_by = config.keys.seal_key if keys_at_rest.any_sealed(folder) else None
        seal = None if sealed_by is None else KeySeal.at(sealed_by)
        keep = NodeKeep(folder, TrustDomain(config.trust_domain), "svids", clock, Alarms(clock), seal=seal)
        kept = await keep.load()
    except SojournError:
        return None
    return None if kept is None else kept.node.spiffe_id
