"""`sojourn audit witness` as a process: what it cosigns over HTTP, and what it does not let happen to it."""

import http.client
import itertools
import random
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fakes.growinglog import GrowingLog
from harness.looking import until
from harness.tlsplace import TlsPlace
from harness.witnessprocess import WitnessProcess
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.merkle import root
from sojourn.tlog.notes import Note, VerifierKey, parse_lines

LOG = GrowingLog()
KILLS = 40


@pytest.fixture
def witness() -> Iterator[WitnessProcess]:
    with WitnessProcess([LOG.vkey]) as made:
        yield made


def cosigned(witness: WitnessProcess, old: int, size: int, forked: int | None = None) -> bool:
    request = LOG.request(old, size, forked)
    status, body, _ = witness.post(request.written())
    if status != 200:
        return False
    note = request.note.with_lines(parse_lines(body.decode()))
    at = note.cosigned_at(VerifierKey.parse_cosigner(witness.vkey))
    assert at is not None
    assert abs(at - time.time()) < 60
    return True


def test_a_log_is_cosigned(witness: WitnessProcess) -> None:
    """A log that is trusted is cosigned as it grows, over a restart; an unknown one is answered 404 until it is told."""
    assert cosigned(witness, 0, 3)
    assert cosigned(witness, 3, 700)
    assert 0 == witness.stop()
    witness.start()
    assert (409, b"700\n", "text/x.tlog.size") == witness.post(LOG.request(3, 701).written())
    assert cosigned(witness, 700, 701)
    other = GrowingLog("example.org/audit/there/0123456789abcdef", b"8")
    assert 404 == witness.post(other.request(0, 1).written())[0]
    witness.trust(other.vkey)
    until(lambda: witness.post(other.request(0, 1).written())[0] == 200)
    assert "witness_reloaded" in witness.said


def test_a_fork_is_not(witness: WitnessProcess) -> None:
    """A fork is refused and said loudly, with the file in which the signed contradiction is kept; a larger head is apart."""
    assert cosigned(witness, 0, 10)
    assert 422 == witness.post(LOG.request(10, 12, forked_at=4).written())[0]
    assert (409, b"10\n") == witness.post(LOG.request(10, 10, forked_at=4).written())[:2]
    until(lambda: witness.said.count("witness_conflict") == 1)
    for folder, size in (("conflicts", 10), ("unproved", 12)):
        [kept] = (witness.folder / folder).iterdir()
        assert size == Checkpoint.parse(Note.parse(kept.read_bytes()).text).size
    assert cosigned(witness, 10, 12)


def test_odd_requests(witness: WitnessProcess) -> None:
    """Another path, another method, a body that is too large, or no checkpoint, has its status, and the next is served."""
    connection = http.client.HTTPConnection("127.0.0.1", witness.port, timeout=30)
    for method, path, body, status in (
        ("GET", "/add-checkpoint", b"", 405),
        ("POST", "/", b"", 404),
        ("POST", "/add-checkpoint/", b"", 404),
        ("POST", "/add-checkpoint", b"x", 400),
        ("POST", "/add-checkpoint", b"old 0\n\n" + b"x" * 40_000, 413),
    ):
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        assert (status, answer.status) == (answer.status, status), path
    connection.request("POST", "/add-checkpoint", iter([b"old 0\n\n", b"x" * 40_000]), encode_chunked=True,
                       headers={"transfer-encoding": "chunked"})  # fmt: skip
    assert 413 == connection.getresponse().status
    connection.close()
    with socket.create_connection(("127.0.0.1", witness.port), timeout=30) as raw:
        raw.sendall(b"POST /add-checkpoint HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n")
        assert b" 400 " in raw.recv(1000)
    assert cosigned(witness, 0, 1)


@pytest.mark.forked
def test_idle_connections(witness: WitnessProcess) -> None:
    """Whoever holds thousands of connections, without a word or in the middle of one, keeps no log from its cosignature."""
    many = 10_000
    with ExitStack() as stack:
        for number in range(many):
            with suppress(OSError):
                held = stack.enter_context(socket.socket())
                held.settimeout(5)
                held.connect(("127.0.0.1", witness.port))
                if number % 2:
                    held.send(b"POST /add-checkpoint HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nold 0\n")
            if number % 1_000 == 999:
                before = number // 1_000
                assert cosigned(witness, before, before + 1)
        assert witness.process is not None
        descriptors = Path(f"/proc/{witness.process.pid}/fd")
        until(lambda: len(list(descriptors.iterdir())) < 200)


def test_over_tls(tmp_path: Path) -> None:
    """With a certificate it speaks TLS; an address that others reach is refused without one."""
    place = TlsPlace(tmp_path)
    place.key.chmod(0o600)
    with WitnessProcess([LOG.vkey], "--tls-certificate", str(place.chain), "--tls-key", str(place.key)) as witness:
        context = ssl.create_default_context(cafile=str(place.ca))
        assert 200 == witness.post(LOG.request(0, 2).written(), context=context)[0]
    with pytest.raises(RuntimeError, match="needs --tls-certificate"), WitnessProcess([], "--listen", "0.0.0.0:0"):
        pass


def test_over_a_unix_socket(tmp_path: Path) -> None:
    """Behind a proxy of one's own it answers on a Unix socket."""
    path = tmp_path / "w.sock"
    tmp_path.chmod(0o755)
    body = LOG.request(0, 2).written()
    with WitnessProcess([LOG.vkey], "--listen", f"unix:{path}"), socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(30)
        caller.connect(str(path))
        caller.sendall(b"POST /add-checkpoint HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        assert b"HTTP/1.1 200" in caller.recv(4000)


def test_one_at_a_time(witness: WitnessProcess) -> None:
    """A second witness in the same folder does not start, so that two never cosign with one key."""
    with pytest.raises(RuntimeError, match="uses the data folder"), WitnessProcess([], folder=witness.folder):
        pass


def test_what_it_has_forgotten(witness: WitnessProcess) -> None:
    """Without what it has cosigned its key is of no use, and the witness says what to do."""
    assert cosigned(witness, 0, 3)
    witness.stop()
    for each in (witness.folder / "heads").iterdir():
        each.write_text("rubbish")
    with pytest.raises(RuntimeError, match="is damaged"):
        witness.start()
    for each in (witness.folder / "heads").iterdir():
        each.unlink()
    (witness.folder / "heads").rmdir()
    with pytest.raises(RuntimeError, match="no longer knows what it has cosigned"):
        witness.start()


@pytest.mark.full
@pytest.mark.forked
def test_kills_at_any_moment(witness: WitnessProcess) -> None:
    """However often it is killed while forks ask at once, no two heads are cosigned of which neither begins with the other."""
    key, given, lock, over = VerifierKey.parse_cosigner(witness.vkey), [], threading.Lock(), threading.Event()

    def ask(fork: int) -> None:
        chance, known = random.Random(fork), 0
        while not over.is_set():
            size = known + chance.randrange(1, 4)
            with lock:
                branch = given[-1][1] if given else None
            forked = chance.choice([branch, branch, max(0, known - 1), known])
            request = LOG.request(known, size, forked)
            with suppress(OSError, http.client.HTTPException, ValueError):
                status, body, _ = witness.post(request.written())
                if status == 409:
                    known = int(body)
                elif status == 200:
                    note = request.note.with_lines(parse_lines(body.decode()))
                    assert note.cosigned_at(key) is not None
                    with lock:
                        given.append((size, forked))
                    known = size

    threads = [threading.Thread(target=ask, args=[each]) for each in range(4)]
    for each in threads:
        each.start()
    try:
        for _ in range(KILLS):
            time.sleep(random.uniform(0.0, 0.3))
            witness.stop(signal.SIGKILL)
            witness.start()
        until(lambda: len(given) > 20, seconds=60)
    finally:
        over.set()
        for each in threads:
            each.join()
    heads = sorted({(size, root(LOG.nodes(forked), size), forked) for size, forked in given}, key=lambda each: each[0])
    for (size, of, _), (_, _, forked) in itertools.pairwise(heads):
        assert of == root(LOG.nodes(forked), size)
