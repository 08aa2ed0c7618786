"""Who decides what stands at a path: the owners of the folders that lead there, and whoever may write in one."""

import os
import stat
from collections import deque
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from sojourn.limits import PATH_LINKS_MAX


class Exposed(Exception):
    """Somebody who is not trusted may have put there what stands at the path. Says who and where."""


def walk(path: str, folders_of: Collection[int], sticky_of: Collection[int]) -> os.stat_result:
    """Go to `path` as the kernel would, and return what stands there. Raise Exposed or OSError.

    Each folder on the way, that of a link's target too, is one of `folders_of` users', and nobody else may write in it.
    In one like /tmp, where anybody may add what is not there yet, only what is of `sticky_of` users counts.
    """
    left = deque(os.path.join(os.getcwd(), path).split("/"))
    at, links = "/", 0
    found = os.lstat(at)
    while left:
        name = left.popleft()
        if name in {"", "."}:
            continue
        if name == "..":  # `at` has no links: it was come by
            at = os.path.dirname(at)
            continue
        folder, below = os.lstat(at), os.path.join(at, name)
        found = os.lstat(below)
        _check(at, folder, found, folders_of, sticky_of)
        if not stat.S_ISLNK(found.st_mode):
            at = below
            continue
        links += 1
        if links > PATH_LINKS_MAX:
            raise Exposed(f"by way of more than {PATH_LINKS_MAX} links")
        target = os.readlink(below)
        left.extendleft(reversed(target.split("/")))
        at = "/" if target.startswith("/") else at
    return found


def _check(
    at: str, folder: os.stat_result, found: os.stat_result, folders_of: Collection[int], sticky_of: Collection[int]
) -> None:
    if folder.st_uid not in folders_of:
        raise Exposed(f"in a folder of {named(folder.st_uid)}'s, {at!r}")
    if not folder.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
        return
    if not folder.st_mode & stat.S_ISVTX or found.st_uid not in sticky_of:
        raise Exposed(f"in a folder that others may write, {at!r}: whoever they are, they may have put it there")


def named(uid: int) -> str:
    """A user by number, for a message."""
    if uid == overflow():
        return f"user {uid} (in a user namespace this is everybody who has no number there, as root outside)"
    return f"user {uid}"


@lru_cache(1)
def overflow() -> int:
    """The number by which the kernel shows all users who have none in a user namespace."""
    try:
        return int(Path("/proc/sys/fs/overflowuid").read_text())
    except (OSError, ValueError):
        return 65534
