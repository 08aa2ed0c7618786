"""load.py: file, variables and flags become one configuration, or all their faults are told at once."""

import contextlib
import os
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from fakes.configs import faults
from harness.examples import examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from sojourn.config.load import VARIABLES, digest_of, flatten, load
from sojourn.config.model import Config
from sojourn.errors import InvalidConfig
from sojourn.limits import SVID_TTL_MAX_SECONDS
from sojourn.settings.toml_lines import line_numbers
from sojourn.spiffe.ids import SpiffeId

SAMPLES = Path(__file__).parent.parent.parent.parent / "deploy" / "samples"

PEOPLE = """[listen]
people_certificate = "/c.pem"
people_key = "/k.pem"
[people.corp]
issuer = "https://idp.example"
[[people.corp.presenters]]
workloads = ["spiffe://example.org/a"]
id_token_audiences = ["app"]
"""


class TestDefaults:
    def test_work(self):
        """Without file, variables and flags there is a configuration that works."""
        config = load(None, {}, {}).config
        assert ("example.org", "https://sojourn.example.org", {"unix": {}}) == (
            config.trust_domain,
            config.issuer,
            config.attestors,
        )
        assert config.socket.is_absolute()

    @pytest.mark.parametrize(
        ("host", "name"),
        [("web-1.example", "web-1.example"), ("a b/c", "a-b-c"), ("..", "localhost"), ("", "localhost")],
    )
    def test_node_is_named_for_the_host(self, monkeypatch, host, name):
        """The node's ID ends with the host's name, with what a SPIFFE ID cannot have replaced."""
        monkeypatch.setattr("socket.gethostname", lambda: host)
        assert SpiffeId.parse(f"spiffe://example.org/spire/agent/sojourn/{name}") == Config().node_id

    def test_an_empty_file_is_all_defaults(self, write):
        """An empty file changes nothing."""
        assert load(None, {}, {}).config == load(write(""), {}, {}).config

    @pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.toml")), ids=lambda path: path.name)
    def test_samples(self, sample):
        """The sample configurations that come along can be loaded."""
        assert load(sample, {}, {}).config


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[[attestors.unix]]", "attestors.unix: must be a table"),
        ('attestors = ["unix"]', "attestors: must be a table"),
        ("[log]\nlevel = 1", "log.level: "),
        ("[identity]\nwit_svids = 'maybe'", "identity.wit_svids: must be true or false"),
        ("trust_domain = 1", "trust_domain: must be text, in quotes"),
    ],
)
def test_wrong_types(write, text, fault):
    """What is of another type is told in words of TOML, with file and key."""
    [found] = faults(write(text))
    assert fault in found
    assert "dictionary" not in found


class TestPrecedence:
    FILE = 'trust_domain = "file.example"\n[log]\nlevel = "error"\n'

    @pytest.mark.parametrize(
        ("environment", "flags", "expected", "origin"),
        [
            ({}, {}, "file.example", "FILE:1"),
            ({"SOJOURN_TRUST_DOMAIN": "env.example"}, {}, "env.example", "SOJOURN_TRUST_DOMAIN"),
            ({"SOJOURN_TRUST_DOMAIN": "env.example"}, {"trust_domain": "flag.example"}, "flag.example", "flag"),
            ({"SOJOURN_TRUST_DOMAIN": ""}, {"trust_domain": None}, "file.example", "FILE:1"),
        ],
    )
    def test_flag_variable_file(self, write, environment, flags, expected, origin):
        """A flag goes before a variable, that before the file; what is empty counts as not given."""
        path = write(self.FILE)
        loaded = load(path, flags, environment)
        assert (expected, origin.replace("FILE", str(path))) == (
            loaded.config.trust_domain,
            loaded.origins["trust_domain"],
        )

    @pytest.mark.parametrize("variable", sorted(VARIABLES))
    def test_every_variable_has_a_key(self, write, variable):
        """Each variable sets a key that exists."""
        address = "127.0.0.1:1"
        values = {"SOJOURN_LOG_LEVEL": "debug", "SOJOURN_METRICS_LISTEN": address, "SOJOURN_TRUST_DOMAIN": "td"}
        values |= dict.fromkeys((f"SOJOURN_LISTEN_{each}" for each in ("TCP", "HTTPS", "TRUST", "PEOPLE")), address)
        people = write(PEOPLE) if variable == "SOJOURN_LISTEN_PEOPLE" else None  # without an issuer it is refused
        loaded = load(people, {}, {variable: values.get(variable, "/x" if "NODE" not in variable else "n")})
        assert variable == loaded.origins[VARIABLES[variable]]

    def test_inner_keys(self, write):
        """A variable for a key in a table leaves the rest of the table."""
        loaded = load(write('[tasks]\nissuer = "https://i"\n'), {}, {"SOJOURN_TASK_TYPES_DIR": "/types"})
        assert ("https://i", Path("/types")) == (loaded.config.tasks.issuer, loaded.config.tasks.types_dir)

    def test_the_machine_s_variables_by_default(self, monkeypatch):
        """Without an environment of its own, the process's is used."""
        monkeypatch.setenv("SOJOURN_NODE_NAME", "from-env")
        assert "from-env" == load(None, {}).config.node_name

    def test_flatten(self, write):
        """Every key is shown with its value and where that came from."""
        path = write(self.FILE + "[attestors.unix]\npath = false\n")
        shown = {key: (value, origin) for key, value, origin in flatten(load(path, {"node_name": "n"}, {}))}
        assert ("file.example", f"{path}:1") == shown["trust_domain"]
        assert ("error", f"{path}:3") == shown["log.level"]
        assert (False, f"{path}:5") == shown["attestors.unix.path"]
        assert ("n", "flag") == shown["node_name"]
        assert ("1h", "default") == shown["identity.x509_svid_ttl"]


class TestPaths:
    def test_relative_to_the_file(self, write, tmp_path):
        """Paths in the file are relative to the file; a `unix:` address is not."""
        config = load(
            write(
                'data_dir = "data"\nsocket = "s.sock"\nadmin_socket = "unix:///a.sock"\n[tasks]\ntypes_dir = "t"\n[registration]\nfollow = "e"\n'
            ),
            {},
            {},
        ).config
        assert (tmp_path / "data", tmp_path / "s.sock", Path("/a.sock"), tmp_path / "t", tmp_path / "e") == (
            config.data_dir,
            config.socket,
            config.admin_socket,
            config.tasks.types_dir,
            config.registration.follow,
        )

    def test_absolute(self, write):
        """Absolute paths stay as they are."""
        assert Path("/x/s.sock") == load(write('socket = "/x/s.sock"\n'), {}, {}).config.socket

    @pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "http://x", "unix:relative", "unix://host/x"])
    def test_not_a_socket_path(self, address):
        """An address that is not a Unix socket's is a fault like any other."""
        (fault,) = faults(None, {"socket": address})
        assert "socket" in fault


class TestFaults:
    def test_all_at_once_each_with_its_line(self, write):
        """All faults are told together, each with file, line, key and rule."""
        path = write(
            'trust_domain = "No!"\nunheard_of = 1\n\n[identity]\nx509_svid_ttl = "1s"\n[log]\nlevel = "loud"\n'
        )
        found = faults(path)
        assert 4 == len(found)
        for line, key in ((1, "trust_domain"), (2, "unheard_of"), (5, "identity.x509_svid_ttl"), (7, "log.level")):
            assert [fault for fault in found if fault.startswith(f"{path}:{line}: {key}: ")]

    @pytest.mark.parametrize(
        ("flags", "environment", "where"),
        [({"trust_domain": "No!"}, {}, "flag: "), ({}, {"SOJOURN_TRUST_DOMAIN": "No!"}, "SOJOURN_TRUST_DOMAIN: ")],
    )
    def test_where_it_came_from(self, flags, environment, where):
        """A fault of a flag or a variable is told as such."""
        (fault,) = faults(None, flags, environment)
        assert fault.startswith(where + "trust_domain: is not a trust domain")

    @pytest.mark.parametrize(
        "text",
        [
            'trust_domain = ""',
            'trust_domain = "spiffe://"',
            "trust_domain = 5",
            'node_name = "a/b"',
            'node_name = ".."',
            'node_name = "a b"',
            'node_aliases = ["x"]',
            'node_aliases = "spiffe://example.org/a"',
            'identity = "x"',
            "identity.x509_svid_ttl = 9",
            f"identity.jwt_svid_ttl = {SVID_TTL_MAX_SECONDS + 1}",
            "identity.x509_svid_ttl = -10",
            "identity.x509_svid_ttl = 3600.5",
            'authority.kind = "spire"',
            'authority.root_ttl = "1h"',
            'authority.issuer_ttl = "1s"',
            'authority.jwt_key_ttl = "1m"',
            'authority.root_ttl = "999999999d"',
            'authority.jwt_key_ttl = "36501d"',
            'tasks.token_key_ttl = "999999999d"',
            'data_dir = ""',
            'socket = ""',
            'socket = "/run/x/a.sock"\nadmin_socket = "/run/x/a.sock"',
            'registration.follow = ""',
            'tasks.types_dir = ""',
            'tasks.issuer = "http://x"',
            'tasks.issuer = "https://x/"',
            'tasks.issuer = "https://x?y"',
            'tasks.issuer = "https://x#y"',
            'tasks.issuer = "https://"',
            'tasks.issuer = "https://["',
            'metrics.listen = "9464"',
            'metrics.listen = ":9464"',
            'metrics.listen = "127.0.0.1:70000"',
            'metrics.listen = "127.0.0.1:x"',
            'listen.tcp = "8443"',
            'listen.tcp = ":8443"',
            'listen.tcp = "127.0.0.1:-1"',
            'listen.tcp = "127.0.0.1:٨٤٤٣"',
            "listen.tcp = 8443",
            'listen.allowed = ["web"]',
            'listen.https = "8443"',
            'listen.https_allowed = ["web"]',
            'listen.allowed = ["spiffe://other.example/web"]',
            'listen.allowed = "spiffe://example.org/web"',
            "limits.connections_per_uid = 0",
            "limits.connections_per_uid_per_second = -1",
            'log.level = "INFO"',
            "log.colour = true",
            "attestors = 5",
        ],
    )
    def test_refused(self, write, text):
        """A value that cannot work, or a key that does not exist, is a fault."""
        assert 1 == len(faults(write(text)))

    @pytest.mark.parametrize("key", ["data_dir", "socket", "admin_socket", "registration.follow"])
    def test_an_empty_flag(self, key):
        """A flag with an empty path, of a shell's variable that is not set, is a fault and not the current folder."""
        assert [f"flag: {key}: "] == [fault[: len(f"flag: {key}: ")] for fault in faults(None, {key: ""})]

    @pytest.mark.parametrize(
        "key", ["data_dir", "socket", "admin_socket", "registration.follow", "tasks.types_dir", "listen.https_key"]
    )
    def test_a_path_with_nul(self, write, key):
        """A path with a NUL character is a fault, also where it is made one of the file's folder, and no crash."""
        (fault,) = faults(write(f'{key} = "a\\u0000b"'))
        assert "has a NUL character" in fault

    def test_a_number_beyond_all_bounds(self, write):
        """A duration beyond all bounds is a fault and not a crash."""
        assert 1 == len(faults(write(f"identity.x509_svid_ttl = {10**30}")))

    @pytest.mark.parametrize("content", [b"x = ", b"\xff\xfe", b"[a\n", b"a = 1\na = 2\n"])
    def test_not_toml(self, tmp_path, content):
        """A file that is no TOML is refused with its name."""
        path = tmp_path / "bad.toml"
        path.write_bytes(content)
        (fault,) = faults(path)
        assert fault.startswith(f"{path}: not ")

    def test_no_such_file(self, tmp_path):
        """A file that is not there is a fault: it was asked for."""
        assert "cannot be read" in faults(tmp_path / "none.toml")[0]

    def test_not_a_regular_file(self, tmp_path):
        """A FIFO or a folder is refused at once instead of waited for."""
        os.mkfifo(tmp_path / "fifo")
        assert "not a regular file" in faults(tmp_path / "fifo")[0]
        assert faults(tmp_path)

    def test_a_table_in_the_place_of_a_value(self, write):
        """A variable for a key in something that is no table does not hide the fault."""
        assert 1 == len(faults(write('log = "x"'), {}, {"SOJOURN_LOG_LEVEL": "debug"}))

    @examples(150, HealthCheck.function_scoped_fixture)
    @given(
        st.dictionaries(
            st.sampled_from(["trust_domain", "node_name", "socket", "identity.x509_svid_ttl", "tasks.issuer"])
            | st.text(alphabet="abc_", min_size=1, max_size=5),
            st.text(max_size=12).filter(lambda text: not text.startswith("unix:") and "://" not in text),
            max_size=4,
        )
    )
    def test_ours_or_nothing(self, flags):
        """Any text for any key is taken or a fault of ours."""
        with contextlib.suppress(InvalidConfig):
            load(None, flags, {})


def test_configuration_is_frozen():
    """Nobody changes the configuration afterwards."""
    with pytest.raises(ValueError, match="frozen"):
        Config().trust_domain = "other"


def test_durations_are_read():
    """Durations are written with units."""
    loaded = load(None, {"identity.x509_svid_ttl": "90s"}, {})
    assert timedelta(seconds=90) == loaded.config.identity.x509_svid_ttl


def test_line_numbers():
    """Keys and tables are found by line; the first mention counts."""
    text = "# a = 1\na = 1\n[ t ]\nb.c = 2\n\n[[list]]\nx = 1\n[[list]]\nx = 2\n"
    assert {"a": 2, "t": 3, "t.b.c": 4, "list": 6, "list.x": 7} == line_numbers(text)


class TestHeldSockets:
    """Sockets that systemd holds."""

    HELD: ClassVar = {"socket": Path("/run/sojourn/agent.sock"), "admin_socket": Path("/run/sojourn/admin.sock")}

    def test_where_they_are(self):
        """Where nothing names the sockets they are where systemd holds them."""
        loaded = load(None, {}, {}, self.HELD)
        assert self.HELD == {"socket": loaded.config.socket, "admin_socket": loaded.config.admin_socket}
        assert "systemd" == loaded.origins["socket"]

    def test_the_same_place(self, tmp_path):
        """A configuration that names the very place is good."""
        path = tmp_path / "agent.toml"
        path.write_text('socket = "unix:///run/sojourn/agent.sock"\n')
        assert self.HELD["socket"] == load(path, {}, {}, self.HELD).config.socket

    def test_another_place(self, tmp_path):
        """One that names another place is refused with its line: systemd's socket is the one that callers find."""
        path = tmp_path / "agent.toml"
        path.write_text('trust_domain = "example.org"\nsocket = "/run/other.sock"\n')
        with pytest.raises(InvalidConfig) as caught:
            load(path, {}, {"SOJOURN_ADMIN_SOCKET": "/run/third.sock"}, self.HELD)
        first, second = caught.value.faults
        assert first.startswith(f"{path}:2: socket: systemd holds this socket at '/run/sojourn/agent.sock'")
        assert "systemctl edit sojourn-agent.socket" in first
        assert second.startswith("SOJOURN_ADMIN_SOCKET: admin_socket: ")
        assert "systemctl edit sojourn-admin.socket" in second


class TestCredentials:
    """Files that systemd hands to a service (systemd.exec(5), CREDENTIALS)."""

    def config(self, folder, named):
        path = folder / "agent.toml"
        path.write_text(f'[listen]\nhttps = "127.0.0.1:0"\nhttps_certificate = "{named}"\nhttps_key = "{named}"\n')
        return path

    def test_named(self, tmp_path):
        """`credential:NAME` is the file of that name in CREDENTIALS_DIRECTORY, and not one beside the configuration."""
        path = self.config(tmp_path, "credential:https-key")
        listen = load(path, {}, {"CREDENTIALS_DIRECTORY": "/run/credentials/sojourn.service"}).config.listen
        assert Path("/run/credentials/sojourn.service/https-key") == listen.https_key == listen.https_certificate

    def test_of_an_upstream_authority(self, tmp_path):
        """The key of an upstream authority may be a credential; its other files are relative to the configuration's."""
        path = tmp_path / "agent.toml"
        path.write_text(
            '[authority.upstream]\nkind = "disk"\ncertificate = "c.pem"\nkey = "credential:k"\nroots = "/etc/r.pem"\n'
        )
        above = load(path, {}, {"CREDENTIALS_DIRECTORY": "/run/credentials/x"}).config.authority.upstream
        assert (tmp_path / "c.pem", Path("/run/credentials/x/k"), Path("/etc/r.pem")) == (
            above.certificate,
            above.key,
            above.roots,
        )

    @pytest.mark.parametrize("folder", ["", "relative"])
    def test_without_credentials(self, tmp_path, folder):
        """Outside of a unit that has the credential, naming it is a fault that says what the unit needs."""
        path = self.config(tmp_path, "credential:tls")
        found = faults(path, environment={"CREDENTIALS_DIRECTORY": folder})
        assert 2 == len(found)
        assert all("LoadCredential=tls:FILE" in each and str(path) in each for each in found)

    @pytest.mark.parametrize("name", ["", ".", "..", "../keys/root.pem", "a/b"])
    def test_no_way_out(self, tmp_path, name):
        """A name with a folder in it is no credential's."""
        path = self.config(tmp_path, f"credential:{name}")
        assert 2 == len(faults(path, environment={"CREDENTIALS_DIRECTORY": "/run/credentials/x"}))


def test_a_file_that_was_edited(write):
    """A file has the digest with which it was loaded until it is edited; without a file there is none."""
    path = write('trust_domain = "one.example"\n')
    digest = load(path, {}, {}).digest
    assert digest == digest_of(path)
    path.write_text('trust_domain = "two.example"\n')
    assert digest != digest_of(path)
    assert "" == load(None, {}, {}).digest
    path.unlink()
    with pytest.raises(InvalidConfig, match="cannot be read"):
        digest_of(path)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('socket = "run/agent.sock"', "authority.upstream.socket is this agent's own"),
        ('socket = "run/admin.sock"', "authority.upstream.socket is this agent's own"),
        ('socket = "/run/spire.sock"\nspiffe_id = "spiffe://other.org/a"', "is not of the trust domain 'example.org'"),
    ],
)
def test_an_authority_above_itself(tmp_path, more, told):
    """An agent that would ask itself, or a server of another trust domain, for its intermediate is refused."""
    path = tmp_path / "agent.toml"
    path.write_text(
        'trust_domain = "example.org"\nsocket = "run/agent.sock"\nadmin_socket = "run/admin.sock"\n'
        f'[authority.upstream]\nkind = "spire"\nservers = ["a:1"]\n{more}\n'
    )
    assert told in "; ".join(faults(path))
