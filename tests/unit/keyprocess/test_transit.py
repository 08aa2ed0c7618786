"""OpenBao's transit engine as it might answer: what is no good answer is told, and signs nothing."""

import json
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sojourn.errors import FailedPrecondition, KeysUnavailable
from sojourn.keyprocess.transit import Transit
from sojourn.limits import KEYS_OF_NODE_IN_TOKEN
from sojourn.providers.http import HttpResponse
from sojourn.settings.openbao import TransitConfig

CONFIG = TransitConfig(address="https://bao.example.org", auth_role="sojourn")
PREFIX = "sojourn/example.org/n1/root/"
NAME = "sojourn_sexample.org_sn1_sroot_s1"
KEY = ec.generate_private_key(ec.SECP256R1())


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def told(key=KEY, **changes):
    """What is said of a key as we make them."""
    versions = {"1": {"public_key": pem(key)}}
    return {"data": {"exportable": False, "allow_plaintext_backup": False, "keys": versions, **changes}}


class FakeHttp:
    """Answers by path, and keeps what was asked with which token. An answer is a status and a JSON value."""

    def __init__(self):
        self.answers = {
            "auth/jwt/login": (200, {"auth": {"client_token": "s.of-a-test"}}),
            "auth/token/revoke-self": (204, None),
        }
        self.asked = []

    async def get(self, url, *, step, headers=None):
        return self._answer("GET", url, None, headers)

    async def post_json(self, url, body, *, step, headers=None):
        return self._answer("POST", url, body, headers)

    async def close(self):
        pass

    def _answer(self, method, url, body, headers):
        path = url.removeprefix("https://bao.example.org/v1/")
        self.asked.append((method, path, (headers or {}).get("X-Vault-Token", ""), body))
        status, value = self.answers.get(path, (404, {"errors": []}))
        return HttpResponse(status, {}, b"" if value is None else json.dumps(value).encode())


@pytest.fixture
def http():
    return FakeHttp()


@pytest.fixture
def transit(http):
    made = Transit(CONFIG, http)
    yield made
    made.close()


def test_a_question_has_a_token_of_its_own(transit, http):
    """It logs in by the JWT-SVID, asks by that right, and gives it back; nothing is asked by it afterwards."""
    http.answers["transit/keys?list=true"] = (200, {"data": {"keys": [NAME, "other"]}})
    with transit.logged_in("an assertion"):
        assert 2 == transit.next_number(PREFIX)
    assert [
        ("POST", "auth/jwt/login", "", {"role": "sojourn", "jwt": "an assertion"}),
        ("GET", "transit/keys?list=true", "s.of-a-test", None),
        ("POST", "auth/token/revoke-self", "s.of-a-test", {}),
    ] == http.asked
    http.answers["sys/health?standbyok=true&perfstandbyok=true"] = (200, {})
    transit.look()
    assert "" == http.asked[-1][2]


def test_it_is_given_back_whatever_happens(transit, http):
    """A question that fails gives its token back too; a token that cannot be given back ends by itself."""
    http.answers["auth/token/revoke-self"] = (500, None)
    http.answers["transit/keys?list=true"] = (403, {"errors": ["permission denied"]})
    with pytest.raises(KeysUnavailable, match="has to allow list of transit/keys"), transit.logged_in("an assertion"):
        transit.next_number(PREFIX)
    assert "auth/token/revoke-self" == http.asked[-1][1]


@pytest.mark.parametrize(
    "answer", [(400, {"errors": ["x"]}), (200, {}), (200, {"auth": {"client_token": ""}}), (200, [])]
)
def test_no_login(transit, http, answer):
    """Without a token nothing is asked."""
    http.answers["auth/jwt/login"] = answer
    with pytest.raises(KeysUnavailable, match="the engine 'transit'"), transit.logged_in("an assertion"):
        raise AssertionError
    assert 1 == len(http.asked)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (told(exportable=True), "exported"),
        (told(allow_plaintext_backup=True), "exported"),
        ({"data": {"keys": {"1": {"public_key": pem(KEY)}}}}, "exported"),
        (told(keys={"1": {"public_key": pem(KEY)}, "2": {"public_key": pem(KEY)}}), "other versions"),
        (told(keys={"2": {"public_key": pem(KEY)}}), "other versions"),
        (told(keys=[]), "other versions"),
        (told(keys={"1": {}}), "no public key"),
        (told(keys={"1": {"public_key": "x"}}), "no public key"),
        (told(rsa.generate_private_key(65537, 2048)), "neither P-256"),
        (told(ec.generate_private_key(ec.SECP521R1())), "neither P-256"),
        ({}, "no data"),
    ],
)
def test_no_key_of_ours(transit, http, answer, said):
    """A key that could leave the engine, was rotated there, or is none, is not used."""
    http.answers[f"transit/keys/{NAME}"] = (200, answer)
    with pytest.raises(KeysUnavailable, match=said):
        transit.find(f"{PREFIX}1")


@pytest.mark.parametrize(
    "signature",
    [
        None,
        7,
        "",
        "vault:v2:AAAA",
        "vault:v1:",
        "vault:v1:!!",
        "vault:v1:AAAA\n",
        f"vault:v1:{b64encode(b'no').decode()}",
    ],
)
def test_no_signature(transit, http, signature):
    """What is no signature by the key's first version is none."""
    http.answers[f"transit/keys/{NAME}"] = (200, told())
    http.answers[f"transit/sign/{NAME}"] = (200, {"data": {"signature": signature}})
    key = transit.find(f"{PREFIX}1")
    with pytest.raises(KeysUnavailable):
        key.sign(b"text", ec.ECDSA(hashes.SHA256()))


def test_none(transit):
    """A key that is not there is none, and of none the first has number 1."""
    assert (None, 1) == (transit.find(f"{PREFIX}1"), transit.next_number(PREFIX))


def test_too_many(transit, http):
    """Something that makes keys on and on is stopped."""
    names = [f"{NAME[:-1]}{number}" for number in range(1, KEYS_OF_NODE_IN_TOKEN + 1)]
    http.answers["transit/keys?list=true"] = (200, {"data": {"keys": names}})
    with pytest.raises(FailedPrecondition, match="no more are made"):
        transit.next_number(PREFIX)
    http.answers["transit/keys?list=true"] = (200, {"data": {"keys": [1]}})
    with pytest.raises(KeysUnavailable, match="no names"):
        transit.next_number(PREFIX)


@pytest.mark.parametrize(("status", "said"), [(503, "sealed"), (501, "not ready"), (500, "not ready")])
def test_away(transit, http, status, said):
    """One that is sealed, or not ready, is away."""
    http.answers["sys/health?standbyok=true&perfstandbyok=true"] = (status, {"sealed": status == 503})
    with pytest.raises(KeysUnavailable, match=said):
        transit.look()


def test_a_token_in_a_file(http, tmp_path):
    """With a token in a file that is used, read anew each time, and not given back; one that others may change is not."""
    path = tmp_path / "token"
    path.write_text("s.first\n")
    path.chmod(0o600)
    transit = Transit(TransitConfig(address="https://bao.example.org", token_file=str(path)), http)
    for token in ("s.first", "s.second"):
        path.write_text(token)
        with transit.logged_in(""):
            transit.find(f"{PREFIX}1")
        assert ("GET", f"transit/keys/{NAME}", token, None) == http.asked[-1]
    path.chmod(0o666)
    with pytest.raises(KeysUnavailable, match="token_file"), transit.logged_in(""):
        raise AssertionError
    transit.close()
