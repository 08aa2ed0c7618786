"""sigv4.py: AWS's own examples of signatures, https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html and its
test suite.
"""

from datetime import UTC, datetime

import pytest
from sojourn.upstream.sigv4 import AwsKeys, signed_headers, signing_key

KEYS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
FORM = "application/x-www-form-urlencoded"


def signature(method, url, headers=None, content=b"", service="service", keys=KEYS):
    made = signed_headers(method, url, headers or {}, content, keys, region="us-east-1", service=service, now=AT)
    return made, made["authorization"].rpartition("Signature=")[2]


def test_signing_key():
    """The key of a day, a region and a service is that of AWS's example."""
    made = signing_key(KEYS.secret_access_key, "20150830/us-east-1/iam/aws4_request")
    assert "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9" == made.hex()


@pytest.mark.parametrize(
    ("method", "headers", "content", "expected"),
    [
        ("GET", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "POST",
            {"Content-Type": FORM},
            b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
    ids=["get-vanilla", "post-vanilla", "post-x-www-form-urlencoded"],
)
def test_examples(method, headers, content, expected):
    """What AWS's test suite has signed is signed alike."""
    assert expected == signature(method, "https://example.amazonaws.com/", headers, content)[1]


def test_with_a_query():
    """The example of AWS's guide, with a query."""
    url = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08"
    made, found = signature("GET", url, {"Content-Type": f"{FORM}; charset=utf-8"}, service="iam")
    assert "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7" == found
    assert ("iam.amazonaws.com", "20150830T123600Z") == (made["host"], made["x-amz-date"])


def test_of_a_session():
    """The token of a session is sent, and signed with the rest."""
    keys = AwsKeys(KEYS.access_key_id, KEYS.secret_access_key, "a-token")
    made, found = signature("GET", "https://example.amazonaws.com/", keys=keys)
    assert "a-token" == made["x-amz-security-token"]
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in made["authorization"]
    assert found != signature("GET", "https://example.amazonaws.com/")[1]


def test_shows_no_secret():
    """Neither the secret key nor the token of a session is in what is logged of them."""
    assert "wJalr" not in repr(KEYS)
    assert "a-token" not in repr(AwsKeys("a", "b", "a-token"))
