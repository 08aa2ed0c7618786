"""Reading files that decide who may do what: only those that nobody else could have written."""

import codecs
import os
import stat
from pathlib import Path
from typing import Final

from sojourn.errors import InvalidInput

KUBELETS: Final = "..data"  # a link to the files of the day, in volumes that themselves have mode 0777 or 1777


def read(path: Path, max_bytes: int) -> str:
    """Return the text of a file. Raise InvalidInput if it cannot be read, or if another user could have written it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput("not a regular file")
        check_owner(status)
        content = b""
        while len(content) <= max_bytes and (block := os.read(descriptor, max_bytes + 1)):
            content += block
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        raise InvalidInput(f"larger than {max_bytes} bytes")
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()  # some editors put a mark before it
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8: {error.reason} at byte {error.start}") from error


def check_folder(folder: Path) -> None:
    """Raise InvalidInput as check_owner does, or OSError. What the kubelet keeps in a volume is one folder further."""
    status = os.stat(folder)
    try:
        check_owner(status)
    except InvalidInput as error:
        kept = folder / KUBELETS
        if status.st_uid in {0, os.geteuid()} and kept.is_dir():
            raise InvalidInput(f"can be written by others, as the kubelet mounts it: name {str(kept)!r}") from error
        raise


def check_owner(status: os.stat_result) -> None:
    """Raise InvalidInput unless a file or folder is ours or root's, and writable by nobody outside our own group.

    Nor is a folder like /tmp, in which others may only add: they add links to files of ours that are meant for others.
    """
    if status.st_uid not in {0, os.geteuid()}:
        raise InvalidInput(f"belongs to user {status.st_uid}: it must be this agent's or root's")
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and status.st_gid not in {0, os.getegid()}):
        raise InvalidInput("can be written by others: chmod go-w it")
