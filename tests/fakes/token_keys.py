"""Keys as a token has them, in memory; and a process that speaks as the key process does, or as a broken one would."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from sojourn.errors import KeysUnavailable


class FakeKeys:
    """What a token does for whoever builds: it finds and makes keys by label. With `unnamed` a dictionary, a key has its
    label only once it is named, if it `may_name` keys.
    """

    def __init__(self) -> None:
        self.kept: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.unnamed: dict[str, ec.EllipticCurvePrivateKey] | None = None
        self.may_name = True

    def next_number(self, prefix: str) -> int:
        ends = [each.removeprefix(prefix) for each in self.kept if each.startswith(prefix)]
        return max((int(each) for each in ends if each.isdecimal()), default=0) + 1

    def find(self, label: str) -> ec.EllipticCurvePrivateKey | None:
        return self.kept.get(label)

    def create(self, label: str, curve: ec.EllipticCurve) -> str:
        key = ec.generate_private_key(curve)
        if self.unnamed is None:
            self.kept.setdefault(label, key)
            return ""
        called = f"key-{len(self.unnamed)}"
        self.unnamed[called] = key
        return called

    def name(self, label: str, made: str) -> None:
        if not self.may_name:
            raise KeysUnavailable("a key may not be named")
        assert self.unnamed is not None, "a key has its label already"
        self.kept[label] = self.unnamed[made]


# Answers to all but `open` and `login` are as the first argument of the program that follows says.
_PROGRAM = """
import json, socket, struct, sys, time, os
how, descriptor = {how!r}, int(sys.argv[2])
channel = socket.socket(fileno=descriptor)
def read(count):
    data = b""
    while len(data) < count:
        piece = channel.recv(count - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data
def frame(content):
    return struct.pack(">I", len(content)) + content
first = True
with open({log!r}, "a") as log:
    while True:
        asked = json.loads(read(*struct.unpack(">I", read(4))))
        print(asked["do"], file=log, flush=True)
        good = frame(json.dumps({{"id": asked["id"], "ok": {{}}}}).encode())
        if asked["do"] == "open":
            answer = {{"salt": "00", "digest": "AA=="}}
            channel.sendall(frame(json.dumps({{"id": asked["id"], "ok": answer}}).encode()))
            continue
        if asked["do"] == "login" and how == "dies":
            sys.exit(3)
        if asked["do"] == "login" and how != "pin":
            channel.sendall(good)
            continue
        if how == "good" or (how == "looks" and asked["do"] == "look"):
            channel.sendall(good)
        elif how == "pin":
            said = {{"id": asked["id"], "failed": "pin_refused", "said": "the token refuses the PIN", "more": ""}}
            channel.sendall(frame(json.dumps(said).encode()))
        elif how == "garbage":
            channel.sendall(frame(os.urandom(200)))
        elif how == "endless":
            channel.sendall(b"\\xff" * 100)
        elif how == "cut":
            channel.sendall(good[:-3])
            sys.exit(0)
        elif how == "other":
            channel.sendall(frame(json.dumps({{"id": asked["id"] + 1, "ok": {{}}}}).encode()))
        elif how == "twice":
            channel.sendall(frame(b'{{"id": %d, "ok": {{}}, "ok": {{}}}}' % asked["id"]))
        elif how == "more":
            channel.sendall(frame(json.dumps({{"id": asked["id"], "ok": {{}}, "more": 1}}).encode()))
        elif how == "strange":
            said = {{"id": asked["id"], "failed": "nothing", "said": "", "more": ""}}
            channel.sendall(frame(json.dumps(said).encode()))
        elif how == "late":
            time.sleep(60)
        elif how in ("ends", "looks"):
            sys.exit(3)
"""


def program(how: str, log: Path) -> str:
    """The text of a key process that answers all but `open` and `login` in one way, and writes down what it is asked."""

    return _PROGRAM.format(how=how, log=str(log))
