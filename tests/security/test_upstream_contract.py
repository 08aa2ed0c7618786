"""Every plugin of an upstream authority that comes with Sojourn keeps what sojourn.testing asks of anyone's."""

import tempfile
from pathlib import Path

import pytest
from fakes.upstream_outsides import AUTHORITY, ROLE, CertManager, Pca
from sojourn.testing import UpstreamCase, UpstreamContract
from sojourn.upstream.aws_pca import AwsPcaUpstream
from sojourn.upstream.cert_manager import CertManagerUpstream

pytestmark = pytest.mark.full
HELD = tempfile.TemporaryDirectory(prefix="sojourn-upstream-")  # for as long as the tests run
TOKEN, SECRET = (
    "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJzb2pvdXJuIn0.b2YtYS1wb2Q",
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
)


def held(name: str, text: str) -> str:
    path = Path(HELD.name) / name
    path.touch(0o600)
    path.write_text(text)
    return str(path)


def cases() -> dict[str, UpstreamCase]:
    keys = f"[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {SECRET}\n"
    token = held("token", TOKEN)
    cluster = {"kind": "cert-manager", "issuer_name": "company", "namespace": "sojourn", "token_file": token}
    return {
        "aws-pca by a role": UpstreamCase(
            plugin=AwsPcaUpstream, settings={"kind": "aws-pca", "authority": AUTHORITY, "role_arn": ROLE}, outside=Pca
        ),
        "aws-pca by a file": UpstreamCase(
            plugin=AwsPcaUpstream,
            settings={"kind": "aws-pca", "authority": AUTHORITY, "credentials_file": held("credentials", keys)},
            outside=Pca,
            secrets=[SECRET],
        ),
        "cert-manager": UpstreamCase(
            plugin=CertManagerUpstream, settings=cluster, outside=CertManager, secrets=[TOKEN]
        ),
    }


def promises():
    for name, case in cases().items():
        for promise in UpstreamContract(case).promises:
            yield pytest.param(promise, id=f"{name}: {promise}")


@pytest.mark.parametrize("promise", list(promises()))
def test_keeps_its_promises(promise):
    """Whatever the outside does, the plugin does what is asked of it, or says why not, and tells no secret."""
    promise.run()
