"""Task types that name providers outside: which sets are refused, and what changes while tasks live."""

import os

import pytest
from harness.authserver import AuthServer
from harness.outside import ASK, ORDERS, PERMIT_ALL, outside_agent, outside_type, provider
from harness.taskagent import make_agent, write_type
from sojourn import SyncClient
from sojourn.errors import PolicyDenied


class TestTaskTypes:
    @pytest.mark.parametrize(
        ("toml", "fault"),
        [
            (outside_type(corp="nobody"), r"outside.toml:*: ceiling: provider: *\[providers.nobody\]*corp, other"),
            (outside_type(ask='ask = { audience = "x", colour = "red" }'), "outside.toml:*: ceiling: ask: *colour*"),
        ],
    )
    def test_a_set_that_names_no_provider(self, corp: AuthServer, other: AuthServer, toml: str, fault: str) -> None:
        """A set that does not fit the providers is refused, with file and line, and the one in force stays."""
        with outside_agent(corp, other) as agent:
            types = agent.folder / "types"
            write_type(types, "outside", outside_type(), PERMIT_ALL)
            agent.run("policy", "reload")
            before = agent.json("status")["policy"]["digest"]
            write_type(types, "outside", toml, PERMIT_ALL)
            done = agent.run("policy", "reload", check=False)
            assert done.returncode == 1
            assert_like(done.stderr, fault)
            (line,) = (number for number, text in enumerate(toml.splitlines(), 1) if "nobody" in text or "red" in text)
            assert f"outside.toml:{line}: " in done.stderr
            assert before == agent.json("status")["policy"]["digest"]

    def test_at_the_start(self, corp: AuthServer) -> None:
        """At the start no such set is in force; nobody has a JWT-SVID for a provider then: whose it is cannot be told."""
        agent = make_agent(extra=provider("corp", corp))
        write_type(agent.folder / "types", "outside", outside_type(), PERMIT_ALL)
        with agent:
            assert_like(
                agent.json("status")["policy"]["fault"], r"outside.toml:*: ceiling: provider: *[providers.other]"
            )
            agent.register("/agent/anybody", f"unix:uid:{os.getuid()}")
            with SyncClient(agent.socket) as client:
                assert client.fetch_jwt_svid("https://elsewhere.example.org").token
                with pytest.raises(PolicyDenied, match="for provider 'corp' alone"):
                    client.fetch_jwt_svid(corp.issuer)

    def test_what_changes_while_it_runs(self, corp: AuthServer, other: AuthServer) -> None:
        """When a task type asks for something else, live tasks are given that from then on."""
        with outside_agent(corp, other) as agent:
            types = agent.folder / "types"
            write_type(types, "outside", outside_type(), PERMIT_ALL)
            agent.run("policy", "reload")
            agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
            with SyncClient(agent.socket) as client, client.task("outside") as task:
                first = task.token(ORDERS).token
                write_type(types, "outside", outside_type(ask=ASK.format(audience="others")), PERMIT_ALL)
                agent.run("policy", "reload")
                assert first != task.token(ORDERS).token
                assert corp.calls("token")[-1].form["audience"] == "others"


def assert_like(text: str, pattern: str) -> None:
    """Whether the parts of a pattern, between its stars, are in a text in their order."""
    at = 0
    for part in pattern.replace("\\", "").split("*"):
        found = text.find(part, at)
        assert found >= 0, (part, text)
        at = found + len(part)
