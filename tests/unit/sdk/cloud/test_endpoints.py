"""What the endpoints answer, by cloud, and what a command's environment has."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fakes.cloudtask import AWS, ENTRA, GCP, KEY, KEYS, S3, SECRETS, SHEETS, VAULT, CloudTask, token
from harness.looking import until
from sojourn.errors import InvalidInput, LimitExceeded, Refused, Unavailable
from sojourn.limits import LOCAL_CONTENT_MAX_BYTES, LOCAL_CREDENTIAL_SECONDS, LOCAL_SUBJECT_TOKENS
from sojourn.sdk.cloud.endpoints import CloudEndpoints, running
from sojourn.sdk.task.values import AccessToken, Outside

EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
}
IDENTITY = {"X-IDENTITY-HEADER": "sojourn"}
QUERY = {"api-version": "2019-08-01", "resource": "https://vault.azure.net"}


@pytest.fixture
def task() -> CloudTask:
    return CloudTask(AWS, GCP, ENTRA, VAULT)


@pytest.fixture
async def endpoints(task: CloudTask) -> AsyncIterator[CloudEndpoints]:
    async with running(task) as found:
        yield found


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


def soon(text: str) -> bool:
    """Whether a time is what an SDK may be told at most."""
    left = (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()
    return LOCAL_CREDENTIAL_SECONDS - 10 < left <= LOCAL_CREDENTIAL_SECONDS


class TestAws:
    async def test_credentials(self, endpoints: CloudEndpoints, http: httpx.AsyncClient) -> None:
        """Answers for AWS are in the shape of the container credential provider, to be kept no longer than minutes."""
        answer = await http.get(endpoints.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
        document = answer.json()
        assert soon(document.pop("Expiration"))
        assert (200, KEY, "no-store") == (answer.status_code, document, answer.headers["cache-control"])

    async def test_no_longer_than_the_agent_says(
        self, task: CloudTask, endpoints: CloudEndpoints, http: httpx.AsyncClient
    ) -> None:
        """What ends sooner is said to end then."""
        task.given[S3] = token(AWS, 30)
        document = (await http.get(endpoints.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"])).json()
        assert task.given[S3].expires_at.strftime("%Y-%m-%dT%H:%M:%SZ") == document["Expiration"]  # type: ignore[union-attr]

    @pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"AccessKeyId": "A"}'])
    async def test_no_credentials(
        self, task: CloudTask, endpoints: CloudEndpoints, http: httpx.AsyncClient, text: str
    ) -> None:
        """What is no credentials of AWS is not handed on, and not shown."""
        task.given[S3] = token(AWS, text=text)
        answer = await http.get(endpoints.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
        assert (503, "ServiceUnavailable") == (answer.status_code, answer.json()["code"])
        assert "no credentials of AWS" in answer.json()["message"]

    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (Refused("policy says no"), 403, "AccessDenied"),
            (Unavailable("the provider is down"), 503, "ServiceUnavailable"),
            (LimitExceeded("too many"), 503, "ServiceUnavailable"),
            (InvalidInput("no such action"), 400, "AccessDenied"),
        ],
    )
    async def test_refused(
        self,
        task: CloudTask,
        endpoints: CloudEndpoints,
        http: httpx.AsyncClient,
        error: Any,
        status: int,
        code: str,
    ) -> None:
        """What the agent says is said in the SDK's shape."""
        task.given[S3] = error
        answer = await http.get(endpoints.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
        assert (status, {"code": code, "message": error.public}) == (answer.status_code, answer.json())

    async def test_over(self, task: CloudTask, endpoints: CloudEndpoints, http: httpx.AsyncClient) -> None:
        """When the task is over the answer is the reason, though what was given before was good for longer."""
        url = endpoints.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
        await http.get(url)
        task.end("revoked", "admin")
        async with httpx.AsyncClient(trust_env=False) as again:
            answer = await again.get(url)
        assert (403, "task is revoked: admin") == (answer.status_code, answer.json()["message"])

    async def test_method(self, endpoints: CloudEndpoints, http: httpx.AsyncClient) -> None:
        """Credentials are asked for by GET and no other method."""
        assert 400 == (await http.post(endpoints.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"])).status_code


class TestGcp:
    @pytest.fixture
    def configuration(self, endpoints: CloudEndpoints) -> Any:
        file = Path(endpoints.environment["GOOGLE_APPLICATION_CREDENTIALS"])
        assert 0o600 == file.stat().st_mode & 0o777
        return json.loads(file.read_text())

    async def subject(self, http: httpx.AsyncClient, configuration: Any) -> str:
        source = configuration["credential_source"]
        answer = await http.get(source["url"], headers=source["headers"])
        assert 200 == answer.status_code
        return str(answer.json()[source["format"]["subject_token_field_name"]])

    async def test_exchange(self, http: httpx.AsyncClient, configuration: Any) -> None:
        """The subject token is exchanged for what the agent has from Google."""
        subject = await self.subject(http, configuration)
        answer = await http.post(configuration["token_url"], data={**EXCHANGE, "subject_token": subject})
        document = answer.json()
        assert (200, "token-of-gcp", "Bearer") == (answer.status_code, document["access_token"], document["token_type"])
        assert LOCAL_CREDENTIAL_SECONDS - 10 < document["expires_in"] <= LOCAL_CREDENTIAL_SECONDS

    async def test_a_subject_token_is_good_once(self, http: httpx.AsyncClient, configuration: Any) -> None:
        """The second time it is none any more."""
        form = {**EXCHANGE, "subject_token": await self.subject(http, configuration)}
        await http.post(configuration["token_url"], data=form)
        answer = await http.post(configuration["token_url"], data=form)
        assert (400, "invalid_request") == (answer.status_code, answer.json()["error"])

    async def test_the_oldest_is_forgotten(self, http: httpx.AsyncClient, configuration: Any) -> None:
        """So many subject tokens wait, and no more."""
        first = await self.subject(http, configuration)
        last = [await self.subject(http, configuration) for _ in range(LOCAL_SUBJECT_TOKENS)][-1]
        statuses = [
            (await http.post(configuration["token_url"], data={**EXCHANGE, "subject_token": each})).status_code
            for each in (first, last)
        ]
        assert [400, 200] == statuses

    async def test_without_the_header(self, http: httpx.AsyncClient, configuration: Any) -> None:
        """A request that somebody is made to send has no Metadata-Flavor, and gets nothing."""
        answer = await http.get(configuration["credential_source"]["url"])
        assert 400 == answer.status_code
        assert "Metadata-Flavor" in answer.json()["error_description"]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"grant_type",
            b"\xff=1",
            b"grant_type=client_credentials",
            b"grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=guess",
            b"grant_type=urn:ietf:params:oauth:grant-type:token-exchange&requested_token_type=x&subject_token=guess",
        ],
    )
    async def test_other_requests(self, http: httpx.AsyncClient, configuration: Any, content: bytes) -> None:
        """What is no exchange of a subject token that was given is refused as OAuth has it."""
        answer = await http.post(configuration["token_url"], content=content)
        assert (400, "invalid_request") == (answer.status_code, answer.json()["error"])

    async def test_too_large(self, http: httpx.AsyncClient, configuration: Any) -> None:
        """A form larger than its limit is refused."""
        answer = await http.post(configuration["token_url"], content=b"x" * (LOCAL_CONTENT_MAX_BYTES + 1))
        assert 413 == answer.status_code

    async def test_elsewhere(self, http: httpx.AsyncClient, configuration: Any) -> None:
        """There are two places, and no others."""
        assert 400 == (await http.get(configuration["token_url"] + "/x")).status_code

    async def test_why_not(self, task: CloudTask, http: httpx.AsyncClient, configuration: Any) -> None:
        """The subject token is not given if nothing would come of it, and the reason is said there."""
        task.end("expired", "its time was up")
        source = configuration["credential_source"]
        answer = await http.get(source["url"], headers=source["headers"])
        assert 403 == answer.status_code
        assert {"error": "access_denied", "error_description": "task is expired: its time was up"} == answer.json()


class TestAzure:
    async def test_token(self, endpoints: CloudEndpoints, http: httpx.AsyncClient) -> None:
        """An answer for Azure is in the shape of App Service."""
        answer = await http.get(endpoints.environment["IDENTITY_ENDPOINT"], params=QUERY, headers=IDENTITY)
        document = answer.json()
        left = int(document.pop("expires_on")) - datetime.now(UTC).timestamp()
        assert LOCAL_CREDENTIAL_SECONDS - 10 < left <= LOCAL_CREDENTIAL_SECONDS
        expected = {
            "access_token": "token-of-entra",
            "resource": "https://vault.azure.net",
            "token_type": "Bearer",
            "client_id": "c-1",
        }
        assert expected == document

    async def test_of_two_scopes(self, http: httpx.AsyncClient) -> None:
        """Of several resources the one is meant whose scope is asked for."""
        storage = Outside("https://blobs.example.org", "corp", "entra", {"scope": "https://storage.azure.com/.default"})
        task = CloudTask(ENTRA, storage)
        async with running(task) as endpoints:
            for resource in (
                "https://storage.azure.com",
                "https://storage.azure.com/",
                "https://vault.azure.net/.default",
            ):
                query = {**QUERY, "resource": resource}
                await http.get(endpoints.environment["IDENTITY_ENDPOINT"], params=query, headers=IDENTITY)
        assert [storage.resource, KEYS] == task.asked

    @pytest.mark.parametrize(
        ("changes", "headers", "status", "why"),
        [
            ({}, {}, 400, "X-IDENTITY-HEADER"),
            ({}, {"X-IDENTITY-HEADER": "guess"}, 400, "X-IDENTITY-HEADER"),
            ({"api-version": "2017-09-01"}, IDENTITY, 400, "api-version"),
            ({"resource": ["a", "b"]}, IDENTITY, 400, "resource is there once"),
            ({"resource": []}, IDENTITY, 400, "resource is there once"),
            ({"resource": "https://management.azure.com"}, IDENTITY, 403, "it has https://vault.azure.net"),
            ({"client_id": "other"}, IDENTITY, 400, "has the client ID c-1"),
            ({"mi_res_id": "x"}, IDENTITY, 400, "one identity"),
            ({"object_id": "x"}, IDENTITY, 400, "one identity"),
        ],
    )
    async def test_refused(
        self,
        endpoints: CloudEndpoints,
        http: httpx.AsyncClient,
        changes: Any,
        headers: dict[str, str],
        status: int,
        why: str,
    ) -> None:
        """Each thing that is not so is named, in the SDK's shape."""
        url = endpoints.environment["IDENTITY_ENDPOINT"]
        answer = await http.get(url, params={**QUERY, **changes}, headers=headers)
        assert (status, status) == (answer.status_code, answer.json()["statusCode"])
        assert why in answer.json()["message"]

    async def test_its_client_id(self, endpoints: CloudEndpoints, http: httpx.AsyncClient) -> None:
        """A program that names the identity which the task has is given it."""
        url = endpoints.environment["IDENTITY_ENDPOINT"]
        assert 200 == (await http.get(url, params={**QUERY, "client_id": "c-1"}, headers=IDENTITY)).status_code

    async def test_a_file(self, http: httpx.AsyncClient) -> None:
        """Where the provider gives assertions for Entra itself, they are in a file, and there is no endpoint."""
        details = {"gives": "assertion", "client_id": "c-1", "tenant_id": "t-1", "authority": "https://login.example"}
        task = CloudTask(Outside(KEYS, "corp", "entra", details))
        async with running(task) as endpoints:
            file = Path(endpoints.environment["AZURE_FEDERATED_TOKEN_FILE"])
            assert ("token-of-entra", 0o600) == (file.read_text(), file.stat().st_mode & 0o777)
            kept = {name: value for name, value in endpoints.environment.items() if name.startswith("AZURE_")}
            expected = {
                "AZURE_FEDERATED_TOKEN_FILE": str(file),
                "AZURE_CLIENT_ID": "c-1",
                "AZURE_TENANT_ID": "t-1",
                "AZURE_AUTHORITY_HOST": "https://login.example",
                "AZURE_TOKEN_CREDENTIALS": "WorkloadIdentityCredential",
            }
            assert expected == kept
            assert "IDENTITY_ENDPOINT" not in endpoints.environment


class TestEnvironment:
    async def test_addresses_alone(self, task: CloudTask, endpoints: CloudEndpoints, http: httpx.AsyncClient) -> None:
        """The environment and the files that it names have no credential, even after all were given."""
        await http.get(endpoints.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
        await http.get(endpoints.environment["IDENTITY_ENDPOINT"], params=QUERY, headers=IDENTITY)
        texts = [*endpoints.environment.values(), repr(endpoints), *endpoints.shown()]
        texts += [Path(each).read_text() for each in endpoints.environment.values() if Path(each).is_file()]
        for given in task.given.values():
            assert isinstance(given, AccessToken)
            assert not [text for text in texts if given.token in text]
        assert not [text for text in texts for secret in KEY.values() if secret in text]

    async def test_shown_without_secrets(self, endpoints: CloudEndpoints) -> None:
        """What is shown to people does not have the secrets of the addresses."""
        secrets = {
            each.rpartition("/")[2] for each in endpoints.environment.values() if each.startswith("http://127.0.0.1:")
        }
        assert 3 == len(secrets)
        assert all(len(each) >= 43 for each in secrets)
        assert not [line for line in endpoints.shown() for each in secrets if each in line]

    async def test_of(self, endpoints: CloudEndpoints) -> None:
        """What would lead an SDK elsewhere is left out, and named; all else stays."""
        before = {
            "PATH": "/bin",
            "AWS_PROFILE": "prod",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AZURE_CLIENT_SECRET": "y",
            "A": "",
        }
        made = endpoints.of(before)
        assert ("/bin", "") == (made["PATH"], made["A"])
        assert set() == {"AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "AZURE_CLIENT_SECRET"} & set(made)
        assert ["AWS_PROFILE", "AWS_SECRET_ACCESS_KEY", "AZURE_CLIENT_SECRET"] == endpoints.displaced(before)
        assert "added-by-sojourn" == endpoints.of({"VAULT_TOKEN": "hvs.old"})["VAULT_TOKEN"]

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ({}, (None, None)),
            ({"NO_PROXY": "a"}, ("a", None)),
            ({"http_proxy": "http://p"}, ("127.0.0.1", "127.0.0.1")),
            ({"ALL_PROXY": "http://p", "NO_PROXY": "a"}, ("a,127.0.0.1", "a,127.0.0.1")),
            ({"HTTP_PROXY": "http://p", "NO_PROXY": "a", "no_proxy": "b"}, ("a,127.0.0.1", "b,127.0.0.1")),
        ],
    )
    async def test_past_proxies(self, endpoints: CloudEndpoints, before: dict[str, str], after: Any) -> None:
        """Where a proxy is set, it is not asked for the endpoints, and what was excepted before still is."""
        made = endpoints.of(before)
        assert after == (made.get("NO_PROXY"), made.get("no_proxy"))

    async def test_nothing_for_it(self) -> None:
        """A task without clouds gets nothing, and loses nothing."""
        async with running(CloudTask(Outside("https://orders.example.org", "corp", "keycloak", {}))) as endpoints:
            assert {"AWS_PROFILE": "prod"} == endpoints.of({"AWS_PROFILE": "prod"})
            assert {} == endpoints.environment

    async def test_a_long_way_to_the_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where a path is too long for a socket there is none, and Vault's clients take the URL."""
        folder = tmp_path / ("x" * 100)
        folder.mkdir(0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        async with running(CloudTask(VAULT)) as endpoints:
            assert {"VAULT_ADDR", "VAULT_TOKEN"} == set(endpoints.environment)
            assert "VAULT_AGENT_ADDR" not in endpoints.of({"VAULT_AGENT_ADDR": "http://old"})

    async def test_a_task_that_hears_nothing(self, http: httpx.AsyncClient) -> None:
        """A task that lives as long as a process has endpoints too: each request is the agent's to judge."""
        task = CloudTask(AWS)
        held = SimpleNamespace(status=task.status, token=task.token)
        async with running(held) as endpoints:
            url = endpoints.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
            assert [200, 200] == [(await http.get(url)).status_code for _ in range(2)]
            assert [S3, S3] == task.asked
            task.end("revoked", "admin")
            assert 403 == (await http.get(url)).status_code

    async def test_gone(self, task: CloudTask, http: httpx.AsyncClient) -> None:
        """After the block there is neither an endpoint nor a file."""
        async with running(task) as endpoints:
            environment = dict(endpoints.environment)
            await http.get(environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient(trust_env=False) as again:
                await again.get(environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
        assert not [each for each in environment.values() if each.startswith("/") and os.path.exists(each)]


class TestVaultTokenFile:
    async def test_kept_and_gone(self, task: CloudTask, tmp_path: Path) -> None:
        """The file has the token while the task lives, is the user's alone, and goes when the task ends."""
        file = tmp_path / "token"
        async with running(task, vault_token_file=str(file)):
            assert ("hvs.token-of-vault", 0o600) == (file.read_text(), file.stat().st_mode & 0o777)
            task.end("revoked", "admin")
            await asyncio.to_thread(until, lambda: not file.exists(), "the file is gone")

    async def test_there_already(self, task: CloudTask, tmp_path: Path) -> None:
        """A file that is there is not touched."""
        (tmp_path / "token").write_text("mine")
        with pytest.raises(InvalidInput, match="cannot be made: File exists"):
            async with running(task, vault_token_file=str(tmp_path / "token")):
                pass
        assert "mine" == (tmp_path / "token").read_text()

    async def test_no_vault(self, tmp_path: Path) -> None:
        """Without a Vault there is no token for it, and no file."""
        with pytest.raises(InvalidInput, match="no resource of kind vault"):
            async with running(CloudTask(AWS), vault_token_file=str(tmp_path / "token")):
                pass
        assert not (tmp_path / "token").exists()

    async def test_refused_at_first(self, task: CloudTask, tmp_path: Path) -> None:
        """If the agent gives no token at the beginning, that is raised, and nothing is left."""
        task.given[SECRETS] = Refused("policy says no")
        with pytest.raises(Refused, match="policy says no"):
            async with running(task, vault_token_file=str(tmp_path / "token")):
                pass
        assert [] == list(tmp_path.iterdir())


def test_resources() -> None:
    """What the endpoints are for can be read from them."""
    endpoints = CloudEndpoints({}, (), {"aws": [S3], "gcp": [SHEETS]})
    assert {"aws": (S3,), "gcp": (SHEETS,)} == dict(endpoints.resources)
