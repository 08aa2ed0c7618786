"""Checks of what lies on disk: the data folder, the keys, the room, the database, the journal's size."""

import os
import sqlite3
import stat
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cryptography import x509

from sojourn.doctor.findings import Finding, fail, ok, unknown, warn
from sojourn.doctor.scene import ASK_AS_ROOT, Scene
from sojourn.errors import InvalidInput
from sojourn.files.path_owners import named
from sojourn.limits import DISK_FAIL_BYTES, DISK_WARN_BYTES, DISK_WARN_SHARE
from sojourn.spiffe.x509svid import spiffe_id_of
from sojourn.store.pruning import most_of
from sojourn.store.tables import SCHEMA

_NO_FOLDER: Final = "which data folder the agent has is not known"
_GIVE_FOLDER: Final = "name its configuration with --config"
_RESTORE: Final = "stop the agent, keep a copy of the folder, and restore it from a backup"
PUT_BACK: Final = "put trust_domain back; or begin anew with another root: stop the agent and move its data folder away"
_PRUNES_SHARE: Final = 0.9


def data_folder(scene: Scene) -> Finding:
    """Whether the data folder is the agent's alone."""
    folder = scene.data_dir
    if folder is None:
        return unknown(_NO_FOLDER, _GIVE_FOLDER)
    try:
        status = folder.stat()
    except FileNotFoundError:
        return warn(f"there is no {folder}", "it is made when the agent is started for the first time")
    except OSError as error:
        return unknown(f"{folder}: {error.strerror}", ASK_AS_ROOT)
    if status.st_uid != scene.uid:
        return fail(
            f"{folder} is {named(status.st_uid)}'s, and the agent runs as user {scene.uid}",
            f"chown -R {scene.uid} {folder}",
        )
    if status.st_mode & 0o077:
        make = fail if status.st_mode & 0o022 else warn
        can = "can be written" if status.st_mode & 0o022 else "can be read"
        return make(f"{folder} {can} by others (mode {stat.S_IMODE(status.st_mode):04o})", f"chmod 0700 {folder}")
    return ok(f"{folder} is user {status.st_uid}'s alone")


def keys(scene: Scene) -> Finding:
    """Whether the private keys can be read by the agent alone."""
    if scene.data_dir is None:
        return unknown(_NO_FOLDER, _GIVE_FOLDER)
    folder = scene.data_dir / "keys"
    try:
        found = [folder, *sorted(folder.iterdir())]
        states = [(each, each.lstat()) for each in found]
    except FileNotFoundError:
        return warn(f"there are no keys in {folder}", "they are made when the agent is started for the first time")
    except OSError as error:
        return unknown(f"{folder}: {error.strerror}", ASK_AS_ROOT)
    for path, status in states:
        if status.st_uid != scene.uid:
            return fail(
                f"{path} is {named(status.st_uid)}'s, and the agent runs as user {scene.uid}",
                f"chown -R {scene.uid} {folder}; if another user had it, replace the keys: `sojourn authority taint`",
            )
        if status.st_mode & 0o077:
            return fail(
                f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
                f"chmod go= {path}; if another user may have read it, replace the keys: `sojourn authority taint`",
            )
    if scene.status is None and (why := foreign_root(scene)):
        return fail(why, PUT_BACK)
    if scene.config is not None and scene.config.keys.manager == "pkcs11" and scene.config.keys.seal_key is None:
        return warn(
            f"roots' keys are in a token, and the {len(states) - 1} files in {folder} lie there in clear",
            "give keys.seal_key as well: docs/operate/keys.md",
        )
    return ok(f"{len(states) - 1} files in {folder}, which their owner alone can read")


def foreign_root(scene: Scene) -> str:
    """What is wrong with the roots in the data folder if they are of another trust domain than is configured, by which
    the agent refuses to start. "": nothing is, or they cannot be looked at.
    """
    if scene.data_dir is None or scene.config is None:
        return ""
    path, configured = scene.data_dir / "keys" / "root.pem", scene.config.trust_domain
    try:
        roots = x509.load_pem_x509_certificates(path.read_bytes())
        found = {spiffe_id_of(each).trust_domain.name for each in roots}
    except (OSError, ValueError, InvalidInput):
        return ""
    others = ", ".join(sorted(found - {configured}))
    return f"{path} is of trust domain {others}, and the configuration says {configured}" if others else ""


def disk(scene: Scene) -> Finding:
    """Whether the data folder's file system has room, and takes writes."""
    if scene.data_dir is None:
        return unknown(_NO_FOLDER, _GIVE_FOLDER)
    place = next((each for each in (scene.data_dir, *scene.data_dir.parents) if each.exists()), Path("/"))
    room = os.statvfs(place)
    free, whole = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    said = f"{free // 2**20} MiB of {whole // 2**20} are free below {place}"
    do = "make room, or move the data folder; audit.max_bytes bounds the journal"
    if room.f_flag & os.ST_RDONLY:
        return fail(f"the file system of {place} is read-only", "remount it for writing; `dmesg` says why it is so")
    if free < DISK_FAIL_BYTES or room.f_favail == 0 < room.f_files:
        return fail(said if room.f_favail else f"no file can be made below {place}: no inode is free", do)
    if free < DISK_WARN_BYTES and free < whole * DISK_WARN_SHARE:
        return warn(said, do)
    return ok(said)


def store(scene: Scene) -> Finding:
    """Whether the database is whole, by SQLite's own check, and of this release's schema. Nothing in it is changed."""
    path = _database(scene)
    if path is None:
        return unknown(_NO_FOLDER, _GIVE_FOLDER)
    try:
        there = path.exists()
    except PermissionError:
        return unknown(f"{path.parent} is not this user's to look into", ASK_AS_ROOT)
    if not there:
        return warn(f"there is no {path}", "it is made when the agent is started for the first time")
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)
        try:
            wrong = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        if "readonly" in str(error) or "unable to open" in str(error):
            return unknown(f"{path} cannot be opened: {error}", ASK_AS_ROOT)
        return fail(f"{path} is damaged: {error}", _RESTORE)
    if wrong != "ok":
        return fail(f"{path} is damaged: {wrong}", _RESTORE)
    schema = row[0] if row else "none"
    if schema > SCHEMA:
        return fail(
            f"{path} is of schema {schema}, and this release knows {SCHEMA}",
            "install the release that wrote it, or a newer one",
        )
    return ok(f"{path} is whole, of schema {schema}, {path.stat().st_size // 2**20} MiB")


def _database(scene: Scene) -> Path | None:
    return None if scene.data_dir is None else scene.data_dir / "sojourn.db"


def journal(scene: Scene) -> Finding:
    """Whether the journal will soon lose its oldest records, because the database is nearly as large as it may be."""
    path = _database(scene)
    if path is None or scene.config is None:
        return unknown(_NO_FOLDER if path is None else scene.config_fault, _GIVE_FOLDER)
    try:
        size, most = path.stat().st_size, scene.config.audit.max_bytes or most_of(path.parent)
    except FileNotFoundError:
        return ok("there is no journal yet")
    except OSError as error:
        return unknown(f"{path}: {error.strerror}", ASK_AS_ROOT)
    said = f"the database has {size // 2**20} MiB of {most // 2**20} that it may have"
    if size > most * _PRUNES_SHARE:
        return warn(
            f"{said}: then its oldest records make room, unless they are held (journal-room)",
            "copy them away (`sojourn audit tail --follow --after SEQ -o json`), or raise audit.max_bytes",
        )
    return ok(said)
