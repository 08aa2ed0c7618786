"""Files of Debian packages, without an installation of Debian: fetched by apt, which checks their signatures.

Apt gets a folder of its own for its lists, so that neither root nor a change of this machine is needed.
"""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What a Python program needs and no more: no shell, no apt, no dpkg.
PACKAGES = (
    *("base-files", "ca-certificates", "libc6", "libcrypt1", "libexpat1", "libffi8", "libgcc-s1", "liblzma5"),
    *("libpython3.11-minimal", "libpython3.11-stdlib", "libsqlite3-0", "libssl3", "libstdc++6", "libuuid1"),
    *("libbz2-1.0", "netbase", "python3.11-minimal", "zlib1g"),
)
_STDLIB = "usr/lib/python3.11"
# Of those, what nothing here uses. A copyright file stays for each package.
LEFT_OUT = (
    *("bin", "sbin", "usr/sbin", "usr/share/man", "usr/share/lintian", "usr/share/doc-base", "usr/share/bug"),
    *(
        "usr/share/locale",
        "usr/share/pixmaps",
        "usr/share/binfmts",
        "usr/share/base-files",
        "usr/share/ca-certificates",
    ),
    *("usr/lib/*-linux-gnu/gconv", "usr/lib/locale", "etc/default", "usr/lib/*-linux-gnu/audit"),
    *("usr/lib/valgrind", "usr/lib/tmpfiles.d", "etc/ld.so.conf.d/fakeroot.conf"),
    *("etc/update-motd.d", "etc/profile.d", "etc/kernel", "etc/issue", "etc/issue.net", "etc/ca-certificates", "var"),
    *("usr/share/gcc", "usr/share/gdb", "boot", "home", "media", "mnt", "opt", "root", "srv", "proc", "sys", "dev"),
    *(
        f"{_STDLIB}/{each}"
        for each in ("idlelib", "lib2to3", "pydoc_data", "turtledemo", "tkinter", "test", "ensurepip")
    ),
    *(f"{_STDLIB}/{each}" for each in ("curses", "dbm", "distutils", "venv", "xmlrpc", "unittest")),
    *(
        f"{_STDLIB}/{each}.py"
        for each in ("turtle", "pydoc", "doctest", "nntplib", "pdb", "cgi", "cgitb", "antigravity")
    ),
    *(f"{_STDLIB}/{each}.py" for each in ("this", "webbrowser", "imaplib", "telnetlib", "ftplib", "poplib", "mailbox")),
    *(f"{_STDLIB}/lib-dynload/_codecs_{each}.cpython-311-*" for each in ("cn", "hk", "iso2022", "jp", "kr", "tw")),
    *(
        f"{_STDLIB}/encodings/{each}.py"
        for each in (
            "mac_*",
            "cp1*",
            "cp7*",
            "cp8*",
            "cp9*",
            "koi8_*",
            "big5*",
            "gb*",
            "euc_*",
            "iso2022_*",
            "shift_*",
            "johab",
            "hz",
            "ptcp154",
        )
    ),
    *("lib/*-linux-gnu/libmvec.so.1", "lib/*-linux-gnu/libc_malloc_debug.so.0", f"{_STDLIB}/__pycache__"),
    *("etc/python3.11/sitecustomize.py", f"{_STDLIB}/sitecustomize.py", "usr/share/python3"),
)
_PROGRAMS = ("usr/bin/python3.11",)  # all that stays of usr/bin
_DOC = "usr/share/doc"
_LINE = re.compile(r"([^= ]+)=([^ ]+) ([a-z0-9]+) sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    version: str
    architecture: str
    sha256: str
    control: str

    @property
    def line(self) -> str:
        """As the lock has it."""
        return f"{self.name}={self.version} {self.architecture} sha256:{self.sha256}"


Lock = dict[tuple[str, str], Package]


def unpacked(root: Path, scratch: Path, architecture: str, lock: Lock | None) -> list[Package]:
    """Put the files of all packages into `root`; what they were. `lock`: what each must be; None: the newest of the
    suite.
    """
    files = fetched(PACKAGES, scratch, architecture, lock)
    found = [unpack(file, root) for file in files]
    _certificates(files, root, scratch)
    _left_out(root)
    return found


def fetched(names: Iterable[str], scratch: Path, architecture: str, lock: Lock | None) -> list[Path]:
    """These packages as files, in the order of their names."""
    into = Path(tempfile.mkdtemp(prefix=f"debs-{architecture}-", dir=scratch))
    wanted = [name if lock is None else f"{name}={_locked(name, architecture, lock).version}" for name in names]
    done = subprocess.run([*_apt(scratch, architecture), "download", *wanted], cwd=into, check=False)
    if done.returncode:
        raise SystemExit(f"{MIRROR} does not have all of these packages: {', '.join(wanted)}")
    return sorted(into.glob("*.deb"))


def _locked(name: str, architecture: str, lock: Lock) -> Package:
    for kind in (architecture, "all"):
        if found := lock.get((name, kind)):
            return found
    raise SystemExit(f"not a list of all packages: {name} of {architecture} is not in it")


def _apt(scratch: Path, architecture: str) -> list[str]:
    """Apt's command for packages of that architecture, with lists of its own, which are fetched once."""
    lists = scratch / f"apt-{architecture}"
    new = not lists.exists()
    for folder in (lists / "lists" / "partial", lists / "cache" / "archives" / "partial", lists / "etc"):
        folder.mkdir(parents=True, exist_ok=True)
    signed = f"[signed-by={KEYRING}]"
    (lists / "sources.list").write_text(
        f"deb {signed} {MIRROR}/debian {SUITE} main\n"
        f"deb {signed} {MIRROR}/debian {SUITE}-updates main\n"
        f"deb {signed} {MIRROR}/debian-security {SUITE}-security main\n"
    )
    (lists / "status").touch()
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Dir::State": lists,
        "Dir::State::lists": lists / "lists",
        "Dir::State::status": lists / "status",
        "Dir::Cache": lists / "cache",
        "Dir::Etc::sourcelist": lists / "sources.list",
        "Dir::Etc::sourceparts": "-",
    }
    apt = ["apt-get", "--quiet=2", *(f"--option={key}={value}" for key, value in settings.items())]
    if new:
        subprocess.run([*apt, "update"], check=True)
    return apt


def unpack(file: Path, root: Path) -> Package:
    """Put a package's files into `root`; which it was."""
    subprocess.run(["dpkg-deb", "--extract", str(file), str(root)], check=True)
    control = subprocess.run(["dpkg-deb", "--field", str(file)], check=True, capture_output=True, text=True).stdout
    fields = dict(line.split(": ", 1) for line in control.splitlines() if line[:1].isalpha() and ": " in line)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Package(fields["Package"], fields["Version"], fields["Architecture"], digest, control)


def check(packages: Iterable[Package], lock: Lock) -> None:
    """Exit unless the packages are those of the lock."""
    known = {each.line for each in lock.values()}
    wrong = [each.line for each in packages if each.line not in known]
    if wrong:
        raise SystemExit(f"not the packages that the lock names: {', '.join(wrong)}")


def read_lock(file: Path) -> Lock:
    """The packages by name and architecture, as `Package.line` writes them."""
    found = [_LINE.fullmatch(line) for line in file.read_text("utf-8").splitlines()]
    if not found or not all(found):
        raise SystemExit(f"{file} is not a list of packages that an earlier build wrote")
    read = [Package(*each.groups(), control="") for each in found if each]
    return {(each.name, each.architecture): each for each in read}


def _certificates(files: list[Path], root: Path, scratch: Path) -> None:
    """The one file of certificates that libraries look for, as ca-certificates makes it when it is installed."""
    (package,) = (each for each in files if each.name.startswith("ca-certificates"))
    unpacked_there = scratch / "certificates"
    shutil.rmtree(unpacked_there, ignore_errors=True)
    subprocess.run(["dpkg-deb", "--extract", str(package), str(unpacked_there)], check=True)
    found = sorted((unpacked_there / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    made = root / "etc/ssl/certs/ca-certificates.crt"
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_bytes(b"".join(each.read_bytes().rstrip(b"\n") + b"\n" for each in found))


def _left_out(root: Path) -> None:
    """Take away what is not used, and unpack the copyright files, which are to be read."""
    for path in [path for name in LEFT_OUT for path in root.glob(name)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink() or path.exists():
            path.unlink()
    for path in (root / "usr/bin").iterdir():
        if f"usr/bin/{path.name}" not in _PROGRAMS:
            path.unlink()
    for path in sorted((root / _DOC).rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.name == "copyright.gz":
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
        elif path.name != "copyright":
            path.unlink()
