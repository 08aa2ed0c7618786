"""docs/reference/http.md: what is served over HTTP, from docs/openapi.json and the routes of the code."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sojourn.endpoints.api import trust_documents
from sojourn.endpoints.oauth import metadata, ssf_events, status_lists

from reference_pages import MADE, code, table

OPENAPI = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
SOCKET = "public socket, `listen.https`"
# What is fetched, and what is not in docs/openapi.json: method, path, where, and what it is.
DOCUMENTS = (
    ("GET", "/keys", SOCKET, "The JWK Set of JWT-SVIDs and of task tokens (RFC 7517)."),
    *(("GET", path, SOCKET, "What the token service can (RFC 8414).") for path in metadata.PATHS),
    (
        "GET",
        metadata.RESOURCE_PATH,
        SOCKET,
        "What a service of `[[services]]` should publish of itself (RFC 9728): `?resource=URI`, or the path behind.",
    ),
    ("GET", status_lists.PATH, SOCKET, "Which status lists there are now (draft-ietf-oauth-status-list)."),
    ("GET", status_lists.PATH + "/{epoch}/{number}", SOCKET, "One status list, signed: two bits a token."),
    ("POST", ssf_events.PATH, "public socket", "One signed event (RFC 8935), where `[[signals]]` names an issuer."),
    ("GET", trust_documents.DISCOVERY, "`listen.trust`", "OpenID Connect discovery, for who trusts JWT-SVIDs."),
    ("GET", trust_documents.KEYS, "`listen.trust`", "The JWK Set of JWT-SVIDs alone."),
    ("GET", trust_documents.BUNDLE, "`listen.trust`", "The SPIFFE bundle of this trust domain."),
    (
        "POST",
        "/people/{name}/logout",
        "`listen.people`",
        "A logout token of an issuer of people's tokens (OIDC Back-Channel Logout).",
    ),
    ("GET", "/metrics", "`metrics.listen`", "Metrics for Prometheus; any path answers."),
)
_HEAD = f"""# HTTP

{MADE}

The same as a document for tools: [openapi.json](../openapi.json), to which tests hold the endpoints. How to ask, with a
line to paste for each grant, is in [tokens.md](../tokens.md); who is told what in [listener.md](../listener.md).

Over the public socket the kernel says who the client is; elsewhere a JWT-SVID or an X.509-SVID does. Bodies are
`application/x-www-form-urlencoded`, answers JSON. An error is `error`, `error_description` and our own stable
`code`, which [troubleshooting.md](../operate/troubleshooting.md) explains.
"""


def page() -> str:
    """docs/reference/http.md, whole."""
    document = json.loads(OPENAPI.read_text("utf-8"))
    lines = [*_HEAD.splitlines(), "", "## Documents and events", ""]
    lines += table(("Method", "Path", "Where", "What it is"), ((m, code(p), w, s) for m, p, w, s in DOCUMENTS))
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += _operation(method.upper(), path, operation)
    lines += ["## Answers", ""]
    for name, schema in document["components"]["schemas"].items():
        lines += [f"### {name}", "", *_fields(schema)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield from (f"## {method} {path}", "", operation["summary"], "")
    headers = [
        (code(each["name"]), "header", each["schema"].get("description", ""))
        for each in operation.get("parameters", ())
    ]
    form = next(iter(operation["requestBody"]["content"].values()))["schema"]
    fields = [(code(name), _needed(name, form), _said(each)) for name, each in form["properties"].items()]
    yield from table(("Parameter", "Needed", "What it is"), [*fields, *headers])
    yield from table(("Status", "Answer"), ((status, _answer(each)) for status, each in operation["responses"].items()))


def _needed(name: str, form: dict[str, Any]) -> str:
    return "yes" if name in form.get("required", ()) else "no"


def _said(schema: dict[str, Any]) -> str:
    values = " or ".join(code(each) for each in schema.get("enum", ()))
    return " ".join(each for each in (schema.get("description", ""), values) if each)


def _answer(answer: dict[str, Any]) -> str:
    names = sorted({name for each in answer.get("content", {}).values() for name in _references(each)})
    return " ".join([answer.get("description", ""), *(f"[{name}](#{name.lower()})" for name in names)])


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, each in node.items():
            yield from [each.rpartition("/")[2]] if key == "$ref" else _references(each)
    elif isinstance(node, list):
        for each in node:
            yield from _references(each)


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    properties = schema.get("properties")
    if not properties:
        yield from (_said(schema) or "Any JSON.", "")
        return
    yield from table(
        ("Member", "Always", "What it is"),
        ((code(name), _needed(name, schema), _said(each) or _type(each)) for name, each in properties.items()),
    )


def _type(schema: dict[str, Any]) -> str:
    told = schema.get("type", "")
    return told if isinstance(told, str) else " or ".join(told)
