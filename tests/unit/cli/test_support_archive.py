"""The archive for a support case: what of reasons, of a status and of the configuration is in it."""

import pytest
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.cli import support_archive
from sojourn.config.model import Config

SECRET = "canary-51aa"


class TestReasons:
    @pytest.mark.parametrize(("said", "told"), [
        (f"the value '{SECRET}' is none", "the value '...' is none"),
        (f"the agent's key is '{SECRET}', and isn't one", "the agent's key is '...', and isn't one"),
        (f"got b'{SECRET}'", "got '...'"),
        (f"it's \"it's {SECRET}\"", "it's '...'"),
        (rf"got 'a\' {SECRET}\' \"'", "got '...'"),
        (f"cut off: '{SECRET}", "cut off: '...'"),
        (f'cut off: "{SECRET}', "cut off: '...'"),
        (f"https://u:{SECRET}@hooks.example/{SECRET}?{SECRET} is down", "https://hooks.example/... is down"),
        (f"https://u:{SECRET}@hooks.example is down", "https://hooks.example is down"),
        ("a" * 40 + f".{SECRET}", "'...'"),
        ("users' files of spiffe://example.org/a are at /var/lib", "users' files of spiffe://example.org/a are at /var/lib"),
    ])  # fmt: skip
    def test_without_what_they_quote(self, said: str, told: str) -> None:
        """What is quoted, cut off or not, paths of URLs and what may be a token are not told; apostrophes quote nothing."""
        assert told == support_archive.unquoted(said)


class TestStatus:
    def test_each_reason(self) -> None:
        """Every reason in a status is told without what it quotes, whichever part it stands in."""
        said = f"no such thing: '{SECRET}'"
        status = pb.GetStatusResponse(
            trust_domain="example.org",
            faults=[pb.ConditionFault(name="keys", found=said)],
            limitations=[pb.Limitation(what="path", reason=said)],
            failures=[pb.Failure(what="x", subject=said, reason=said)],
            followed=pb.FollowedFolder(folder="/etc/entries", fault=said),
            policy=pb.PolicySet(folder="/etc/types", fault=said, without=said),
            shadow=pb.PolicySet(fault=said),
            config=pb.AgentConfig(file="/etc/agent.toml", fault=said, digest="d1"),
            signals=[pb.SignalIssuer(issuer="https://issuer.example", fault=said)],
            federation=[pb.Federation(bundle_endpoint_url=f"https://b.example/{SECRET}", fault=said)],
            attestors=[pb.AttestorState(name="unix", failure=said)],
        )
        told = support_archive._status(status)
        assert SECRET not in str(told)
        assert "digest" not in told["config"]
        assert "no such thing: '...'" == told["config"]["fault"] == told["faults"][0]["found"]
        assert ("/etc/types", "https://b.example/...") == (
            told["policy"]["folder"], told["federation"][0]["bundle_endpoint_url"]
        )  # fmt: skip

    def test_each_check(self) -> None:
        """Every verdict is told so, that of the configuration too."""
        check = {"id": "configuration", "verdict": "fail", "found": f"is '{SECRET}'", "do": "mend it", "link": "a.md#b"}
        assert {**check, "found": "is '...'"} == support_archive._without_quotes(check)


class TestConfiguration:
    def test_tables_of_plugins(self) -> None:
        """Of attestors and providers keys are told, and values that are no text."""
        table = {"url": SECRET, "hash": f"/{SECRET}", "port": 8, "on": True, "all": [SECRET], "more": {"salt": SECRET}}
        told = support_archive._redacted(
            "", Config(attestors={"x": table}, providers={"y": table}).model_dump(mode="json")
        )
        left = support_archive.LEFT_OUT
        expected = {"url": left, "hash": left, "port": 8, "on": True, "all": left, "more": {"salt": left}}
        assert ({"x": expected}, {"y": expected}) == (told["attestors"], told["providers"])
        assert told["data_dir"].startswith("/")

    def test_a_secret_that_looks_like_a_path(self) -> None:
        """A secret that begins with a slash is one; the name of a file with one is told."""
        told = support_archive._redacted("", {"token": f"/{SECRET}", "token_file": "/etc/token"})
        assert {"token": support_archive.LEFT_OUT, "token_file": "/etc/token"} == told


def test_an_upstream_authority_of_a_plugin() -> None:
    """Of its table the keys are told, and no text: the plugin alone knows what is secret. Of the agent's own kinds it is as
    for the rest of the configuration.
    """
    plugin = {"kind": "desk", "pin": SECRET, "size": 3}
    told = support_archive._redacted(
        "", Config.model_validate({"authority": {"upstream": plugin}}).model_dump(mode="json")
    )
    above = told["authority"]["upstream"]
    assert (support_archive.LEFT_OUT, 3) == (above["pin"], above["size"])
    assert SECRET not in str(told)
    own = {"kind": "disk", "certificate": "/c.pem", "key": "/k.pem", "roots": "/r.pem"}
    told = support_archive._redacted(
        "", Config.model_validate({"authority": {"upstream": own}}).model_dump(mode="json")
    )
    assert ("disk", "/c.pem") == tuple(told["authority"]["upstream"][key] for key in ("kind", "certificate"))
