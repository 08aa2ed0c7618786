"""A workload that knows nothing of Sojourn.

It speaks to the Workload API through the PyPI library `spiffe` and reports what it got, one JSON object a line.
"""

import argparse
import queue
import re
import sys

import grpc
import grpc._channel  # before the user changes, as in common.py
import grpc._interceptor
import mutual_tls
from common import add_uid, become, duration, emit, emit_error
from cryptography.hazmat.backends import openssl  # noqa: F401 - before the user changes, too
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import JwtSvid, SpiffeId, WorkloadApiClient, X509Source, X509Svid
from spiffe.errors import PySpiffeError
from spiffe.workloadapi.errors import X509SourceError
from spiffe.workloadapi.x509_context import X509Context


def code_of(error: BaseException | None) -> str | None:
    """Find the gRPC status: behind the error, or, where the library keeps only its text, in the text."""
    text = str(error)
    while error is not None:
        if isinstance(error, grpc.Call):
            return error.code().name
        error = error.__cause__
    found = re.search(r"StatusCode\.([A-Z_]+)", text)
    return found[1] if found else None


def serial_of(svid: X509Svid) -> str:
    return format(svid.leaf.serial_number, "x")


def new_source(timeout: float) -> X509Source:
    client = WorkloadApiClient(default_timeout=timeout)
    try:
        return X509Source(client, timeout_in_seconds=timeout)
    except X509SourceError:
        # The source retries in silence. Ask once ourselves: the answer says why it never came.
        client.fetch_x509_svid()
        raise


def run_x509(arguments: argparse.Namespace) -> None:
    with new_source(arguments.timeout) as source:
        svid = source.get_x509_context().default_svid
    emit(
        "svid",
        spiffe_id=str(svid.spiffe_id),
        serial=serial_of(svid),
        not_after=int(svid.leaf.not_valid_after_utc.timestamp()),
        chain_len=len(svid.cert_chain),
        hint=None,  # the library does not hand it out
    )


def run_jwt(arguments: argparse.Namespace) -> None:
    audience = arguments.audience
    subject = SpiffeId(arguments.spiffe_id) if arguments.spiffe_id else None
    with WorkloadApiClient(default_timeout=arguments.timeout) as client:
        svid = client.fetch_jwt_svid({audience}, subject)
        emit("jwt", token=svid.token, spiffe_id=str(svid.spiffe_id), expiry=svid.expiry, hint=None)

        by_agent = client.validate_jwt_svid(svid.token, audience)
        emit("validated", by="agent", spiffe_id=str(by_agent.spiffe_id))

        trust_domain = svid.spiffe_id.trust_domain
        bundle = client.fetch_jwt_bundles().get_bundle_for_trust_domain(trust_domain)
        if bundle is None:
            raise LookupError(f"the agent has no JWT bundle for {trust_domain}")
        by_bundle = JwtSvid.parse_and_validate(svid.token, bundle, {audience})
        emit("validated", by="bundle", spiffe_id=str(by_bundle.spiffe_id))


def run_watch(arguments: argparse.Namespace) -> None:
    seen: queue.Queue[X509Context | Exception] = queue.Queue()
    with WorkloadApiClient() as client:
        watch = client.stream_x509_contexts(seen.put, seen.put, retry_connect=False)
        try:
            for n in range(1, arguments.updates + 1):
                try:
                    update = seen.get(timeout=arguments.timeout)
                except queue.Empty:
                    raise TimeoutError(f"no update from the Workload API within {arguments.timeout:g}s") from None
                if isinstance(update, Exception):
                    raise update
                emit(
                    "update",
                    n=n,
                    spiffe_ids=[str(svid.spiffe_id) for svid in update.x509_svids],
                    serials=[serial_of(svid) for svid in update.x509_svids],
                    bundles=len(update.x509_bundle_set.bundles),
                )
        finally:
            watch.cancel()


def run_bundles(arguments: argparse.Namespace) -> None:
    with WorkloadApiClient(default_timeout=arguments.timeout) as client:
        x509 = client.fetch_x509_bundles().bundles
        jwt = client.fetch_jwt_bundles().bundles
    emit(
        "bundles",
        x509={
            bundle.trust_domain.name: [each.public_bytes(Encoding.DER).hex() for each in bundle.x509_authorities]
            for bundle in x509
        },
        jwt={bundle.trust_domain.name: sorted(bundle.jwt_authorities) for bundle in jwt},
    )


def run_server(arguments: argparse.Namespace) -> None:
    with new_source(arguments.timeout) as source:
        mutual_tls.serve(source, arguments.listen, SpiffeId(arguments.peer))


def run_dial(arguments: argparse.Namespace) -> None:
    with new_source(arguments.timeout) as source:
        mutual_tls.dial(
            source, arguments.addr, SpiffeId(arguments.peer), arguments.times, arguments.every, arguments.timeout
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-timeout", type=duration, default="10s", help="how long to wait for an answer")
    add_uid(common)
    commands = parser.add_subparsers(required=True)

    x509 = commands.add_parser("x509", parents=[common], help="print the default X.509-SVID")
    x509.set_defaults(run=run_x509)

    jwt = commands.add_parser("jwt", parents=[common], help="fetch a JWT-SVID and validate it")
    jwt.add_argument("-audience", required=True)
    jwt.add_argument("-spiffe-id")
    jwt.set_defaults(run=run_jwt)

    watch = commands.add_parser("watch", parents=[common], help="print each update of the X.509 context")
    watch.add_argument("-updates", type=int, default=1)
    watch.set_defaults(run=run_watch)

    bundles = commands.add_parser("bundles", parents=[common], help="print the bundles")
    bundles.set_defaults(run=run_bundles)

    server = commands.add_parser("server", parents=[common], help="echo over mutual TLS until SIGTERM")
    server.add_argument("-listen", default="127.0.0.1:0")
    server.add_argument("-peer", required=True, help="the SPIFFE ID that may connect")
    server.set_defaults(run=run_server)

    dial = commands.add_parser("dial", parents=[common], help="have a line echoed over mutual TLS")
    dial.add_argument("-addr", required=True)
    dial.add_argument("-peer", required=True, help="the SPIFFE ID that the server must have")
    dial.add_argument("-times", type=int, default=1)
    dial.add_argument("-every", type=duration, default="1s")
    dial.set_defaults(run=run_dial)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    become(arguments.uid)
    try:
        arguments.run(arguments)
    except (PySpiffeError, LookupError, OSError) as error:  # TimeoutError is an OSError
        emit_error(error, code_of(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
