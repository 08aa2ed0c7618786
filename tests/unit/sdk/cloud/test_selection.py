"""Which of a task's resources an SDK is given."""

from dataclasses import replace

import pytest
from fakes.cloudtask import AWS, ENTRA, GCP, VAULT
from sojourn.errors import InvalidInput
from sojourn.sdk.cloud.selection import choose, is_usable
from sojourn.sdk.task.values import Outside

OTHER = replace(AWS, resource="https://sqs.example.org")


class TestChoose:
    def test_one_of_each(self) -> None:
        """All clouds of a task are served, each with its one resource."""
        assert {"aws": (AWS,), "gcp": (GCP,), "entra": (ENTRA,), "vault": (VAULT,)} == choose([VAULT, ENTRA, GCP, AWS])

    def test_others_need_none(self) -> None:
        """An OIDC provider has no SDK that would look for it."""
        assert {} == choose([Outside("https://orders.example.org", "corp", "keycloak", {})])

    def test_two_of_a_kind(self) -> None:
        """Of two resources of one kind it is not clear which one is meant: the error names both, and what to do."""
        with pytest.raises(InvalidInput) as caught:
            choose([AWS, OTHER])
        for part in (AWS.resource, OTHER.resource, "--cloud"):
            assert part in str(caught.value)

    def test_named(self) -> None:
        """The one that is named is taken, and other kinds are not touched by that."""
        assert {"aws": (OTHER,), "gcp": (GCP,)} == choose([AWS, OTHER, GCP], [OTHER.resource])

    def test_two_named(self) -> None:
        """Naming two of one kind does not make it clearer."""
        with pytest.raises(InvalidInput, match="two resources of kind aws"):
            choose([AWS, OTHER], [AWS.resource, OTHER.resource])

    def test_named_wrongly(self) -> None:
        """A name that is none of the task's is refused, with those there are."""
        with pytest.raises(InvalidInput, match=r"no resource of a cloud 'https://x\.example': it has https://s3"):
            choose([AWS], ["https://x.example"])

    def test_scopes_of_entra(self) -> None:
        """Azure's SDKs say which scope they ask for, so a task may have several; but not the same one twice."""
        storage = Outside("https://blobs.example.org", "corp", "entra", {"scope": "https://storage.azure.com/.default"})
        assert {"entra": (ENTRA, storage)} == choose([ENTRA, storage])
        with pytest.raises(InvalidInput, match="two resources of kind entra"):
            choose([ENTRA, replace(ENTRA, resource="https://again.example.org")])
        with pytest.raises(InvalidInput, match="two resources of kind entra"):
            choose([ENTRA, replace(storage, details={**storage.details, "gives": "assertion"})])

    def test_a_vault_that_gives_a_secret(self) -> None:
        """A provider that gives a secret of a Vault and no token is nothing for Vault's clients."""
        assert not is_usable(replace(VAULT, details={**VAULT.details, "gives": "secret"}))
