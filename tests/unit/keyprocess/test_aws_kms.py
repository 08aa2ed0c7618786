"""AWS KMS as it might answer: what it refuses is told, with what to allow, and one key is made for all starts."""

import importlib.util

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sojourn.errors import KeysUnavailable
from sojourn.settings.aws_kms import AwsKmsConfig

if importlib.util.find_spec("botocore") is None:
    pytest.skip("needs botocore: install the package's extra kms", allow_module_level=True)

from botocore.exceptions import ClientError, EndpointConnectionError
from sojourn.keyprocess.aws_kms import AwsKms

PREFIX = "sojourn/example.org/n1/root/"
ALIAS = "alias/sojourn/example_dorg/n1/root/"


class FakeClient:
    """KMS in memory, with pages of one alias. `refusing`: the code by which a call is refused."""

    def __init__(self):
        self.keys, self.aliases, self.refusing, self.changes = [], {}, {}, {}

    def _refuse(self, call):
        if error := self.refusing.get(call):
            raise error if isinstance(error, Exception) else ClientError({"Error": {"Code": error}}, call)

    def list_aliases(self, **_):
        self._refuse("list_aliases")
        return {"Aliases": []}

    def get_paginator(self, name):
        assert "list_aliases" == name
        return self

    def paginate(self):
        self._refuse("list_aliases")
        return [{"Aliases": [{"AliasName": each}]} for each in self.aliases]

    def create_key(self, **_):
        self._refuse("create_key")
        self.keys.append(ec.generate_private_key(ec.SECP256R1()))
        return {"KeyMetadata": {"KeyId": str(len(self.keys))}}

    def create_alias(self, AliasName, TargetKeyId):
        self._refuse("create_alias")
        self.aliases[AliasName] = self.keys[int(TargetKeyId) - 1]

    def get_public_key(self, KeyId):
        self._refuse("get_public_key")
        if KeyId not in self.aliases:
            raise ClientError({"Error": {"Code": "NotFoundException"}}, "GetPublicKey")
        der = self.aliases[KeyId].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {"KeyUsage": "SIGN_VERIFY", "KeySpec": "ECC_NIST_P256", "PublicKey": der, **self.changes}

    def sign(self, KeyId, Message, MessageType, SigningAlgorithm):
        self._refuse("sign")
        assert ("DIGEST", "ECDSA_SHA_256") == (MessageType, SigningAlgorithm)
        return {"Signature": self.aliases[KeyId].sign(Message, ec.ECDSA(Prehashed(hashes.SHA256())))}


@pytest.fixture
def client():
    return FakeClient()


@pytest.fixture
def kms(client):
    made = AwsKms(AwsKmsConfig(region="eu-west-1"))
    made._client = client
    return made


def test_a_key(kms, client):
    """A key has its label once it was named, and signs then."""
    made = kms.create(f"{PREFIX}1", ec.SECP256R1())
    assert None is kms.find(f"{PREFIX}1")
    kms.name(f"{PREFIX}1", made)
    assert ([f"{ALIAS}1"], 2) == (list(client.aliases), kms.next_number(PREFIX))
    key = kms.find(f"{PREFIX}1")
    key.public_key().verify(key.sign(b"text", ec.ECDSA(hashes.SHA256())), b"text", ec.ECDSA(hashes.SHA256()))


@pytest.mark.full
@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ("list_aliases", "AccessDeniedException", "allow it kms:ListAliases"),
        ("create_key", "AccessDeniedException", "allow it kms:CreateKey"),
        ("create_alias", "LimitExceededException", "refuses CreateAlias: LimitExceededException"),
        ("get_public_key", "KMSInvalidStateException", "to be deleted"),
        ("sign", "DisabledException", "enable the key"),
        ("sign", EndpointConnectionError(endpoint_url="https://kms"), "cannot be asked for Sign"),
    ],
)
def test_refused(kms, client, call, error, said):
    """What is refused is told by KMS's own code, with what to do."""
    kms.name(f"{PREFIX}1", kms.create(f"{PREFIX}1", ec.SECP256R1()))
    key = kms.find(f"{PREFIX}1")
    client.refusing[call] = error
    with pytest.raises(KeysUnavailable, match=said):
        {
            "list_aliases": kms.look,
            "create_key": lambda: kms.create(f"{PREFIX}2", ec.SECP256R1()),
            "create_alias": lambda: kms.name(f"{PREFIX}2", "1"),
            "get_public_key": lambda: kms.find(f"{PREFIX}1"),
            "sign": lambda: key.sign(b"text", ec.ECDSA(hashes.SHA256())),
        }[call]()


@pytest.mark.parametrize(
    "changes", [{"KeyUsage": "KEY_AGREEMENT"}, {"KeySpec": "RSA_2048"}, {"PublicKey": b"x"}, {"KeySpec": None}]
)
def test_no_key_of_ours(kms, client, changes):
    """An alias that was set on another kind of key is none of ours."""
    kms.name(f"{PREFIX}1", kms.create(f"{PREFIX}1", ec.SECP256R1()))
    client.changes = changes
    with pytest.raises(KeysUnavailable):
        kms.find(f"{PREFIX}1")
