"""signatures.py: a token that was found good is not checked again, and one that came back not read again."""

import pytest
from fakes.task_feed import signing_key
from sojourn.errors import InvalidToken
from sojourn.jose.jws import UnverifiedJws, parse_unverified
from sojourn.jose.signatures import Signatures


class TestSignatures:
    def test_once_for_the_same_token_and_key(self, monkeypatch):
        """A signature that was found good is not checked again: for the very same text and key, and for no other."""
        signatures, checked = Signatures(), []
        real = UnverifiedJws.check_signature
        monkeypatch.setattr(UnverifiedJws, "check_signature", lambda self, key: (checked.append(self), real(self, key)))
        key, other = signing_key("k1"), signing_key("k1")
        parsed = parse_unverified(key.sign({"a": 1}, typ="JWT"))
        signatures.check(parsed, key.public)
        signatures.check(parse_unverified(parsed.text), key.public)
        assert 1 == len(checked)
        forged = parse_unverified(parsed.text.rpartition(".")[0] + "." + "A" * 86)
        for jws, by in ((parsed, other.public), (forged, key.public), (forged, key.public)):
            with pytest.raises(InvalidToken):
                signatures.check(jws, by)
        assert 4 == len(checked)

    def test_of_a_token_that_was_just_made(self, monkeypatch):
        """What was signed here need not be checked, by the key that signed it; by another it is, and is not good."""
        signatures, key, other = Signatures(), signing_key("k1"), signing_key("k1")
        parsed = parse_unverified(key.sign({"a": 1}, typ="JWT"))
        signatures.made(parsed.text, key.public)
        with monkeypatch.context() as patch:
            patch.setattr(UnverifiedJws, "check_signature", lambda self, key: pytest.fail("it was checked"))
            signatures.check(parsed, key.public)
        with pytest.raises(InvalidToken):
            signatures.check(parsed, other.public)

    def test_bounded(self, monkeypatch):
        """The tokens that were seen last are remembered, and no more of them than there is room for."""
        signatures, key = Signatures(2), signing_key("k1")
        parsed = [parse_unverified(key.sign({"a": number}, typ="JWT")) for number in range(3)]
        for each in (parsed[0], parsed[1], parsed[0], parsed[2]):
            signatures.check(each, key.public)
        assert 2 == len(signatures)
        checked = []
        monkeypatch.setattr(UnverifiedJws, "check_signature", lambda self, _: checked.append(self))
        for each in (parsed[0], parsed[2]):
            signatures.check(each, key.public)
        assert [] == checked
        signatures.check(parsed[1], key.public)
        assert [parsed[1]] == checked

    def test_read_once(self):
        """What came back with a good signature is read once for its text; a forged or a changed text is read anew."""
        signatures, key, other = Signatures(read=2), signing_key("k1"), signing_key("k1")
        text = key.sign({"a": 1}, typ="JWT")
        first = signatures.parse_unverified(text)
        with pytest.raises(InvalidToken):
            signatures.check(first, other.public)
        assert first is not signatures.parse_unverified(text)
        signatures.check(first, key.public)
        assert first is signatures.parse_unverified(text)
        with pytest.raises(InvalidToken):  # that it was read says nothing of another key
            signatures.check(signatures.parse_unverified(text), other.public)
        forged = text.rpartition(".")[0] + "." + "A" * 86
        with pytest.raises(InvalidToken):
            signatures.check(signatures.parse_unverified(forged), key.public)
        for number in range(2):
            signatures.check(parse_unverified(key.sign({"b": number}, typ="JWT")), key.public)
        assert first is not signatures.parse_unverified(text)

    def test_came_back(self):
        """What came back with a good signature is told as it was read, with all that was read of it; no other text is,
        and it is forgotten with the last that there is room for.
        """
        signatures, key = Signatures(read=1), signing_key("k1")
        first, second = (parse_unverified(key.sign({"a": each}, typ="JWT")) for each in range(2))
        signatures.made(first.text, key.public)
        assert signatures.came_back(first.text) is None
        signatures.check(first, key.public)
        first.read["it"] = "said so"
        assert ({"it": "said so"}, None) == (signatures.came_back(first.text).read, signatures.came_back(second.text))
        signatures.check(second, key.public)
        assert (None, {}) == (signatures.came_back(first.text), signatures.came_back(second.text).read)
