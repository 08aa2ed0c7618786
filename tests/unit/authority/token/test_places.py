"""Where the keys of roots are, as the key process is told it."""

import json
from datetime import timedelta

import pytest
from sojourn.authority.token.places import AwsKmsPlace, FolderPlace, Pkcs11Place, ServicePlace, TransitPlace, place_of
from sojourn.authority.token.settings import TokenSettings
from sojourn.settings.aws_kms import AwsKmsConfig
from sojourn.settings.openbao import TransitConfig
from sojourn.spiffe.ids import TrustDomain

BAO = TransitConfig(address="https://bao.example.org", auth_role="sojourn", private_networks=("10.0.0.0/8",))
KMS = AwsKmsConfig(region="eu-west-1", endpoint="https://kms.example.org")


@pytest.mark.parametrize(
    "place", [Pkcs11Place("/m.so", "token", "/pin"), TransitPlace(BAO), AwsKmsPlace(KMS)], ids=lambda each: each.kind
)
def test_told(place):
    """What it is told is what was configured, but for variables, which it has from the start."""
    settings = TokenSettings(place, TrustDomain("example.org"), "n1", "ec-p384", timedelta(days=9), timedelta(hours=1))
    assert settings == TokenSettings.of(json.loads(json.dumps(settings.message())))


def test_a_service_is_told_nothing():
    """A key process that is a service of its own is not told where its keys are, and nobody is told to use a folder."""
    assert ServicePlace("") == place_of(ServicePlace("/run/k.sock").message())
    with pytest.raises(ValueError, match="there is not"):
        place_of(FolderPlace("/keys").message())


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"kind": "nothing", "table": {}},
        {"kind": "openbao", "table": {}},
        {"kind": "openbao", "table": {"address": "https://x", "auth_role": "r", "more": 1}},
        {"kind": "aws_kms", "table": {"region": "nowhere"}},
        {"kind": "pkcs11", "module": "/m", "token": "t"},
        {"kind": "process", "table": {"socket": "/etc"}},
    ],
)
def test_none(message):
    """What is no place is refused."""
    with pytest.raises(ValueError):
        place_of(message)


def test_the_audience():
    """The agent shows OpenBao a JWT-SVID for its address, or for what was configured, and none with a token."""
    assert "https://bao.example.org" == TransitPlace(BAO).audience
    assert "bao" == TransitPlace(BAO.model_copy(update={"audience": "bao"})).audience
    token = TransitConfig(address="https://bao.example.org", token_file="/etc/token")
    assert None is TransitPlace(token).audience
