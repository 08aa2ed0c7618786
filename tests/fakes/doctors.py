"""What `sojourn doctor` looks at, in a folder: an agent's account, its process and the kernel's files."""

import sys
from pathlib import Path
from typing import Any

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.config.model import Config
from sojourn.doctor.scene import Scene

PID = 1234
FULL = "000001ffffffffff"
ALL_SEEN = "24 30 0:22 / /proc rw,nosuid shared:5 - proc proc rw"


def status_of(folder: Path, **fields: Any) -> pb.GetStatusResponse:
    """The account of an agent that is well, with its data in `folder`."""
    told = {"pid": PID, "trust_domain": "example.org", "state": "ready", "data_dir": str(folder / "data")}
    places = {"socket": str(folder / "agent.sock"), "admin_socket": str(folder / "admin.sock")}
    return pb.GetStatusResponse(**{**told, **places, **fields})


def scene_of(
    folder: Path, status: pb.GetStatusResponse | None = None, config: Config | None = None, fault: str = ""
) -> Scene:
    """A scene whose /proc, /sys and units are below `folder`."""
    made = config or Config(data_dir=folder / "data", socket=folder / "agent.sock", admin_socket=folder / "admin.sock")
    silent = "" if status is not None else "no socket"
    places: Any = {"proc": folder / "proc", "sys": folder / "sys", "unit_folders": (folder / "units",)}
    return Scene(status, silent, None if fault else made, fault, **places)


def process_in(folder: Path, capabilities: str = FULL, uid: int = 0) -> Path:
    """The process of an agent with all privileges, in the machine's own namespaces."""
    process = put(folder / "proc" / str(PID) / "cmdline", "python\0-m\0sojourn\0agent\0run\0").parent
    put(process / "status", f"Name:\tsojourn\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapEff:\t{capabilities}\n")
    put(process / "mountinfo", ALL_SEEN)
    put(process / "limits", "Max open files            65536                65536                files")
    (process / "fd").mkdir()
    (process / "ns").mkdir()
    (process / "ns" / "pid").symlink_to("pid:[4026531836]")
    (process / "ns" / "user").symlink_to("user:[4026531837]")
    (process / "exe").symlink_to(sys.executable)
    return process


def put(path: Path, text: str) -> Path:
    """Write a file, and make the folders for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
