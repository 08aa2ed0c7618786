"""intermediate_lint.py: what an upstream authority gives is good, or it is not used."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fakes.certificates import san, usage
from fakes.registrations import TRUST_DOMAIN
from fakes.upstreams import DAY, HOUR, FakeUpstream, below, root_at
from sojourn.authority.intermediate_lint import check_signed
from sojourn.authority.root_signer import IntermediateRequest, SignedIntermediate
from sojourn.errors import UpstreamNotGood

CONSTRAINTS = x509.BasicConstraints


def request():
    return IntermediateRequest(TRUST_DOMAIN, ec.generate_private_key(ec.SECP256R1()), DAY)


async def answer(upstream, clock, change=lambda signed: signed):
    """What is made of an answer: the good one, or the sentence with which it is refused."""
    asked = request()
    signed = change(await upstream.sign(asked.csr, asked.ttl))
    return check_signed(asked, signed, clock.now(), HOUR)


async def refusal(upstream, clock, change=lambda signed: signed):
    with pytest.raises(UpstreamNotGood) as caught:
        await answer(upstream, clock, change)
    return caught.value.public


class TestGood:
    async def test_below_a_root(self, clock):
        """An intermediate just below the root: the chain is that alone, since a root does not belong into it."""
        good = await answer(FakeUpstream(clock), clock)
        assert 1 == len(good.chain)

    async def test_told_twice(self, clock):
        """An authority that tells the intermediate twice, as OpenBao does, has it in the chain once."""
        good = await answer(
            FakeUpstream(clock), clock, lambda signed: replace(signed, chain=(signed.chain[0], *signed.chain))
        )
        assert 1 == len(good.chain)

    async def test_three_deep(self, clock):
        """Authorities between it and the root stay in the chain, from below upwards."""
        root = root_at(clock)
        middle = below(clock, root)
        lowest = below(clock, middle, "company issuing 2")
        good = await answer(FakeUpstream(clock, root, middle, lowest), clock)
        assert [lowest.certificate, middle.certificate] == list(good.chain[1:])

    @pytest.mark.parametrize("bits", [2048, 4096])
    async def test_rsa_root(self, clock, bits):
        """The authorities above may have RSA keys."""
        upstream = FakeUpstream(clock, root_at(clock, key=rsa.generate_private_key(65537, bits)))
        assert await answer(upstream, clock)

    async def test_no_uri(self, clock):
        """An intermediate need not have the trust domain's ID (X509-SVID.md, 3.2)."""
        upstream = FakeUpstream(clock)
        upstream.wrong = {"san": None}
        assert await answer(upstream, clock)

    async def test_constraints_of_hosts(self, clock):
        """Name constraints above that are for other names than URIs are no matter of SPIFFE IDs."""
        names = x509.NameConstraints([x509.DNSName("example.org")], None)
        root = root_at(clock)
        assert await answer(FakeUpstream(clock, root, below(clock, root, names=(names, True))), clock)


class TestRefused:
    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"constraints": None}, "no CA"),
            ({"constraints": (CONSTRAINTS(ca=False, path_length=None), True)}, "no CA"),
            ({"constraints": (CONSTRAINTS(ca=True, path_length=None), True)}, "path length is not 0"),
            ({"constraints": (CONSTRAINTS(ca=True, path_length=1), True)}, "path length is not 0"),
            ({"usage": None}, "lacks keyCertSign"),
            ({"usage": (usage("crl_sign", "digital_signature"), True)}, "lacks keyCertSign"),
            ({"usage": (usage("key_cert_sign"), False)}, "not critical"),
            ({"san": (san("spiffe://other.org"), False)}, "not that of its trust domain"),
            ({"san": (san("spiffe://example.org", "spiffe://example.org/a"), False)}, "2 URI names"),
            ({"subject_key": None}, "key identifier"),
            ({"issuer_key": None}, "key identifier"),
        ],
        ids=lambda each: each if isinstance(each, str) else next(iter(each)),
    )
    async def test_extensions(self, clock, wrong, told):
        """Of each extension that makes an intermediate ours, one that is missing or another is refused."""
        upstream = FakeUpstream(clock)
        upstream.wrong = wrong
        assert told in await refusal(upstream, clock)

    async def test_another_key(self, clock):
        """An intermediate for a key that is not the one which was asked for is of no use."""
        upstream = FakeUpstream(clock)
        upstream.key = ec.generate_private_key(ec.SECP256R1())
        assert "another key" in await refusal(upstream, clock)

    async def test_ends_too_early(self, clock):
        """It has to live for two of the longest SVIDs; a second less is refused."""
        upstream = FakeUpstream(clock)
        upstream.wrong = {"ends": clock.now() + 2 * HOUR}
        assert await answer(upstream, clock)
        upstream.wrong = {"ends": clock.now() + 2 * HOUR - HOUR / 3600}
        assert "ends too early" in await refusal(upstream, clock)

    async def test_not_yet_valid(self, clock):
        """What is valid later signs nothing now."""
        upstream = FakeUpstream(clock)
        upstream.wrong = {"begins": clock.now() + HOUR / 3600}
        assert "not valid yet" in await refusal(upstream, clock)

    async def test_an_authority_above_that_ends(self, clock):
        """An authority above that ends before two SVIDs have is refused as the intermediate is."""
        root = root_at(clock)
        upstream = FakeUpstream(clock, root, below(clock, root, ends=clock.now() + HOUR))
        assert "ends too early" in await refusal(upstream, clock)

    async def test_a_root_that_has_ended(self, clock):
        """A root that is not valid now is refused."""
        upstream = FakeUpstream(clock, root_at(clock, ends=clock.now()))
        assert "is not valid now" in await refusal(upstream, clock)

    async def test_of_another_root(self, clock):
        """What chains to a root that is not given does not verify."""
        upstream, other = FakeUpstream(clock), root_at(clock, "another root")
        told = await refusal(upstream, clock, lambda signed: replace(signed, roots=(other.certificate,)))
        assert "would not verify" in told

    async def test_of_a_root_with_the_same_name(self, clock):
        """What chains to another root that has the same name does not verify."""
        upstream, other = FakeUpstream(clock), root_at(clock)
        told = await refusal(upstream, clock, lambda signed: SignedIntermediate(signed.chain[:1], (other.certificate,)))
        assert "would not verify" in told

    async def test_a_gap_in_the_chain(self, clock):
        """A chain that lacks a certificate does not verify."""
        root = root_at(clock)
        upstream = FakeUpstream(clock, root, middle := below(clock, root), below(clock, middle, "2"))
        told = await refusal(upstream, clock, lambda signed: replace(signed, chain=signed.chain[:2]))
        assert "would not verify" in told

    async def test_above_may_have_none_below(self, clock):
        """An authority with path length 0 may sign no intermediate."""
        root = root_at(clock)
        narrow = below(clock, root, constraints=(CONSTRAINTS(ca=True, path_length=0), True))
        assert "would not verify" in await refusal(FakeUpstream(clock, root, narrow), clock)

    @pytest.mark.parametrize(
        ("permitted", "excluded"),
        [("other.org", None), (".example.org", None), (None, "example.org"), (None, ".org")],
    )
    async def test_name_constraints(self, clock, permitted, excluded):
        """Name constraints above that leave the trust domain's URIs out are refused."""
        names = [each and [x509.UniformResourceIdentifier(each)] for each in (permitted, excluded)]
        root = root_at(clock)
        narrow = below(clock, root, names=(x509.NameConstraints(*names), True))
        assert "name constraints" in await refusal(FakeUpstream(clock, root, narrow), clock)

    @pytest.mark.parametrize("permitted", ["example.org", ".org"])
    async def test_constraints_that_permit_it(self, clock, permitted):
        """Name constraints for URIs are refused though they permit ours: the agent's own verifier, and others, take none."""
        names = x509.NameConstraints([x509.UniformResourceIdentifier(permitted)], None)
        root = root_at(clock)
        told = await refusal(FakeUpstream(clock, root, below(clock, root, names=(names, True))), clock)
        assert "name constraints for URIs: some verifiers" in told

    async def test_root_of_another_trust_domain(self, clock):
        """A root that says it is another trust domain's does not come into the bundle."""
        upstream = FakeUpstream(clock, root_at(clock, san=(san("spiffe://other.org"), False)))
        assert "the root" in await refusal(upstream, clock)

    async def test_a_root_that_is_none(self, clock):
        """What is given as a root is self-signed, an authority, and has a key identifier."""
        root = root_at(clock)
        not_self_signed = below(clock, root)
        upstream = FakeUpstream(clock, root)
        upstream.more_roots = (not_self_signed.certificate,)
        assert "not self-signed" in await refusal(upstream, clock)
        upstream.more_roots = (root_at(clock, constraints=None).certificate,)
        assert "the root" in await refusal(upstream, clock)
        upstream.more_roots = (root_at(clock, subject_key=None).certificate,)
        assert "no subject key identifier" in await refusal(upstream, clock)

    @pytest.mark.parametrize("what", ["chain", "roots"])
    async def test_nothing(self, clock, what):
        """An answer without a certificate, or without a root, is refused."""
        told = await refusal(FakeUpstream(clock), clock, lambda signed: replace(signed, **{what: ()}))
        assert "there is no" in told

    async def test_the_root_alone(self, clock):
        """A root instead of an intermediate is none."""
        told = await refusal(FakeUpstream(clock), clock, lambda signed: replace(signed, chain=signed.roots))
        assert "no intermediate" in told

    async def test_too_long(self, clock):
        """A chain that with its leaf no verifier of ours would read is refused."""
        line = [root_at(clock)]
        for place in range(9):
            line.append(below(clock, line[-1], f"company {place}"))
        assert "longer than 9" in await refusal(FakeUpstream(clock, *line), clock)

    @pytest.mark.parametrize("what", ["chain", "roots"])
    async def test_endless(self, clock, what):
        """So many certificates that looking at each would hold everybody up, or that no workload could be sent, are refused
        unseen.
        """

        class Unseen(tuple):
            __slots__ = ()

            def __iter__(self):
                raise AssertionError("it was looked at")

        told = await refusal(
            FakeUpstream(clock),
            clock,
            lambda signed: replace(signed, **{what: Unseen(getattr(signed, what)[:1] * 5_000)}),
        )
        assert "5000 certificates" in told

    async def test_weak(self, clock):
        """What no verifier takes, such as an RSA key of 1,024 bits above, is found though no rule here names it."""
        upstream = FakeUpstream(clock, root_at(clock, key=rsa.generate_private_key(65537, 1024)))
        assert "would not verify" in await refusal(upstream, clock)

    async def test_a_digest_that_nobody_takes(self, clock):
        """An intermediate whose signature is by a digest that no verifier takes, such as SHA-3, is refused."""
        upstream = FakeUpstream(clock)
        upstream.wrong = {"digest": hashes.SHA3_256()}
        assert "would not verify" in await refusal(upstream, clock)
