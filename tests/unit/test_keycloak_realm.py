"""The program that the owner of a Keycloak runs: what it says of arguments that cannot work, before it asks anything."""

import getpass
import importlib

import pytest
from harness.keycloak import Realm
from harness.ports import free_port

program = importlib.import_module(Realm.__module__)
ARGUMENTS = [
    *("--realm", "x", "--trust-domain", "example.org", "--bundle-endpoint", "https://issuer.example.org:8444/bundle"),
    *("--audience", "orders", "--workload"),
]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["spiffe://example.org/orders"], "give another --client"),
        (["spiffe://example.org/agent", "--client", "orders"], "give another --client"),
        (["spiffe://other.example/agent"], "is not a SPIFFE ID of the trust domain example.org"),
        (["spiffe://example.org/"], "is not a SPIFFE ID"),
    ],
)
def test_arguments(more: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A workload that would be the service's client, or is of another trust domain, is refused before the password."""
    with pytest.raises(SystemExit) as ended:
        program.main(["--keycloak", "https://kc.example.org", *ARGUMENTS, *more])
    assert 2 == ended.value.code
    assert told in capsys.readouterr().err


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Keycloak that is not there is one line that says where it was looked for, and no traceback."""
    monkeypatch.setattr(getpass, "getpass", lambda _: "pw")
    base = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(SystemExit, match=rf"^error: POST {base}/realms/master.*refused"):
        program.main(["--keycloak", base, *ARGUMENTS, "spiffe://example.org/agent/orders"])
