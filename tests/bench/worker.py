"""A process that puts load on an agent, as it is told.

Usage: worker.py SOCKET. Each line in is JSON {"do": COMMAND, …}, each line out is JSON: `done`, `error`, or what a
command announces. Times of day are of the monotonic clock, which all processes share.
"""

import asyncio
import json
import os
import sys
from time import monotonic
from urllib.parse import urlencode

import grpc
import uvloop
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from figures import percentile
from joserfc.util import urlsafe_b64decode
from sojourn._pb import workload_pb2
from sojourn._pb.sojourn.v1 import validation_pb2
from sojourn.errors import InvalidToken
from sojourn.jose.signatures import Signatures
from sojourn.sdk.client.client import Client
from sojourn.sdk.guard.verifier import TaskVerifier
from sojourn.sdk.integrations.asgi import TaskTokenMiddleware
from sojourn.sdk.task.values import PersonToken

METADATA = (("workload.spiffe.io", "true"),)
FETCH = "/SpiffeWorkloadAPI/FetchX509SVID"
STREAMS_PER_CONNECTION = 100
TASK_TYPE, TICKETS, ACTION = "triage-ticket", "https://tickets.example.org", "ticket:read"
ISSUER = "https://sojourn.example.org"
PATIENCE_SECONDS = 10.0


def say(event, **value):
    print(json.dumps({"event": event, **value}), flush=True)


def spread(times):
    return {"p50": percentile(times, 50) * 1000, "p99": percentile(times, 99) * 1000}


async def repeat(lanes, seconds, once):
    """Do `once(lane)` in each lane at once, over and over; return the rate and the times."""
    times = []
    begun = monotonic()

    async def run(lane):
        while (before := monotonic()) < begun + seconds:
            await once(lane)
            times.append(monotonic() - before)

    await asyncio.gather(*map(run, lanes))
    return {"calls": len(times), "rate": len(times) / (monotonic() - begun), **spread(times)}


class Worker:
    """Each public coroutine is a command; what it returns is in the line `done`."""

    def __init__(self, socket):
        self.socket = socket
        self._channels = {}
        self._kept = []  # readers of streams, which live until the process ends
        self._unheard = set()  # held streams that have had no message yet, or none since `arm`
        self._first = None
        self._armed = False
        self._verifier = None
        self._subscribers = 0
        self._expected = None  # the task whose end is to be heard of
        self._informed = []

    # --- calls ---

    async def connect(self, connections, socket=None):
        """Open connections and keep them."""
        path = socket or self.socket
        kept = self._channels.setdefault(path, [])
        while len(kept) < connections:
            channel = grpc.aio.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)])
            await asyncio.wait_for(channel.channel_ready(), PATIENCE_SECONDS)
            kept.append(channel)

    async def sample(self):
        """One answer of FetchX509SVID, as it is on the wire."""
        await self.connect(1)
        call = self._channels[self.socket][0].unary_stream(FETCH)(b"", metadata=METADATA)
        answer = await call.read()
        call.cancel()
        return {"answer": answer.hex()}

    async def fetch(self, concurrent, seconds, socket=None):
        """FetchX509SVID for one message, a new stream each time."""
        await self.connect(concurrent, socket)
        methods = [channel.unary_stream(FETCH) for channel in self._channels[socket or self.socket][:concurrent]]

        async def once(method):
            call = method(b"", metadata=METADATA)
            if await call.read() is grpc.aio.EOF:
                raise RuntimeError("a stream ended without a message")
            call.cancel()

        return await repeat(methods, seconds, once)

    async def fetch_anew(self, concurrent, seconds, socket=None):
        """The same over a new connection each time."""
        path = socket or self.socket

        async def once(_):
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
                call = channel.unary_stream(FETCH)(b"", metadata=METADATA)
                if await call.read() is grpc.aio.EOF:
                    raise RuntimeError("a stream ended without a message")
                call.cancel()

        return await repeat(range(concurrent), seconds, once)

    async def unary(self, method, request, concurrent, seconds):
        await self.connect(concurrent)
        body = bytes.fromhex(request)
        methods = [channel.unary_unary(method) for channel in self._channels[self.socket][:concurrent]]
        return await repeat(methods, seconds, lambda call: call(body, metadata=METADATA))

    async def jwt(self, audience):
        async with Client(self.socket) as client:
            return {"token": (await client.fetch_jwt_svid(audience)).token}

    # --- held streams ---

    async def hold(self, streams):
        """Hold many FetchX509SVID streams, as many on a connection as it takes; return when each has its SVID."""
        await self.connect(-(-streams // STREAMS_PER_CONNECTION))
        self._unheard = set(range(streams))
        for number in range(streams):
            channel = self._channels[self.socket][number // STREAMS_PER_CONNECTION]
            self._keep(self._follow(channel.unary_stream(FETCH)(b"", metadata=METADATA), number))
        async with asyncio.timeout(PATIENCE_SECONDS * 3):
            while self._unheard:
                await asyncio.sleep(0.01)

    async def arm(self, streams):
        """Announce `all` once each of the held streams has had a new message."""
        self._unheard, self._first, self._armed = set(range(streams)), None, True

    async def watch(self):
        """Announce each update of one stream."""
        await self.connect(1)
        self._keep(self._announce(self._channels[self.socket][0].unary_stream(FETCH)(b"", metadata=METADATA)))

    async def _follow(self, call, number):
        last = b""
        async for message in call:
            now = monotonic()
            changed, last = message != last, message
            if number not in self._unheard or not changed:
                continue
            self._first = self._first or now
            self._unheard.remove(number)
            if not self._unheard and self._armed:
                say("all", first=self._first, last=now)

    async def _announce(self, call):
        async for message in call:
            at = monotonic()
            say("update", at=at, svids=len(workload_pb2.X509SVIDResponse.FromString(message).svids))

    async def subscribe(self, count):
        """Hold that many WatchTasks streams, each on a connection of its own."""
        await self.connect(count)
        request = validation_pb2.WatchTasksRequest(audiences=[TICKETS]).SerializeToString()
        for channel in self._channels[self.socket][:count]:
            call = channel.unary_stream("/sojourn.v1.Validation/WatchTasks")(request, metadata=METADATA)
            await call.read()
            self._subscribers += 1
            self._keep(self._hear_ends(call))

    async def expect_end(self, task):
        """Announce `informed`, with the time at each subscriber, once all have heard that this task is over."""
        self._expected, self._informed = task.encode(), []

    async def _hear_ends(self, call):
        while (message := await call.read()) is not grpc.aio.EOF:
            if self._expected is None or self._expected not in message:
                continue
            at = monotonic()
            if any(state.live for state in validation_pb2.TaskFeed.FromString(message).delta.tasks):
                continue
            self._informed.append(at)
            if len(self._informed) == self._subscribers:
                self._expected = None
                say("informed", at=self._informed)

    def _keep(self, coroutine):
        self._kept.append(asyncio.ensure_future(told(coroutine)))

    # --- tasks ---

    async def begin(self, tries):
        """RunTask until the task has begun; its end is not counted."""
        times = []
        async with Client(self.socket) as client:
            for _ in range(tries):
                before = monotonic()
                async with client.task(TASK_TYPE):
                    times.append(monotonic() - before)
        return spread(times)

    async def tokens(self, tries):
        times = []
        async with Client(self.socket) as client, client.task(TASK_TYPE) as task:
            for _ in range(tries):
                before = monotonic()
                await task.token()
                times.append(monotonic() - before)
        return spread(times)

    async def begin_many(self, task_type, count):
        """BeginTask, for tasks that live as long as this process."""
        async with Client(self.socket) as client:
            for start in range(0, count, 50):
                some = range(start, min(start + 50, count))
                await asyncio.gather(*(client.begin_task(task_type) for _ in some))

    async def begin_for(self, task_type, tokens, count):
        """The same, for people: so many for each, by the ID token of each."""
        async with Client(self.socket) as client:
            for text in tokens:
                person = PersonToken.id_token(text)
                await asyncio.gather(*(client.begin_task(task_type, person=person) for _ in range(count)))

    async def tokens_of(self, task_type, tries):
        """GetToken under a task of another type than the sample's."""
        times = []
        async with Client(self.socket) as client, client.task(task_type) as task:
            for _ in range(tries):
                before = monotonic()
                await task.token()
                times.append(monotonic() - before)
        return spread(times)

    async def exchange(self, connections, seconds, under_task):
        """POST /token over kept connections: bare, so that each begins a one-shot task, or under one task."""
        async with Client(self.socket) as client:
            form = {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token": (await client.fetch_jwt_svid(ISSUER)).token,
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "resource": TICKETS,
            }
            if not under_task:
                return await self._exchange(connections, seconds, form)
            async with client.task(TASK_TYPE) as task:
                return await self._exchange(connections, seconds, {**form, "task_id": task.id})

    async def _exchange(self, connections, seconds, form):
        body = urlencode(form).encode()
        request = (
            b"POST /token HTTP/1.1\r\nHost: agent\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        lanes = [await asyncio.open_unix_connection(self.socket) for _ in range(connections)]

        async def once(lane):
            reader, writer = lane
            writer.write(request)
            status, *fields = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            length = next(int(field.partition(b":")[2]) for field in fields if field.startswith(b"content-length:"))
            answer = await reader.readexactly(length)
            if b" 200" not in status:
                raise RuntimeError(f"POST /token: {answer.decode()}")

        try:
            return await repeat(lanes, seconds, once)
        finally:
            for _, writer in lanes:
                writer.close()

    # --- verification ---

    async def verifier(self):
        """Open a TaskVerifier and wait for its feed."""
        client = await Client(self.socket).__aenter__()
        self._verifier = await TaskVerifier(client, TICKETS).__aenter__()
        await self._verifier.feed.wait_ready(PATIENCE_SECONDS)

    async def until_refused(self, token):
        """Verify a token without a pause. Announce `accepted` the first time; return when it was first refused."""
        gives_up = monotonic() + PATIENCE_SECONDS
        accepted = False
        while monotonic() < gives_up:
            try:
                await self._verifier.verify(token, ACTION, person="optional")
            except InvalidToken as error:
                if not accepted:
                    raise
                return {"at": monotonic(), "reason": error.reason_code}
            if not accepted:
                accepted = True
                say("accepted")
            await asyncio.sleep(0)  # the feed is read on this loop too
        raise RuntimeError(f"the token was still accepted after {PATIENCE_SECONDS:g} s")

    async def verify_rate(self, token, seconds):
        ends, calls, begun = monotonic() + seconds, 0, monotonic()
        while monotonic() < ends:
            for _ in range(50):
                await self._verifier.verify(token, ACTION)
            calls += 50
            await asyncio.sleep(0)
        return {"rate": calls / (monotonic() - begun)}

    async def verify_new_rate(self, token, seconds):
        """As if each token came for the first time."""
        ends, calls, begun = monotonic() + seconds, 0, monotonic()
        while monotonic() < ends:
            for _ in range(50):
                self._verifier._signatures = Signatures()
                await self._verifier.verify(token, ACTION)
            calls += 50
            await asyncio.sleep(0)
        return {"rate": calls / (monotonic() - begun)}

    async def middleware_time(self, token, seconds):
        """Microseconds that TaskTokenMiddleware adds to one ASGI request."""

        async def app(_scope, _receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

        statuses = []

        async def send(message):
            statuses.append(message.get("status", 200))

        async def once(application):
            await application({"type": "http", "method": "GET", "path": "/tickets/7", "raw_path": b"/tickets/7",
                               "query_string": b"", "headers": headers}, None, send)  # fmt: skip

        headers = [(b"host", b"tickets"), (b"authorization", f"Bearer {token}".encode())]
        guarded = TaskTokenMiddleware(app, verifier=self._verifier, actions={"GET /tickets/{id}": ACTION})
        taken = {}
        for application in (app, guarded):
            ends, calls, begun = monotonic() + seconds / 2, 0, monotonic()
            while monotonic() < ends:
                for _ in range(50):
                    await once(application)
                calls += 50
                await asyncio.sleep(0)
            taken[application] = (monotonic() - begun) / calls * 1e6
        if set(statuses) != {200}:
            raise RuntimeError("the middleware refused a good request")
        return {"added": taken[guarded] - taken[app]}

    async def bare_rate(self, token, seconds):
        """The signature alone, by the library beneath."""
        (jwk,) = (key.jwk for key in self._verifier.feed.keys.values())
        x, y = (int.from_bytes(urlsafe_b64decode(jwk[name].encode())) for name in ("x", "y"))
        key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        signed, _, signature = token.encode().rpartition(b".")
        raw = urlsafe_b64decode(signature)
        signature = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
        algorithm = ec.ECDSA(hashes.SHA256())
        ends, calls, begun = monotonic() + seconds, 0, monotonic()
        while monotonic() < ends:
            for _ in range(50):
                key.verify(signature, signed, algorithm)
            calls += 50
        return {"rate": calls / (monotonic() - begun)}


async def told(coroutine):
    """Say how it failed, if it does."""
    try:
        return await coroutine
    except Exception as error:
        said = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
        say("error", message=f"{type(error).__name__}: {said}")
        return None


async def answered(command, arguments):
    say("done", **(await command(**arguments) or {}))


async def main(socket):
    worker = Worker(socket)
    say("up", pid=os.getpid())
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        await told(answered(getattr(worker, asked.pop("do")), asked))
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
