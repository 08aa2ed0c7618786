"""What the agent reads of other processes in /proc: nothing that takes their memory with it (proc_read.py says why)."""

import ast
import re
from pathlib import Path

import sojourn
from harness.trees import tree_of

AGENT = Path(sojourn.__file__).parent
ATTESTORS = AGENT.parent.parent / "attestors" / "sojourn_attestors"
# Linux writes these without the memory map of the process: fs/proc/base.c, fd.c, namespaces.c and cgroup.c.
WITHOUT_MEMORY = {"", "cgroup", "exe", "limits", "loginuid", "mountinfo", "ns", "root"}
READS_ELSEWHERE = AGENT / "attestation" / "proc_read.py"  # in a process of its own
# Of ourselves, our threads and our children, and what is nobody's.
OWN = re.compile(r"/proc/(self|sys|net|\{self\.process\.pid\})(/|$)")
OF_THE_FIRST = {"/proc/1/status"}  # `agent/process.py` asks whether it may be read, and does not read it


def test_what_is_read_of_others() -> None:
    """Each path below /proc that stands in the code of agent and attestors is one of those that may be read."""
    found = {
        (path.name, text): f"{text}///".split("/")[3]
        for path in (*AGENT.rglob("*.py"), *ATTESTORS.rglob("*.py"))
        if path != READS_ELSEWHERE and "_pb" not in path.parts
        for text in _proc_paths(path)
        if not OWN.match(text) and text not in OF_THE_FIRST
    }
    assert len(found) > 10
    assert ["process.py"] == [where for (where, _), name in found.items() if name == "{name}"]  # by `content_of`
    assert {} == {where: name for where, name in found.items() if name not in WITHOUT_MEMORY | {"{name}"}}


def test_names_that_are_given() -> None:
    """`content_of`, which takes a name, has no others."""
    from sojourn.attestation.process import File

    assert set(File.__args__) <= WITHOUT_MEMORY


def _proc_paths(path: Path) -> set[str]:
    docs = set()
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
                for part in node.values
                if isinstance(part, ast.Constant | ast.FormattedValue)
            )
            docs.update(id(part) for part in node.values)
            found.add(text)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            found.add(node.value)
    return {text for text in found if re.match(r"/proc(/|$)", text) and " " not in text}
