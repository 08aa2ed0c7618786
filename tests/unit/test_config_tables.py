"""model.py: the tables of signals, services, listeners and keys for others."""

import pytest
from fakes.configs import faults
from sojourn.config.load import load


class TestSignals:
    GOOD = '[[signals]]\nissuer = "https://idp.example.net/"\njwks = "keys.json"\n'

    def test_good(self, write, tmp_path):
        """An issuer needs a URL; a file is relative to the configuration; the rest has defaults."""
        (issuer,) = load(write(self.GOOD), {}, {}).config.signals
        assert (tmp_path / "keys.json", None, None, 600.0, ()) == (
            issuer.jwks,
            issuer.audience,
            issuer.valid,
            issuer.oldest,
            issuer.publishers,
        )

    @pytest.mark.parametrize(
        "line",
        [
            'audience = ""',
            'valid = "0s"',
            'valid = "365d"',
            'max_age = "0s"',
            'max_age = "2d"',
            'publishers = ["operator"]',
            'publishers = "spiffe://example.org/x"',
            "unknown = 1",
            '[[signals]]\nissuer = "https://idp.example.net/"\njwks = "other.json"',
            '[[signals]]\nissuer = "https://b.example.net:x"',
            'poll = "https://b.example.net/"\npoll_every = "0s"',
            'people = "corp"',
            '[[signals]]\njwks = "x.json"',
        ],
    )
    def test_refused(self, write, line):
        """A key that cannot work is one fault, and so is an issuer that is there twice, or lacks what it needs."""
        (fault,) = faults(write(self.GOOD + line))
        assert "signals" in fault or "people.corp" in fault

    @pytest.mark.parametrize(
        "issuer",
        ["http://a", "https://", "a", "", "https://a/#f", "https://a/#", "https://a b/", "https://[", "https://a\\n"],
    )
    def test_issuers(self, write, issuer):
        """What is not an https URL is no issuer."""
        assert 1 == len(faults(write(self.GOOD.replace("https://idp.example.net/", issuer))))

    def test_so_many(self, write):
        """More issuers than the limit are a fault."""
        many = "".join(self.GOOD.replace("idp", f"idp{number}") for number in range(51))
        assert 1 == len(faults(write(many)))


class TestServices:
    GOOD = '[[services]]\nresource = "https://a.example.org"\nworkloads = ["spiffe://example.org/a"]\n'

    def test_good(self, write):
        """A service needs a resource and its workloads; a name is for people."""
        (service,) = load(write(self.GOOD), {}, {}).config.services
        assert ("https://a.example.org", ("spiffe://example.org/a",), None) == (
            service.resource,
            service.workloads,
            service.name,
        )

    @pytest.mark.parametrize(
        "line",
        [
            "unknown = 1",
            'name = ""',
            '[[services]]\nresource = "https://a.example.org"\nworkloads = ["spiffe://example.org/b"]',
            '[[services]]\nresource = "tickets"\nworkloads = ["spiffe://example.org/b"]',
            '[[services]]\nresource = "https://b.example.org/#x"\nworkloads = ["spiffe://example.org/b"]',
            '[[services]]\nresource = "https://b.example.org"\nworkloads = []',
            '[[services]]\nresource = "https://b.example.org"\nworkloads = ["b"]',
            '[[services]]\nresource = "https://b.example.org"',
        ],
    )
    def test_refused(self, write, line):
        """What cannot work is one fault, and so is a resource that is there twice."""
        (fault,) = faults(write(self.GOOD + line))
        assert "services" in fault

    @pytest.mark.parametrize(
        "text",
        [
            GOOD.replace("example.org/a", "other.example/a"),
            '[listen]\nhttps_allowed = ["spiffe://other.example/a"]\n',
        ],
    )
    def test_of_our_trust_domain(self, write, text):
        """Workloads that are named, as services or as callers, are of our own trust domain."""
        (fault,) = faults(write(text))
        assert "is not of the trust domain" in fault


class TestHttps:
    def test_certificate_and_key(self, write, tmp_path):
        """A certificate and its key are files beside the configuration; one without the other is a fault."""
        both = '[listen]\nhttps_certificate = "c.pem"\nhttps_key = "k.pem"\n'
        listen = load(write(both), {}, {}).config.listen
        assert (tmp_path / "c.pem", tmp_path / "k.pem") == (listen.https_certificate, listen.https_key)
        (fault,) = faults(write(both.replace("https_key", "#")))
        assert "go together" in fault


class TestKeysForOthers:
    """Keys by which outside parties trust the agent."""

    @pytest.mark.parametrize(("ttl", "overlap"), [("1d", "9h"), ("1h", "21m")])
    def test_overlap(self, write, ttl, overlap):
        """Keys are not published for longer than a third of their life before they sign."""
        [said] = faults(write(f'[authority]\njwt_key_ttl = "{ttl}"\njwt_key_overlap = "{overlap}"\n'))
        assert "the most is a third of jwt_key_ttl" in said

    @pytest.mark.parametrize("door", ["https", "trust"])
    @pytest.mark.parametrize("key", ["certificate", "key"])
    def test_certificate_without_key(self, write, door, key):
        """A certificate and its key go together, on each listener."""
        [said] = faults(write(f'[listen]\n{door}_{key} = "x.pem"\n'))
        assert f"{door}_certificate and {door}_key go together" in said


class TestApprovalNotifier:
    def test_good(self, write, tmp_path):
        """Nobody is told by default; files are relative to the configuration, and a webhook may be a loopback address."""
        assert (None, None) == ((off := load(None, {}, {}).config.approval_notifier).command, off.webhook)
        text = '[approval_notifier]\nwebhook = "http://127.0.0.1:8099/x?y=z"\ntoken_file = "token"\n'
        assert tmp_path / "token" == load(write(text), {}, {}).config.approval_notifier.token_file
        for url in ("https://hooks.example.org/x", "http://localhost:8099/", "http://[::1]:8099/"):
            assert (
                url == load(write(f'[approval_notifier]\nwebhook = "{url}"\n'), {}, {}).config.approval_notifier.webhook
            )

    @pytest.mark.parametrize(
        ("lines", "says"),
        [
            ('command = ["notify"]', "absolute path"),
            ('command = "/bin/true"', "must be an array"),
            ("command = []", "command"),
            ('command = ["/bin/true", "a\\u0000"]', "NUL"),
            ('webhook = "http://hooks.example.org/x"', "plain http is for loopback addresses alone"),
            ('webhook = "http://[::ffff:127.0.0.1]:8099/x"', "plain http is for loopback addresses alone"),
            ('webhook = "https://user:pw@hooks.example.org/x"', "no user information"),
            ('webhook = "ftp://hooks.example.org/x"', "not a plain http or https URL"),
            ('webhook = "https://a.example.org"\ncommand = ["/bin/true"]', "it is one of them"),
            ('webhook = "https://a.example.org"\nprivate_networks = ["10.0.0.0/33"]', "private_networks"),
            ('command = ["/bin/true"]\ntoken_file = "t"', "token_file is for a webhook"),
            ('command = ["/bin/true"]\ntimeout = "5m"', "the most is 1m"),
        ],
    )
    def test_refused(self, write, lines, says):
        """What cannot work is one fault, which says what is wrong."""
        (fault,) = faults(write(f"[approval_notifier]\n{lines}\n"))
        assert says in fault
