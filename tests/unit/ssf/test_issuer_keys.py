"""issuer_keys.py: an issuer's keys, from a file that is read anew."""

import asyncio
import json
import os
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.signed_events import issuer_key, jwks
from sojourn.errors import InvalidInput, Unavailable
from sojourn.jose.jws import private_jwk
from sojourn.limits import SIGNAL_KEYS
from sojourn.ssf.issuer_keys import SignalKeys, read_keys

KEY, OTHER = issuer_key(), issuer_key("k2")


def current(keys):
    return sorted(asyncio.run(keys.current()))


def replace(path, text):
    """As an operator should: the new file takes the old one's place."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


class TestFile:
    def test_is_read_anew(self, tmp_path):
        """A key that comes, goes or is replaced does so with the next event."""
        path = tmp_path / "jwks.json"
        path.write_text(jwks(KEY))
        keys = SignalKeys(path)
        assert ["k1"] == current(keys)
        replace(path, jwks(KEY, OTHER))
        assert ["k1", "k2"] == current(keys)
        path.write_text(jwks(OTHER))
        assert ["k2"] == current(keys)

    def test_a_change_within_one_tick_is_seen(self, tmp_path):
        """Two writes that no time stamp tells apart are both seen."""
        path = tmp_path / "jwks.json"
        path.write_text(jwks(KEY))
        keys = SignalKeys(path)
        for _ in range(20):
            path.write_text(jwks(KEY))
            assert ["k1"] == current(keys)
            path.write_text(jwks(OTHER))
            assert ["k2"] == current(keys)

    def test_is_not_read_without_need(self, tmp_path, monkeypatch):
        """A file at rest is looked at, not read."""
        path = tmp_path / "jwks.json"
        path.write_text(jwks(KEY))
        os.utime(path)
        keys = SignalKeys(path)
        ends = time.monotonic() + 20
        while keys._seen is None and time.monotonic() < ends:
            current(keys)
        monkeypatch.setattr("sojourn.files.trusted.read", lambda *_: pytest.fail("it was read"))
        assert ["k1"] == current(keys)

    @pytest.mark.parametrize("fault", ["gone", "torn", "writable", "folder", "huge"])
    def test_a_bad_file_gives_no_keys(self, tmp_path, fault):
        """A file that cannot be used takes the keys away that it had; a good one brings them back."""
        path = tmp_path / "jwks.json"
        path.write_text(jwks(KEY))
        keys = SignalKeys(path)
        current(keys)
        if fault == "writable":
            path.chmod(0o666)
        elif fault in {"torn", "huge"}:
            path.write_text(jwks(KEY)[:-5] if fault == "torn" else " " * 2_000_000)
        else:
            path.unlink()
            if fault == "folder":
                path.mkdir()
        with pytest.raises(Unavailable):
            current(keys)
        assert asyncio.run(keys.look())
        if fault == "folder":
            path.rmdir()
        replace(path, jwks(KEY))
        assert ["k1"] == current(keys)
        assert "" == asyncio.run(keys.look())


class TestSet:
    def test_what_cannot_have_signed_is_passed_over(self):
        """Keys of other kinds, uses and algorithms, and without a kid, stand in real sets and are no fault."""
        good = KEY.public.jwk
        others = [
            {"kty": "oct", "kid": "o", "k": "AAAA"},
            {"kty": "OKP", "kid": "e", "crv": "Ed25519", "x": "AAAA"},
            {**good, "kid": "enc", "use": "enc"},
            {**good, "kid": "512", "alg": "HS256"},
            {**good, "kid": "koblitz", "crv": "secp256k1"},
            {name: value for name, value in good.items() if name != "kid"},
        ]
        assert ["k1"] == list(read_keys(json.dumps({"keys": [*others, good]})))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{}",
            '{"keys":{}}',
            '{"keys":[7]}',
            '{"keys":[]}',
            "[" * 100_000,
            jwks(KEY, use="enc"),
            jwks(KEY, x="!"),
            jwks(KEY, alg=["ES256"]),
            jwks(KEY, KEY),
            jwks(*[KEY] * (SIGNAL_KEYS + 1)),
            json.dumps({"keys": [{**json.loads(private_jwk(ec.generate_private_key(ec.SECP256R1()))), "kid": "p"}]}),
        ],
    )
    def test_faults(self, text):
        """What is no set of public keys, or has none that could sign, is told as a fault."""
        with pytest.raises(InvalidInput):
            read_keys(text)
