"""disk.py: an operator's intermediate authority in files, which are replaced in any order."""

import os
from datetime import timedelta
from itertools import permutations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from fakes.registrations import TRUST_DOMAIN
from fakes.upstreams import DAY, HOUR, below, root_at
from sojourn.authority.intermediate_lint import check_signed
from sojourn.authority.root_signer import IntermediateRequest
from sojourn.errors import UpstreamNotGood
from sojourn.settings.upstream import UpstreamAuthorityConfig
from sojourn.upstream.disk import DiskUpstream

NAMES = ("certificate", "key", "roots")


def pem(*issued):
    return b"".join(each.certificate.public_bytes(Encoding.PEM) for each in issued)


def key_pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


class Files:
    """Three files, and what follows them."""

    def __init__(self, folder, clock):
        self.paths = {name: folder / f"{name}.pem" for name in NAMES}
        self.clock = clock
        self.upstream = DiskUpstream(UpstreamAuthorityConfig(kind="disk", **self.paths), clock)

    def write(self, name, content, mode=0o600):
        path = self.paths[name]
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.chmod(mode)
        os.replace(fresh, path)

    def put(self, root, *line):
        """An authority and what is above it, from the lowest upwards."""
        self.write("roots", pem(root))
        self.write("certificate", pem(*line))
        self.write("key", key_pem(line[0].key))

    async def signed(self, longest=HOUR):
        asked = IntermediateRequest(TRUST_DOMAIN, ec.generate_private_key(ec.SECP256R1()), DAY)
        given = await self.upstream.sign(asked.csr, asked.ttl)
        return check_signed(asked, given, self.clock.now(), longest)

    async def refusal(self):
        with pytest.raises(UpstreamNotGood) as caught:
            await self.upstream.look()
        return caught.value.public


@pytest.fixture
def files(tmp_path, clock):
    made = Files(tmp_path, clock)
    root = root_at(clock)
    made.put(root, below(clock, root))
    return made


class TestSigns:
    @pytest.mark.parametrize(
        "key",
        [
            ec.generate_private_key(ec.SECP256R1()),
            ec.generate_private_key(ec.SECP384R1()),
            rsa.generate_private_key(65537, 2048),
        ],
        ids=["P-256", "P-384", "RSA"],
    )
    async def test_by_any_key(self, files, clock, key):
        """Whatever kind of key it has, what it signs is good by the rules for all upstream authorities."""
        root = root_at(clock)
        files.put(root, below(clock, root, key=key))
        assert 2 == len((await files.signed()).chain)

    async def test_three_deep(self, files, clock):
        """Authorities between it and the root are in the chain."""
        root = root_at(clock)
        middle = below(clock, root)
        files.put(root, below(clock, middle, "2"), middle)
        assert 3 == len((await files.signed()).chain)

    async def test_the_root_itself(self, files, clock):
        """The files may also be of a root, which signs itself."""
        root = root_at(clock)
        files.put(root, root)
        good = await files.signed()
        assert (1, (root.certificate,)) == (len(good.chain), good.roots)
        assert root.certificate == (await files.upstream.look()).signs

    async def test_is_clipped(self, files, clock):
        """An intermediate ends no later than what is above it."""
        root = root_at(clock)
        files.put(root, below(clock, root, ends=clock.now() + 5 * HOUR))
        assert clock.now() + 5 * HOUR == (await files.signed()).chain[0].not_valid_after_utc

    async def test_has_ended(self, files, clock):
        """One whose own certificate has ended signs nothing, and says so."""
        clock.advance(timedelta(days=400).total_seconds())
        with pytest.raises(UpstreamNotGood, match="not valid now: it ends"):
            await files.signed()

    async def test_two_are_two(self, files):
        """No two intermediates have the same serial number."""
        assert 2 == len({(await files.signed()).chain[0].serial_number for _ in range(2)})


class TestFollows:
    @pytest.mark.parametrize("order", list(permutations(NAMES)), ids="-".join)
    async def test_in_any_order(self, files, clock, order):
        """In whatever order the three are replaced: until they belong together what was there counts on, and it is told."""
        await files.upstream.look()
        before = await files.upstream.look()
        root = root_at(clock, "next root")
        new = below(clock, root, "next")
        content = {"roots": pem(root), "certificate": pem(new), "key": key_pem(new.key)}
        for name in order[:-1]:
            files.write(name, content[name])
            standing = await files.upstream.look()
            assert (before.signs, before.roots) == (standing.signs, standing.roots)
            assert "what was read before counts on" in standing.caution
            assert (await files.signed()).roots == before.roots
        files.write(order[-1], content[order[-1]])
        standing = await files.upstream.look()
        assert (new.certificate, (root.certificate,), "") == (standing.signs, standing.roots, standing.caution)

    async def test_a_root_ahead(self, files, clock):
        """A root that is added to its file ahead of all else is given at once."""
        before = (await files.upstream.look()).roots
        ahead = root_at(clock, "next root")
        files.write("roots", b"".join(each.public_bytes(Encoding.PEM) for each in before) + pem(ahead))
        standing = await files.upstream.look()
        assert ((*before, ahead.certificate), "") == (standing.roots, standing.caution)

    @pytest.mark.parametrize("name", NAMES)
    async def test_gone(self, files, name):
        """A file that is gone for a while changes nothing, and is told."""
        before = await files.upstream.look()
        content = files.paths[name].read_bytes()
        files.paths[name].unlink()
        standing = await files.upstream.look()
        assert before.signs == standing.signs
        assert "No such file" in standing.caution
        files.write(name, content)
        assert not (await files.upstream.look()).caution


class TestRefused:
    async def test_another_key(self, files):
        """A key that is not the certificate's."""
        files.write("key", key_pem(ec.generate_private_key(ec.SECP256R1())))
        assert "is not the key of the first certificate" in await files.refusal()

    async def test_another_root(self, files, clock):
        """A certificate that chains to none of the roots."""
        files.write("roots", pem(root_at(clock, "another")))
        assert "is issued by no root" in await files.refusal()

    async def test_out_of_order(self, files, clock):
        """Certificates that do not follow each other."""
        root = root_at(clock)
        one, other = below(clock, root, "one"), below(clock, root, "other")
        files.put(root, one, other)
        assert "is not issued by the one that follows it" in await files.refusal()

    @pytest.mark.parametrize(
        "constraints", [(x509.BasicConstraints(ca=True, path_length=0), True), None], ids=["path length 0", "none"]
    )
    async def test_may_sign_none(self, files, clock, constraints):
        """A certificate that may sign no intermediates."""
        root = root_at(clock)
        files.put(root, below(clock, root, constraints=constraints))
        assert "certificate" in await files.refusal()

    async def test_readable_by_others(self, files):
        """A key that every user can read is not used; one that others can write is not either."""
        files.paths["key"].chmod(0o644)
        assert "every user can read" in await files.refusal()
        files.paths["key"].chmod(0o602)
        assert "can be written by others" in await files.refusal()

    @pytest.mark.parametrize(
        "content", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    )
    async def test_no_certificates(self, files, content):
        """Files without certificates."""
        for name in ("roots", "certificate"):
            files.write(name, content)
            assert "has no certificates in PEM" in await files.refusal()

    async def test_no_key(self, files):
        """A key that has a passphrase, is of another kind, or is none."""
        key = ec.generate_private_key(ec.SECP256R1())
        for content, told in (
            (key_pem(key, BestAvailableEncryption(b"secret")), "without a passphrase"),
            (b"nothing", "without a passphrase"),
            (key_pem(ed25519.Ed25519PrivateKey.generate()), "of a kind that is not accepted"),
        ):
            files.write("key", content)
            assert told in await files.refusal()
