"""What the keys of attestors and providers mean: of the former as docs/attestors.md has it, of the latter here."""

import re
from pathlib import Path

ATTESTORS = Path(__file__).resolve().parents[2] / "docs" / "attestors.md"
_LONGEST = "For how long a token can be good whose answer was lost."
# Of keys that several kinds have, and that mean the same in each.
SHARED = {
    "kind": "One of those below, or that of a plugin.",
    "timeout": "For one exchange as a whole, with what is tried again.",
    "ca": "A PEM file: who may have signed the provider's certificate. Default: the system's authorities.",
    "private_networks": "Networks that are not public and may be connected to, over https.",
    "plain_http": "Whether `http://` may be spoken to loopback addresses, for trying it out.",
    "issuer": "The authorization server, byte for byte as its metadata have it.",
    "token_endpoint": "Default: by the metadata. With it they are not asked for.",
    "revocation_endpoint": "Default: by the metadata.",
    "client_auth": "How the agent authenticates: not at all, or by a JWT-SVID (RFC 7523; `jwt-spiffe` by the draft).",
    "client_id": "Sent along if it is set.",
    "assertion_audience": "`aud` of the JWT-SVIDs that it is shown. Default: the issuer.",
    "algorithm": "That they are signed with. `RS256` needs `authority.rs256`.",
    "offline": "Whether services accept its tokens without asking it, and so those that it ended, too.",
    "longest": _LONGEST,
    "longest_token": _LONGEST,
}
KINDS = {
    "aws": {
        "region": "Of STS. Default: the global endpoint.",
        "endpoint": "Of STS. Default: the region's, or the global one.",
        "audience": "`aud` of the JWT-SVID, as IAM's provider has it.",
        "role_arn": "The role, for asks that name none.",
        "max_session": "The longest session; at most the role's own.",
        "tag": "Whether sessions are tagged with task and session; the role has to allow `sts:TagSession`.",
        "source_identity": "What the session's source identity is; the role has to allow `sts:SetSourceIdentity`.",
        "deny_hook": "An endpoint of yours that is told to deny a session at its task's end.",
    },
    "bearer": {"grant": "Whether the JWT-SVID is the grant (RFC 7523, 2.1), or says who the client is (2.2)."},
    "entra": {
        "tenant_id": "The tenant's ID, or a domain of it.",
        "client_id": "The application's, for asks that name none.",
        "authority": "Another cloud's than the public one.",
        "audience": "`aud` of the JWT-SVID, as the federated credential has it.",
    },
    "gcp": {
        "audience": "Of STS: the pool's provider, as the console shows it.",
        "jwt_audience": "`aud` of the JWT-SVID. Default: `https:` and the `audience`.",
        "service_account": "Whose access token is got, for asks that name none.",
        "subject_mapped": "Whether `google.subject` is something shorter than the SPIFFE ID.",
        "project_id": "Told to programs.",
        "universe_domain": "Another cloud's than the public one.",
        "sts": "Default: `https://sts.DOMAIN/v1/token`.",
        "iam_credentials": "Default: `https://iamcredentials.DOMAIN`.",
    },
    "id-jag": {
        "idp_issuer": "One's own identity provider, which gives the assertion.",
        "idp_token_endpoint": "As `token_endpoint`, of that one.",
        "idp_client_auth": "As `client_auth`, of that one.",
        "idp_client_id": "As `client_id`, of that one.",
        "idp_assertion_audience": "As `assertion_audience`, of that one.",
        "subject_token_type": "As what the JWT-SVID is shown to it.",
    },
    "keycloak": {"issuer": "The realm's URL, and the `aud` of what it is shown."},
    "oidc": {
        "subject_audience": "`aud` of the JWT-SVID that is exchanged. Default: `assertion_audience`, or the issuer.",
        "subject_token_type": "As what the JWT-SVID is shown.",
    },
    "vault": {
        "address": "The server's URL.",
        "mount": "Of the auth method that takes JWTs.",
        "namespace": "Of Vault Enterprise, and of OpenBao.",
        "role": "For asks that name none.",
        "audience": "`aud` of the JWT-SVID. Default: the address.",
    },
}


def of_provider(kind: str, key: str) -> str:
    """What a key of a provider means; '' if nobody has said it."""
    return KINDS.get(kind, {}).get(key) or SHARED.get(key, "")


def of_attestor(name: str, key: str) -> str:
    """What a key of an attestor means, as the tables of its section in docs/attestors.md have it; '' if they do not."""
    text = ATTESTORS.read_text("utf-8")
    section = re.split(rf"^## {name}\b.*$", text, flags=re.MULTILINE)[1].partition("\n## ")[0]
    for names, meaning in re.findall(r"^\| ([^|]*) \| [^|]* \| (.+) \|$", section, re.MULTILINE):
        if f"`{key}`" in names:
            return meaning.replace("](#", "](../attestors.md#")
    return ""
