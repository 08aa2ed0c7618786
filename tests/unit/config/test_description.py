"""What is told of each key of the configuration is what the agent does with it."""

import ast
from pathlib import Path

import pytest
from harness.trees import nodes_of
from sojourn.cli.agent import run
from sojourn.config import description
from sojourn.config.load import VARIABLES, load
from sojourn.config.meanings import AT_ONCE, DEFAULTS, MEANINGS
from sojourn.config.model import Config
from sojourn.config.reload import values_of
from sojourn.errors import InvalidConfig
from sojourn.settings.tables import LimitsConfig

AGENT = Path(description.__file__).parents[1] / "agent" / "run.py"
KEYS = {each.name: each for each in description.described()}


def test_each_key_has_a_meaning() -> None:
    """Every key has a sentence, and neither a sentence nor a default is of a key that there is not."""
    assert [] == [name for name, each in KEYS.items() if not each.meaning.endswith(".")]
    assert set(MEANINGS) == set(KEYS) >= set(DEFAULTS)


def test_each_has_a_type() -> None:
    """Of no key is the type unknown."""
    assert [] == [name for name, each in KEYS.items() if not each.kind]


def test_none_is_left_out() -> None:
    """The keys are those that the agent reads, with those of the tables in arrays beside."""
    plugins = {"attestors.unix"}
    plain = {name for name in KEYS if "[]" not in name and ".NAME." not in name}
    for table in (
        "authority.upstream",
        "keys.openbao",
        "keys.aws_kms",
        "server",
        "node_attestors.x509pop",
        "node_attestors.k8s_psat",
    ):  # each is there or not
        plain = {table if name.startswith(f"{table}.") else name for name in plain}
    assert plain == set(values_of(Config())) - plugins | {
        "attestors",
        "people",
        "providers",
    }
    assert {"signals[].issuer", "services[].workloads", "people.NAME.presenters[].workloads"} <= set(KEYS)


@pytest.mark.parametrize(
    ("name", "kind", "default", "limits"),
    [
        ("log.level", "`debug` or `info` or `warning` or `error`", "info", ""),
        ("identity.x509_svid_ttl", "duration", "1h", "10s to 7d"),
        ("authority.root_ttl", "duration", "3650d", "at least 1d"),
        ("listen.tcp", "ADDRESS:PORT", "none", ""),
        ("signals[].audience", "text", "tasks.issuer", "at most 2048 characters"),
        ("signals[].issuer", "text", "", ""),
        ("services[].workloads", "SPIFFE IDs", "", "at most 100 of them"),
        ("people.NAME.longest", "duration", "1h", "1m to 1d"),
        ("people.NAME.presenters[].id_token_audiences", "array of text", "none", "at most 100 of them"),
        ("limits.connections_per_uid", "whole number", "half of all", "at least 1"),
        ("identity.wit_svids", "true or false", "false", ""),
    ],
)
def test_what_is_told(name: str, kind: str, default: str, limits: str) -> None:
    """Type, default and limits are those of the model that reads the key; what must be given has no default."""
    assert (kind, default, limits) == (KEYS[name].kind, KEYS[name].default, KEYS[name].limits)


@pytest.mark.parametrize(("ttl", "good"), [("10s", True), ("9s", False), ("7d", True), ("169h", False)])
def test_the_limits_are_kept(ttl: str, good: bool, tmp_path: Path) -> None:
    """A value at a limit that is told is taken, and one beyond it is refused."""
    file = tmp_path / "agent.toml"
    file.write_text(f'[identity]\nx509_svid_ttl = "{ttl}"\n')
    if good:
        assert load(file, {}, {}).config
    else:
        with pytest.raises(InvalidConfig, match=r"the (least is 10s|most is 7d)"):
            load(file, {}, {})


def test_what_is_in_force_at_once() -> None:
    """The keys that are told to need no restart are those that the agent applies when the file is read again."""
    calls = [
        node.args[0]
        for node in nodes_of(AGENT)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "on"
    ]
    lists = [ast.literal_eval(each) for each in calls if isinstance(each, ast.List)]
    limits = {f"limits.{each}" for each in LimitsConfig.model_fields}
    assert len(lists) + 1 == len(calls)  # the one beside is that of the limits
    assert {key for each in lists for key in each} | limits == AT_ONCE


def test_options_and_variables() -> None:
    """Each key that an option of `sojourn agent run` or a variable says is told with it."""
    options = set(run.__annotations__) - {"config", "return"}
    assert options == {name.rpartition(".")[2] for name in description.FLAGS}
    assert {key: variable for variable, key in VARIABLES.items()} == {
        name: each.variable for name, each in KEYS.items() if each.variable
    }
