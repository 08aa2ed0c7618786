"""audit.py of the settings: which tables [[audit.sinks]] can be used, and what is said of those that cannot."""

import pytest
from fakes.configs import faults
from sojourn.config.load import load

FILE = '[[audit.sinks]]\nname = "archive"\nkind = "file"\npath = "audit.ndjson"\n'
HTTPS = '[[audit.sinks]]\nname = "siem"\nkind = "https"\nurl = "https://siem.example.org/in"\n'


SYSLOG = '[[audit.sinks]]\nname = "log"\nkind = "syslog"\naddress = "log.example.org:6514"\n'
OTLP = HTTPS.replace('"https"', '"otlp"')


def test_syslog_and_otlp(write):
    """A syslog receiver has host and port and TLS, or is on loopback; one of OpenTelemetry's has what one of lines has."""
    one, two, three = load(
        write(
            SYSLOG
            + SYSLOG.replace("log.example.org", "[::1]").replace('"log"', '"here"')
            + "tls = false\nrequired = true\n"
            + OTLP
        ),
        {},
        {},
    ).config.audit.sinks
    assert (("log.example.org", 6514), True, False) == (one.host_port, one.secure, one.required)
    assert (("::1", 6514), False, True) == (two.host_port, two.secure, two.required)
    assert ("otlp", True) == (three.kind, three.secure)


def test_format(write):
    """Lines are our own, or of OCSF, of each kind of sink; no other is there."""
    assert ("sojourn", "ocsf") == (
        load(write(FILE), {}, {}).config.audit.sinks[0].format,
        load(write(FILE + 'format = "ocsf"\n'), {}, {}).config.audit.sinks[0].format,
    )
    assert all(
        load(write(each + 'format = "ocsf"\n'), {}, {}).config.audit.sinks[0].format == "ocsf"
        for each in (HTTPS, OTLP, SYSLOG)
    )
    assert 1 == len(faults(write(FILE + 'format = "cef"\n')))


def test_keep(write):
    """Records are kept for as long as is said, an hour at the least."""
    assert 183 == load(write('[audit]\nkeep = "183d"\n'), {}, {}).config.audit.keep.days
    assert 1 == len(faults(write('[audit]\nkeep = "59m"\n')))


def test_good(write, tmp_path):
    """A file needs a path and a receiver a URL; paths are relative to the configuration; all else has defaults."""
    one, two = load(
        write(FILE + HTTPS + 'token_file = "token"\nca = "ca.pem"\nsvid = true\n'), {}, {}
    ).config.audit.sinks
    assert (tmp_path / "audit.ndjson", "now", (), 10.0) == (
        one.path,
        one.start,
        one.include,
        one.timeout.total_seconds(),
    )
    assert (tmp_path / "token", tmp_path / "ca.pem", True) == (two.token_file, two.ca, two.svid)
    assert () == load(write(""), {}, {}).config.audit.sinks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILE.replace("archive", "Archive"), "name"),
        (FILE.replace('"file"', '"kafka"'), "kind"),
        (FILE.replace("path", "url"), "url"),
        (FILE + 'url = "https://a.example"', "url is not of a sink of kind file"),
        (FILE + 'token_file = "x"', "token_file is not of a sink"),
        (HTTPS + "files = 3", "files is not of a sink of kind https"),
        (HTTPS.replace("url =", "# url ="), "needs url"),
        (HTTPS.replace("https://siem", "http://siem"), "loopback addresses alone"),
        (
            HTTPS.replace("https://siem.example.org", "http://127.0.0.1:8080") + "svid = true",
            "svid is for TLS",
        ),
        (HTTPS.replace("https://siem", "https://user:pw@siem"), "user information"),
        (FILE + "max_bytes = 10", "max_bytes"),
        (SYSLOG.replace(":6514", ""), "HOST:PORT"),
        (SYSLOG.replace(":6514", ":0"), "HOST:PORT"),
        (SYSLOG.replace("log.example", "log example"), "HOST:PORT"),
        (SYSLOG + "tls = false", "loopback addresses alone"),
        (SYSLOG.replace("log.example.org", "127.0.0.1") + 'tls = false\nca = "x.pem"', "ca is for TLS"),
        (SYSLOG + 'url = "https://a.example"', "url is not of a sink of kind syslog"),
        (OTLP.replace("url", "path"), "needs url"),
        (FILE + "files = 0", "files"),
        (FILE + 'timeout = "2h"', "the most is"),
        (FILE + 'include = ["task_begun"]\nexclude = ["task_ended"]', "one of them"),
        (FILE + 'include = ["task_begon"]', "task_begun is meant?"),
        (FILE + 'exclude = ["xyz"]', "docs/codes.md"),
        (FILE + 'private_networks = ["10.0.0.0/8"]', "private_networks is not of"),
        (HTTPS + 'private_networks = ["10.0.0.1/8"]', "has host bits set"),
        (FILE + FILE.replace("audit.ndjson", "other"), "'archive' is there twice"),
        (FILE + FILE.replace("archive", "other"), "is there twice"),
        (
            "".join(FILE.replace("a", "b").replace("archive", f"a{n}").replace("bud", f"x{n}") for n in range(17)),
            "audit",
        ),
    ],
)
def test_refused(write, text, said):
    """What cannot work is one fault, which says why."""
    assert any(said in each for each in faults(write(text))), faults(write(text))
