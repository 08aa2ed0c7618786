"""errors.py: every error has what the doors need of it."""

import re

import grpc
import pytest
from sojourn import errors
from sojourn.errors import Bug, InvalidConfig, InvalidToken, SojournError

# RFC 6749 5.2 and 4.1.2.1, RFC 8707 2, RFC 9396 5
OAUTH_ERRORS = {
    "access_denied",
    "invalid_authorization_details",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "temporarily_unavailable",
    "unsupported_grant_type",
}
ALL = sorted(
    (value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, SojournError)),
    key=lambda each: each.__name__,
)


def make(kind):
    if kind is errors.NodeRefused:
        return kind("it broke", reason_code="banned")
    return kind(["it broke"]) if kind is InvalidConfig else kind("it broke")


@pytest.mark.parametrize("kind", ALL)
class TestEveryError:
    def test_code_is_a_stable_name(self, kind):
        """An error's code is lower-case snake case."""
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)

    def test_grpc_status_exists(self, kind):
        """An error's gRPC status is one that gRPC has, and never OK."""
        assert kind.grpc_status in {code.name for code in grpc.StatusCode} - {"OK"}

    def test_oauth_error_is_registered(self, kind):
        """An error's OAuth code is one that a standard defines."""
        assert kind.oauth_error in OAUTH_ERRORS

    def test_contract_is_stated(self, kind):
        """An error's docstring says when it is raised."""
        assert kind.__doc__
        assert kind.__doc__ != SojournError.__doc__ or kind is SojournError

    def test_text_is_the_public_one(self, kind):
        """What an error says of itself is what may go on the wire, without detail."""
        error = make(kind)
        public = "workload attestation failed: it broke" if kind is errors.AttestationFailed else "it broke"
        assert public == error.public
        assert public == str(error)
        assert not error.detail

    def test_is_drawn(self, kind):
        """The drawing at the head of the module names every error."""
        assert re.search(rf"\b{kind.__name__}\b", errors.__doc__)


class TestDrawing:
    def test_names_nothing_else(self):
        """The drawing at the head of the module names no error that does not exist."""
        lines = re.findall(r"^ {4}[ │├└─]*([A-Z]\w+(?:, [A-Z]\w+)*)", errors.__doc__, re.MULTILINE)
        drawn = {name for line in lines for name in line.split(", ")}
        assert drawn
        assert drawn <= {kind.__name__ for kind in ALL}


class TestDetail:
    def test_stays_out_of_the_text(self):
        """Detail is for the log only: neither the text nor the public text of an error has it."""
        error = InvalidToken("token is not good", detail="canary")
        detail = "canary"
        assert detail == error.detail
        assert detail not in str(error)
        assert detail not in error.public


class TestInvalidToken:
    def test_reason_code_has_a_default(self):
        """A token error without a reason has its class's code as reason."""
        assert InvalidToken.code == InvalidToken("token is not good").reason_code

    def test_reason_code_is_kept(self):
        """A token error says stably in what way the token is not good."""
        expected = "expired"
        assert expected == InvalidToken("token is not good", reason_code="expired").reason_code


class TestInvalidConfig:
    def test_lists_all_faults(self):
        """A configuration error has all faults, as a list and in its text."""
        faults = ["a is missing", "b is too long"]
        error = InvalidConfig(faults)
        text = "a is missing; b is too long"
        assert faults == error.faults
        assert text == error.public


class TestCodes:
    def test_are_unique(self):
        """No two errors share a code, but for the root and Bug, which are both internal."""
        codes = [kind.code for kind in ALL if kind is not Bug]
        assert sorted(set(codes)) == sorted(codes)
        assert SojournError.code == Bug.code
