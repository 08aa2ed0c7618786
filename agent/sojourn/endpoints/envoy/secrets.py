"""Envoy's secrets, made of identities and bundles: which name stands for what."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from sojourn._pb.envoy.config.core.v3 import base_pb2 as core
from sojourn._pb.envoy.extensions.transport_sockets.tls.v3 import secret_pb2 as tls
from sojourn.errors import InvalidInput, Unavailable
from sojourn.identity.entries import Entry
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import X509Svid

SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  # a name
SPIFFE_VALIDATOR = "envoy.tls.cert_validator.spiffe"
DEFAULT_SVID, DEFAULT_BUNDLE, ALL_BUNDLES = "default", "ROOTCA", "ALL"
_FIRST_ABLE = (1, 18)  # the first Envoy with the SPIFFE certificate validator
_OFF_SWITCH = "disable_spiffe_cert_validation"
_TRUE = {"1", "t", "T", "true", "TRUE", "True"}  # what Go, and so SPIRE, reads as true


class SecretMaker:
    """Makes the secrets that one caller may have. `own` is the agent's trust domain."""

    def __init__(
        self,
        entries: Sequence[Entry],
        svid_of: Callable[[Entry], X509Svid | None],
        bundles: Mapping[TrustDomain, Bundle],
        own: TrustDomain,
        *,
        spiffe_validator: bool,
    ) -> None:
        """`svid_of`: the SVID of an entry; None: it has to be waited for."""
        self._entries = entries
        self._by_id = {str(entry.spiffe_id): entry for entry in reversed(entries)}  # the first of an ID counts
        self._svid_of = svid_of
        # One without X.509 roots trusts nobody. It is left out: Envoy would reject it, and with it all of `ALL`; and to
        # a plain `trusted_ca` without a root it would mean that anybody is trusted.
        self._bundles = {domain: bundle for domain, bundle in bundles.items() if bundle.x509_authorities}
        self._own = own
        self._spiffe_validator = spiffe_validator

    def unsigned(self, names: Iterable[str]) -> dict[str, Entry]:
        """Which of these names, or of all where there are none, stand for SVIDs that are not there yet, and whose."""
        found = {name: self._entry_of(name) for name in self._wanted(names)}
        return {name: entry for name, entry in found.items() if entry is not None and self._svid_of(entry) is None}

    def make(self, names: Iterable[str], without: Collection[str] = ()) -> list[tls.Secret]:
        """The secrets of these names; of no names, all. Raise InvalidInput for a name that the caller may not have.

        `without`: those that are `unsigned`, and left out.
        """
        wanted = [name for name in self._wanted(names) if name not in without]
        made = [(name, self.one(name)) for name in wanted]
        beyond = [name for name, secret in made if secret is None]
        if beyond:
            listed = " ".join(f'"{name[:200]}"' for name in beyond[:20])
            raise InvalidInput(f"workload is not authorized for the requested identities [{listed}]")
        return [secret for _, secret in made if secret is not None]

    def _wanted(self, names: Iterable[str]) -> list[str]:
        wanted = sorted({name for name in names if name})
        if not wanted:
            bundles = [str(domain.id) for domain in sorted(self._bundles)]
            wanted = [*bundles, *dict.fromkeys(str(entry.spiffe_id) for entry in self._entries)]
        return wanted

    def _entry_of(self, name: str) -> Entry | None:
        """The entry whose SVID a name stands for, if it stands for any."""
        if name == DEFAULT_SVID:
            return self._entries[0] if self._entries else None
        return self._by_id.get(name)

    def one(self, name: str) -> tls.Secret | None:
        """The secret of a name that is not `unsigned`, or None if the caller may not have it.

        Raise Unavailable for the bundle while there is no root of ours: an upstream authority has not answered yet.
        """
        if name in {DEFAULT_BUNDLE, ALL_BUNDLES, str(self._own.id)} and self._own not in self._bundles:
            raise Unavailable("there is no root yet to verify others by")
        if name == DEFAULT_BUNDLE:
            return self._validation(name, [self._bundles[self._own]])
        if name == ALL_BUNDLES:
            if not self._spiffe_validator:
                raise InvalidInput('unable to use "SPIFFE validator" on Envoy below 1.18, or where it is switched off')
            return self._validation(name, [self._bundles[domain] for domain in sorted(self._bundles)])
        for domain, bundle in self._bundles.items():
            if name == str(domain.id):
                return self._validation(name, [bundle])
        entry = self._entry_of(name)
        return self._certificate(name, entry) if entry is not None else None

    def _certificate(self, name: str, entry: Entry) -> tls.Secret:
        svid = self._svid_of(entry)
        assert svid is not None  # `unsigned` has looked in this very step
        secret = tls.Secret(name=name)
        secret.tls_certificate.certificate_chain.inline_bytes = svid.chain_pem
        secret.tls_certificate.private_key.inline_bytes = svid.key_pem
        return secret

    def _validation(self, name: str, bundles: Sequence[Bundle]) -> tls.Secret:
        secret = tls.Secret(name=name)
        if not self._spiffe_validator:
            secret.validation_context.trusted_ca.inline_bytes = bundles[0].x509_pem
            return secret
        config = tls.SPIFFECertValidatorConfig()
        for bundle in bundles:
            config.trust_domains.add(
                name=bundle.trust_domain.name, trust_bundle=core.DataSource(inline_bytes=bundle.x509_pem)
            )
        validator = secret.validation_context.custom_validator_config
        validator.name = SPIFFE_VALIDATOR
        validator.typed_config.Pack(config)
        return secret


def takes_spiffe_validator(node: core.Node) -> bool:
    """Whether an Envoy knows the SPIFFE certificate validator and has not switched it off in its node's metadata."""
    switch = node.metadata.fields.get(_OFF_SWITCH)
    if switch is not None and (switch.bool_value or switch.string_value in _TRUE):
        return False
    if node.WhichOneof("user_agent_version_type") != "user_agent_build_version":
        return True
    version = node.user_agent_build_version.version
    return (version.major_number, version.minor_number) >= _FIRST_ABLE
