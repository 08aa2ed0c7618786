"""A workload that exchanges its JWT-SVID for an access token, as RFC 8693 has it.

It uses no Sojourn code: the PyPI library `spiffe` for the JWT-SVID and httpx for
the exchange over a Unix socket. It reports what it got, one JSON object a line.
"""

import argparse
import json
import sys

import grpc
import httpx
from spiffe import WorkloadApiClient
from spiffe.errors import PySpiffeError

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


def emit(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def fetch_subject_token(audience: str, timeout: float) -> str:
    with WorkloadApiClient(default_timeout=timeout) as client:
        return client.fetch_jwt_svid({audience}).token


def exchange(arguments: argparse.Namespace, subject_token: str) -> httpx.Response:
    details = [{"type": arguments.type, "actions": arguments.actions, "locations": [arguments.resource]}]
    form = {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": subject_token,
        "subject_token_type": JWT,
        "requested_token_type": ACCESS_TOKEN,
        "audience": arguments.resource,
        "authorization_details": json.dumps(details),
    }
    transport = httpx.HTTPTransport(uds=arguments.socket)
    with httpx.Client(transport=transport, timeout=arguments.timeout) as client:
        return client.post("http://localhost/token", data=form)


def body_of(response: httpx.Response) -> object:
    try:
        return response.json()
    except ValueError:
        return response.text


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", required=True, help="path of the token endpoint's Unix socket")
    parser.add_argument("--audience", required=True, help="audience of the JWT-SVID: the token endpoint")
    parser.add_argument("--resource", required=True, help="what the access token is for")
    parser.add_argument("--type", required=True, help="type of the authorization detail")
    parser.add_argument("--actions", required=True, nargs="+", help="actions of the authorization detail")
    parser.add_argument("--timeout", type=float, default=10, help="seconds to wait for an answer")
    parser.add_argument("--hold", action="store_true", help="then stay alive until stdin is closed")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    try:
        subject_token = fetch_subject_token(arguments.audience, arguments.timeout)
        response = exchange(arguments, subject_token)
    except (PySpiffeError, httpx.HTTPError) as error:
        refused = isinstance(error.__cause__, grpc.Call)
        emit("error", message=str(error), **({"code": error.__cause__.code().name} if refused else {}))
        return 1
    emit("token", status=response.status_code, body=body_of(response))
    if arguments.hold:
        # Every connection is closed by now: only the process itself is left to be seen.
        sys.stdin.buffer.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
